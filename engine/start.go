package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/undo"
)

// Start runs the container's first process and returns when it has been
// executed. A running container is errdefs.ErrConflict. On error nothing runs
// and the disk is as the container left it.
func (e *Engine) Start(ctx context.Context, id ContainerID, req StartRequest) error {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	return e.startNow(ctx, c, req)
}

// startNow is Start of who holds the container's lock.
func (e *Engine) startNow(ctx context.Context, c *container, req StartRequest) error {
	id := c.rec.ID
	if c.running {
		return fmt.Errorf("start container %s: it runs: %w", id, errdefs.ErrConflict)
	}
	if req.Again && c.exit.Cause != CauseGuestReboot {
		return fmt.Errorf("start container %s again: it did not ask for that: %w", id, errdefs.ErrConflict)
	}
	on := footing{paths: c.rec.Runtime != "", nested: req.Nesting}
	var err error
	if req.Over != "" {
		var release func()
		if on.over, release, err = e.overThat(ctx, c, req); err != nil {
			return fmt.Errorf("start container %s: %w", id, err)
		}
		defer release()
	}
	err = e.start(ctx, c, req.User, on, func(g *ground) (process.Spec, error) { return e.spec(c, g, req) })
	if err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	return nil
}

// start runs what describe says, once there is ground for it, and records it
// with the name of its user. The caller holds the container's lock.
func (e *Engine) start(ctx context.Context, c *container, user string, foot footing, describe func(*ground) (process.Spec, error)) (err error) {
	id := ContainerID(c.rec.ID)
	lay, pinned := e.layAt, process.Pinned(e.nsDir(id))
	if !foot.paths {
		var made *process.Namespaces
		if !pinned {
			made = e.takeNamespaces(c) // until they are wanted there is enough to do
			defer e.letGo(made)
		}
		lay = func(ctx context.Context, c *container) (ground, error) { return e.lay(ctx, c, made, foot.over) }
	}
	var undone undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, undone.Unwind(ctx))
		}
	}()
	grouping := c.grouping
	c.grouping = nil
	undone.Push("control group", func(ctx context.Context) error {
		if grouping == nil {
			return nil
		}
		return grouping.drop(ctx)
	})
	end, err := e.begin(ctx, opStart, string(id), nil)
	if err != nil {
		return err
	}
	defer end()
	if err := failpoint.Hit("engine.start.begin"); err != nil {
		return err
	}
	if err := e.prepareRuntime(ctx, c.rec); err != nil {
		return err
	}
	undone.Push("processors", func(context.Context) error { e.shown.processors.drop(id); return nil })
	undone.Push("mount", func(ctx context.Context) error { return e.unmount(ctx, id) })
	// about 1 ms each, and neither needs the other
	if grouping == nil {
		grouping = e.groupSoon(ctx, string(id), c.rec.Limits, foot.nested)
	}
	on, err := lay(ctx, c)
	group, grouped := grouping.wait()
	defer on.close()
	if err := errors.Join(err, grouped); err != nil {
		return err
	}
	spec, err := describe(&on)
	if err != nil {
		return err
	}
	if err := e.useRuntime(&spec, c.rec); err != nil {
		return err
	}
	if err := delegate(ctx, spec, c.rec, group); err != nil {
		return err
	}
	proc, err := e.launch(ctx, id, spec, group)
	if err != nil {
		return err
	}
	undone.Push("process", func(ctx context.Context) error {
		return errors.Join(group.Kill(ctx), e.reap(ctx, id))
	})
	if spec.Restore != nil {
		if err := e.repin(id, proc, pinned); err != nil {
			return err
		}
	}
	if on.own != "" { // the mount is the process's now
		if err := e.unmountPath(ctx, id); err != nil {
			return err
		}
	}
	c.awaitRecord()
	before := c.rec
	undone.Push("record", func(context.Context) error { c.rec = before; return nil })
	c.rec.Args = spec.Args
	c.rec.Session = store.Session{Env: spec.Env, Cwd: spec.Cwd, User: user, NoNewPrivs: spec.NoNewPrivs, System: isSystem(spec), Nested: foot.nested}
	c.rec.Pid, c.rec.StartTime, c.rec.BootID, c.rec.Started = proc.Pid, proc.StartTime, proc.BootID, time.Now()
	if err := failpoint.Hit("engine.start.record"); err != nil {
		return err
	}
	if err := e.noteStarted(ctx, c); err != nil {
		return err
	}
	undone.Release()
	c.running, c.asked, c.exit, c.done = true, false, ExitState{}, make(chan struct{})
	e.bus.Publish(Event{Kind: EventStart, ID: id})
	e.watch(id, c)
	if c.rec.Runtime != "" {
		e.spread(ctx, c)
	}
	return nil
}

