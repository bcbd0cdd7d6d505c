package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// LogsRequest says which part of a console log to read.
type LogsRequest struct {
	// Since leaves out what was written before.
	Since time.Time
	// Lines leaves out all but the last lines of what is there when it is
	// positive, all of it when it is negative.
	Lines int
	// Follow goes on with what is written from then on until the container has
	// ended, or has been deleted.
	Follow bool
}

// Logs reads what the container's console has said, as far as it is kept,
// whether it runs or not. Close the reader when done. It may miss output when
// it is slower than the container, but never shows any twice or out of order.
// ctx ends a Read that waits.
func (e *Engine) Logs(ctx context.Context, id ContainerID, req LogsRequest) (io.ReadCloser, error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return nil, err
	}
	running, done := c.running, c.done
	unlock()
	r, err := conlog.Open(ctx, e.conFile(id), conlog.Options{Since: req.Since, Lines: req.Lines, Follow: req.Follow && running})
	if err != nil {
		return nil, fmt.Errorf("logs of container %s: %w", id, err)
	}
	if !req.Follow || !running {
		return r, nil
	}
	f := &follower{Reader: r, closed: make(chan struct{})}
	go func() {
		select {
		case <-done: // the runner has written all before it told the end
		case <-e.life.Done():
		case <-f.closed:
		}
		r.Finish()
	}()
	return f, nil
}

// follower ends its goroutine with Close.
type follower struct {
	*conlog.Reader
	closed chan struct{}
}

// Close implements io.Closer.
func (f *follower) Close() error {
	select {
	case <-f.closed:
		return errors.New("closed twice")
	default:
		close(f.closed)
	}
	return f.Reader.Close()
}

// Kill sends a signal to the container's first process, which the kernel drops
// when it is one that it does not handle (pid_namespaces(7)); SIGKILL ends the
// container. errdefs.ErrConflict if it does not run, errdefs.ErrInvalid for no
// signal of the kernel.
func (e *Engine) Kill(ctx context.Context, id ContainerID, sig int) error {
	if sig < 1 || sig > 64 {
		return fmt.Errorf("kill container %s: signal %d: %w", id, sig, errdefs.ErrInvalid)
	}
	s, err := e.State(ctx, id)
	if err != nil {
		return err
	}
	if s.Status != StatusRunning && s.Status != StatusPaused {
		return fmt.Errorf("kill container %s: it does not run: %w", id, errdefs.ErrConflict)
	}
	if sig == 9 {
		return e.Stop(ctx, id, StopRequest{})
	}
	err = e.opts.Runner.Signal(ctx, string(id), sig)
	if errors.Is(err, errdefs.ErrNotFound) {
		err = fmt.Errorf("it has ended: %w: %w", err, errdefs.ErrConflict)
	}
	if err != nil {
		return fmt.Errorf("kill container %s: %w", id, err)
	}
	return nil
}
