package cgroup

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func whole() Limits {
	swappiness, handles := int64(10), uint32(2)
	return Limits{
		MemoryBytes: 1000, SwapBytes: 500, MemoryReservation: 600, MemoryHigh: 950, Swappiness: &swappiness, DisableOOMKiller: true, OOMGroup: true,
		CPUQuota: 20000, CPUPeriod: 50000, CPUBurst: 10000, CPUShares: 2048, RealtimeRuntime: 10, RealtimePeriod: 100, CPUSet: "0-1", MemoryNodes: "0",
		Pids: 9,
		BlockIO: &BlockIO{
			Weight: 20, LeafWeight: 30, WeightDevice: []WeightDevice{{8, 0, 40, 50}},
			ReadBPS: []ThrottleDevice{{8, 0, 60}, {8, 16, 61}}, WriteBPS: []ThrottleDevice{{8, 0, 70}},
			ReadIOPS: []ThrottleDevice{{8, 0, 80}}, WriteIOPS: []ThrottleDevice{{8, 0, 90}},
		},
		HugePages:    []HugePageLimit{{"2MB", 4 << 20}},
		NetworkClass: 0x10001, NetworkPriorities: []InterfacePriority{{"lo", 3}},
		RDMA:        []RDMALimit{{"mlx", &handles, nil}},
		Unified:     map[string]string{"memory.low": "5", "cgroup.max.depth": "3"},
		DeviceRules: []DeviceRule{{true, 'c', 1, 3, "rwm"}, {true, 'b', -1, -1, "m"}},
	}
}

// Files of a group that has all of whole, as the kernel shows them.
func wholeV1() map[string]string {
	return map[string]string{
		"memory.limit_in_bytes": "1000", fileMemsw: "1500", "memory.soft_limit_in_bytes": "600", "memory.swappiness": "10",
		"memory.oom_control": "oom_kill_disable 1\nunder_oom 0\noom_kill 0", "cpu.cfs_period_us": "50000", "cpu.cfs_quota_us": "20000",
		"cpu.cfs_burst_us": "10000", "cpu.shares": "2048", "cpu.idle": "1", "cpu.rt_runtime_us": "10", "cpu.rt_period_us": "100", "pids.max": "9",
		"blkio.bfq.weight": "20", "blkio.leaf_weight": "30", "blkio.bfq.weight_device": "default 100\n8:0 40", "blkio.leaf_weight_device": "8:0 50",
		"blkio.throttle.read_bps_device": "8:0 60\n8:16 61", "blkio.throttle.write_bps_device": "8:0 70",
		"blkio.throttle.read_iops_device": "8:0 80", "blkio.throttle.write_iops_device": "8:0 90",
		"hugetlb.2MB.limit_in_bytes": "4194304", "hugetlb.1GB.limit_in_bytes": "9223372036854771712",
		"net_cls.classid": "65537", "net_prio.ifpriomap": "eth0 0\nlo 3", "rdma.max": "mlx hca_handle=2 hca_object=max\nother hca_handle=max hca_object=max",
		"devices.list": "c 1:3 rwm\nb *:* m",
	}
}

func wholeV2() map[string]string {
	return map[string]string{
		"memory.max": "1000", "memory.high": "950", "memory.low": "600", "memory.swap.max": "500", "memory.oom.group": "1",
		"cpu.max": "20000 50000", "cpu.max.burst": "10000", "cpu.weight": "79", "cpu.idle": "1", "pids.max": "9",
		"io.bfq.weight": "default 20\n8:0 40", "io.max": "8:0 rbps=60 wbps=70 riops=80 wiops=90\n8:16 rbps=61 wbps=max riops=max wiops=max",
		"hugetlb.2MB.max": "4194304", "hugetlb.1GB.max": "max", "rdma.max": "mlx hca_handle=2 hca_object=max",
	}
}

