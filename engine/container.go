package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// container is the engine's view of one container. Fields are guarded by the
// container's lock in Engine.locks, except done, which is replaced under it and
// closed by the watcher.
type container struct {
	rec     store.Container
	running bool
	paused  bool
	// unattended: see State.
	unattended bool
	exit       ExitState
	// quiet ends what Quiesce has begun; nil for nothing.
	quiet func() error
	// asked is true once Stop or Delete wants the present process to end.
	asked bool
	// done is closed when the present process has ended and been tidied up.
	// nil when nothing was started since the engine was opened.
	done chan struct{}
	// made are namespaces that Create has begun to make for a start that follows
	// at once; nil for none. Nothing refers to them but a process that holds them.
	made *process.Namespaces
	// grouping is the control group that Run has begun to make; nil for none.
	grouping *grouping
	// written is closed when the record of the last start is; nil if it was
	// when anybody asked. late is what it waits for.
	written chan struct{}
	late    *lateBatch
}

// paths of one container.
func (e *Engine) nsDir(id ContainerID) string { return filepath.Join(e.opts.Root, "ns", string(id)) }

func (e *Engine) rootfs(id ContainerID) string {
	return filepath.Join(e.opts.Root, "rootfs", string(id))
}

// validID keeps ids usable as names of files, groups and sockets.
func validID(id ContainerID) error {
	if len(id) == 0 || len(id) > 64 || id[0] == '-' {
		return fmt.Errorf("container id %q: %w", id, errdefs.ErrInvalid)
	}
	for _, r := range string(id) {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
		default:
			return fmt.Errorf("container id %q: %w", id, errdefs.ErrInvalid)
		}
	}
	return nil
}

// acquire locks the container and returns it, nil if there is none.
func (e *Engine) acquire(ctx context.Context, id ContainerID) (*container, func(), error) {
	if err := validID(id); err != nil {
		return nil, nil, err
	}
	unlock, err := e.locks.Lock(ctx, id)
	if err != nil {
		return nil, nil, fmt.Errorf("lock container %s: %w", id, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.containers[id], unlock, nil
}

// existing is acquire for operations on a container that must be there.
func (e *Engine) existing(ctx context.Context, id ContainerID) (*container, func(), error) {
	c, unlock, err := e.acquire(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if c == nil {
		unlock()
		return nil, nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	return c, unlock, nil
}

func (e *Engine) remember(id ContainerID, c *container) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c == nil {
		delete(e.containers, id)
		return
	}
	e.containers[id] = c
}

// State reports one container.
func (e *Engine) State(ctx context.Context, id ContainerID) (State, error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return State{}, err
	}
	defer unlock()
	return c.state(), nil
}

// Locks tells for each container whose lock somebody has or wants how many do.
func (e *Engine) Locks() map[ContainerID]int { return e.locks.Held() }

// List reports all containers, in no order.
func (e *Engine) List(ctx context.Context) ([]State, error) {
	e.mu.Lock()
	ids := make([]ContainerID, 0, len(e.containers))
	for id := range e.containers {
		ids = append(ids, id)
	}
	e.mu.Unlock()
	out := make([]State, 0, len(ids))
	for _, id := range ids {
		s, err := e.State(ctx, id)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (c *container) state() State {
	s := State{
		ID: ContainerID(c.rec.ID), Status: StatusCreated, Exit: c.exit,
		Created: c.rec.Created, Started: c.rec.Started, Labels: c.rec.Labels,
		Image: c.rec.Image, Args: c.rec.Args, Limits: c.rec.Limits,
		Disk: snapshot.Limit(c.rec.Disk), DiskEnforced: snapshot.Limit(c.rec.DiskEnforced),
	}
	switch {
	case c.paused:
		s.Status = StatusPaused
	case c.running:
		s.Status = StatusRunning
	case !c.rec.Started.IsZero():
		s.Status = StatusStopped
	}
	if c.running {
		s.Process = process.Process{Pid: c.rec.Pid, StartTime: c.rec.StartTime, BootID: c.rec.BootID}
		s.Unattended = c.unattended
	}
	return s
}

// Wait returns when the container's process has ended, at once if none runs.
func (e *Engine) Wait(ctx context.Context, id ContainerID) (ExitState, error) {
	for {
		c, unlock, err := e.existing(ctx, id)
		if err != nil {
			return ExitState{}, err
		}
		running, done, exit := c.running, c.done, c.exit
		unlock()
		if !running {
			return exit, nil
		}
		select {
		case <-done:
		case <-ctx.Done():
			return ExitState{}, ctx.Err()
		}
	}
}

// recordExit is the part of a record that says how the process ended.
func (c *container) recordExit(exit ExitState) {
	exit.Cause = causeOf(exit, c.asked)
	_ = c.loud() // what was frozen has ended
	c.running, c.paused, c.unattended, c.exit = false, false, false, exit
	c.rec.Pid, c.rec.StartTime = 0, 0
	c.rec.ExitKnown, c.rec.ExitCode, c.rec.ExitSignal, c.rec.ExitOOM = exit.Known, exit.Code, exit.Signal, exit.OOM
	c.rec.ExitCause = string(exit.Cause)
	c.rec.Exited = exit.Time
	if c.rec.Exited.IsZero() {
		c.rec.Exited = time.Now()
	}
}
