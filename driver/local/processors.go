package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// mostProcessors bounds their numbers (NR_CPUS of any kernel).
const mostProcessors = 1 << 13

// ParseProcessors reads Nova's options cpu_dedicated_set and cpu_shared_set
// (nova/virt/hardware.py, parse_cpu_spec: "0-7,^3,9"), empty for unset. What cannot be
// read, names a processor that is not online, or one in both sets, is
// errdefs.ErrInvalid.
func ParseProcessors(dedicated, shared string) (own, floating []int, err error) {
	online, err := listed("/", "sys/devices/system/cpu/online")
	if err != nil {
		return nil, nil, err
	}
	for _, set := range []struct {
		text string
		to   *[]int
	}{{dedicated, &own}, {shared, &floating}} {
		if set.text == "" {
			continue
		}
		if *set.to, err = parseProcessors(set.text); err != nil {
			return nil, nil, err
		}
		for _, cpu := range *set.to {
			if !slices.Contains(online, cpu) {
				return nil, nil, fmt.Errorf("processor %d of %q is not online (%s are): %w", cpu, set.text, textOf(online), errdefs.ErrInvalid)
			}
		}
	}
	for _, cpu := range own {
		if slices.Contains(floating, cpu) {
			return nil, nil, fmt.Errorf("processor %d is in both sets: %w", cpu, errdefs.ErrInvalid)
		}
	}
	return own, floating, nil
}

// parseProcessors reads one list. An empty set is errdefs.ErrInvalid.
func parseProcessors(text string) ([]int, error) {
	in, out := map[int]bool{}, map[int]bool{}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		from, not := strings.CutPrefix(strings.TrimSpace(from), "^")
		if !isRange {
			to = from
		}
		a, errA := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
		b, errB := strconv.ParseUint(strings.TrimSpace(to), 10, 16)
		if errA != nil || errB != nil || a > b || b >= mostProcessors || not && isRange {
			return nil, fmt.Errorf("processors %.128q: %.32q is none and no range: %w", text, part, errdefs.ErrInvalid)
		}
		for cpu := int(a); cpu <= int(b); cpu++ {
			if not {
				out[cpu] = true
			} else {
				in[cpu] = true
			}
		}
	}
	var cpus []int
	for cpu := range in {
		if !out[cpu] {
			cpus = append(cpus, cpu)
		}
	}
	if len(cpus) == 0 {
		return nil, fmt.Errorf("processors %.128q: none: %w", text, errdefs.ErrInvalid)
	}
	slices.Sort(cpus)
	return cpus, nil
}

// textOf is a list for the kernel (cpuset(7)).
func textOf(cpus []int) string {
	words := make([]string, len(cpus))
	for i, cpu := range cpus {
		words[i] = strconv.Itoa(cpu)
	}
	return strings.Join(words, ",")
}

// processorsFor is the set of processors of an instance, "" for all.
func (d *Driver) processorsFor(f driver.Flavor) (string, error) {
	refuse := func(public, format string, args ...any) (string, error) {
		return "", errdefs.WithPublic(fmt.Errorf("flavor %s: %s: %w", f.Name, fmt.Sprintf(format, args...), errdefs.ErrInvalid), public)
	}
	switch {
	case len(f.Processors) > 0:
		if int64(len(f.Processors)) != max(f.VCPUs, 1) {
			return refuse("The flavor has another number of processors.", "%d processors for %d VCPUs", len(f.Processors), f.VCPUs)
		}
		for _, cpu := range f.Processors {
			if !slices.Contains(d.opts.Dedicated, cpu) {
				return refuse("The host does not give that processor away.", "processor %d is not in cpu_dedicated_set", cpu)
			}
		}
		return textOf(f.Processors), nil
	case f.ExtraSpecs["hw:cpu_policy"] == "dedicated":
		return refuse("The flavor has processors of its own, of which the host has none to give.", "no processors of its own")
	case len(d.opts.Dedicated) > 0 && len(d.opts.Shared) == 0:
		return refuse("The host has only processors for flavors with hw:cpu_policy=dedicated.", "no shared processors")
	}
	return textOf(d.opts.Shared), nil
}