// same update: the kernel's words for the defaults.
func defaults() map[string]string {
	return map[string]string{
		"memory.limit_in_bytes": "9223372036854771712", fileMemsw: "9223372036854771712", "memory.soft_limit_in_bytes": "9223372036854771712",
		"memory.swappiness": "60", "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0",
		"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "-1", "cpu.cfs_burst_us": "0", "cpu.shares": "1024", "cpu.idle": "0",
		"cpu.rt_runtime_us": "0", "pids.max": "max", "blkio.bfq.weight": "100", "blkio.bfq.weight_device": "default 100",
		"memory.max": "max", "memory.high": "max", "memory.low": "0", "memory.swap.max": "max", "memory.oom.group": "0",
		"cpu.max": "max 100000", "cpu.max.burst": "0", "cpu.weight": "100", "io.bfq.weight": "default 100", "io.max": "",
		"hugetlb.2MB.max": "max", "rdma.max": "mlx hca_handle=max hca_object=max", "net_cls.classid": "0", "net_prio.ifpriomap": "lo 0",
	}
}

func TestWrites(t *testing.T) {
	idle := Limits{CPUIdle: true, CPUShares: 2048}
	for name, c := range map[string]struct {
		l        Limits
		lacks    []string
		now1     map[string]string // nil is fresh
		now2     map[string]string
		v1, v2   string
		v1Refuse bool
	}{
		"nothing, fresh":          {},
		"nothing, update of none": {now1: defaults(), now2: defaults()},
		"all, fresh": {
			l: whole(),
			v1: "memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=1500 memory.swappiness=10 memory.soft_limit_in_bytes=600 memory.oom_control=1 " +
				"cpu.cfs_period_us=50000 cpu.cfs_quota_us=20000 cpu.cfs_burst_us=10000 cpu.shares=2048 cpu.rt_period_us=100 cpu.rt_runtime_us=10 " +
				"cpuset.cpus=0-1 cpuset.mems=0 pids.max=9 blkio.bfq.weight=20 blkio.leaf_weight=30 blkio.bfq.weight_device=8:0 40 " +
				"blkio.leaf_weight_device=8:0 50 blkio.throttle.read_bps_device=8:0 60 blkio.throttle.read_bps_device=8:16 61 " +
				"blkio.throttle.write_bps_device=8:0 70 blkio.throttle.read_iops_device=8:0 80 blkio.throttle.write_iops_device=8:0 90 " +
				"hugetlb.2MB.limit_in_bytes=4194304 net_cls.classid=65537 net_prio.ifpriomap=lo 3 rdma.max=mlx hca_handle=2 hca_object=max " +
				"devices.deny=a devices.allow=b *:* m devices.allow=c 1:3 rwm",
			v2: "memory.high=950 memory.max=1000 memory.swap.max=500 memory.low=600 memory.oom.group=1 cpu.max=20000 50000 cpu.max.burst=10000 " +
				"cpu.weight=79 cpuset.cpus=0-1 cpuset.mems=0 pids.max=9 io.bfq.weight=20 io.bfq.weight=8:0 40 " +
				"io.max=8:0 rbps=60 wbps=70 riops=80 wiops=90 io.max=8:16 rbps=61 wbps=max riops=max wiops=max " +
				"hugetlb.2MB.max=4194304 rdma.max=mlx hca_handle=2 hca_object=max cgroup.max.depth=3 memory.low=5",
		},
		"nothing, update of all": {
			now1: wholeV1(), now2: wholeV2(),
			v1: "memory.memsw.limit_in_bytes=-1 memory.limit_in_bytes=-1 memory.swappiness=60 memory.soft_limit_in_bytes=-1 memory.oom_control=0 " +
				"cpu.cfs_burst_us=0 cpu.cfs_quota_us=-1 cpu.idle=0 cpu.shares=1024 cpu.rt_runtime_us=0 pids.max=max blkio.bfq.weight=100 " +
				"blkio.leaf_weight=500 blkio.bfq.weight_device=8:0 default blkio.leaf_weight_device=8:0 default " +
				"blkio.throttle.read_bps_device=8:0 0 blkio.throttle.read_bps_device=8:16 0 blkio.throttle.write_bps_device=8:0 0 " +
				"blkio.throttle.read_iops_device=8:0 0 blkio.throttle.write_iops_device=8:0 0 hugetlb.2MB.limit_in_bytes=-1 " +
				"net_cls.classid=0 net_prio.ifpriomap=lo 0 rdma.max=mlx hca_handle=max hca_object=max",
			v2: "memory.high=max memory.max=max memory.swap.max=max memory.low=0 memory.oom.group=0 cpu.max.burst=0 cpu.max=max cpu.idle=0 " +
				"cpu.weight=100 pids.max=max io.bfq.weight=100 io.bfq.weight=8:0 default " +
				"io.max=8:0 rbps=max wbps=max riops=max wiops=max io.max=8:16 rbps=max wbps=max riops=max wiops=max " +
				"hugetlb.2MB.max=max rdma.max=mlx hca_handle=max hca_object=max",
		},
		"no swap": {
			l:  Limits{MemoryBytes: 1000, SwapBytes: -1},
			v1: "memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=1000", v2: "memory.max=1000 memory.swap.max=0",
		},
		"no swap, not counted": {
			l: Limits{MemoryBytes: 1000, SwapBytes: -1}, lacks: []string{fileMemsw, "memory.swap.max"},
			v1: "memory.limit_in_bytes=1000 memory.swappiness=0", v2: "memory.max=1000",
		},
		"no swap, memory unlimited": {l: Limits{SwapBytes: -1}, v1: "memory.swappiness=0", v2: "memory.swap.max=0"},
		"swap without memory":       {l: Limits{SwapBytes: 5}, v1Refuse: true, v2: "memory.swap.max=5"},
		"memory raised": {
			l: Limits{MemoryBytes: 2000, SwapBytes: -1}, now1: map[string]string{"memory.limit_in_bytes": "1000", fileMemsw: "1000"}, now2: defaults(),
			v1: "memory.memsw.limit_in_bytes=2000 memory.limit_in_bytes=2000", v2: "memory.max=2000 memory.swap.max=0",
		},
		"memory lowered": {
			l: Limits{MemoryBytes: 500, SwapBytes: -1}, now1: map[string]string{"memory.limit_in_bytes": "1000", fileMemsw: "1000"}, now2: defaults(),
			v1: "memory.limit_in_bytes=500 memory.memsw.limit_in_bytes=500", v2: "memory.max=500 memory.swap.max=0",
		},
		"memory limited": {
			l: Limits{MemoryBytes: 500, SwapBytes: -1}, now1: defaults(), now2: defaults(),
			v1: "memory.limit_in_bytes=500 memory.memsw.limit_in_bytes=500", v2: "memory.max=500 memory.swap.max=0",
		},
		"quota, update": {
			l: Limits{CPUQuota: 150000}, now1: map[string]string{"cpu.cfs_quota_us": "20000", "cpu.cfs_period_us": "50000"}, now2: defaults(),
			v1: "cpu.cfs_quota_us=-1 cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000", v2: "cpu.max=150000 100000",
		},
		"idle":         {l: idle, v1: "cpu.idle=1", v2: "cpu.idle=1"},
		"idle no more": {l: Limits{CPUShares: 2048}, now1: wholeCPU("1"), now2: wholeCPU("1"), v1: "cpu.idle=0 cpu.shares=2048", v2: "cpu.idle=0 cpu.weight=79"},
		"no devices":   {l: Limits{Devices: []Device{}}, v1: "devices.deny=a"},
		"plain weight": {
			l: Limits{BlockIO: &BlockIO{Weight: 1000}}, lacks: []string{"blkio.bfq.weight", "io.bfq.weight"},
			v1: "blkio.weight=1000", v2: "io.weight=10000",
		},
	} {
		t.Run(name, func(t *testing.T) {
			v1, err := writesV1(c.l, all(false, c.lacks...), reads(c.now1))
			if c.v1Refuse != errors.Is(err, errdefs.ErrUnsupported) {
				t.Fatalf("v1: %v", err)
			}
			if d := cmp.Diff(c.v1, render(v1)); d != "" {
				t.Errorf("v1 -want +got:\n%s", d)
			}
			if d := cmp.Diff(c.v2, render(writesV2(c.l, all(true, c.lacks...), reads(c.now2)))); d != "" {
				t.Errorf("v2 -want +got:\n%s", d)
			}
		})
	}
}

