package cgroup

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func all() features {
	f := features{Controllers: map[string]bool{}, Swap: true, Quota: true}
	for _, c := range []string{"cpu", "cpuset", "memory", "pids", "devices"} {
		f.Controllers[c] = true
	}
	return f
}

func render(ws []write) string {
	var lines []string
	for _, w := range ws {
		lines = append(lines, w.File+"="+strings.ReplaceAll(w.Value, "\n", `\n`))
	}
	return strings.Join(lines, " ")
}

func TestWrites(t *testing.T) {
	noSwap := all()
	noSwap.Swap = false
	for name, c := range map[string]struct {
		l        Limits
		f        features
		fresh    bool
		v1, v2   string
		v1Refuse bool
	}{
		"nothing, fresh": {l: Limits{}, f: all(), fresh: true},
		"nothing, update": {
			l: Limits{}, f: all(),
			v1: "memory.memsw.limit_in_bytes=-1 memory.limit_in_bytes=-1 memory.swappiness=60 cpu.cfs_quota_us=-1 cpu.shares=1024 pids.max=max",
			v2: `memory.max=max memory.swap.max=max cpu.max=max cpu.weight=100 pids.max=max`,
		},
		"all, fresh": {
			l: Limits{
				MemoryBytes: 1000, SwapBytes: 500, CPUQuota: 20000, CPUPeriod: 50000, CPUShares: 2048, Pids: 9, CPUSet: "0-1",
				Devices: []Device{{'c', 1, 3, "rwm"}, {'b', -1, -1, "m"}},
			}, f: all(), fresh: true,
			v1: "memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=1500 cpu.cfs_period_us=50000 cpu.cfs_quota_us=20000 cpu.shares=2048 pids.max=9 cpuset.cpus=0-1 devices.deny=a devices.allow=c 1:3 rwm devices.allow=b *:* m",
			v2: "memory.max=1000 memory.swap.max=500 cpu.max=20000 50000 cpu.weight=79 pids.max=9 cpuset.cpus=0-1",
		},
		"no swap": {
			l: Limits{MemoryBytes: 1000, SwapBytes: -1}, f: all(), fresh: true,
			v1: "memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=1000", v2: "memory.max=1000 memory.swap.max=0",
		},
		"no swap, not counted": {
			l: Limits{MemoryBytes: 1000, SwapBytes: -1}, f: noSwap, fresh: true,
			v1: "memory.limit_in_bytes=1000 memory.swappiness=0", v2: "memory.max=1000",
		},
		"no swap, memory unlimited": {
			l: Limits{SwapBytes: -1}, f: all(), fresh: true, v1: "memory.swappiness=0", v2: "memory.swap.max=0",
		},
		"no swap, update": {
			l: Limits{MemoryBytes: 1000, SwapBytes: -1}, f: noSwap,
			v1: "memory.limit_in_bytes=1000 memory.swappiness=0 cpu.cfs_quota_us=-1 cpu.shares=1024 pids.max=max",
			v2: `memory.max=1000 cpu.max=max cpu.weight=100 pids.max=max`,
		},
		"swap without memory": {l: Limits{SwapBytes: 5}, f: all(), fresh: true, v1Refuse: true, v2: "memory.swap.max=5"},
		"quota, update": {
			l: Limits{CPUQuota: 150000}, f: all(),
			v1: "memory.memsw.limit_in_bytes=-1 memory.limit_in_bytes=-1 memory.swappiness=60 cpu.cfs_quota_us=-1 cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000 cpu.shares=1024 pids.max=max",
			v2: `memory.max=max memory.swap.max=max cpu.max=150000 100000 cpu.weight=100 pids.max=max`,
		},
		"no devices": {l: Limits{Devices: []Device{}}, f: all(), fresh: true, v1: "devices.deny=a"},
	} {
		t.Run(name, func(t *testing.T) {
			v1, err := writesV1(c.l, c.f, c.fresh)
			if c.v1Refuse != errors.Is(err, errdefs.ErrUnsupported) {
				t.Fatalf("v1: %v", err)
			}
			if d := cmp.Diff(c.v1, render(v1)); d != "" {
				t.Errorf("v1 -want +got:\n%s", d)
			}
			if d := cmp.Diff(c.v2, render(writesV2(c.l, c.f, c.fresh))); d != "" {
				t.Errorf("v2 -want +got:\n%s", d)
			}
		})
	}
}

func TestCheckNamesWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		l    Limits
		edit func(*features)
	}{
		"limit memory":     {Limits{MemoryBytes: 1}, func(f *features) { delete(f.Controllers, "memory") }},
		"limit swap":       {Limits{SwapBytes: 1}, func(f *features) { f.Swap = false }},
		"limit cpu quota":  {Limits{CPUQuota: 1000}, func(f *features) { f.Quota = false }},
		"limit cpu shares": {Limits{CPUShares: 2}, func(f *features) { delete(f.Controllers, "cpu") }},
		"limit pids":       {Limits{Pids: 1}, func(f *features) { delete(f.Controllers, "pids") }},
		"limit cpuset":     {Limits{CPUSet: "0"}, func(f *features) { delete(f.Controllers, "cpuset") }},
		"limit devices":    {Limits{Devices: []Device{}}, func(f *features) { delete(f.Controllers, "devices") }},
	} {
		f := all()
		if err := c.l.check(f); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c.edit(&f)
		if err := c.l.check(f); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (Limits{MemoryBytes: 1, SwapBytes: -1}).check(features{Controllers: map[string]bool{"memory": true}}); err != nil {
		t.Errorf("no swap where swap is not counted: %v", err)
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[int64]int64{2: 1, 1024: 39, 2048: 79, 262144: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("weight(%d) = %d, want %d", shares, got, want)
		}
	}
}

// run interprets the instructions that deviceProgram uses, as in the kernel's
// Documentation/bpf/standardization/instruction-set.rst.
func run(t *testing.T, p []bpfInsn, typ, access, major, minor uint32) bool {
	t.Helper()
	ctx := map[int16]uint64{0: uint64(typ | access<<16), 4: uint64(major), 8: uint64(minor)}
	var r [11]uint64
	for pc, steps := 0, 0; steps < 10000; pc, steps = pc+1, steps+1 {
		i := p[pc]
		dst, src := i.Regs&15, i.Regs>>4
		switch i.Code {
		case bpfLdxW:
			if src != 1 {
				t.Fatalf("instruction %d reads from register %d", pc, src)
			}
			r[dst] = ctx[i.Off]
		case bpfMovReg:
			r[dst] = r[src]
		case bpfMovImm:
			r[dst] = uint64(int64(i.Imm))
		case bpfAndImm:
			r[dst] &= uint64(int64(i.Imm))
		case bpfRshImm:
			r[dst] >>= i.Imm
		case bpfJneImm:
			if r[dst] != uint64(int64(i.Imm)) {
				pc += int(i.Off)
			}
		case bpfJneReg:
			if r[dst] != r[src] {
				pc += int(i.Off)
			}
		case bpfExitFun:
			return r[0] == 1
		default:
			t.Fatalf("instruction %d: unknown code %#x", pc, i.Code)
		}
	}
	t.Fatal("does not end")
	return false
}

// The program agrees with the rules as one reads them, for every combination.
func TestDeviceProgram(t *testing.T) {
	lists := map[string][]Device{
		"none": {},
		"usual": {
			{'c', 1, 3, "rwm"}, {'c', 1, 5, "r"}, {'c', 136, -1, "rw"}, {'b', -1, -1, "m"}, {'c', 1, 5, "w"}, {'b', 8, 1048575, "rm"},
		},
		"all": {{'c', -1, -1, "rwm"}, {'b', -1, -1, "rwm"}},
	}
	for name, list := range lists {
		p := deviceProgram(list)
		for _, typ := range []uint32{devBlock, devChar} {
			for access := uint32(0); access < 8; access++ {
				for _, major := range []uint32{0, 1, 8, 136, 4095} {
					for _, minor := range []uint32{0, 3, 5, 1048575} {
						want := false
						for _, d := range list {
							want = want || (d.Type == 'c') == (typ == devChar) && uint32(accessBits(d.Access))&access == access &&
								(d.Major < 0 || uint32(d.Major) == major) && (d.Minor < 0 || uint32(d.Minor) == minor)
						}
						if got := run(t, p, typ, access, major, minor); got != want {
							t.Fatalf("%s: type %d access %d %d:%d = %v, want %v", name, typ, access, major, minor, got, want)
						}
					}
				}
			}
		}
	}
}

func FuzzFlatKey(f *testing.F) {
	f.Add("populated 1\nfrozen 0\n", "frozen")
	f.Add("oom_kill 12", "oom_kill")
	f.Add("oom_kill_disable 0\nunder_oom 0\noom_kill 3", "oom_kill")
	f.Fuzz(func(_ *testing.T, text, key string) { flatKey(text, key) })
}

func TestFlatKey(t *testing.T) {
	const text = "oom_kill_disable 1\nunder_oom x\noom_kill 3\n"
	for key, want := range map[string]int64{"oom_kill": 3, "oom_kill_disable": 1, "under_oom": 0, "absent": 0} {
		if got := flatKey(text, key); got != want {
			t.Errorf("%s = %d, want %d", key, got, want)
		}
	}
}
