package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Stats reads the use of a running container; errdefs.ErrConflict if it does
// not run.
func (e *Engine) Stats(ctx context.Context, id ContainerID) (cgroup.Stats, error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return cgroup.Stats{}, err
	}
	defer unlock()
	if !c.running {
		return cgroup.Stats{}, fmt.Errorf("stats of container %s: it does not run: %w", id, errdefs.ErrConflict)
	}
	group, err := e.opts.Cgroups.Open(ctx, string(id))
	if err != nil {
		return cgroup.Stats{}, fmt.Errorf("stats of container %s: %w", id, err)
	}
	return group.Stats(ctx)
}

// Sample is the use of a container at a time.
type Sample struct {
	Time time.Time
	cgroup.Stats
}

// shortestInterval keeps a reader of samples from being a load of its own.
const shortestInterval = 100 * time.Millisecond

// WatchStats calls fn at once and then in every interval, of at least 100 ms,
// with the container's use. It returns nil when the container has ended, fn's
// error, or ctx's.
func (e *Engine) WatchStats(ctx context.Context, id ContainerID, interval time.Duration, fn func(Sample) error) error {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return err
	}
	done := c.done
	unlock()
	tick := time.NewTicker(max(interval, shortestInterval))
	defer tick.Stop()
	for first := true; ; first = false {
		s, err := e.Stats(ctx, id)
		if !first && (errors.Is(err, errdefs.ErrConflict) || errors.Is(err, errdefs.ErrNotFound)) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(Sample{Time: time.Now(), Stats: s}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