func wholeCPU(idle string) map[string]string { return map[string]string{"cpu.idle": idle} }

func reads(files map[string]string) current {
	if files == nil {
		return nil
	}
	return func(file string) string { return files[file] }
}

// Every limit of whole is refused by name where its file or controller is
// missing, and never dropped.
func TestCheckNamesWhatIsMissing(t *testing.T) {
	l := whole()
	l.CPUIdle, l.Unified = true, nil
	none := features{}
	if err := l.check(all(false), all(true)); err != nil {
		t.Fatal(err)
	}
	for _, m := range meansOf {
		v1, v2 := all(false, m.v1Files...), all(true, m.v2Files...)
		if m.v1Files == nil {
			delete(v1.Controllers, m.v1)
		}
		if m.v2Files == nil {
			delete(v2.Controllers, m.v2)
		}
		err := l.check(v1, v2)
		if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "limit "+string(m.limit)+": ") {
			t.Errorf("%s: %v", m.limit, err)
		}
		if missing(m.limit, none, none) == "" {
			t.Errorf("%s is there without any controller", m.limit)
		}
	}
	for file, want := range map[string]string{"memory.low": "no memory controller", "misc.max": "no misc controller"} {
		err := (Limits{Unified: map[string]string{file: "1"}}).check(all(false), features{Controllers: map[string]bool{"cpu": true}})
		if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if err := (Limits{HugePages: []HugePageLimit{{"16GB", 1}}}).check(all(false), all(true)); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("page size: %v", err)
	}
	only := features{Controllers: map[string]bool{"memory": true}, Has: func(file string) bool { return file == "memory.limit_in_bytes" }}
	if err := (Limits{MemoryBytes: 1, SwapBytes: -1}).check(only, none); err != nil {
		t.Errorf("no swap where swap is not counted: %v", err)
	}
}

