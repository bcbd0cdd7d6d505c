package cgroup

import "time"

// Stats of a group, its sub-groups included. What nobody counts is 0 or nil.
// CPU comes first, then memory, pids, block devices, huge pages and pressure.
type Stats struct {
	CPUTime time.Duration
	// CPUUser and CPUSystem are parts of CPUTime, in the kernel's coarser steps
	// on v1.
	CPUUser, CPUSystem time.Duration
	// CPUPeriods were enforced so far, CPUThrottledPeriods of them hit the
	// quota, and processes waited CPUThrottled in sum.
	CPUPeriods, CPUThrottledPeriods int64
	CPUThrottled                    time.Duration

	// MemoryBytes is charged memory without file cache that was not used
	// lately and can be dropped at once.
	MemoryBytes int64
	Memory      MemoryStats

	// Pids counts processes and threads, ended ones that nobody has waited for
	// included. PidsLimit is -1 for none.
	Pids, PidsLimit int64

	// IO has the block devices that were used, by number. On v1 it needs a
	// BlockIO limit (there is no blkio group otherwise), and writes that the
	// kernel did later from its cache are not the group's.
	IO []DeviceIO
	// HugePages by page size, where the kernel counts them for the group.
	HugePages []HugePageStats
	// Pressure is nil where there is no v2 or it does not count.
	Pressure *Pressure
}

// MemoryStats are in bytes.
type MemoryStats struct {
	// Usage is all charged memory, Peak the most there ever was (0: unknown).
	Usage, Peak int64
	// Limit and SwapLimit are -1 for none; SwapLimit is on top of Limit.
	Limit, SwapLimit int64
	// Swap, Anon (of processes, not of files), File (cache) and Kernel are in
	// use.
	Swap, Anon, File, Kernel int64
	// Failures counts how often the limit was hit, OOMKills the processes that
	// were killed for it.
	Failures, OOMKills int64
}

// DeviceIO is what was read from and written to one device.
type DeviceIO struct {
	Major, Minor          int64
	ReadBytes, WriteBytes int64
	ReadOps, WriteOps     int64
}

// HugePageStats of one page size ("2MB"), in bytes. Limit is -1 for none.
type HugePageStats struct {
	PageSize     string
	Usage, Limit int64
	// Failures counts allocations that the limit refused.
	Failures int64
}

// Pressure is the time that processes lost by waiting (PSI,
// Documentation/accounting/psi.rst).
type Pressure struct {
	CPU, Memory, IO PressureKind
}

// PressureKind of one resource: Some is time in which at least one process
// waited, Full in which all did.
type PressureKind struct {
	Some, Full PressureTime
}

// PressureTime: shares of the last 10, 60 and 300 seconds in per cent, and the
// sum.
type PressureTime struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration
}

// Event is the state of a group's memory after a change.
type Event struct {
	// OOMKills counts the processes that were killed for memory so far.
	OOMKills int64
	// Waiting is true while processes wait for memory because
	// Limits.DisableOOMKiller spares them (v1).
	Waiting bool
}
