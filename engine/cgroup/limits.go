package cgroup

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Limit names one limit, in errors ("limit cpu quota: ...") and for
// Tree.Supports.
type Limit string

// The limits.
const (
	LimitMemory            Limit = "memory"
	LimitSwap              Limit = "swap"
	LimitMemoryReservation Limit = "memory reservation"
	LimitMemoryHigh        Limit = "memory high"
	LimitSwappiness        Limit = "swappiness"
	LimitDisableOOMKiller  Limit = "disable oom killer"
	LimitOOMGroup          Limit = "oom group"
	LimitCPUQuota          Limit = "cpu quota"
	LimitCPUBurst          Limit = "cpu burst"
	LimitCPUShares         Limit = "cpu shares"
	LimitCPUIdle           Limit = "cpu idle"
	LimitCPURealtime       Limit = "cpu realtime"
	LimitCPUSet            Limit = "cpuset"
	LimitMemoryNodes       Limit = "memory nodes"
	LimitPids              Limit = "pids"
	LimitIOWeight          Limit = "block io weight"
	LimitIOLeafWeight      Limit = "block io leaf weight"
	LimitIOWeightDevice    Limit = "block io device weight"
	LimitIOLeafDevice      Limit = "block io device leaf weight"
	LimitIOThrottle        Limit = "block io throttle"
	LimitHugePages         Limit = "huge pages"
	LimitNetworkClass      Limit = "network class"
	LimitNetworkPriorities Limit = "network priorities"
	LimitRDMA              Limit = "rdma"
	LimitUnified           Limit = "unified"
	LimitDevices           Limit = "devices"
)

// means of a limit: the controller and files that enforce it on v1 and v2. Any
// one of several files will do. A controller without files needs none there
// (BPF), or files that depend on the host.
type means struct {
	limit            Limit
	v1, v2           string
	v1Files, v2Files []string
}

// meansOf is the table of all limits; LimitUnified needs only v2 itself.
var meansOf = []means{
	{LimitMemory, "memory", "memory", []string{"memory.limit_in_bytes"}, []string{"memory.max"}},
	{LimitSwap, "memory", "memory", []string{fileMemsw}, []string{"memory.swap.max"}},
	{LimitMemoryReservation, "memory", "memory", []string{"memory.soft_limit_in_bytes"}, []string{"memory.low"}},
	{LimitMemoryHigh, "", "memory", nil, []string{"memory.high"}},
	{LimitSwappiness, "memory", "", []string{"memory.swappiness"}, nil},
	{LimitDisableOOMKiller, "memory", "", []string{"memory.oom_control"}, nil},
	{LimitOOMGroup, "", "memory", nil, []string{"memory.oom.group"}},
	{LimitCPUQuota, "cpu", "cpu", []string{"cpu.cfs_quota_us"}, []string{"cpu.max"}},
	{LimitCPUBurst, "cpu", "cpu", []string{"cpu.cfs_burst_us"}, []string{"cpu.max.burst"}},
	{LimitCPUShares, "cpu", "cpu", []string{"cpu.shares"}, []string{"cpu.weight"}},
	{LimitCPUIdle, "cpu", "cpu", []string{"cpu.idle"}, []string{"cpu.idle"}},
	{LimitCPURealtime, "cpu", "", []string{"cpu.rt_runtime_us"}, nil},
	{LimitCPUSet, "cpuset", "cpuset", []string{"cpuset.cpus"}, []string{"cpuset.cpus"}},
	{LimitMemoryNodes, "cpuset", "cpuset", []string{"cpuset.mems"}, []string{"cpuset.mems"}},
	{LimitPids, "pids", "pids", []string{"pids.max"}, []string{"pids.max"}},
	{LimitIOWeight, "blkio", "io", []string{"blkio.bfq.weight", "blkio.weight"}, []string{"io.bfq.weight", "io.weight"}},
	{LimitIOLeafWeight, "blkio", "", []string{"blkio.leaf_weight"}, nil},
	{LimitIOWeightDevice, "blkio", "io", []string{"blkio.bfq.weight_device", "blkio.weight_device"}, []string{"io.bfq.weight", "io.weight"}},
	{LimitIOLeafDevice, "blkio", "", []string{"blkio.leaf_weight_device"}, nil},
	{LimitIOThrottle, "blkio", "io", []string{"blkio.throttle.read_bps_device"}, []string{"io.max"}},
	{LimitHugePages, "hugetlb", "hugetlb", nil, nil},
	{LimitNetworkClass, "net_cls", "", []string{"net_cls.classid"}, nil},
	{LimitNetworkPriorities, "net_prio", "", []string{"net_prio.ifpriomap"}, nil},
	{LimitRDMA, "rdma", "rdma", []string{"rdma.max"}, []string{"rdma.max"}},
	{LimitDevices, "devices", "devices", nil, nil},
}

const fileMemsw = "memory.memsw.limit_in_bytes"

// write is one value for one file of a group.
type write struct {
	// Controller names the hierarchy on v1 and must be enabled on v2.
	Controller string
	File       string
	Value      string
	Limit      Limit
}

// features are what one version of control groups can do on this host.
type features struct {
	// Controllers that limits can use.
	Controllers map[string]bool
	// Has tells whether a file of the table of means exists.
	Has func(file string) bool
	// HugePages are the page sizes of the host; nil without the controller.
	HugePages func() []string
}

