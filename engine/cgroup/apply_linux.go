package cgroup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Update implements Group.
func (g *group) Update(ctx context.Context, limits Limits) error {
	if err := limits.check(g.t.v1, g.t.v2); err != nil {
		return g.wrap("update", err)
	}
	if !g.there() {
		return g.wrap("update", errdefs.ErrNotFound)
	}
	if err := g.checkMemory(limits); err != nil {
		return g.wrap("update", err)
	}
	for _, n := range g.t.nodes {
		if n.optional && g.wanted(n, limits) && !g.has(n) {
			if err := g.extend(ctx, n); err != nil {
				return g.wrap("update", err)
			}
		}
	}
	return g.wrap("update", g.apply(ctx, limits, false))
}

// checkMemory is Limits.CheckBeforeUpdate.
func (g *group) checkMemory(limits Limits) error {
	if !limits.CheckBeforeUpdate || limits.MemoryBytes == 0 {
		return nil
	}
	n, ok := g.t.with("memory")
	file := "memory.usage_in_bytes"
	if !ok {
		n, _ = g.t.unified()
		file = "memory.current"
	}
	text, err := readFile(g.dir(n), file)
	if err != nil {
		return err
	}
	if used := number(text); used > limits.MemoryBytes {
		return fmt.Errorf("limit %s: %d bytes are in use: %w", LimitMemory, used, errdefs.ErrConflict)
	}
	return nil
}

// extend gives a running group its part of one more hierarchy, and moves the
// processes until none is outside.
func (g *group) extend(ctx context.Context, n node) error {
	if err := g.make(n); err != nil {
		return fmt.Errorf("make %s: %w", g.dir(n), classify(err))
	}
	err := poll(ctx, deleteLimit, func() (bool, error) {
		all, err := g.pids()
		if err != nil {
			return false, err
		}
		inside, err := processes(g.dir(n))
		done := true
		for _, pid := range all {
			if slices.Contains(inside, pid) {
				continue
			}
			done = false
			if err := writeFile(g.dir(n), "cgroup.procs", fmt.Sprint(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
				return false, err
			}
		}
		return done, err
	})
	if err != nil {
		return fmt.Errorf("move into %s: %w", g.dir(n), err)
	}
	return nil
}

// change is a value that was replaced.
type change struct {
	dir, file, old string
}

// apply writes the limits; the first failure ends it, and the values of a
// running group that were changed are put back.
func (g *group) apply(ctx context.Context, limits Limits, fresh bool) (err error) {
	var done []change
	var out writer
	defer func() {
		out.close()
		if err == nil || fresh {
			return
		}
		for _, c := range slices.Backward(done) {
			_ = writeFile(c.dir, c.file, c.old)
		}
	}()
	put := func(dir string, w write) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		old := ""
		if !fresh {
			old, _ = readFile(dir, w.File)
		}
		if err := out.write(dir, w.File, w.Value); err != nil {
			return fmt.Errorf("limit %s: %w", w.Limit, classify(err))
		}
		if old != "" && !strings.Contains(old, "\n") && !strings.HasPrefix(w.File, "devices.") {
			done = append(done, change{dir, w.File, old})
		}
		return nil
	}
	if limits.RealtimeRuntime != 0 {
		if err := g.grantRealtime(limits); err != nil {
			return fmt.Errorf("limit %s: %w", LimitCPURealtime, classify(err))
		}
	}
	if err := g.applyV1(limits, fresh, put); err != nil {
		return err
	}
	if !fresh {
		if err := g.resetCPUSet(limits, put); err != nil {
			return err
		}
	}
	return g.applyV2(limits, fresh, put)
}

type putter func(dir string, w write) error