// launch hands the process to the runner, in its control group from birth.
func (e *Engine) launch(ctx context.Context, id ContainerID, spec process.Spec, group cgroup.Group) (process.Process, error) {
	files, err := bear(&spec, group)
	if err != nil {
		return process.Process{}, err
	}
	defer linux.CloseAll(files)
	proc, err := e.opts.Runner.Start(ctx, string(id), spec)
	if !errors.Is(err, errdefs.ErrAlreadyExists) {
		return proc, err
	}
	// an ended process of an earlier start is still known
	if err := e.opts.Runner.Forget(ctx, string(id)); err != nil {
		return process.Process{}, err
	}
	return e.opts.Runner.Start(ctx, string(id), spec)
}

// bear makes the group the one that the process is born in. The caller closes
// the files.
func bear(spec *process.Spec, group cgroup.Group) ([]*os.File, error) {
	files, err := group.BirthFiles()
	if err != nil || len(files) == 0 {
		return nil, err
	}
	spec.CgroupFiles = files
	if info, err := files[0].Stat(); err == nil && info.IsDir() {
		spec.CgroupDir, spec.CgroupFiles = files[0], files[1:]
	}
	return files, nil
}

// reap waits for a killed process and forgets it.
func (e *Engine) reap(ctx context.Context, id ContainerID) error {
	if _, err := e.opts.Runner.Wait(ctx, string(id)); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return e.opts.Runner.Forget(ctx, string(id))
}

// mount shows a container's disk at a path of the host, for who needs one.
func (e *Engine) mount(ctx context.Context, c *container) error {
	target := e.rootfs(ContainerID(c.rec.ID))
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	user, _ := process.NamespacePaths(e.nsDir(ContainerID(c.rec.ID)))
	return e.opts.Snapshots.Mount(ctx, c.rec.ID, target, snapshot.IDs{UserNS: user, Root: c.rec.IDBase})
}

// unmount lets go of a container's disk, wherever it is mounted, and ends what
// uses it here.
func (e *Engine) unmount(ctx context.Context, id ContainerID) error {
	e.copying.end(id)
	e.roots.drop(id, e.watching.Go)
	return e.unmountPath(ctx, id)
}

func (e *Engine) unmountPath(ctx context.Context, id ContainerID) error {
	target := e.rootfs(id)
	if !exists(target) {
		return nil
	}
	if err := e.opts.Snapshots.Unmount(ctx, target); err != nil {
		return err
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// spec turns a start request into what the runner runs.
func (e *Engine) spec(c *container, on *ground, req StartRequest) (process.Spec, error) {
	id := ContainerID(c.rec.ID)
	spec := e.profile(req.NoNewPrivs)
	on.under(&spec, e.nsDir(id))
	e.show(&spec, c.rec)
	spec.Hostname, spec.Files = cmp.Or(req.Hostname, string(id)), req.Files
	spec.Args, spec.Env, spec.Cwd = req.Args, req.Env, req.Cwd
	spec.Terminal, spec.ConsoleLog, spec.ConsoleLimit = true, e.conFile(id), req.ConsoleBytes
	if spec.Cwd == "" {
		spec.Cwd = "/"
	}
	if len(req.Links) > 0 {
		spec.Mounts = slices.Clone(spec.Mounts)
		for i := range spec.Mounts {
			if spec.Mounts[i].Destination == "/dev" {
				spec.Mounts[i].Links = req.Links
			}
		}
	}
	spec.Mounts = append(slices.Clip(spec.Mounts), req.Mounts...)
	if on.own != "" {
		spec.Mounts = append(spec.Mounts, process.Mount{Destination: req.OwnAt, Type: "bind", Source: on.own, Options: []string{"bind"}})
	}
	if len(spec.Args) == 0 {
		for _, candidate := range req.Candidates {
			if executable(on.root, candidate[0]) {
				spec.Args = candidate
				break
			}
		}
	}
	if len(spec.Args) == 0 {
		return spec, errdefs.WithPublic(fmt.Errorf("no command: %w", errdefs.ErrInvalid),
			"The image has neither an init nor a shell, and names no command.")
	}
	u, err := process.LookupUser(on.root, req.User)
	if err != nil {
		return spec, err
	}
	spec.UID, spec.GID, spec.Groups = u.UID, u.GID, u.Groups
	if !slices.ContainsFunc(spec.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		spec.Env = append(slices.Clone(spec.Env), "HOME="+u.Home)
	}
	want, err := profileFor(req)
	if err != nil {
		return spec, err
	}
	if err := e.asSystem(&spec, c.rec, on.root, want); err != nil || !req.Nesting {
		return spec, err
	}
	return spec, nest(&spec)
}

// executable reports whether the file exists inside the root and may be
// executed by somebody.
func executable(root *os.File, name string) bool {
	f, err := linux.OpenInRoot(root, strings.TrimPrefix(filepath.Clean(name), "/"), unix.O_PATH)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}
