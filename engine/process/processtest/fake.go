package processtest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Fake is a runner without processes, for tests of its callers. It refuses
// what the real one refuses, as far as a spec alone shows it. It knows the
// commands true, false, sh (with -c "exit N"), sleep and echo, by name or
// below /bin; a sleep and a sh without an exit run until they are signalled.
// Output goes to the console log. The zero value is ready.
type Fake struct {
	mu    sync.Mutex
	next  int                  // guarded by mu
	procs map[string]*fakeProc // guarded by mu
}

var _ process.Runner = (*Fake)(nil)

type fakeProc struct {
	join     string // the process whose end is its own
	status   process.Status
	ended    chan struct{}
	terminal *fakeTerminal // nil without
}

// Start implements process.Runner.
func (f *Fake) Start(ctx context.Context, id string, spec process.Spec) (process.Process, error) {
	fail := func(err error) (process.Process, error) {
		return process.Process{}, fmt.Errorf("start process %s: %w", id, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.procs[id]; ok {
		return fail(errdefs.ErrAlreadyExists)
	}
	if ctx.Err() != nil {
		return fail(fmt.Errorf("%w: %w", context.Cause(ctx), errdefs.ErrAborted))
	}
	if err := process.Validate(&spec); err != nil {
		return fail(err)
	}
	if spec.Join != "" {
		first, err := f.find(spec.Join)
		if err != nil {
			return fail(err)
		}
		if !first.status.Running {
			return fail(fmt.Errorf("join process %s: it has ended: %w", spec.Join, errdefs.ErrConflict))
		}
	}
	code, output, runs, known := behave(spec.Args)
	if !known {
		return fail(errdefs.WithPublic(errdefs.ErrInvalid, fmt.Sprintf("command %q not found in the image", spec.Args[0])))
	}
	if spec.ConsoleLog != "" {
		if err := os.WriteFile(spec.ConsoleLog, []byte(output), 0o600); err != nil {
			return fail(err)
		}
	}
	f.next++
	p := &fakeProc{join: spec.Join, ended: make(chan struct{}), status: process.Status{
		ID: id, Running: true, Process: process.Process{Pid: 1<<22 + f.next, StartTime: uint64(f.next), BootID: "fake"},
	}}
	if spec.Terminal && spec.ConsoleSocket == nil {
		p.terminal = &fakeTerminal{}
	}
	if f.procs == nil {
		f.procs = map[string]*fakeProc{}
	}
	f.procs[id] = p
	if !runs {
		f.end(p, code, 0)
	}
	return p.status.Process, nil
}

// behave says what a command does.
func behave(args []string) (code int, output string, runs, known bool) {
	command := args[0]
	if dir, base := path.Split(command); dir == "/bin/" {
		command = base
	}
	switch command {
	case "true":
		return 0, "", false, true
	case "false":
		return 1, "", false, true
	case "echo":
		return 0, strings.Join(args[1:], " ") + "\n", false, true
	case "sleep":
		return 0, "", true, true
	case "sh":
		if len(args) == 3 && args[1] == "-c" {
			if n, err := strconv.Atoi(strings.TrimPrefix(args[2], "exit ")); err == nil {
				return n, "", false, true
			}
		}
		return 0, "", true, true
	}
	return 0, "", false, false
}

// end needs f.mu. What has joined p ends too.
func (f *Fake) end(p *fakeProc, code, signal int) {
	p.status.Running = false
	p.status.Exit = process.Exit{Code: code, Signal: signal, Time: time.Now()}
	if p.terminal != nil {
		p.terminal.end()
	}
	close(p.ended)
	for _, other := range f.procs {
		if other.join == p.status.ID && other.status.Running {
			f.end(other, 128+9, 9)
		}
	}
}

// Exit makes a running process end, as if by itself. Signal 1 is how a reboot
// of the guest looks, signal 2 a power off (process.Exit).
func (f *Fake) Exit(id string, code, signal int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := f.find(id)
	if err != nil {
		return err
	}
	if !p.status.Running {
		return fmt.Errorf("process %s: %w", id, errdefs.ErrConflict)
	}
	f.end(p, code, signal)
	return nil
}

// find needs f.mu.
func (f *Fake) find(id string) (*fakeProc, error) {
	p, ok := f.procs[id]
	if !ok {
		return nil, fmt.Errorf("process %s: %w", id, errdefs.ErrNotFound)
	}
	return p, nil
}

// Signal implements process.Runner. The fake's processes ignore all signals but
// SIGKILL, as the first process of a pid namespace without handlers does.
func (f *Fake) Signal(_ context.Context, id string, sig int) error {
	if sig < 0 || sig > 64 {
		return fmt.Errorf("signal process %s: signal %d: %w", id, sig, errdefs.ErrInvalid)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := f.find(id)
	if err != nil {
		return err
	}
	if !p.status.Running {
		return fmt.Errorf("signal process %s: %w", id, errdefs.ErrNotFound)
	}
	if sig == 9 {
		f.end(p, 128+sig, sig)
	}
	return nil
}

// Status implements process.Runner.
func (f *Fake) Status(_ context.Context, id string) (process.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := f.find(id)
	if err != nil {
		return process.Status{}, err
	}
	return p.status, nil
}

// List implements process.Runner.
func (f *Fake) List(context.Context) ([]process.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []process.Status
	for _, id := range slices.Sorted(maps.Keys(f.procs)) {
		list = append(list, f.procs[id].status)
	}
	return list, nil
}

// Wait implements process.Runner.
func (f *Fake) Wait(ctx context.Context, id string) (process.Exit, error) {
	f.mu.Lock()
	p, err := f.find(id)
	f.mu.Unlock()
	if err != nil {
		return process.Exit{}, err
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		return process.Exit{}, fmt.Errorf("wait for process %s: %w", id, context.Cause(ctx))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return p.status.Exit, nil
}

// Forget implements process.Runner.
func (f *Fake) Forget(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.procs[id]
	if !ok {
		return nil
	}
	if p.status.Running {
		return fmt.Errorf("forget process %s: it runs: %w", id, errdefs.ErrConflict)
	}
	delete(f.procs, id)
	return nil
}
