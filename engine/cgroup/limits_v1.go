package cgroup

import "fmt"

// writesV1 turns limits into writes for cgroup v1 (Linux
// Documentation/admin-guide/cgroup-v1 and scheduler/sched-bwc.rst). With fresh,
// the group is new and zero fields need nothing; otherwise they are reset. An
// empty CPUSet is reset by the caller, who knows the parent's.
//
// Swap is memsw (memory plus swap) less memory. Where the kernel does not count
// it, "no swap" becomes swappiness 0, which keeps anonymous pages in memory
// as long as there is file cache to drop.
func writesV1(l Limits, f features, fresh bool) ([]write, error) {
	if l.SwapBytes > 0 && l.MemoryBytes == 0 {
		return nil, unsupported("swap", "cgroup v1 has it only together with a memory limit")
	}
	var out []write
	add := func(controller, limit, file string, value any) {
		if f.Controllers[controller] {
			out = append(out, write{controller, file, fmt.Sprint(value), limit})
		}
	}
	memoryV1(l, f, fresh, add)
	if !fresh && f.Quota {
		add("cpu", "cpu quota", "cpu.cfs_quota_us", -1) // any period is possible then
	}
	if l.CPUQuota != 0 {
		if !fresh || l.period() != defaultPeriod {
			add("cpu", "cpu period", "cpu.cfs_period_us", l.period())
		}
		add("cpu", "cpu quota", "cpu.cfs_quota_us", l.CPUQuota)
	}
	switch {
	case l.CPUShares != 0:
		add("cpu", "cpu shares", "cpu.shares", l.CPUShares)
	case !fresh:
		add("cpu", "cpu shares", "cpu.shares", defaultShares)
	}
	switch {
	case l.Pids != 0:
		add("pids", "pids", "pids.max", l.Pids)
	case !fresh:
		add("pids", "pids", "pids.max", "max")
	}
	if l.CPUSet != "" {
		add("cpuset", "cpuset", "cpuset.cpus", l.CPUSet)
	}
	if l.Devices != nil {
		add("devices", "devices", "devices.deny", "a")
		for _, d := range l.Devices {
			add("devices", "devices", "devices.allow", d.line())
		}
	}
	return out, nil
}

// memoryV1 keeps memsw at or above limit at each moment.
func memoryV1(l Limits, f features, fresh bool, add func(controller, limit, file string, value any)) {
	const limit, memsw, swappiness = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness"
	if !fresh && f.Swap {
		add("memory", "swap", memsw, -1)
	}
	switch {
	case l.MemoryBytes != 0:
		add("memory", "memory", limit, l.MemoryBytes)
	case !fresh:
		add("memory", "memory", limit, -1)
	}
	switch {
	case l.SwapBytes == -1 && f.Swap && l.MemoryBytes != 0:
		add("memory", "swap", memsw, l.MemoryBytes)
	case l.SwapBytes == -1:
		add("memory", "swap", swappiness, 0)
	case l.SwapBytes > 0:
		add("memory", "swap", memsw, l.MemoryBytes+l.SwapBytes)
	}
	if !fresh && (l.SwapBytes != -1 || f.Swap && l.MemoryBytes != 0) {
		add("memory", "swap", swappiness, 60)
	}
}
