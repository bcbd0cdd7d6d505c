package cgroup

import "fmt"

// writesV2 turns limits into writes for cgroup v2 (Linux
// Documentation/admin-guide/cgroup-v2.rst). With fresh, the group is new and
// zero fields need nothing; otherwise they are reset. An empty CPUSet is reset
// by the caller. Devices are not files on v2: see deviceProgram.
func writesV2(l Limits, f features, fresh bool) []write {
	var out []write
	add := func(controller, limit, file string, set bool, value, reset string) {
		switch {
		case !f.Controllers[controller]:
		case set:
			out = append(out, write{controller, file, value, limit})
		case !fresh:
			out = append(out, write{controller, file, reset, limit})
		}
	}
	add("memory", "memory", "memory.max", l.MemoryBytes != 0, fmt.Sprint(l.MemoryBytes), "max")
	if f.Swap {
		add("memory", "swap", "memory.swap.max", l.SwapBytes != 0, fmt.Sprint(max(l.SwapBytes, 0)), "max")
	}
	if f.Quota {
		add("cpu", "cpu quota", "cpu.max", l.CPUQuota != 0, fmt.Sprintf("%d %d", l.CPUQuota, l.period()), "max")
	}
	add("cpu", "cpu shares", "cpu.weight", l.CPUShares != 0, fmt.Sprint(weight(l.CPUShares)), "100")
	add("pids", "pids", "pids.max", l.Pids != 0, fmt.Sprint(l.Pids), "max")
	if l.CPUSet != "" {
		add("cpuset", "cpuset", "cpuset.cpus", true, l.CPUSet, "")
	}
	return out
}

// weight converts cpu shares (2 to 262144) to a cpu weight (1 to 10000), as
// the OCI runtime specification prescribes. Note that 1024 shares become 39,
// not the default of 100.
func weight(shares int64) int64 {
	return 1 + (shares-minShares)*9999/(maxShares-minShares)
}
