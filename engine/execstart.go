package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// An init that makes control groups moves itself in the first moments of its
// life. A session that is to be born where it was is refused by the kernel
// (EBUSY, cgroup-v2.rst, No Internal Process Constraint), and is tried again.
const (
	startTries = 20
	startPause = 10 * time.Millisecond
)

// startSession runs the command of a session. again says that another try may
// help.
func (e *Engine) startSession(ctx context.Context, s *session, req ExecRequest) (again bool, err error) {
	spec, files, done, err := e.execSpec(ctx, s.container, req)
	if err != nil {
		return false, err
	}
	defer linux.CloseAll(files)
	// not under the container's lock: a stop or delete may overtake, and the
	// kernel ends a session whose container has ended
	s.process, err = e.opts.Runner.Start(ctx, s.runner, spec)
	if err == nil {
		return false, nil
	}
	select {
	case <-done:
		return false, fmt.Errorf("it has ended: %w: %w", err, errdefs.ErrConflict)
	default:
	}
	for _, class := range []error{errdefs.ErrInvalid, errdefs.ErrUnsupported, errdefs.ErrExhausted, errdefs.ErrForbidden} {
		if errors.Is(err, class) {
			return false, err
		}
	}
	return isSystem(spec), err
}

// wait reports whether the time has passed before ctx ended.
func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
