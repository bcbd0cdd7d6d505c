package runtime

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// RunRequest says how to run a container from its birth to its end.
type RunRequest struct {
	CreateRequest
	// Detach: return when the command runs, and leave the container.
	Detach bool
	// Keep: leave the stopped container for Delete.
	Keep bool
	// Signals are passed on to the first process; nil for none. Ignored when
	// detached.
	Signals <-chan os.Signal
	// Terminal is the caller's, to relay the container's to; nil for none.
	// Ignored when detached or with a ConsoleSocket.
	Terminal *os.File
}

// Run is Create, Start, the wait for the end and Delete in one, without the
// gate. It returns the exit status, 128 plus the signal where one ended it; 0
// when detached. On error nothing is left.
func (r *Runtime) Run(ctx context.Context, req RunRequest) (status int, err error) {
	b, lock, err := r.conceive(ctx, req.CreateRequest)
	if err != nil {
		return 0, err
	}
	runner, relay, err := b.run(ctx, req)
	defer relay.close()
	_ = lock.Close()
	if err = b.end(ctx, err); err != nil {
		return 0, err
	}
	if err := r.poststart(ctx, b.rec, b.conf.Poststart); err != nil {
		return 0, errors.Join(err, r.Delete(ctx, req.ID, true))
	}
	if req.Detach {
		return 0, nil
	}
	exit, err := attend(ctx, runner, b.name, req.Signals, relay)
	if err == nil && !req.Keep {
		err = b.bury(context.WithoutCancel(ctx))
	}
	return exit.Code, err
}

// bury is Delete for the one who knows that the first process has ended: with
// it, as a rule, all of the container have.
func (b *birth) bury(ctx context.Context) error {
	lock, err := b.lock(b.req.ID)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil // somebody else was quicker
	}
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := b.group.Delete(ctx); err != nil {
		return b.remove(ctx, b.rec)
	}
	if err := b.forget(b.req.ID); err != nil {
		return join("delete", b.req.ID, err)
	}
	b.poststop(ctx, b.rec, b.conf.Poststop)
	return nil
}

// run bears a container that waits for nothing.
func (b *birth) run(ctx context.Context, req RunRequest) (*process.Local, *relay, error) {
	relayed := !req.Detach && req.ConsoleSocket == ""
	if err := b.console(relayed); err != nil {
		return nil, nil, err
	}
	var rel *relay
	if relayed && b.conf.Process.Terminal {
		var err error
		if rel, err = newRelay(req.Terminal); err != nil {
			return nil, nil, err
		}
		b.conf.Process.ConsoleSocket = rel.theirs
	}
	runner, err := b.bear(ctx)
	return runner, rel, err
}

// attend waits for the end of a process that the runner knows by name and
// meanwhile passes on signals and the terminal's bytes.
func attend(ctx context.Context, runner *process.Local, name string, signals <-chan os.Signal, rel *relay) (process.Exit, error) {
	if err := rel.start(); err != nil {
		return process.Exit{}, err
	}
	done := make(chan struct{})
	defer close(done)
	if signals != nil {
		go passOn(ctx, runner, name, signals, rel, done)
	}
	exit, err := runner.Wait(ctx, name)
	if err != nil {
		return exit, err
	}
	rel.finish()
	return exit, runner.Forget(ctx, name)
}

// passOn ends with done.
func passOn(ctx context.Context, runner *process.Local, name string, signals <-chan os.Signal, rel *relay, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case s := <-signals:
			n, ok := s.(unix.Signal)
			switch {
			case !ok, n == unix.SIGCHLD, n == unix.SIGURG, n == unix.SIGPIPE:
			case n == unix.SIGWINCH:
				rel.resize()
			default:
				if err := runner.Signal(ctx, name, int(n)); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
					return
				}
			}
		}
	}
}
