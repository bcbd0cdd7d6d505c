package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/transfer"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// fake is a Backend in memory that keeps the rules of the engine. Commands run
// as processes of the host, without confinement; a container's own only
// remembers what it would have said.
type fake struct {
	root string // every container's files
	bus  engine.Bus

	mu         sync.Mutex
	containers map[engine.ContainerID]*fakeContainer
	images     map[string]engine.ImageInfo
}

type fakeContainer struct {
	state engine.State
	done  chan struct{}
	execs map[string]*fakeExec
}

type fakeExec struct {
	state engine.ExecState
	cmd   *exec.Cmd
	done  chan struct{}
}

var _ api.Backend = (*fake)(nil)

func newFake(root string) *fake {
	return &fake{root: root, containers: map[engine.ContainerID]*fakeContainer{}, images: map[string]engine.ImageInfo{}}
}

func (f *fake) with(id engine.ContainerID, fn func(c *fakeContainer) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok {
		return fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	return fn(c)
}

func (c *fakeContainer) runs() bool {
	return c.state.Status == engine.StatusRunning || c.state.Status == engine.StatusPaused
}

func running(c *fakeContainer) error {
	if !c.runs() {
		return fmt.Errorf("container %s does not run: %w", c.state.ID, errdefs.ErrConflict)
	}
	return nil
}

func (f *fake) List(context.Context) (out []engine.State, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		out = append(out, c.state)
	}
	return out, nil
}

func (f *fake) State(_ context.Context, id engine.ContainerID) (st engine.State, err error) {
	err = f.with(id, func(c *fakeContainer) error { st = c.state; return nil })
	return st, err
}

func (f *fake) Create(ctx context.Context, req engine.CreateRequest) error {
	if req.ID == "" || strings.ContainsAny(string(req.ID), "/. ") {
		return fmt.Errorf("container id %q: %w", req.ID, errdefs.ErrInvalid)
	}
	if _, err := f.Image(ctx, req.Image); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.containers[req.ID] != nil {
		return fmt.Errorf("container %s: %w", req.ID, errdefs.ErrAlreadyExists)
	}
	f.containers[req.ID] = &fakeContainer{execs: map[string]*fakeExec{}, state: engine.State{
		ID: req.ID, Status: engine.StatusCreated, Image: req.Image, Labels: req.Labels, Limits: req.Limits, Created: time.Now(),
	}}
	f.bus.Publish(engine.Event{Kind: engine.EventCreate, ID: req.ID})
	return nil
}

func (f *fake) Start(_ context.Context, id engine.ContainerID, req engine.StartRequest) error {
	return f.with(id, func(c *fakeContainer) error {
		switch {
		case c.runs():
			return fmt.Errorf("container %s runs: %w", id, errdefs.ErrConflict)
		case len(req.Args) > 0 && strings.Contains(req.Args[0], "absent"):
			return errdefs.WithPublic(fmt.Errorf("no command: %w", errdefs.ErrInvalid), "The command cannot be executed.")
		}
		c.state.Status, c.state.Args, c.state.Started, c.done = engine.StatusRunning, req.Args, time.Now(), make(chan struct{})
		c.state.Process = process.Process{Pid: os.Getpid()}
		f.bus.Publish(engine.Event{Kind: engine.EventStart, ID: id})
		return nil
	})
}

func (f *fake) Run(ctx context.Context, req engine.CreateRequest, start engine.StartRequest) error {
	if err := f.Create(ctx, req); err != nil {
		return err
	}
	if err := f.Start(ctx, req.ID, start); err != nil {
		return errors.Join(err, f.Delete(context.WithoutCancel(ctx), req.ID))
	}
	return nil
}

func (f *fake) Stop(_ context.Context, id engine.ContainerID, req engine.StopRequest) error {
	return f.with(id, func(c *fakeContainer) error {
		exit := process.Exit{Code: 137, Signal: 9, Time: time.Now()}
		if req.Timeout > 0 {
			exit = process.Exit{Code: 7, Time: time.Now()} // it obeys
		}
		f.end(c, exit)
		return nil
	})
}

