package process

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// Foreign starts what a Spec describes by the program of Spec.Runtime. The one
// implementation is engine/foreign. Ids are those of the Runner's methods.
// Methods are safe for concurrent use, but those for one id come one after
// another.
type Foreign interface {
	// Create makes everything up to the command, which Start lets begin. On
	// error nothing is left.
	Create(ctx context.Context, id string, spec *Spec) (ForeignProcess, error)
	// Start executes the command of a created one. On error the caller deletes.
	Start(ctx context.Context, id string) error
	// Exec runs a command beside the first process of spec.Join. It may have
	// ended when Exec returns.
	Exec(ctx context.Context, id string, spec *Spec) (ForeignProcess, error)
	// Kill sends a signal to the first process of id.
	Kill(ctx context.Context, id string, sig int) error
	// Delete ends id and removes what the program knows of it, within a time of
	// the implementation's; an unknown id is nil.
	Delete(id string) error
	// Sweep deletes all but the given ids: what an earlier process has left.
	Sweep(keep []string) error
}

// ForeignProcess is what a foreign program has started. The files are the
// receiver's to close.
type ForeignProcess struct {
	// Pid is the process whose end is the end of the command.
	Pid int
	// Pidfd is nil when the process has ended and is reaped.
	Pidfd *os.File
	// Console is the master of the terminal, nil without one.
	Console *os.File
}

// A Restorer makes the processes of spec.Restore run again and returns the first,
// which is no child of the calling process, with its terminal if it has one. On
// error no process is left. The one implementation is checkpoint.Restore.
type Restorer func(ctx context.Context, spec *Spec) (ForeignProcess, error)

// becomeSubreaper makes orphans of the host's init ours: a foreign runtime
// leaves its processes behind. With a guard they are the guard's, which keeps
// how they end.
func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_CHILD_SUBREAPER", err)
	}
	return nil
}

// openForeign gets ready for processes that others make, and rid of what is left
// of other runtimes.
func (l *Local) openForeign(g *Guard) error {
	if g == nil {
		if err := becomeSubreaper(); err != nil {
			return err
		}
	}
	if l.foreign == nil {
		return nil
	}
	var keep []string
	for id, p := range l.procs { //nolint:gocritic // nobody else has the runner yet
		if p.foreign {
			keep = append(keep, id)
		}
	}
	if err := l.foreign.Sweep(keep); err != nil {
		l.log.Warn().Err(err).Msg("containers of other runtimes are left")
	}
	return nil
}

// isForeign says who starts spec; errdefs.ErrNotFound when it joins nobody.
func (l *Local) isForeign(spec *Spec) (bool, error) {
	if spec.Join == "" || spec.Runtime != "" || spec.Restore != nil {
		return spec.Runtime != "" || spec.Restore != nil, nil
	}
	p, err := l.find(spec.Join)
	if err != nil {
		return false, err
	}
	return p.foreign, nil
}

// startForeign is start for a Spec of another program's.
func (l *Local) startForeign(ctx context.Context, p *proc, spec *Spec) (err error) {
	if spec.Restore == nil && l.foreign == nil {
		return fmt.Errorf("runtime %s: this runner has no other runtimes: %w", spec.Runtime, errdefs.ErrUnsupported)
	}
	if err := spec.validate(); err != nil {
		return err
	}
	if l.watch.guard != nil {
		p.exitsFrom, p.exitsSet = l.watch.guard.exits(), true
	}
	made, err := l.createForeign(ctx, p, spec)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if spec.Restore != nil {
				_ = linux.PidfdSignal(p.pidfd, int(unix.SIGKILL))
			}
			linux.CloseAll([]*os.File{p.pidfd})
			p.pidfd = nil
			if p.foreign {
				err = errors.Join(err, l.foreign.Delete(p.id))
			}
		}
	}()
	p.pidfd = made.Pidfd
	if spec.ConsoleLog != "" {
		if p.log, err = conlog.NewWriter(spec.ConsoleLog, spec.ConsoleLimit); err != nil {
			linux.CloseAll([]*os.File{made.Console})
			return err
		}
	}
	if err := l.takeForeign(p, made, spec); err != nil {
		if p.log != nil {
			_ = p.log.Close()
		}
		return err
	}
	return nil
}