func TestValidate(t *testing.T) {
	many := int64(101)
	for name, l := range map[string]Limits{
		"reservation": {MemoryReservation: -1}, "high": {MemoryHigh: -1}, "swappiness": {Swappiness: &many}, "burst": {CPUQuota: 1000, CPUBurst: 1001},
		"burst alone": {CPUBurst: 1}, "realtime": {RealtimeRuntime: 2, RealtimePeriod: 1}, "nodes": {MemoryNodes: "x"},
		"weight":      {BlockIO: &BlockIO{Weight: 9}},
		"leaf":        {BlockIO: &BlockIO{LeafWeight: 1001}},
		"device":      {BlockIO: &BlockIO{WeightDevice: []WeightDevice{{Major: -1}}}},
		"throttle":    {BlockIO: &BlockIO{ReadBPS: []ThrottleDevice{{Minor: -1}}}},
		"iops":        {BlockIO: &BlockIO{ReadIOPS: []ThrottleDevice{{Rate: 1 << 32}}}},
		"page":        {HugePages: []HugePageLimit{{"../x", 1}}},
		"page twice":  {HugePages: []HugePageLimit{{"2MB", 1}, {"2MB", 1}}},
		"interface":   {NetworkPriorities: []InterfacePriority{{"a b", 1}}},
		"rdma":        {RDMA: []RDMALimit{{Device: "a\nb"}}},
		"file":        {Unified: map[string]string{"../memory.max": "1"}},
		"procs":       {Unified: map[string]string{"cgroup.procs": "1"}},
		"kill":        {Unified: map[string]string{"cgroup.kill": "1"}},
		"no value":    {Unified: map[string]string{"memory.max": ""}},
		"two lists":   {Devices: []Device{}, DeviceRules: []DeviceRule{}},
		"rule type":   {DeviceRules: []DeviceRule{{Type: 'x', Access: "r"}}},
		"rule access": {DeviceRules: []DeviceRule{{Type: 'a', Major: -1, Minor: -1}}},
		"rules":       {DeviceRules: make([]DeviceRule, maxRules+1)},
	} {
		if err := l.check(all(false), all(true)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if HighOf(1<<30) != 1020051456/4096*4096 || HighOf(0) != 0 {
		t.Errorf("HighOf = %d", HighOf(1<<30))
	}
}

// What a group of limits shows is left alone by an update to the same limits,
// but for what is written always.
func FuzzWrites(f *testing.F) {
	for _, files := range []map[string]string{wholeV1(), wholeV2(), defaults()} {
		for _, file := range sorted(files) {
			f.Add(file, files[file])
		}
	}
	f.Fuzz(func(t *testing.T, file, text string) {
		now := reads(maps.Collect(maps.All(map[string]string{file: text})))
		if _, err := writesV1(Limits{}, all(false), now); err != nil {
			t.Fatal(err)
		}
		for _, w := range writesV2(whole(), all(true), now) {
			if w.File == "" || w.Value == "" {
				t.Fatalf("empty write %+v", w)
			}
		}
	})
}