// end needs the lock.
func (f *fake) end(c *fakeContainer, exit process.Exit) {
	if !c.runs() {
		return
	}
	c.state.Status, c.state.Exit = engine.StatusStopped, engine.ExitState{Exit: exit, Known: true}
	c.state.Process = process.Process{}
	close(c.done)
	for _, x := range c.execs {
		_ = syscall.Kill(-x.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	}
	f.bus.Publish(engine.Event{Kind: engine.EventExit, ID: c.state.ID, Exit: c.state.Exit, Asked: true})
}

func (f *fake) Kill(_ context.Context, id engine.ContainerID, sig int) error {
	if sig < 1 || sig > 64 {
		return fmt.Errorf("signal %d: %w", sig, errdefs.ErrInvalid)
	}
	return f.with(id, func(c *fakeContainer) error {
		if err := running(c); err != nil {
			return err
		}
		if sig == 9 {
			f.end(c, process.Exit{Code: 137, Signal: 9, Time: time.Now()})
		}
		return nil
	})
}

func (f *fake) Delete(_ context.Context, id engine.ContainerID) error {
	err := f.with(id, func(c *fakeContainer) error {
		f.end(c, process.Exit{Code: 137, Signal: 9, Time: time.Now()})
		delete(f.containers, id)
		f.bus.Publish(engine.Event{Kind: engine.EventDelete, ID: id})
		return nil
	})
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

func (f *fake) Wait(ctx context.Context, id engine.ContainerID) (exit engine.ExitState, err error) {
	var done chan struct{}
	if err := f.with(id, func(c *fakeContainer) error {
		if c.runs() {
			done = c.done
		}
		exit = c.state.Exit
		return nil
	}); err != nil || done == nil {
		return exit, err
	}
	select {
	case <-done:
		return f.Wait(ctx, id)
	case <-ctx.Done():
		return exit, ctx.Err()
	}
}

func (f *fake) Checkpoint(_ context.Context, id engine.ContainerID, req engine.CheckpointRequest) error {
	return f.with(id, func(c *fakeContainer) error {
		if err := running(c); err != nil {
			return err
		}
		if !req.LeaveRunning {
			f.end(c, process.Exit{Code: 137, Signal: 9, Time: time.Now()})
		}
		return nil
	})
}

func (f *fake) Restore(_ context.Context, id engine.ContainerID, _ engine.RestoreRequest) error {
	return f.with(id, func(c *fakeContainer) error {
		if c.runs() {
			return fmt.Errorf("container %s runs: %w", id, errdefs.ErrConflict)
		}
		c.state.Status, c.done = engine.StatusRunning, make(chan struct{})
		return nil
	})
}

func (f *fake) freeze(id engine.ContainerID, status engine.Status, kind engine.EventKind) error {
	return f.with(id, func(c *fakeContainer) error {
		if err := running(c); err != nil {
			return err
		}
		c.state.Status = status
		f.bus.Publish(engine.Event{Kind: kind, ID: id})
		return nil
	})
}

func (f *fake) Pause(_ context.Context, id engine.ContainerID) error {
	return f.freeze(id, engine.StatusPaused, engine.EventPause)
}

func (f *fake) Resume(_ context.Context, id engine.ContainerID) error {
	return f.freeze(id, engine.StatusRunning, engine.EventResume)
}

func (f *fake) Update(_ context.Context, id engine.ContainerID, change engine.LimitsChange) (out cgroup.Limits, err error) {
	err = f.with(id, func(c *fakeContainer) error {
		out = change.Apply(c.state.Limits)
		if err := out.Validate(); err != nil {
			return err
		}
		c.state.Limits = out
		return nil
	})
	return out, err
}

func (f *fake) Exec(_ context.Context, id engine.ContainerID, req engine.ExecRequest) (engine.ExecState, error) {
	if req.Terminal {
		return engine.ExecState{}, fmt.Errorf("terminal: %w", errdefs.ErrUnsupported)
	}
	var x *fakeExec
	err := f.with(id, func(c *fakeContainer) error {
		if err := running(c); err != nil || len(req.Args) == 0 {
			return errors.Join(err, errdefs.ErrInvalid)
		}
		cmd := exec.Command(req.Args[0], req.Args[1:]...)
		cmd.Env, cmd.SysProcAttr = req.Env, &syscall.SysProcAttr{Setsid: true}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = req.Stdio[0], req.Stdio[1], req.Stdio[2]
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrInvalid, err)
		}
		x = &fakeExec{cmd: cmd, done: make(chan struct{})}
		x.state = engine.ExecState{ID: strconv.Itoa(len(c.execs)), Container: id, Args: slices.Clone(req.Args), Running: true, Started: time.Now()}
		x.state.Process.Pid = cmd.Process.Pid
		c.execs[x.state.ID] = x
		return nil
	})
	if err != nil {
		return engine.ExecState{}, err
	}
	started := x.state
	f.bus.Publish(engine.Event{Kind: engine.EventExec, ID: id, Exec: started.ID})
	go func() {
		_ = x.cmd.Wait() // how it ended is in ProcessState
		exit := process.Exit{Code: x.cmd.ProcessState.ExitCode(), Time: time.Now()}
		if ws, ok := x.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			exit.Signal = int(ws.Signal())
			exit.Code = 128 + exit.Signal
		}
		f.mu.Lock()
		x.state.Running, x.state.Exit = false, engine.ExitState{Exit: exit, Known: true}
		f.mu.Unlock()
		close(x.done)
		f.bus.Publish(engine.Event{Kind: engine.EventExecExit, ID: id, Exec: started.ID, Exit: engine.ExitState{Exit: exit, Known: true}})
	}()
	return started, nil
}