// followShared keeps instances without processors of their own off those that
// are set aside since they started. One that cannot be kept off is for the log.
func (d *Driver) followShared(ctx context.Context, states []engine.State) {
	want := textOf(d.opts.Shared)
	for _, s := range states {
		log := d.opts.Log.With().Str(logging.Instance, string(s.ID)).Logger()
		g, err := guestOf(s)
		if err != nil {
			continue // told elsewhere
		}
		for _, cpu := range g.Processors {
			if !slices.Contains(d.opts.Dedicated, cpu) {
				log.Error().Int("processor", cpu).Msg("the instance has a processor of its own that [compute] cpu_dedicated_set lacks")
			}
		}
		switch {
		case len(g.Processors) > 0 || s.Limits.CPUSet == want:
			continue
		case len(d.opts.Dedicated) > 0 && want == "":
			log.Error().Msg("the instance has no processors of its own, and the host no shared ones: set [compute] cpu_shared_set")
			continue
		}
		if _, err := d.opts.Engine.Update(ctx, s.ID, engine.LimitsChange{CPUSet: &want}); err != nil {
			log.Error().Err(err).Msg("the instance is not kept to [compute] cpu_shared_set")
		}
	}
}

// cellsOf reads the memory nodes below root's /sys; nil without processors set
// aside. A host of one node may not have the files.
func cellsOf(root string, dedicated, shared []int) ([]driver.Cell, error) {
	if len(dedicated)+len(shared) == 0 {
		return nil, nil
	}
	nodes, err := listed(root, "sys/devices/system/node/online")
	if errors.Is(err, fs.ErrNotExist) {
		nodes, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	var cells []driver.Cell
	for _, id := range nodes {
		dir := fmt.Sprintf("sys/devices/system/node/node%d", id)
		cpus, err := listed(root, dir+"/cpulist")
		if err != nil {
			return nil, err
		}
		memory, err := nodeMemory(filepath.Join(root, dir, "meminfo"))
		if err != nil {
			return nil, err
		}
		if len(cpus) > 0 {
			cells = append(cells, cellOf(root, int64(id), memory, cpus, dedicated, shared))
		}
	}
	if len(cells) == 0 {
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err != nil {
			return nil, fmt.Errorf("read host memory: %w", err)
		}
		memory := int64(uint64(info.Totalram) * uint64(info.Unit) / mib)
		cells = append(cells, cellOf(root, 0, memory, slices.Sorted(slices.Values(slices.Concat(dedicated, shared))), dedicated, shared))
	}
	return cells, nil
}

func cellOf(root string, id, memory int64, cpus, dedicated, shared []int) driver.Cell {
	of := func(set []int) []int {
		return slices.DeleteFunc(slices.Clone(cpus), func(cpu int) bool { return !slices.Contains(set, cpu) })
	}
	c := driver.Cell{ID: id, Socket: -1, MemoryMB: memory, PageKB: int64(os.Getpagesize()) / 1024, Shared: of(shared), Dedicated: of(dedicated)}
	mine := of(slices.Concat(dedicated, shared))
	sockets := map[int64]bool{}
	for _, cpu := range cpus {
		dir := fmt.Sprintf("sys/devices/system/cpu/cpu%d/topology", cpu)
		if raw, err := os.ReadFile(filepath.Join(root, dir, "physical_package_id")); err == nil {
			n, _ := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
			sockets[n] = true
		}
		if !slices.Contains(mine, cpu) {
			continue
		}
		threads, err := listed(root, dir+"/thread_siblings_list")
		if err != nil {
			threads = []int{cpu} // no topology: each is a core
		}
		core := slices.DeleteFunc(threads, func(cpu int) bool { return !slices.Contains(mine, cpu) })
		if len(core) > 0 && core[0] == cpu {
			c.Siblings = append(c.Siblings, core)
		}
	}
	if len(sockets) == 1 {
		for n := range sockets {
			c.Socket = n
		}
	}
	return c
}

// listed reads a file of the kernel's that lists numbers; an empty one is none.
func listed(root, name string) ([]int, error) {
	raw, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return nil, fmt.Errorf("read processors: %w", err)
	}
	text := strings.TrimSpace(string(raw))
	if text == "" {
		return nil, nil
	}
	return parseProcessors(text)
}

// nodeMemory reads "Node 0 MemTotal: N kB", and returns MiB.
func nodeMemory(name string) (int64, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return 0, fmt.Errorf("read memory of node: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == "MemTotal:" {
			kb, err := strconv.ParseInt(f[3], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read memory of node: %q: %w", line, errdefs.ErrInvalid)
			}
			return kb / 1024, nil
		}
	}
	return 0, fmt.Errorf("read memory of node: no MemTotal in %s: %w", name, errdefs.ErrInvalid)
}
