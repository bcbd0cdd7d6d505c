package tracker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// cpuList is a set of processors as text, "0,3", so that usages compare.
type cpuList string

func listOf(cpus []int) cpuList {
	words := make([]string, len(cpus))
	for i, cpu := range cpus {
		words[i] = strconv.Itoa(cpu)
	}
	return cpuList(strings.Join(words, ","))
}

func (l cpuList) cpus() []int {
	var cpus []int
	for word := range strings.SplitSeq(string(l), ",") {
		if cpu, err := strconv.Atoi(word); err == nil {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// takenOf are all processors that are an instance's own.
func takenOf(used map[string]usage) cpuList {
	var cpus []int
	for _, u := range used {
		cpus = append(cpus, u.pins.cpus()...)
	}
	slices.Sort(cpus)
	return listOf(slices.Compact(cpus))
}

// pinsOf is what an instance has for itself. One on its way to here has what it
// had where it was until it arrives, and here what it will have.
func pinsOf(inst *objects.Object) cpuList {
	cpus := objects.InstanceNUMATopology{Object: inst.Object("numa_topology")}.Processors()
	if inst.String("task_state") == "resize_migrated" {
		cpus = slices.Concat(cpus, topologyOf(inst, "new").Processors())
	}
	return listOf(cpus)
}

// topologyOf is one side of the move that an instance is in.
func topologyOf(inst *objects.Object, side string) objects.InstanceNUMATopology {
	return objects.InstanceNUMATopology{Object: inst.Object("migration_context").Object(side + "_numa_topology")}
}

// wishFor is what an instance with the flavor needs of processors of its own: how
// many, 0 for none, and with which thread policy. errdefs.ErrUnsupported for
// what no instance gets here.
func wishFor(inst, flavor *objects.Object) (n int, thread string, err error) {
	policy, thread := compute.CPUPolicy(inst, flavor)
	if policy == "shared" {
		return 0, "", nil
	}
	specs := flavor.Strings("extra_specs")
	if policy != "dedicated" || specs["hw:emulator_threads_policy"] == "isolate" {
		err = fmt.Errorf("processors: policy %.32q: %w", policy, errdefs.ErrUnsupported)
		return 0, "", errdefs.WithPublic(err, "Container hosts give an instance all of its processors or none, and none for an emulator.")
	}
	return int(max(flavor.Int("vcpus"), 1)), thread, nil
}

// choose takes n processors of one cell that nobody has, whole cores first.
// false: there are none. Source: nova/virt/hardware.py, _pack_instance_onto_cores.
func choose(cells []driver.Cell, taken map[int]bool, n int, thread string) (cell driver.Cell, cpus []int, ok bool) {
	for _, cell := range cells {
		var cores [][]int
		threads := 0
		for _, core := range cell.Siblings {
			threads = max(threads, len(core))
			free := slices.DeleteFunc(slices.Clone(core), func(cpu int) bool { return taken[cpu] || !slices.Contains(cell.Dedicated, cpu) })
			if len(free) > 0 && (thread != "require" || len(free) > 1) {
				cores = append(cores, free)
			}
		}
		if thread == "isolate" && threads > 1 {
			continue
		}
		slices.SortStableFunc(cores, func(a, b []int) int { return len(b) - len(a) })
		if free := slices.Concat(cores...); len(free) >= n {
			cpus = free[:n]
			slices.Sort(cpus)
			return cell, cpus, true
		}
	}
	return driver.Cell{}, nil, false
}

// pin gives want processors of its own, if it shall have some. t.mu is held.
func (t *Tracker) pin(key string, inst, flavor *objects.Object, want *usage) (*objects.Object, error) {
	n, thread, err := wishFor(inst, flavor)
	if n == 0 || err != nil {
		return nil, err
	}
	taken := map[int]bool{}
	for other, u := range t.used {
		for _, cpu := range u.pins.cpus() {
			taken[cpu] = taken[cpu] || other != key
		}
	}
	cell, cpus, ok := choose(t.resources.Cells, taken, n, thread)
	if !ok {
		return nil, refuse("processors of its own", fmt.Errorf("claim: %d dedicated processors, thread policy %q: %w", n, thread, errdefs.ErrExhausted))
	}
	want.pins = listOf(cpus)
	return objects.NewPinned(inst.String("uuid"), cell.ID, want.memoryMB, cpus, thread).Wire(), nil
}

// numaTopology is the record's field of that name, nil for a host that sets no
// processors aside.
func numaTopology(cells []driver.Cell, used map[string]usage) any {
	if len(cells) == 0 {
		return nil
	}
	out := make([]objects.NUMACell, len(cells))
	for i, c := range cells {
		out[i] = objects.NUMACell{
			ID: c.ID, Socket: c.Socket, MemoryMB: c.MemoryMB, PageKB: max(c.PageKB, 1), Shared: c.Shared, Dedicated: c.Dedicated, Siblings: c.Siblings,
		}
		for _, u := range used {
			mine := slices.DeleteFunc(u.pins.cpus(), func(cpu int) bool { return !slices.Contains(c.Dedicated, cpu) })
			if len(mine) > 0 {
				out[i].Pinned = append(out[i].Pinned, mine...)
				out[i].UsedMB += u.memoryMB
			}
		}
		slices.Sort(out[i].Pinned)
		out[i].Pinned = slices.Compact(out[i].Pinned)
	}
	text, err := objects.NUMATopology(out)
	if err != nil {
		return nil // of strings and numbers: it does not fail
	}
	return text
}
