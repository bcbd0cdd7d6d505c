package cgroup

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Kill implements Group. An absent group is empty. Who is in it is looked at
// afterwards, in every hierarchy; before, only where v2 does not kill at once or
// that was not enough.
func (g *group) Kill(ctx context.Context) error {
	limit := killTry
	for try := 0; ; try++ {
		if !g.killAtOnce() || try > 0 {
			pids, err := g.pids()
			if err != nil {
				return g.wrap("kill", err)
			}
			if len(pids) == 0 {
				break
			}
			g.killEach(ctx)
		}
		err := poll(ctx, limit, g.empty)
		if err == nil {
			break
		}
		if !errors.Is(err, errdefs.ErrUnavailable) {
			pids, unread := g.pids()
			if unread != nil {
				return g.wrap("kill", errors.Join(err, unread))
			}
			if len(pids) == 0 {
				break
			}
			slices.Sort(pids)
			return g.wrap("kill", &LeftError{pids, states(pids), err})
		}
		limit = min(2*limit, killTryMax)
	}
	if dir, v2, err := g.freezer(); err == nil {
		return g.wrap("kill", thawAll(dir, v2))
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
// that does not freeze is killed all the same; the caller repeats. Whatever
// froze processes before, here or in sub-groups and in either version, is
// undone: v1 lets frozen processes not end.
func (g *group) killEach(ctx context.Context) {
	dir, v2, err := g.freezer()
	if err == nil {
		_ = freeze(ctx, freezeTry, dir, v2)
		defer func() { _ = thawAll(dir, v2) }()
	}
	pids, _ := g.pids()
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	if n, ok := g.t.with("freezer"); ok && v2 {
		_ = thawAll(g.dir(n), false)
	}
}

// thawAll thaws a group and its sub-groups; absent ones are thawed.
func thawAll(dir string, v2 bool) error {
	if err := thaw(dir, v2); err != nil && !gone(err) {
		return err
	}
	subs, err := subgroups(dir)
	for _, sub := range subs {
		if err := thawAll(sub, v2); err != nil {
			return err
		}
	}
	return err
}

// gone tells whether a file was missing because its group was removed.
func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// Pids implements Watcher.
func (g *group) Pids(ctx context.Context) ([]int, error) {
	if err := ctx.Err(); err != nil {
		return nil, g.wrap("read", err)
	}
	if !g.there() {
		return nil, g.wrap("read", errdefs.ErrNotFound)
	}
	pids, err := g.pids()
	slices.Sort(pids)
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
	case err != nil && gone(err):
		return nil, nil
	case errors.Is(err, unix.EOPNOTSUPP): // a threaded group: the parent lists it
		return nil, nil
	case err != nil:
		return nil, err
	}
	out := parsePids(s)
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

// parsePids reads cgroup.procs: a number a line.
func parsePids(text string) []int {
	var out []int
	for line := range strings.FieldsSeq(text) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
			out = append(out, pid)
		}
	}
	return out
}

// states reads the third field of /proc/PID/stat (proc(5)) of each process.
func states(pids []int) string {
	var out []byte
	for _, pid := range pids {
		text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		state := byte('?')
		if i := bytes.LastIndexByte(text, ')'); i >= 0 && i+2 < len(text) {
			state = text[i+2]
		}
		out = append(out, state)
	}
	return string(out)
}
