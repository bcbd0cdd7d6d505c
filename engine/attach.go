package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Attach connects to the console of a running container: Read returns what it
// says from now on, as terminals want it, Write is input. With history what it
// has said last comes first, at most so many bytes of its log. Any number may be
// attached at once; see process.Runner.Attach for history, slow readers and ends.
// errdefs.ErrConflict if it does not run, errdefs.ErrUnsupported if it has no
// console.
func (e *Engine) Attach(ctx context.Context, id ContainerID, history int) (io.ReadWriteCloser, error) {
	if err := e.attachable(ctx, "attach to", id); err != nil {
		return nil, err
	}
	conn, err := e.opts.Runner.Attach(ctx, string(id), history)
	if err != nil {
		return nil, ended("attach to", id, err)
	}
	return conn, nil
}

// Resize sets the size of the container's console, neither of which is 0.
// Errors are those of Attach, and errdefs.ErrInvalid.
func (e *Engine) Resize(ctx context.Context, id ContainerID, rows, cols uint16) error {
	if err := e.attachable(ctx, "resize", id); err != nil {
		return err
	}
	if err := e.opts.Runner.Resize(ctx, string(id), rows, cols); err != nil {
		return ended("resize", id, err)
	}
	return nil
}

func (e *Engine) attachable(ctx context.Context, op string, id ContainerID) error {
	s, err := e.State(ctx, id)
	if err != nil {
		return err
	}
	if s.Status != StatusRunning && s.Status != StatusPaused {
		return fmt.Errorf("%s container %s: it does not run: %w", op, id, errdefs.ErrConflict)
	}
	return nil
}

// ended turns a process that is gone into a container that does not run.
func ended(op string, id ContainerID, err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("%s container %s: it has ended: %w", op, id, errdefs.ErrConflict)
	}
	return fmt.Errorf("%s container %s: %w", op, id, err)
}
