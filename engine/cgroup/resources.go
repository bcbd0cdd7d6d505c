package cgroup

// Limits of a group. A zero field sets no limit. The words are those of OCI
// linux.resources (config-linux.md, Control groups); what OCI calls -1 or
// absent is 0 here, because Update states the whole set and not a change.
//
// The fields belong together by controller, in the order memory, cpu, pids,
// blockIO, hugetlb, network, rdma, devices. OCI's kernel memory limits are
// not here: config-linux.md deprecates them and Linux 5.4 and later ignore them.
type Limits struct {
	MemoryBytes int64
	// SwapBytes is swap on top of memory. -1 forbids swap. (OCI's memory.swap
	// is memory and swap together.)
	SwapBytes int64
	// MemoryReservation in bytes is what is spared when the host runs short:
	// v1 memory.soft_limit_in_bytes, v2 memory.low.
	MemoryReservation int64 `json:",omitempty"`
	// MemoryHigh in bytes is where the group is slowed down and reclaimed from
	// before the hard limit kills: v2 memory.high; v1 lacks it. See HighOf.
	MemoryHigh int64 `json:",omitempty"`
	// Swappiness is 0 to 100 on v1; v2 lacks it. nil leaves the parent's.
	Swappiness *int64 `json:",omitempty"`
	// DisableOOMKiller lets processes wait instead of being killed: v1 only.
	DisableOOMKiller bool `json:",omitempty"`
	// CheckBeforeUpdate refuses (errdefs.ErrConflict) a memory limit below what
	// is in use, where v2 would kill. v1 refuses always.
	CheckBeforeUpdate bool `json:",omitempty"`
	// OOMGroup kills all processes of the group when one has to die: v2 only.
	// On v1 a caller of Events can do the same with Kill.
	OOMGroup bool `json:",omitempty"`

	// CPUQuota and CPUPeriod in microseconds: quota of cpu time per period.
	// CPUBurst is unused quota that may be saved up, at most CPUQuota.
	CPUQuota, CPUPeriod int64
	CPUBurst            int64 `json:",omitempty"`
	// CPUShares in v1 terms, 2 to 262144; 1024 is the weight of one vCPU.
	CPUShares int64
	// CPUIdle schedules the group like SCHED_IDLE; CPUShares count for nothing.
	CPUIdle bool `json:",omitempty"`
	// RealtimeRuntime of RealtimePeriod, in microseconds, are for processes
	// with a real-time policy: v1 only.
	RealtimeRuntime, RealtimePeriod int64 `json:",omitempty"`
	// CPUSet and MemoryNodes are lists like "0-3,7".
	CPUSet      string
	MemoryNodes string `json:",omitempty"`

	// Pids counts processes and threads.
	Pids int64

	BlockIO *BlockIO `json:",omitempty"`
	// HugePages have at most one entry for each page size.
	HugePages []HugePageLimit `json:",omitempty"`
	// NetworkClass is the classid (0xAAAABBBB, net_cls) of packets,
	// NetworkPriorities their priority by interface (net_prio): v1 only.
	NetworkClass      uint32              `json:",omitempty"`
	NetworkPriorities []InterfacePriority `json:",omitempty"`
	RDMA              []RDMALimit         `json:",omitempty"`
	// Unified are files of the v2 group and what to write to them, after all
	// the rest. Update leaves files alone that it does not list.
	Unified map[string]string `json:",omitempty"`

	// Devices is an allow list; nil leaves devices alone, an empty list
	// forbids all.
	Devices []Device
	// DeviceRules is OCI's list of rules in its order instead: the last rule
	// that matches decides, and what none matches is forbidden. nil leaves
	// devices alone. Only one of Devices and DeviceRules may be set.
	DeviceRules []DeviceRule `json:",omitempty"`
}

// HighOf is the usual MemoryHigh for a hard limit: 95 %, in whole pages.
func HighOf(memoryBytes int64) int64 { return memoryBytes / 100 * 95 &^ 4095 }

// BlockIO limits block devices. Weights are 10 to 1000; 0 is none.
type BlockIO struct {
	// Weight is v1 blkio.weight or blkio.bfq.weight, v2 io.bfq.weight or
	// io.weight. LeafWeight is v1's for the group's own processes against its
	// sub-groups'; kernels from 5.0 on lack it.
	Weight, LeafWeight uint16
	WeightDevice       []WeightDevice
	// Read and write rates in bytes and operations per second.
	ReadBPS, WriteBPS, ReadIOPS, WriteIOPS []ThrottleDevice
}

// None says that nothing is limited; nil limits nothing.
func (b *BlockIO) None() bool {
	return b == nil || b.Weight == 0 && b.LeafWeight == 0 &&
		len(b.WeightDevice)+len(b.ReadBPS)+len(b.WriteBPS)+len(b.ReadIOPS)+len(b.WriteIOPS) == 0
}

// WeightDevice is a weight for one device.
type WeightDevice struct {
	Major, Minor       int64
	Weight, LeafWeight uint16
}

// ThrottleDevice is a rate for one device.
type ThrottleDevice struct {
	Major, Minor int64
	Rate         uint64
}

// HugePageLimit limits huge pages of one size, named as the kernel does
// ("2MB", "1GB").
type HugePageLimit struct {
	PageSize string
	Bytes    uint64
}

// InterfacePriority is the priority of packets that leave by an interface.
type InterfacePriority struct {
	Interface string
	Priority  uint32
}

// RDMALimit limits one RDMA device. A nil field sets no limit.
type RDMALimit struct {
	Device           string
	Handles, Objects *uint32
}

// Device is one allowed device.
type Device struct {
	// Type is 'c' or 'b'. Major and Minor -1 mean any.
	Type         byte
	Major, Minor int64
	// Access is a subset of "rwm".
	Access string
}

// DeviceRule allows or forbids devices.
type DeviceRule struct {
	Allow bool
	// Type is 'c', 'b', or 'a' for both. Major and Minor -1 mean any.
	Type         byte
	Major, Minor int64
	// Access is a subset of "rwm".
	Access string
}
