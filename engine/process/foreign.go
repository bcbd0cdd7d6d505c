package process

import (
	"context"
	"fmt"
	"os"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// Adopt makes a running process of any other parent known by id, so that
// Spec.Join can name it. Nobody watches it: Status says that it runs, Wait does
// not return, and it cannot be forgotten. errdefs.ErrNotFound when it has ended
// or its number belongs to another process now, errdefs.ErrAlreadyExists when
// the id is taken.
func (l *Local) Adopt(id string, process Process) error {
	p := &proc{id: id, process: process, ended: make(chan struct{}), fd: -1, slot: -1}
	if err := l.reserve(id, p); err != nil {
		return err
	}
	pidfd, err := openForeign(process, l.bootID)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		delete(l.procs, id)
		return fmt.Errorf("adopt process %s: %w", id, err)
	}
	p.pidfd, p.started = pidfd, true
	return nil
}

func openForeign(process Process, bootID string) (*os.File, error) {
	gone := fmt.Errorf("process %d has ended: %w", process.Pid, errdefs.ErrNotFound)
	if process.BootID != bootID || process.Pid <= 0 {
		return nil, gone
	}
	pidfd, err := linux.PidfdOpen(process.Pid)
	if err != nil {
		return nil, gone
	}
	// After the descriptor: so what it is of has this start.
	if started, err := linux.StartTime(process.Pid); err != nil || started != process.StartTime {
		_ = pidfd.Close()
		return nil, gone
	}
	return pidfd, nil
}

// RunHook runs a hook in the caller's namespaces, with state on its standard
// input. An end other than with status 0, a timeout, or ctx's end is an error;
// nothing of the hook is left then.
func RunHook(ctx context.Context, h *Hook, state []byte) error { return runHook(ctx, h, state) }