func (f *fake) Execs(_ context.Context, id engine.ContainerID) (out []engine.ExecState, err error) {
	err = f.with(id, func(c *fakeContainer) error {
		for _, x := range c.execs {
			out = append(out, x.state)
		}
		return nil
	})
	return out, err
}

func (f *fake) session(id engine.ContainerID, name string) (x *fakeExec, err error) {
	err = f.with(id, func(c *fakeContainer) error {
		if x = c.execs[name]; x == nil {
			return fmt.Errorf("session %s: %w", name, errdefs.ErrNotFound)
		}
		return nil
	})
	return x, err
}

func (f *fake) ExecWait(ctx context.Context, id engine.ContainerID, name string) (engine.ExitState, error) {
	x, err := f.session(id, name)
	if err != nil {
		return engine.ExitState{}, err
	}
	select {
	case <-x.done:
		return x.state.Exit, nil
	case <-ctx.Done():
		return engine.ExitState{}, ctx.Err()
	}
}

func (f *fake) ExecSignal(_ context.Context, id engine.ContainerID, name string, sig int) error {
	x, err := f.session(id, name)
	if err != nil {
		return err
	}
	if err := x.cmd.Process.Signal(syscall.Signal(sig)); err != nil {
		return fmt.Errorf("session %s: %w: %w", name, errdefs.ErrNotFound, err)
	}
	return nil
}

