package cgroup

import (
	"fmt"
	"strings"
)

// writesV1 turns limits into writes for cgroup v1 (Linux
// Documentation/admin-guide/cgroup-v1 and scheduler/sched-bwc.rst). For a new
// group zero fields need nothing; otherwise they are reset. An empty CPUSet is
// reset by the caller, who knows the parent's.
//
// Swap is memsw (memory plus swap) less memory. Where the kernel does not count
// it, "no swap" becomes swappiness 0, which keeps anonymous pages in memory
// as long as there is file cache to drop.
func writesV1(l Limits, f features, now current) ([]write, error) {
	if l.SwapBytes > 0 && l.MemoryBytes == 0 && f.Controllers["memory"] {
		return nil, unsupported(LimitSwap, "cgroup v1 has it only together with a memory limit")
	}
	out := &list{f: f, now: now}
	out.memoryV1(l)
	out.cpuV1(l)
	if l.CPUSet != "" {
		out.put("cpuset", LimitCPUSet, "cpuset.cpus", l.CPUSet)
	}
	if l.MemoryNodes != "" {
		out.put("cpuset", LimitMemoryNodes, "cpuset.mems", l.MemoryNodes)
	}
	out.set("pids", LimitPids, "pids.max", l.Pids != 0, l.Pids, "max")
	out.blockV1(l.BlockIO)
	out.hugePages(l.HugePages, ".limit_in_bytes", "-1")
	out.networkV1(l)
	out.rdma(l.RDMA)
	if rules := l.rules(); rules != nil && f.Controllers["devices"] {
		set, err := evaluate(rules)
		if err != nil {
			return nil, err
		}
		for _, w := range set.writes(out.old("devices.list")) {
			out.put("devices", LimitDevices, w.File, w.Value)
		}
	}
	return out.writes, nil
}

// memoryV1 keeps memsw at or above limit at each moment, and raises or lowers
// both without a moment in which one is unlimited.
func (out *list) memoryV1(l Limits) {
	const limit, swappiness = "memory.limit_in_bytes", "memory.swappiness"
	memory := func() { out.set("memory", LimitMemory, limit, l.MemoryBytes != 0, l.MemoryBytes, -1) }
	memsw := int64(-1)
	if l.SwapBytes != 0 && l.MemoryBytes != 0 {
		memsw = l.MemoryBytes + max(l.SwapBytes, 0)
	}
	swap := func() {
		if out.f.Has(fileMemsw) {
			out.set("memory", LimitSwap, fileMemsw, memsw >= 0, memsw, -1)
		}
	}
	if old := number(out.old(fileMemsw)); old < 0 || memsw >= 0 && memsw < old {
		memory()
		swap()
	} else {
		swap()
		memory()
	}
	switch {
	case l.SwapBytes == -1 && (memsw < 0 || !out.f.Has(fileMemsw)):
		out.put("memory", LimitSwap, swappiness, 0)
	case l.Swappiness != nil:
		out.put("memory", LimitSwappiness, swappiness, *l.Swappiness)
	default:
		out.set("memory", LimitSwappiness, swappiness, false, 0, 60)
	}
	out.set("memory", LimitMemoryReservation, "memory.soft_limit_in_bytes", l.MemoryReservation != 0, l.MemoryReservation, -1)
	if l.DisableOOMKiller || flatKey(out.old("memory.oom_control"), "oom_kill_disable") != 0 {
		out.put("memory", LimitDisableOOMKiller, "memory.oom_control", digit(l.DisableOOMKiller))
	}
}

