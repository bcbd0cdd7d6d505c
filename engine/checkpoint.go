package engine

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/engine/checkpoint"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// CheckpointRequest says where to and how.
type CheckpointRequest struct {
	// Dir is an absolute path of a directory that is made; it holds the memory
	// of the container.
	Dir string
	// LeaveRunning lets the container go on; otherwise it ends, as if it had
	// been asked to.
	LeaveRunning bool
}

// Checkpoint writes the state of a running container's processes by criu, which
// is looked for in PATH. errdefs.ErrUnsupported says why it cannot be: no criu,
// one that is too old, a kernel without what it needs, a container of another
// runtime. errdefs.ErrConflict: the container does not run, or is paused. On
// error it runs on and nothing is written.
func (e *Engine) Checkpoint(ctx context.Context, id ContainerID, req CheckpointRequest) error {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	switch {
	case !c.running:
		err = fmt.Errorf("it does not run: %w", errdefs.ErrConflict)
	case c.paused:
		err = fmt.Errorf("it is paused: %w", errdefs.ErrConflict)
	case c.rec.Runtime != "":
		err = fmt.Errorf("it is one of runtime %s: %w", c.rec.Runtime, errdefs.ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("checkpoint container %s: %w", id, err)
	}
	tool, err := checkpoint.Probe(ctx, "")
	if err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	asked := c.asked
	c.asked = c.asked || !req.LeaveRunning
	err = tool.Dump(ctx, checkpoint.DumpRequest{
		Pid: c.rec.Pid, Dir: req.Dir, Root: e.rootfs(id), LeaveRunning: req.LeaveRunning,
	})
	if err != nil {
		c.asked = asked
		return fmt.Errorf("container %s: %w", id, err)
	}
	return nil
}

// Restore would start a stopped container from a checkpoint. It is
// errdefs.ErrUnsupported, with the reason: without criu that, with it that the
// keeper cannot take over a process which criu has made. errdefs.ErrConflict
// when the container runs. dir is only looked at by name.
func (e *Engine) Restore(ctx context.Context, id ContainerID, dir string) error {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if c.running {
		return fmt.Errorf("restore container %s: it runs: %w", id, errdefs.ErrConflict)
	}
	if _, err := checkpoint.Probe(ctx, ""); err != nil {
		return fmt.Errorf("restore container %s from %q: %w", id, dir, err)
	}
	return fmt.Errorf("restore container %s from %q: the keeper cannot take over restored processes: %w", id, dir, errdefs.ErrUnsupported)
}
