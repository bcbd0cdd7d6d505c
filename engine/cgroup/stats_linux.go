package cgroup

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Stats implements Group. What no controller counts is 0.
func (g *group) Stats(ctx context.Context) (Stats, error) {
	if err := ctx.Err(); err != nil {
		return Stats{}, g.wrap("read", err)
	}
	if !g.there() {
		return Stats{}, g.wrap("read", errdefs.ErrNotFound)
	}
	r := &reader{g: g}
	var s Stats
	if g.t.v1.Controllers["cpuacct"] {
		s.CPUTime = time.Duration(r.number("cpuacct", "cpuacct.usage"))
	} else {
		s.CPUTime = time.Duration(r.key("", "cpu.stat", "usage_usec")) * time.Microsecond
	}
	if g.t.v1.Controllers["memory"] {
		s.MemoryBytes = r.number("memory", "memory.usage_in_bytes") - r.key("memory", "memory.stat", "total_inactive_file")
	} else if g.t.v2.Controllers["memory"] {
		s.MemoryBytes = r.number("", "memory.current") - r.key("", "memory.stat", "inactive_file")
	}
	s.MemoryBytes = max(s.MemoryBytes, 0)
	switch {
	case g.t.v1.Controllers["pids"]:
		s.Pids = r.number("pids", "pids.current")
	case g.t.v2.Controllers["pids"]:
		s.Pids = r.number("", "pids.current")
	}
	return s, g.wrap("read", r.err)
}

// OOMKills implements Group. On v1 a group counts only its own processes, so
// the sub-groups are added.
func (g *group) OOMKills(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, g.wrap("read", err)
	}
	if !g.there() {
		return 0, g.wrap("read", errdefs.ErrNotFound)
	}
	if n, ok := g.t.with("memory"); ok {
		kills, err := oomKillsV1(g.dir(n))
		return kills, g.wrap("read", err)
	}
	if !g.t.v2.Controllers["memory"] {
		return 0, g.wrap("read", unsupported("memory", "no memory controller"))
	}
	r := &reader{g: g}
	kills := r.key("", "memory.events", "oom_kill")
	return kills, g.wrap("read", r.err)
}

func oomKillsV1(dir string) (int64, error) {
	s, err := readFile(dir, "memory.oom_control")
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	sum := flatKey(s, "oom_kill")
	subs, err := subgroups(dir)
	for _, sub := range subs {
		n, err := oomKillsV1(sub)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, err
}

// reader reads numbers and keeps the first error.
type reader struct {
	g   *group
	err error
}

// text reads a file of the v1 hierarchy with the controller, or of v2 if "".
func (r *reader) text(controller, file string) string {
	n, ok := r.g.t.unified()
	if controller != "" {
		n, ok = r.g.t.with(controller)
	}
	if !ok {
		return ""
	}
	s, err := readFile(r.g.dir(n), file)
	if err != nil && r.err == nil {
		r.err = err
	}
	return s
}

func (r *reader) number(controller, file string) int64 {
	v, err := strconv.ParseInt(r.text(controller, file), 10, 64)
	if err != nil && r.err == nil {
		r.err = err
	}
	return v
}

func (r *reader) key(controller, file, key string) int64 {
	return flatKey(r.text(controller, file), key)
}
