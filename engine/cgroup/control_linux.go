package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// How long to wait at most for things that the kernel does soon, whatever the
// caller's context allows.
const (
	deleteLimit = 10 * time.Second // rmdir after the last process has ended
	freezeTry   = 20 * time.Millisecond
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
		if !exists(n.dir, g.name) {
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
		if err = freeze(ctx, 0, dir, v2); err != nil {
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
		err = poll(ctx, 0, func() (bool, error) {
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

// Kill implements Group. An absent group is empty.
func (g *group) Kill(ctx context.Context) error {
	limit := killTry
	for try := 0; ; try++ {
		pids, err := g.pids()
		if err != nil {
			return g.wrap("kill", err)
		}
		if len(pids) == 0 {
			break
		}
		if !g.killAtOnce() || try > 0 {
			g.killEach(ctx)
		}
		err = poll(ctx, limit, g.empty)
		if err == nil {
			break
		}
		if !errors.Is(err, errdefs.ErrUnavailable) {
			return g.wrap("kill", fmt.Errorf("%d processes are left: %w", len(pids), err))
		}
		limit = min(2*limit, killTryMax)
	}
	if dir, v2, err := g.freezer(); err == nil {
		return g.wrap("kill", thaw(dir, v2))
	}
	return nil
}

// empty asks v2 first, which needs one file for all sub-groups.
func (g *group) empty() (bool, error) {
	if n, ok := g.t.unified(); ok {
		if s, err := readFile(g.dir(n), "cgroup.events"); err == nil && flatKey(s, "populated") == 1 {
			return false, nil
		}
	}
	pids, err := g.pids()
	return len(pids) == 0, err
}

// killAtOnce uses v2's cgroup.kill, which no fork escapes.
func (g *group) killAtOnce() bool {
	n, ok := g.t.unified()
	return ok && writeFile(g.dir(n), "cgroup.kill", "1") == nil
}

// killEach signals every process while the group is frozen, so that none can
// fork or leave its number to another process meanwhile, and thaws. A group
// that does not freeze is killed all the same; the caller repeats.
func (g *group) killEach(ctx context.Context) {
	dir, v2, err := g.freezer()
	if err == nil {
		_ = freeze(ctx, freezeTry, dir, v2)
		defer func() { _ = thaw(dir, v2) }()
	}
	pids, _ := g.pids()
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// Processes implements Group.
func (g *group) Processes(ctx context.Context) ([]int, error) {
	if err := ctx.Err(); err != nil {
		return nil, g.wrap("read", err)
	}
	if !g.there() {
		return nil, g.wrap("read", errdefs.ErrNotFound)
	}
	pids, err := g.pids()
	return pids, g.wrap("read", err)
}

// pids lists the processes of the group in any hierarchy.
func (g *group) pids() ([]int, error) {
	seen := map[int]bool{}
	var out []int
	for _, n := range g.t.nodes {
		pids, err := processes(g.dir(n))
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			if !seen[pid] {
				seen[pid] = true
				out = append(out, pid)
			}
		}
	}
	return out, nil
}

// processes lists the processes of a group and its sub-groups; none when it is
// absent. Those of another pid namespace, shown as 0, are left out.
func processes(dir string) ([]int, error) {
	s, err := readFile(dir, "cgroup.procs")
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV):
		return nil, nil
	case errors.Is(err, unix.EOPNOTSUPP): // a threaded group: the parent lists it
		return nil, nil
	case err != nil:
		return nil, err
	}
	var out []int
	for line := range strings.FieldsSeq(s) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
			out = append(out, pid)
		}
	}
	subs, err := subgroups(dir)
	for _, sub := range subs {
		pids, err := processes(sub)
		if err != nil {
			return nil, err
		}
		out = append(out, pids...)
	}
	return out, err
}
