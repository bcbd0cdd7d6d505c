package process

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// Adopt makes a running process that is no child of the caller's known by id:
// it can be signalled, and Spec.Join can name it. How it ends is known where
// the kernel tells (Linux 6.15), otherwise Exit.Code is 255. errdefs.ErrNotFound
// when it has ended or its number belongs to another process now,
// errdefs.ErrAlreadyExists when the id is taken.
func (l *Local) Adopt(id string, process Process) error {
	p := &proc{id: id, process: process, ended: make(chan struct{}), fd: -1, slot: -1}
	if err := l.reserve(id, p); err != nil {
		return err
	}
	defer l.starts.Done()
	err := l.adoptForeign(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		delete(l.procs, id)
		return fmt.Errorf("adopt process %s: %w", id, err)
	}
	p.started = true
	return nil
}

func (l *Local) adoptForeign(p *proc) error {
	gone := fmt.Errorf("process %d has ended: %w", p.process.Pid, errdefs.ErrNotFound)
	if p.process.BootID != l.bootID || p.process.Pid <= 0 {
		return gone
	}
	fd, err := reopen(p.process)
	if err != nil {
		return fmt.Errorf("%w (%w)", gone, err)
	}
	l.watch.mu.Lock()
	defer l.watch.mu.Unlock()
	p.fd = fd
	if err := l.watch.watchNew(p); err != nil {
		p.fd = -1
		_ = unix.Close(fd)
		return err
	}
	return nil
}

// RunHook runs a hook in the caller's namespaces, with state on its standard
// input. An end other than with status 0, a timeout, or ctx's end is an error;
// nothing of the hook is left then.
func RunHook(ctx context.Context, h *Hook, state []byte) error { return runHook(ctx, h, state) }
