package cgroup

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// writesV2 turns limits into writes for cgroup v2 (Linux
// Documentation/admin-guide/cgroup-v2.rst). For a new group zero fields need
// nothing; otherwise they are reset. An empty CPUSet is reset by the caller.
// Devices are not files on v2: see deviceProgram.
func writesV2(l Limits, f features, now current) []write {
	out := &list{f: f, now: now}
	out.memoryV2(l)
	out.cpuV2(l)
	if l.CPUSet != "" {
		out.put("cpuset", LimitCPUSet, "cpuset.cpus", l.CPUSet)
	}
	if l.MemoryNodes != "" {
		out.put("cpuset", LimitMemoryNodes, "cpuset.mems", l.MemoryNodes)
	}
	out.set("pids", LimitPids, "pids.max", l.Pids != 0, l.Pids, "max")
	out.blockV2(l.BlockIO)
	out.hugePages(l.HugePages, ".max", "max")
	out.rdma(l.RDMA)
	for _, file := range sorted(l.Unified) {
		out.writes = append(out.writes, write{"", file, l.Unified[file], LimitUnified})
	}
	return out.writes
}

func (out *list) memoryV2(l Limits) {
	out.set("memory", LimitMemoryHigh, "memory.high", l.MemoryHigh != 0, l.MemoryHigh, "max")
	out.set("memory", LimitMemory, "memory.max", l.MemoryBytes != 0, l.MemoryBytes, "max")
	if out.f.Has("memory.swap.max") {
		out.set("memory", LimitSwap, "memory.swap.max", l.SwapBytes != 0, max(l.SwapBytes, 0), "max")
	}
	out.set("memory", LimitMemoryReservation, "memory.low", l.MemoryReservation != 0, l.MemoryReservation, 0)
	out.set("memory", LimitOOMGroup, "memory.oom.group", l.OOMGroup, 1, 0)
}

// cpuV2 has the order of cpuV1, for the same reasons.
func (out *list) cpuV2(l Limits) {
	out.set("cpu", LimitCPUBurst, "cpu.max.burst", false, 0, 0)
	if out.f.Has("cpu.max") {
		out.set("cpu", LimitCPUQuota, "cpu.max", l.CPUQuota != 0, fmt.Sprintf("%d %d", l.CPUQuota, l.period()), "max")
	}
	if l.CPUBurst != 0 {
		out.put("cpu", LimitCPUBurst, "cpu.max.burst", l.CPUBurst)
	}
	out.set("cpu", LimitCPUIdle, "cpu.idle", false, 0, 0)
	if l.CPUIdle {
		out.put("cpu", LimitCPUIdle, "cpu.idle", 1)
	} else {
		out.set("cpu", LimitCPUShares, "cpu.weight", l.CPUShares != 0, weight(l.CPUShares), "100")
	}
}

func (out *list) blockV2(b *BlockIO) {
	if b == nil {
		b = &BlockIO{}
	}
	file := out.f.first("io.bfq.weight", "io.weight")
	if file != "" {
		old := out.old(file)
		line, _, _ := strings.Cut(old, "\n") // "default 100"; bfq's has "100" alone in some kernels
		if b.Weight != 0 {
			out.put("io", LimitIOWeight, file, ioWeight(file, b.Weight))
		} else if v := strings.TrimPrefix(line, "default "); line != "" && v != "100" && !strings.Contains(line, ":") {
			out.put("io", LimitIOWeight, file, "100")
		}
		want := map[string]uint16{}
		for _, d := range b.WeightDevice {
			want[deviceKey(d.Major, d.Minor)] = d.Weight
		}
		for _, key := range keys(old) {
			if want[key] == 0 {
				out.put("io", LimitIOWeightDevice, file, key+" default")
			}
		}
		for _, key := range sorted(want) {
			if want[key] != 0 {
				out.put("io", LimitIOWeightDevice, file, key+" "+ioWeight(file, want[key]))
			}
		}
	}
	out.throttleV2(b)
}

// throttleV2 writes all four rates of a device at once.
func (out *list) throttleV2(b *BlockIO) {
	const file = "io.max"
	want := map[string][4]uint64{}
	for n, rates := range [][]ThrottleDevice{b.ReadBPS, b.WriteBPS, b.ReadIOPS, b.WriteIOPS} {
		for _, d := range rates {
			four := want[deviceKey(d.Major, d.Minor)]
			four[n] = d.Rate
			want[deviceKey(d.Major, d.Minor)] = four
		}
	}
	for _, key := range keys(out.old(file)) {
		if _, ok := want[key]; !ok {
			want[key] = [4]uint64{}
		}
	}
	for _, key := range sorted(want) {
		line := key
		for n, name := range []string{"rbps", "wbps", "riops", "wiops"} {
			value := "max"
			if rate := want[key][n]; rate != 0 {
				value = fmt.Sprint(rate)
			}
			line += " " + name + "=" + value
		}
		out.put("io", LimitIOThrottle, file, line)
	}
}

// hugePages are the same on both versions but for names. Pages that were only
// reserved count as well where the kernel can do so (Linux 5.7).
func (out *list) hugePages(limits []HugePageLimit, suffix, none string) {
	if len(limits) == 0 && out.now == nil {
		return
	}
	want := map[string]string{}
	for _, h := range limits {
		want[h.PageSize] = fmt.Sprint(h.Bytes)
	}
	for _, size := range out.f.pages() {
		value, ok := want[size]
		out.set("hugetlb", LimitHugePages, "hugetlb."+size+suffix, ok, value, none)
		if rsvd := "hugetlb." + size + ".rsvd" + suffix; out.f.Has(rsvd) {
			out.set("hugetlb", LimitHugePages, rsvd, ok, value, none)
		}
	}
}

// rdma is the same on both versions.
func (out *list) rdma(limits []RDMALimit) {
	const file = "rdma.max"
	value := func(n *uint32) string {
		if n == nil {
			return "max"
		}
		return fmt.Sprint(*n)
	}
	want := map[string]string{}
	for line := range strings.SplitSeq(out.old(file), "\n") {
		if device, rest, ok := strings.Cut(line, " "); ok && rest != "hca_handle=max hca_object=max" {
			want[device] = "hca_handle=max hca_object=max"
		}
	}
	for _, r := range limits {
		want[r.Device] = "hca_handle=" + value(r.Handles) + " hca_object=" + value(r.Objects)
	}
	for _, device := range sorted(want) {
		out.put("rdma", LimitRDMA, file, device+" "+want[device])
	}
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// weight converts cpu shares (2 to 262144) to a cpu weight (1 to 10000), as
// the OCI runtime specification prescribes. Note that 1024 shares become 39,
// not the default of 100.
func weight(shares int64) int64 {
	return 1 + (shares-minShares)*9999/(maxShares-minShares)
}

// ioWeight converts a blkio weight (10 to 1000): BFQ has the same scale,
// io.weight goes from 1 to 10000, linearly as runc and crun convert it.
func ioWeight(file string, w uint16) string {
	if file == "io.bfq.weight" {
		return fmt.Sprint(w)
	}
	return fmt.Sprint(1 + (int64(w)-minWeight)*9999/(maxWeight-minWeight))
}