func digit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// cpuV1 takes a burst away before the quota that bounds it changes, and
// idleness before the shares, which an idle group refuses.
func (out *list) cpuV1(l Limits) {
	const period, quota, burst = "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.cfs_burst_us"
	out.set("cpu", LimitCPUBurst, burst, false, 0, 0)
	out.set("cpu", LimitCPUQuota, quota, false, 0, -1) // any period is possible then
	if l.CPUQuota != 0 {
		out.set("cpu", "cpu period", period, l.period() != defaultPeriod, l.period(), defaultPeriod)
		out.put("cpu", LimitCPUQuota, quota, l.CPUQuota)
	}
	if l.CPUBurst != 0 {
		out.put("cpu", LimitCPUBurst, burst, l.CPUBurst)
	}
	out.set("cpu", LimitCPUIdle, "cpu.idle", false, 0, 0)
	if !l.CPUIdle { // its shares are fixed
		out.set("cpu", LimitCPUShares, "cpu.shares", l.CPUShares != 0, l.CPUShares, defaultShares)
	} else {
		out.put("cpu", LimitCPUIdle, "cpu.idle", 1)
	}
	if l.RealtimePeriod != 0 {
		out.put("cpu", LimitCPURealtime, "cpu.rt_period_us", l.RealtimePeriod)
	}
	out.set("cpu", LimitCPURealtime, "cpu.rt_runtime_us", l.RealtimeRuntime != 0, l.RealtimeRuntime, 0)
}

func (out *list) blockV1(b *BlockIO) {
	if b == nil {
		b = &BlockIO{}
	}
	f := out.f
	if file := f.first("blkio.bfq.weight", "blkio.weight"); file != "" {
		reset := map[string]int{"blkio.bfq.weight": 100, "blkio.weight": 500}[file]
		out.set("blkio", LimitIOWeight, file, b.Weight != 0, b.Weight, reset)
	}
	out.set("blkio", LimitIOLeafWeight, "blkio.leaf_weight", b.LeafWeight != 0, b.LeafWeight, 500)
	weights, leaves := map[string]uint64{}, map[string]uint64{}
	for _, d := range b.WeightDevice {
		weights[deviceKey(d.Major, d.Minor)] = uint64(d.Weight)
		leaves[deviceKey(d.Major, d.Minor)] = uint64(d.LeafWeight)
	}
	out.perDevice(LimitIOWeightDevice, f.first("blkio.bfq.weight_device", "blkio.weight_device"), weights, "default")
	out.perDevice(LimitIOLeafDevice, f.first("blkio.leaf_weight_device"), leaves, "default")
	for _, t := range []struct {
		file string
		list []ThrottleDevice
	}{
		{"read_bps_device", b.ReadBPS}, {"write_bps_device", b.WriteBPS}, {"read_iops_device", b.ReadIOPS}, {"write_iops_device", b.WriteIOPS},
	} {
		rates := map[string]uint64{}
		for _, d := range t.list {
			rates[deviceKey(d.Major, d.Minor)] = d.Rate
		}
		out.perDevice(LimitIOThrottle, "blkio.throttle."+t.file, rates, "0")
	}
}

// perDevice writes "major:minor value" for each device, and the default for
// those that have a value now.
func (out *list) perDevice(limit Limit, file string, values map[string]uint64, reset string) {
	if file == "" {
		return
	}
	for _, key := range keys(out.old(file)) {
		if values[key] == 0 {
			out.put("blkio", limit, file, key+" "+reset)
		}
	}
	for _, key := range sorted(values) {
		if values[key] != 0 {
			out.put("blkio", limit, file, fmt.Sprintf("%s %d", key, values[key]))
		}
	}
}

func (out *list) networkV1(l Limits) {
	out.set("net_cls", LimitNetworkClass, "net_cls.classid", l.NetworkClass != 0, l.NetworkClass, 0)
	want := map[string]uint32{}
	for _, p := range l.NetworkPriorities {
		want[p.Interface] = p.Priority
	}
	const file = "net_prio.ifpriomap"
	for line := range strings.SplitSeq(out.old(file), "\n") {
		if name, value, ok := strings.Cut(line, " "); ok && value != "0" {
			if _, stays := want[name]; !stays {
				out.put("net_prio", LimitNetworkPriorities, file, name+" 0")
			}
		}
	}
	for _, name := range sorted(want) {
		out.put("net_prio", LimitNetworkPriorities, file, fmt.Sprintf("%s %d", name, want[name]))
	}
}