func (f features) pages() []string {
	if f.HugePages == nil {
		return nil
	}
	return f.HugePages()
}

// first returns the first of the files that exists, or "".
func (f features) first(files ...string) string {
	for _, file := range files {
		if f.Has(file) {
			return file
		}
	}
	return ""
}

// missing says why a limit cannot be enforced by either version, "" if it can.
func missing(limit Limit, v1, v2 features) string {
	for _, m := range meansOf {
		if m.limit != limit {
			continue
		}
		controllers := v1.Controllers[m.v1] || v2.Controllers[m.v2]
		switch {
		case v1.Controllers[m.v1] && (m.v1Files == nil || v1.first(m.v1Files...) != ""):
		case v2.Controllers[m.v2] && (m.v2Files == nil || v2.first(m.v2Files...) != ""):
		case controllers:
			return "the kernel lacks it"
		case m.v1 == "":
			return "it needs the " + m.v2 + " controller of cgroup v2"
		case m.v2 == "":
			return "it needs the " + m.v1 + " controller of cgroup v1"
		default:
			return "no " + m.v1 + " controller"
		}
		return ""
	}
	return "unknown"
}

func invalid(limit Limit, format string, a ...any) error {
	return fmt.Errorf("limit %s: %s: %w", limit, fmt.Sprintf(format, a...), errdefs.ErrInvalid)
}

func unsupported(limit Limit, why string) error {
	return fmt.Errorf("limit %s: %s: %w", limit, why, errdefs.ErrUnsupported)
}

// needs lists what the limits ask for. No swap is possible without means.
func (l Limits) needs() []Limit {
	var out []Limit
	need := func(yes bool, limit Limit) {
		if yes {
			out = append(out, limit)
		}
	}
	need(l.MemoryBytes != 0 || l.SwapBytes == -1, LimitMemory)
	need(l.SwapBytes > 0, LimitSwap)
	need(l.MemoryReservation != 0, LimitMemoryReservation)
	need(l.MemoryHigh != 0, LimitMemoryHigh)
	need(l.Swappiness != nil, LimitSwappiness)
	need(l.DisableOOMKiller, LimitDisableOOMKiller)
	need(l.OOMGroup, LimitOOMGroup)
	need(l.CPUQuota != 0, LimitCPUQuota)
	need(l.CPUBurst != 0, LimitCPUBurst)
	need(l.CPUShares != 0, LimitCPUShares)
	need(l.CPUIdle, LimitCPUIdle)
	need(l.RealtimeRuntime != 0 || l.RealtimePeriod != 0, LimitCPURealtime)
	need(l.CPUSet != "", LimitCPUSet)
	need(l.MemoryNodes != "", LimitMemoryNodes)
	need(l.Pids != 0, LimitPids)
	if b := l.BlockIO; b != nil {
		need(b.Weight != 0, LimitIOWeight)
		need(b.LeafWeight != 0, LimitIOLeafWeight)
		need(slices.ContainsFunc(b.WeightDevice, func(d WeightDevice) bool { return d.Weight != 0 }), LimitIOWeightDevice)
		need(slices.ContainsFunc(b.WeightDevice, func(d WeightDevice) bool { return d.LeafWeight != 0 }), LimitIOLeafDevice)
		need(len(b.ReadBPS)+len(b.WriteBPS)+len(b.ReadIOPS)+len(b.WriteIOPS) > 0, LimitIOThrottle)
	}
	need(len(l.HugePages) > 0, LimitHugePages)
	need(l.NetworkClass != 0, LimitNetworkClass)
	need(len(l.NetworkPriorities) > 0, LimitNetworkPriorities)
	need(len(l.RDMA) > 0, LimitRDMA)
	need(l.Devices != nil || l.DeviceRules != nil, LimitDevices)
	return out
}

// check is validate plus what this kernel cannot enforce.
func (l Limits) check(v1, v2 features) error {
	if err := l.validate(); err != nil {
		return err
	}
	for _, limit := range l.needs() {
		if why := missing(limit, v1, v2); why != "" {
			return unsupported(limit, why)
		}
	}
	for _, h := range l.HugePages {
		if !slices.Contains(v1.pages(), h.PageSize) && !slices.Contains(v2.pages(), h.PageSize) {
			return unsupported(LimitHugePages, "no pages of "+h.PageSize)
		}
	}
	if len(l.Unified) > 0 && v2.Controllers == nil {
		return unsupported(LimitUnified, "no cgroup v2")
	}
	for file := range l.Unified {
		if c, _, _ := strings.Cut(file, "."); c != "cgroup" && !v2.Controllers[c] {
			return unsupported(LimitUnified, file+": no "+c+" controller of cgroup v2")
		}
	}
	return nil
}

func (l Limits) period() int64 {
	if l.CPUPeriod == 0 {
		return defaultPeriod
	}
	return l.CPUPeriod
}

// rules are the device rules in either form, nil for none.
func (l Limits) rules() []DeviceRule {
	if l.Devices == nil {
		return l.DeviceRules
	}
	out := make([]DeviceRule, 0, len(l.Devices))
	for _, d := range l.Devices {
		out = append(out, DeviceRule{true, d.Type, d.Major, d.Minor, d.Access})
	}
	return out
}
