package objects

import (
	"encoding/json"
	"slices"
	"strconv"
)

// InstanceNUMATopology says which processors an instance has for itself.
// Follows nova/objects/instance_numa.py, InstanceNUMATopology 1.3.
type InstanceNUMATopology struct{ *Object }

// NewPinned returns the topology of an instance with one cell, all of whose
// processors are its own: the first of cpus is its processor 0. cell is the
// host's, thread the thread policy, "" for none.
func NewPinned(instance string, cell, memoryMB int64, cpus []int, thread string) InstanceNUMATopology {
	own := make([]any, len(cpus))
	pins := make(map[string]any, len(cpus))
	for i, cpu := range cpus {
		own[i] = i
		pins[strconv.Itoa(i)] = cpu
	}
	c := New("InstanceNUMACell")
	for field, value := range map[string]any{
		"id": cell, "cpuset": []any{}, "pcpuset": own, "cpuset_reserved": nil, "memory": memoryMB, "pagesize": nil,
		"cpu_pinning_raw": pins, "cpu_policy": "dedicated", "cpu_thread_policy": orNull(thread),
	} {
		c.Set(field, value)
	}
	t := InstanceNUMATopology{New("InstanceNUMATopology")}
	t.Set("instance_uuid", instance)
	t.Set("cells", []*Object{c})
	t.Set("emulator_threads_policy", nil)
	return t
}

// Wire returns the object.
func (t InstanceNUMATopology) Wire() *Object { return t.Object }

// Processors are the host's processors that the instance alone has, ascending;
// none of an absent view.
func (t InstanceNUMATopology) Processors() []int {
	var cpus []int
	for _, cell := range t.Objects("cells") {
		cpus = append(cpus, InstanceNUMACell{cell}.Processors()...)
	}
	slices.Sort(cpus)
	return cpus
}

// InstanceNUMACell is one node of an instance. Follows
// nova/objects/instance_numa.py, InstanceNUMACell 1.6.
type InstanceNUMACell struct{ *Object }

// Wire returns the object.
func (c InstanceNUMACell) Wire() *Object { return c.Object }

// Processors are the host's processors that it alone has, in no order.
func (c InstanceNUMACell) Processors() []int {
	var cpus []int
	pins, _ := c.Get("cpu_pinning_raw").(map[string]any)
	for _, v := range pins {
		n, _ := v.(json.Number)
		if cpu, err := strconv.Atoi(n.String()); err == nil {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// NUMACell is one memory node of a host and what is used of it. Memory in MiB;
// Socket is negative where it is of several. See nova/objects/numa.py, NUMACell 1.5.
type NUMACell struct {
	ID, Socket, MemoryMB, PageKB int64
	// Shared and Dedicated are cpuset and pcpuset, Pinned those of Dedicated
	// that are given away.
	Shared, Dedicated, Pinned []int
	Siblings                  [][]int
	// UsedMB is the memory of the instances with a topology.
	UsedMB int64
}

// NUMATopology returns the text of ComputeNode.numa_topology, which Nova keeps as
// the JSON of its object (NUMATopology 1.2). Equal cells give equal texts.
func NUMATopology(cells []NUMACell) (string, error) {
	all := make([]*Object, len(cells))
	for i, c := range cells {
		pages := New("NUMAPagesTopology")
		for field, value := range map[string]int64{
			"size_kb": c.PageKB, "total": c.MemoryMB * 1024 / c.PageKB, "used": c.UsedMB * 1024 / c.PageKB, "reserved": 0,
		} {
			pages.SetClean(field, value)
		}
		network := New("NetworkMetadata")
		network.SetClean("physnets", []any{})
		network.SetClean("tunneled", false)
		siblings := make([]any, len(c.Siblings))
		for i, core := range c.Siblings {
			siblings[i] = numbers(core)
		}
		var socket any
		if c.Socket >= 0 {
			socket = c.Socket
		}
		all[i] = New("NUMACell")
		for field, value := range map[string]any{
			"id": c.ID, "cpuset": numbers(c.Shared), "pcpuset": numbers(c.Dedicated), "pinned_cpus": numbers(c.Pinned),
			"memory": c.MemoryMB, "memory_usage": c.UsedMB, "cpu_usage": 0, "siblings": siblings,
			"mempages": []*Object{pages}, "network_metadata": network, "socket": socket,
		} {
			all[i].SetClean(field, value)
		}
	}
	t := New("NUMATopology")
	t.SetClean("cells", all)
	raw, err := json.Marshal(t)
	return string(raw), err
}

func numbers(in []int) []any {
	out := make([]any, len(in))
	for i, n := range in {
		out[i] = n
	}
	return out
}