func (g *group) applyV1(limits Limits, fresh bool, put putter) error {
	var now current
	if !fresh {
		now = func(file string) string {
			controller, _, _ := strings.Cut(file, ".")
			n, _ := g.t.with(controller)
			text, _ := readFile(g.dir(n), file)
			return text
		}
	}
	writes, err := writesV1(limits, g.t.v1, now)
	if err != nil {
		return err
	}
	for _, w := range writes {
		n, _ := g.t.with(w.Controller)
		if err := put(g.dir(n), w); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) applyV2(limits Limits, fresh bool, put putter) error {
	n, ok := g.t.unified()
	if !ok {
		return nil
	}
	var now current
	if !fresh {
		now = func(file string) string {
			text, _ := readFile(g.dir(n), file)
			return text
		}
	}
	for _, w := range writesV2(limits, g.t.v2, now) {
		if err := put(g.dir(n), w); err != nil {
			return err
		}
	}
	if rules := limits.rules(); rules != nil && g.t.v2.Controllers["devices"] {
		if err := attachDevices(g.dir(n), rules); err != nil {
			return fmt.Errorf("limit %s: %w", LimitDevices, err)
		}
	}
	return nil
}

// resetCPUSet gives a group that was limited all cpus and memory nodes of its
// parent. It writes them out: a cpuset with processes cannot be emptied (v2 of
// Linux 6.1: ENOSPC).
func (g *group) resetCPUSet(limits Limits, put putter) error {
	for _, c := range []struct {
		file, value string
		limit       Limit
	}{{"cpuset.cpus", limits.CPUSet, LimitCPUSet}, {"cpuset.mems", limits.MemoryNodes, LimitMemoryNodes}} {
		if c.value != "" {
			continue
		}
		n, ok := g.t.with("cpuset")
		file := c.file
		if !ok && g.t.v2.Controllers["cpuset"] {
			n, ok = g.t.unified()
			file += ".effective"
		}
		if !ok || !g.has(n) {
			continue
		}
		all, err := readFile(filepath.Dir(g.dir(n)), file)
		if err != nil {
			return err
		}
		if have, err := readFile(g.dir(n), c.file); err != nil || have == "" || have == all {
			continue
		}
		if err := put(g.dir(n), write{"cpuset", c.file, all, c.limit}); err != nil {
			return err
		}
	}
	return nil
}

// grantRealtime gives the tree and the parents below it the real-time runtime
// that the group needs on top of its siblings: a group cannot have more than
// its parent has for all.
func (g *group) grantRealtime(limits Limits) error {
	n, ok := g.t.with("cpu")
	if !ok {
		return nil
	}
	elements := strings.Split(g.path, "/")
	for i := 1; i < len(elements); i++ {
		dir := filepath.Join(n.Path, filepath.Join(elements[:i]...))
		need := perMillion(limits.RealtimeRuntime, limits.RealtimePeriod)
		children, err := subgroups(dir)
		if err != nil {
			return err
		}
		for _, child := range children {
			if filepath.Base(child) != elements[i] || i < len(elements)-1 {
				need += realtimeShare(child)
			}
		}
		if realtimeShare(dir) >= need {
			continue
		}
		period, err := readFile(dir, "cpu.rt_period_us")
		if err != nil {
			return err
		}
		runtime := (need*number(period) + 999_999) / 1_000_000
		if err := writeFile(dir, "cpu.rt_runtime_us", fmt.Sprint(runtime)); err != nil {
			return err
		}
	}
	return nil
}

func realtimeShare(dir string) int64 {
	runtime, _ := readFile(dir, "cpu.rt_runtime_us")
	period, _ := readFile(dir, "cpu.rt_period_us")
	return perMillion(max(number(runtime), 0), number(period))
}

// perMillion rounds up; a period of 0 is the kernel's second.
func perMillion(runtime, period int64) int64 {
	if period <= 0 {
		period = 1_000_000
	}
	return (runtime*1_000_000 + period - 1) / period
}

// classify gives errno its class. EBUSY is, among others, a memory limit below
// what is in use.
func classify(err error) error {
	class := error(nil)
	switch {
	case errors.Is(err, errdefs.ErrConflict):
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		class = errdefs.ErrUnsupported
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		class = errdefs.ErrInvalid
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		class = errdefs.ErrConflict
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM):
		class = errdefs.ErrExhausted
	}
	if class == nil {
		return err
	}
	return fmt.Errorf("%w: %w", err, class)
}