func (f *fake) ExecKill(_ context.Context, id engine.ContainerID, name string) error {
	x, err := f.session(id, name)
	if err == nil {
		_ = syscall.Kill(-x.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	}
	return err
}

func (f *fake) Stats(_ context.Context, id engine.ContainerID) (out cgroup.Stats, err error) {
	err = f.with(id, func(c *fakeContainer) error { out.Pids = 1; return running(c) })
	return out, err
}

func (f *fake) WatchStats(ctx context.Context, id engine.ContainerID, _ time.Duration, fn func(engine.Sample) error) error {
	for first := true; ; first = false {
		use, err := f.Stats(ctx, id)
		if err != nil && !first {
			return nil
		}
		if err == nil {
			err = fn(engine.Sample{Time: time.Now(), Stats: use})
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

func (f *fake) Top(_ context.Context, id engine.ContainerID) (out []engine.ProcessInfo, err error) {
	err = f.with(id, func(c *fakeContainer) error {
		out = []engine.ProcessInfo{{Pid: 1, HostPid: c.state.Process.Pid, State: "S", Args: c.state.Args}}
		return running(c)
	})
	return out, err
}

func (f *fake) Logs(ctx context.Context, id engine.ContainerID, req engine.LogsRequest) (io.ReadCloser, error) {
	var text string
	var done chan struct{}
	err := f.with(id, func(c *fakeContainer) error {
		text, done = "ready\n", c.done
		if req.Lines < 0 {
			text = ""
		}
		if !c.runs() {
			done = nil
		}
		return nil
	})
	if err != nil || !req.Follow || done == nil {
		return io.NopCloser(strings.NewReader(text)), err
	}
	r, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, text) // the reader may have closed
		select {
		case <-done:
			_ = w.Close()
		case <-ctx.Done():
			_ = w.CloseWithError(ctx.Err())
		}
	}()
	return r, nil
}

// Attach is a console that echoes until it is closed or the container ends.
func (f *fake) Attach(_ context.Context, id engine.ContainerID, _ int) (io.ReadWriteCloser, error) {
	var done chan struct{}
	err := f.with(id, func(c *fakeContainer) error { done = c.done; return running(c) })
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() { <-done; _ = w.Close() }()
	return echo{r, w}, nil
}

type echo struct {
	*io.PipeReader
	*io.PipeWriter
}

func (e echo) Close() error { return errors.Join(e.PipeReader.Close(), e.PipeWriter.Close()) }

func (f *fake) Resize(_ context.Context, id engine.ContainerID, _, _ uint16) error {
	return f.with(id, running)
}

func (f *fake) Subscribe() *engine.Subscription { return f.bus.Subscribe() }

func (f *fake) CopyOut(ctx context.Context, id engine.ContainerID, req engine.CopyRequest) (io.ReadCloser, error) {
	if _, err := f.State(ctx, id); err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() {
		root, err := os.Open(f.root)
		if err == nil {
			_, err = transfer.Out(ctx, root, req.Path, transfer.IDs{Size: 65536}, req.Limits, w)
			_ = root.Close()
		}
		_ = w.CloseWithError(err)
	}()
	return r, nil
}

func (f *fake) CopyIn(ctx context.Context, id engine.ContainerID, req engine.CopyRequest, r io.Reader) (transfer.Result, error) {
	if _, err := f.State(ctx, id); err != nil {
		return transfer.Result{}, err
	}
	root, err := os.Open(f.root)
	if err != nil {
		return transfer.Result{}, err
	}
	defer root.Close()
	return transfer.In(ctx, root, req.Path, transfer.IDs{Size: 65536}, req.Limits, r)
}

func (f *fake) Image(_ context.Context, ref string) (engine.ImageInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	img, ok := f.images[ref]
	if !ok {
		return img, fmt.Errorf("image %s: %w", ref, errdefs.ErrNotFound)
	}
	return img, nil
}

func (f *fake) Images(context.Context) (out []engine.ImageInfo, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, img := range f.images {
		out = append(out, img)
	}
	return out, nil
}

func (f *fake) Import(_ context.Context, req engine.ImportRequest) (engine.ImageInfo, error) {
	data, err := io.ReadAll(req.Content)
	if err != nil {
		return engine.ImageInfo{}, err
	}
	if !bytes.Contains(data[:min(len(data), 512)], []byte("ustar")) {
		return engine.ImageInfo{}, fmt.Errorf("import %s: no archive: %w", req.Ref, errdefs.ErrInvalid)
	}
	img := engine.ImageInfo{Ref: req.Ref, SizeBytes: int64(len(data)), RootFS: true, Config: image.Config{}}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[req.Ref] = img
	return img, nil
}

func (f *fake) RemoveImage(_ context.Context, ref string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		if c.state.Image == ref {
			return fmt.Errorf("container %s uses image %s: %w", c.state.ID, ref, errdefs.ErrConflict)
		}
	}
	delete(f.images, ref)
	return nil
}
