package objects

// ComputeNode is a row of the compute_nodes table. Follows
// nova/objects/compute_node.py, ComputeNode 1.19. Sizes are in MiB and GiB.
type ComputeNode struct{ *Object }

// NewComputeNode returns a record to create.
func NewComputeNode(uuid, host, node string) ComputeNode {
	c := ComputeNode{New("ComputeNode")}
	c.Set("uuid", uuid)
	c.Set("host", host)
	c.Set("hypervisor_hostname", node)
	return c
}

// Wire returns the object.
func (c ComputeNode) Wire() *Object { return c.Object }

// UnmarshalJSON reads a ComputeNode primitive.
func (c *ComputeNode) UnmarshalJSON(raw []byte) error { return read(raw, "ComputeNode", &c.Object) }

// ID is the row id.
func (c ComputeNode) ID() int64 { return c.Int("id") }

// UUID is also the resource provider's.
func (c ComputeNode) UUID() string { return c.String("uuid") }

// Host is the compute service's host.
func (c ComputeNode) Host() string { return c.String("host") }

// Node is the hypervisor host name.
func (c ComputeNode) Node() string { return c.String("hypervisor_hostname") }

// Stats is a copy of the counters, values as text.
func (c ComputeNode) Stats() map[string]string { return c.Strings("stats") }

// SetStats replaces the counters.
func (c ComputeNode) SetStats(stats map[string]string) { c.Set("stats", stats) }

// Ratios are the allocation ratios of CPU, memory and disk, 0 when not set.
func (c ComputeNode) Ratios() (cpu, ram, disk float64) {
	return c.Float("cpu_allocation_ratio"), c.Float("ram_allocation_ratio"), c.Float("disk_allocation_ratio")
}

// SetRatios sets the allocation ratios.
func (c ComputeNode) SetRatios(cpu, ram, disk float64) {
	c.Set("cpu_allocation_ratio", cpu)
	c.Set("ram_allocation_ratio", ram)
	c.Set("disk_allocation_ratio", disk)
}

// SetHypervisor sets type, version and cpu_info. cpuInfo is a JSON document or
// "": the API parses it, so it is never null and never other text.
func (c ComputeNode) SetHypervisor(kind string, version int64, cpuInfo string) {
	c.Set("hypervisor_type", kind)
	c.Set("hypervisor_version", version)
	c.Set("cpu_info", cpuInfo)
}

// SetTotals sets the physical totals.
func (c ComputeNode) SetTotals(vcpus, memoryMB, localGB int64) {
	c.Set("vcpus", vcpus)
	c.Set("memory_mb", memoryMB)
	c.Set("local_gb", localGB)
}

// Usage is what instances and reservations take of a node.
type Usage struct {
	VCPUs, MemoryMB, LocalGB int64
	// RunningVMs counts the instances, Workload those with a task under way.
	RunningVMs, Workload int64
}

// SetUsage sets the used amounts and, from the totals that are set, the free
// ones. The scheduler ignores a row whose free_disk_gb is null.
func (c ComputeNode) SetUsage(u Usage) {
	c.Set("vcpus_used", u.VCPUs)
	c.Set("memory_mb_used", u.MemoryMB)
	c.Set("local_gb_used", u.LocalGB)
	c.Set("free_ram_mb", c.Int("memory_mb")-u.MemoryMB)
	c.Set("free_disk_gb", c.Int("local_gb")-u.LocalGB)
	c.Set("running_vms", u.RunningVMs)
	c.Set("current_workload", u.Workload)
}

// HVSpec is one kind of guest. Follows nova/objects/hv_spec.py, HVSpec 1.2.
type HVSpec struct{ *Object }

// NewHVSpec returns the triple; its words are Nova's enumerations, for example
// x86_64, docker, exe.
func NewHVSpec(arch, hvType, vmMode string) HVSpec {
	h := HVSpec{New("HVSpec")}
	h.Set("arch", arch)
	h.Set("hv_type", hvType)
	h.Set("vm_mode", vmMode)
	return h
}

// Wire returns the object.
func (h HVSpec) Wire() *Object { return h.Object }

// UnmarshalJSON reads an HVSpec primitive.
func (h *HVSpec) UnmarshalJSON(raw []byte) error { return read(raw, "HVSpec", &h.Object) }

// SetSupported sets supported_hv_specs.
func (c ComputeNode) SetSupported(specs ...HVSpec) {
	list := make([]*Object, len(specs))
	for i, s := range specs {
		list[i] = s.Object
	}
	c.Set("supported_hv_specs", list)
}

// ComputeNodeList is a list of nodes. Follows nova/objects/compute_node.py,
// ComputeNodeList 1.17.
type ComputeNodeList struct{ *Object }

// Wire returns the object.
func (l ComputeNodeList) Wire() *Object { return l.Object }

// UnmarshalJSON reads a ComputeNodeList primitive.
func (l *ComputeNodeList) UnmarshalJSON(raw []byte) error {
	return read(raw, "ComputeNodeList", &l.Object)
}

// All returns the nodes in order.
func (l ComputeNodeList) All() []ComputeNode {
	return views(l.Objects("objects"), func(o *Object) ComputeNode { return ComputeNode{o} })
}
