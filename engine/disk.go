package engine

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// enforceable is the part of a limit that the store of snapshots keeps.
func (e *Engine) enforceable(limit snapshot.Limit) snapshot.Limit {
	if limit == (snapshot.Limit{}) {
		return limit
	}
	d := e.opts.Snapshots.Describe()
	if !d.LimitBytes {
		limit.Bytes = 0
	}
	if !d.LimitInodes {
		limit.Inodes = 0
	}
	return limit
}

// DiskUsage is what a container, running or not, has written over its image, as
// its limit counts it. Where nothing is limited it is found by looking at all
// of that, so it is for a person and not for each sample of Stats.
func (e *Engine) DiskUsage(ctx context.Context, id ContainerID) (snapshot.Usage, error) {
	_, unlock, err := e.existing(ctx, id)
	if err != nil {
		return snapshot.Usage{}, err
	}
	defer unlock()
	u, err := e.opts.Snapshots.Usage(ctx, string(id))
	if err != nil {
		return u, fmt.Errorf("disk usage of container %s: %w", id, err)
	}
	return u, nil
}

// limitDisk changes the limit of a container's disk and returns the record of
// it, which is not written yet. Unlike Create it refuses what cannot be kept:
// somebody asks for just that.
func (e *Engine) limitDisk(ctx context.Context, rec store.Container, limit snapshot.Limit) (store.Container, error) {
	if limit.Bytes < 0 || limit.Inodes < 0 {
		return rec, fmt.Errorf("limit of %d bytes and %d inodes: %w", limit.Bytes, limit.Inodes, errdefs.ErrInvalid)
	}
	if limit != e.enforceable(limit) {
		return rec, fmt.Errorf("limit of %d bytes and %d inodes: disks are limited by %s here: %w",
			limit.Bytes, limit.Inodes, e.opts.Snapshots.Describe().Limit, errdefs.ErrUnsupported)
	}
	if err := e.opts.Snapshots.SetLimit(ctx, rec.ID, limit); err != nil {
		return rec, err
	}
	rec.Disk, rec.DiskEnforced = store.Disk(limit), store.Disk(limit)
	return rec, nil
}

// restoreDiskLimit gives a disk the limit of its record, when it is not known
// which one it has. A disk that cannot go back, a loop file that has grown,
// keeps what it has.
func (e *Engine) restoreDiskLimit(ctx context.Context, rec store.Container) {
	if rec.DiskEnforced == (store.Disk{}) {
		return
	}
	if err := e.opts.Snapshots.SetLimit(ctx, rec.ID, snapshot.Limit(rec.DiskEnforced)); err != nil {
		e.opts.Log.Warn().Err(err).Str(logging.Container, rec.ID).Msg("limit of the disk may not be that of the record")
	}
}
