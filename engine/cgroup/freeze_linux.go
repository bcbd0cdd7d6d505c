package cgroup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// How long to wait at most for things that the kernel does soon, whatever the
// caller's context allows.
const (
	deleteLimit = 10 * time.Second // rmdir after the last process has ended
	freezeTry   = 20 * time.Millisecond
	freezeLimit = 10 * time.Second // processes in state D freeze late
	killTry     = 20 * time.Millisecond
	killTryMax  = time.Second
)

// poll calls fn until it is done, with growing pauses. It ends with
// errdefs.ErrUnavailable after limit (0 is none), or with ctx's error.
func poll(ctx context.Context, limit time.Duration, fn func() (bool, error)) error {
	var end <-chan time.Time
	pause := 20 * time.Microsecond
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		if done, err := fn(); done || err != nil {
			return err
		}
		if end == nil && limit > 0 {
			end = time.After(limit)
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-end:
			return fmt.Errorf("not within %s: %w", limit, errdefs.ErrUnavailable)
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, 5*time.Millisecond)
	}
}

// freezer returns the directory that freezes and whether it is v2.
func (g *group) freezer() (dir string, v2 bool, err error) {
	if n, ok := g.t.unified(); ok && exists(g.dir(n), "cgroup.freeze") {
		return g.dir(n), true, nil
	}
	if n, ok := g.t.with("freezer"); ok {
		if !g.has(n) {
			return "", false, errdefs.ErrNotFound
		}
		return g.dir(n), false, nil
	}
	if !g.there() {
		return "", false, errdefs.ErrNotFound
	}
	return "", false, fmt.Errorf("no freezer: %w", errdefs.ErrUnsupported)
}

// Freeze implements Group. When it fails the group is thawed again.
func (g *group) Freeze(ctx context.Context) error {
	dir, v2, err := g.freezer()
	if err == nil {
		if err = freeze(ctx, freezeLimit, dir, v2); err != nil {
			err = errors.Join(err, thaw(dir, v2))
		}
	}
	return g.wrap("freeze", err)
}

func freeze(ctx context.Context, limit time.Duration, dir string, v2 bool) error {
	if v2 {
		if err := writeFile(dir, "cgroup.freeze", "1"); err != nil {
			return err
		}
		return poll(ctx, limit, func() (bool, error) { return frozen(dir, v2) })
	}
	try := 0
	return poll(ctx, limit, func() (bool, error) {
		// The kernel can stay FREEZING when processes fork meanwhile; asking
		// again takes the new ones in, letting go resolves the rest.
		if try++; try%50 == 0 {
			if err := thaw(dir, v2); err != nil {
				return false, err
			}
		}
		if err := writeFile(dir, "freezer.state", "FROZEN"); err != nil {
			return false, err
		}
		return frozen(dir, v2)
	})
}

func frozen(dir string, v2 bool) (bool, error) {
	if v2 {
		s, err := readFile(dir, "cgroup.events")
		return flatKey(s, "frozen") == 1, err
	}
	s, err := readFile(dir, "freezer.state")
	return s == "FROZEN", err
}

func thaw(dir string, v2 bool) error {
	if v2 {
		return writeFile(dir, "cgroup.freeze", "0")
	}
	return writeFile(dir, "freezer.state", "THAWED")
}

// Thaw implements Group.
func (g *group) Thaw(ctx context.Context) error {
	dir, v2, err := g.freezer()
	if err == nil {
		err = thaw(dir, v2)
	}
	if err == nil {
		err = poll(ctx, freezeLimit, func() (bool, error) {
			is, err := frozen(dir, v2)
			return !is, err
		})
	}
	return g.wrap("thaw", err)
}

// Frozen implements Group.
func (g *group) Frozen(ctx context.Context) (bool, error) {
	dir, v2, err := g.freezer()
	if err != nil || ctx.Err() != nil {
		return false, g.wrap("read state of", errors.Join(err, ctx.Err()))
	}
	is, err := frozen(dir, v2)
	return is, g.wrap("read state of", err)
}