func (l *Local) createForeign(ctx context.Context, p *proc, spec *Spec) (ForeignProcess, error) {
	if spec.Restore != nil {
		if l.restore == nil {
			return ForeignProcess{}, fmt.Errorf("checkpoint: this runner restores none: %w", errdefs.ErrUnsupported)
		}
		return l.restore(ctx, spec)
	}
	if spec.Join == "" {
		p.foreign = true
		made, err := l.foreign.Create(ctx, p.id, spec)
		p.foreign = err == nil
		return made, err
	}
	target, err := l.find(spec.Join)
	if err != nil {
		return ForeignProcess{}, err
	}
	made, err := l.foreign.Exec(ctx, p.id, spec)
	if err != nil && !target.running() {
		err = fmt.Errorf("join process %s: it has ended: %w: %w", spec.Join, err, errdefs.ErrConflict)
	}
	return made, err
}

// running is told by the kernel, which knows before the watch does.
func (p *proc) running() bool {
	return p.status().Running && linux.Alive(p.process.Pid, p.process.StartTime)
}

// takeForeign fills in p. It takes the console.
func (l *Local) takeForeign(p *proc, made ForeignProcess, spec *Spec) error {
	p.process = Process{Pid: made.Pid, BootID: l.bootID}
	if made.Pidfd != nil {
		started, err := linux.StartTime(made.Pid)
		if err != nil {
			linux.CloseAll([]*os.File{made.Console})
			return err
		}
		p.process.StartTime = started
	}
	switch {
	case made.Console == nil && spec.Terminal:
		return errors.New("runtime sent no console")
	case made.Console == nil:
	case spec.ConsoleSocket != nil:
		defer func() { _ = made.Console.Close() }()
		return sendConsole(spec, made.Console)
	default:
		var err error
		p.console, err = newConsole(made.Console)
		return err
	}
	return nil
}

// keepForeign is watch.keep for a process of a foreign program; the command of
// a created one begins after it is watched, so that no exit is missed.
func (l *Local) keepForeign(ctx context.Context, p *proc) error {
	if p.pidfd == nil {
		return l.watch.keepEnded(p)
	}
	if err := l.watch.keep(p); err != nil {
		if p.foreign {
			err = errors.Join(err, l.foreign.Delete(p.id))
		}
		return err
	}
	if !p.foreign {
		return nil
	}
	err := l.foreign.Start(ctx, p.id)
	if err == nil {
		return nil
	}
	l.watch.fds.RLock()
	if p.fd >= 0 {
		_ = unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0)
	}
	l.watch.fds.RUnlock()
	<-p.ended
	err = errors.Join(err, l.foreign.Delete(p.id))
	l.watch.mu.Lock()
	defer l.watch.mu.Unlock()
	l.watch.forget(p)
	return err
}

// keepEnded takes over a process that has ended already: only the guard can
// know how.
func (w *watch) keepEnded(p *proc) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := lostExit()
	if w.guard != nil {
		if r, ok := findExit(w.guard.state, p.process.Pid, p.exitsFrom); ok {
			e = exitOf(r.status, r.time)
		}
	}
	if p.console != nil {
		p.console.close(errors.New("console: process has ended"))
	}
	if p.log != nil {
		_ = p.log.Close()
		p.log = nil
	}
	p.exit, p.exited = e, true
	if w.guard != nil {
		if err := w.park(p); err != nil {
			return err
		}
	}
	close(p.ended)
	return nil
}

// signalForeign lets the program send a signal: only it knows which process
// means it. The descriptor is for SIGKILL when it fails.
func (l *Local) signalForeign(ctx context.Context, p *proc, sig int) error {
	err := l.foreign.Kill(ctx, p.id, sig)
	if err == nil {
		return nil
	}
	l.watch.fds.RLock()
	defer l.watch.fds.RUnlock()
	switch {
	case p.fd < 0 || !alive(p.fd):
		return fmt.Errorf("signal process %s: %w", p.id, errdefs.ErrNotFound)
	case sig == int(unix.SIGKILL) && unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0) == nil:
		return nil
	}
	return fmt.Errorf("signal process %s: %w", p.id, err)
}

// deleteForeign lets the program forget an ended process, for Forget.
func (l *Local) deleteForeign(id string) error {
	p, err := l.find(id)
	if err != nil || !p.foreign || l.foreign == nil || p.status().Running {
		return nil //nolint:nilerr // an unknown one has nothing to be deleted
	}
	if err := l.foreign.Delete(id); err != nil {
		return fmt.Errorf("forget process %s: %w", id, err)
	}
	return nil
}
