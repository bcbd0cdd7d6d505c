package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// Quiesce brings what a container has written to the disk and freezes it, until
// Unquiesce, Pause, Stop or the next opening of an engine: its state stays
// running. Idempotent, and nothing for a paused one. errdefs.ErrConflict if it
// does not run.
func (e *Engine) Quiesce(ctx context.Context, id ContainerID) error {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	switch {
	case !c.running:
		return fmt.Errorf("quiesce container %s: it does not run: %w", id, errdefs.ErrConflict)
	case c.paused, c.quiet != nil:
		return nil
	}
	if err := e.quiesce(ctx, c); err != nil {
		return fmt.Errorf("quiesce container %s: %w", id, err)
	}
	return nil
}

func (e *Engine) quiesce(ctx context.Context, c *container) error {
	files := func() error { return syncFiles(c.rec.Pid) }
	if err := files(); err != nil { // most of it while the container runs
		return err
	}
	end, err := e.begin(ctx, opCommit, c.rec.ID, commitIntent{Frozen: true})
	if err != nil {
		return err
	}
	thaw, err := e.hold(ctx, c)
	if err != nil {
		end()
		return err
	}
	c.quiet = func() error {
		defer end()
		return thaw()
	}
	if err = failpoint.Hit("engine.quiesce.frozen"); err == nil {
		err = files()
	}
	if err != nil {
		return errors.Join(err, c.loud())
	}
	return nil
}

// Unquiesce lets a container go on. Idempotent. errdefs.ErrConflict if it does not
// run.
func (e *Engine) Unquiesce(ctx context.Context, id ContainerID) error {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if !c.running {
		return fmt.Errorf("unquiesce container %s: it does not run: %w", id, errdefs.ErrConflict)
	}
	if err := c.loud(); err != nil {
		return fmt.Errorf("unquiesce container %s: %w", id, err)
	}
	return nil
}

// loud ends a quiet time, if there is one. The caller holds the container's lock.
func (c *container) loud() error {
	quiet := c.quiet
	c.quiet = nil
	if quiet == nil {
		return nil
	}
	return quiet()
}

// syncFiles writes the file system of a process's root to the disk.
func syncFiles(pid int) error {
	root, err := os.Open(fmt.Sprintf("/proc/%d/root/", pid))
	if err != nil {
		return err
	}
	defer root.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(root.Fd())))
}
