package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/undo"
)

// LimitsChange says which limits to change; nil leaves one as it is, and 0
// takes it away where the kernel can do without (cgroup.Limits).
type LimitsChange struct {
	MemoryBytes, SwapBytes         *int64
	CPUQuota, CPUPeriod, CPUShares *int64
	Pids                           *int64
	CPUSet                         *string
	// BlockIO replaces the limits of block devices; an empty one takes them away.
	BlockIO *cgroup.BlockIO
	// DiskBytes and DiskInodes bound what is written over the image.
	DiskBytes, DiskInodes *int64
	// Labels replace those of the container; nil leaves them.
	Labels map[string]string
}

// Disk returns the limit of the disk after the change.
func (u LimitsChange) Disk(l snapshot.Limit) snapshot.Limit {
	if u.DiskBytes != nil {
		l.Bytes = *u.DiskBytes
	}
	if u.DiskInodes != nil {
		l.Inodes = *u.DiskInodes
	}
	return l
}

// Apply returns the limits of resources after the change.
func (u LimitsChange) Apply(l cgroup.Limits) cgroup.Limits {
	set := func(to *int64, from *int64) {
		if from != nil {
			*to = *from
		}
	}
	set(&l.MemoryBytes, u.MemoryBytes)
	set(&l.SwapBytes, u.SwapBytes)
	set(&l.CPUQuota, u.CPUQuota)
	set(&l.CPUPeriod, u.CPUPeriod)
	set(&l.CPUShares, u.CPUShares)
	set(&l.Pids, u.Pids)
	if u.CPUSet != nil {
		l.CPUSet = *u.CPUSet
	}
	if u.BlockIO != nil {
		l.BlockIO = u.BlockIO
	}
	if l.BlockIO.None() {
		l.BlockIO = nil
	}
	return l
}

// Update changes the limits of a container and records them; a running one has
// them at once, a stopped one from its next start. On error they are as they
// were before: errdefs.ErrInvalid and errdefs.ErrUnsupported name the limit,
// errdefs.ErrConflict says that more is in use than the limit allows. That of
// the disk may be below what is in use: it stops further writes.
func (e *Engine) Update(ctx context.Context, id ContainerID, change LimitsChange) (_ cgroup.Limits, err error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return cgroup.Limits{}, err
	}
	defer unlock()
	end, err := e.begin(ctx, opUpdate, string(id), nil)
	if err != nil {
		return cgroup.Limits{}, fmt.Errorf("update container %s: %w", id, err)
	}
	defer end()
	var undone undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("update container %s: %w", id, err), undone.Unwind(ctx))
		}
	}()
	before, after := c.rec.Limits, change.Apply(c.rec.Limits)
	if after.Pids == 0 && before.Pids != 0 {
		return before, fmt.Errorf("limit pids: a container always has one: %w", errdefs.ErrInvalid)
	}
	if c.running {
		group, err := e.opts.Cgroups.Open(ctx, string(id))
		if err != nil {
			return before, err
		}
		nested := c.rec.Session.Nested
		// also when the first of several files was written and the second not
		undone.Push("limits", func(ctx context.Context) error { return group.Update(ctx, withNesting(before, nested)) })
		if err := group.Update(ctx, withNesting(after, nested)); err != nil {
			return before, err
		}
	} else if err := after.Validate(); err != nil {
		return before, err
	}
	rec := c.rec
	rec.Limits = after
	if change.Labels != nil {
		rec.Labels = change.Labels
	}
	if change.DiskBytes != nil || change.DiskInodes != nil {
		undone.Push("disk limit", func(ctx context.Context) error {
			return e.opts.Snapshots.SetLimit(ctx, c.rec.ID, snapshot.Limit(c.rec.DiskEnforced))
		})
		if rec, err = e.limitDisk(ctx, rec, change.Disk(snapshot.Limit(rec.Disk))); err != nil {
			return before, err
		}
	}
	if err := failpoint.Hit("engine.update.record"); err != nil {
		return before, err
	}
	c.awaitRecord()
	if err := e.opts.Store.PutContainer(ctx, rec); err != nil {
		return before, err
	}
	undone.Release()
	c.rec = rec
	e.spread(ctx, c)
	e.bus.Publish(Event{Kind: EventUpdate, ID: id})
	return after, nil
}
