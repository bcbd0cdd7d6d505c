//go:build linux

package cgroup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/cgroup/cgrouptest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Whatever limit the host supports is accepted alone, shows in a file, and is
// gone after an update to none; every other is refused by its name, and leaves
// nothing.
func TestEveryLimit(t *testing.T) {
	swappiness, none := int64(10), uint32(7)
	major, minor := blockDevice(t)
	rate := []cgroup.ThrottleDevice{{Major: major, Minor: minor, Rate: 1 << 20}}
	for limit, c := range map[cgroup.Limit]struct {
		l      cgroup.Limits
		v1, v2 string // file and value
	}{
		cgroup.LimitMemory:            {cgroup.Limits{MemoryBytes: 1 << 26}, "memory.limit_in_bytes 67108864", "memory.max 67108864"},
		cgroup.LimitSwap:              {cgroup.Limits{MemoryBytes: 1 << 26, SwapBytes: 1 << 20}, "memory.memsw.limit_in_bytes 68157440", "memory.swap.max 1048576"},
		cgroup.LimitMemoryReservation: {cgroup.Limits{MemoryReservation: 1 << 20}, "memory.soft_limit_in_bytes 1048576", "memory.low 1048576"},
		cgroup.LimitMemoryHigh:        {cgroup.Limits{MemoryHigh: 1 << 24}, "", "memory.high 16777216"},
		cgroup.LimitSwappiness:        {cgroup.Limits{Swappiness: &swappiness}, "memory.swappiness 10", ""},
		cgroup.LimitDisableOOMKiller:  {cgroup.Limits{DisableOOMKiller: true}, "memory.oom_control oom_kill_disable 1", ""},
		cgroup.LimitOOMGroup:          {cgroup.Limits{OOMGroup: true}, "", "memory.oom.group 1"},
		cgroup.LimitCPUQuota:          {cgroup.Limits{CPUQuota: 20000, CPUPeriod: 50000}, "cpu.cfs_quota_us 20000", "cpu.max 20000 50000"},
		cgroup.LimitCPUBurst:          {cgroup.Limits{CPUQuota: 20000, CPUBurst: 10000}, "cpu.cfs_burst_us 10000", "cpu.max.burst 10000"},
		cgroup.LimitCPUShares:         {cgroup.Limits{CPUShares: 2048}, "cpu.shares 2048", "cpu.weight 79"},
		cgroup.LimitCPUIdle:           {cgroup.Limits{CPUIdle: true}, "cpu.idle 1", "cpu.idle 1"},
		cgroup.LimitCPURealtime:       {cgroup.Limits{RealtimeRuntime: 1000, RealtimePeriod: 500000}, "cpu.rt_runtime_us 1000", ""},
		cgroup.LimitCPUSet:            {cgroup.Limits{CPUSet: "0"}, "cpuset.cpus 0", "cpuset.cpus 0"},
		cgroup.LimitMemoryNodes:       {cgroup.Limits{MemoryNodes: "0"}, "cpuset.mems 0", "cpuset.mems 0"},
		cgroup.LimitPids:              {cgroup.Limits{Pids: 7}, "pids.max 7", "pids.max 7"},
		cgroup.LimitIOWeight:          {cgroup.Limits{BlockIO: &cgroup.BlockIO{Weight: 200}}, "blkio.bfq.weight 200", "io.weight default 1920"},
		cgroup.LimitIOLeafWeight:      {cgroup.Limits{BlockIO: &cgroup.BlockIO{LeafWeight: 200}}, "", ""},
		cgroup.LimitIOThrottle: {
			cgroup.Limits{BlockIO: &cgroup.BlockIO{WriteBPS: rate}},
			fmt.Sprintf("blkio.throttle.write_bps_device %d:%d 1048576", major, minor),
			fmt.Sprintf("io.max %d:%d rbps=max wbps=1048576 riops=max wiops=max", major, minor),
		},
		cgroup.LimitHugePages:    {cgroup.Limits{HugePages: []cgroup.HugePageLimit{{PageSize: "2MB", Bytes: 4 << 20}}}, "hugetlb.2MB.limit_in_bytes 4194304", "hugetlb.2MB.max 4194304"},
		cgroup.LimitNetworkClass: {cgroup.Limits{NetworkClass: 0x10001}, "net_cls.classid 65537", ""},
		cgroup.LimitNetworkPriorities: {
			cgroup.Limits{NetworkPriorities: []cgroup.InterfacePriority{{Interface: "lo", Priority: 3}}}, "net_prio.ifpriomap lo 3", "",
		},
		cgroup.LimitRDMA:    {cgroup.Limits{RDMA: []cgroup.RDMALimit{{Device: "none0", Handles: &none}}}, "", ""},
		cgroup.LimitUnified: {cgroup.Limits{Unified: map[string]string{"cgroup.max.depth": "3"}}, "cgroup.max.depth 3", "cgroup.max.depth 3"},
	} {
		t.Run(string(limit), func(t *testing.T) {
			eachLayout(t, func(t *testing.T, tree cgroup.Tree) { tryLimit(t, tree, limit, c.l, c.v1, c.v2) })
		})
	}
}

func tryLimit(t *testing.T, tree cgroup.Tree, limit cgroup.Limit, l cgroup.Limits, shown ...string) {
	g, err := tree.Create(t.Context(), "one", l)
	switch {
	case !tree.Supports(limit):
		if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "limit "+string(limit)) {
			t.Fatalf("Create = %v", err)
		}
		left := cgroup.Directories(tree, "one")
		if len(left) != 0 {
			t.Fatalf("left behind: %v", left)
		}
		return
	case limit == cgroup.LimitRDMA: // there is no such device
		if !errors.Is(err, errdefs.ErrInvalid) || len(cgroup.Directories(tree, "one")) != 0 {
			t.Fatalf("Create = %v", err)
		}
		return
	}
	check(t, err)
	start(t, g, "sleep")
	if !holds(tree, shown) {
		t.Errorf("no file shows any of %q", shown)
	}
	check(t, g.Update(t.Context(), cgroup.Limits{}))
	if holds(tree, shown) && limit != cgroup.LimitUnified && limit != cgroup.LimitMemoryNodes {
		t.Errorf("a file still shows one of %q", shown)
	}
	check(t, g.Update(t.Context(), l)) // into a running group
	if !holds(tree, shown) {
		t.Errorf("no file shows any of %q after an update", shown)
	}
	pids, err := g.Pids(t.Context())
	check(t, err)
	for _, dir := range cgroup.Directories(tree, "one") {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		check(t, err)
		if got := strings.TrimSpace(string(b)); got != fmt.Sprint(pids[0]) {
			t.Errorf("%s: processes %q, want %d", dir, got, pids[0])
		}
	}
}

func holds(tree cgroup.Tree, shown []string) bool {
	for _, s := range shown {
		file, want, ok := strings.Cut(s, " ")
		if text, there := cgroup.File(tree, "one", file); ok && there && slices.Contains(strings.Split(text, "\n"), want) {
			return true
		}
	}
	return false
}

// blockDevice finds a whole block device, of which every host has some.
func blockDevice(t *testing.T) (major, minor int64) {
	t.Helper()
	entries, err := filepath.Glob("/sys/block/*/dev")
	check(t, err)
	for _, file := range entries {
		b, err := os.ReadFile(file)
		check(t, err)
		if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err == nil {
			return major, minor
		}
	}
	t.Fatal("no block device")
	return 0, 0
}

// An update that fails half-way leaves the values as they were.
func TestUpdatePutsBack(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		l := cgroup.Limits{MemoryBytes: 64 << 20, SwapBytes: -1, CPUQuota: 50000, Pids: 20}
		g := create(t, tree, l)
		before := shown(tree)
		bad := cgroup.Limits{MemoryBytes: 32 << 20, SwapBytes: -1, CPUQuota: 20000, Pids: 30, CPUSet: "99999"}
		err := g.Update(t.Context(), bad)
		if err == nil || !strings.Contains(err.Error(), "limit cpuset") {
			t.Fatalf("Update = %v", err)
		}
		if after := shown(tree); after != before {
			t.Errorf("after: %s\nbefore: %s", after, before)
		}
	})
}

func shown(tree cgroup.Tree) (out string) {
	for _, file := range []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "pids.max"} {
		text, _ := cgroup.File(tree, "one", file)
		out += " " + file + "=" + text
	}
	return out
}

// Memory below what is in use is refused and not reclaimed by killing.
func TestMemoryBelowUse(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		l := cgroup.Limits{MemoryBytes: 128 << 20, SwapBytes: -1}
		g := create(t, tree, l)
		out, _ := start(t, g, fmt.Sprintf("keep %d", 32<<20))
		if line := readLine(t, out); line != "ate 33554432" {
			t.Fatal(line)
		}
		err := g.Update(t.Context(), cgroup.Limits{MemoryBytes: 16 << 20, SwapBytes: -1, CheckBeforeUpdate: true})
		if !errors.Is(err, errdefs.ErrConflict) {
			t.Fatalf("Update = %v", err)
		}
		s, err := g.Stats(t.Context())
		check(t, err)
		if s.Memory.Limit != 128<<20 || s.Memory.SwapLimit != 0 && tree.Supports(cgroup.LimitSwap) || s.Pids < 1 || s.Memory.OOMKills != 0 {
			t.Errorf("Stats = %+v", s)
		}
		for _, size := range []int64{256 << 20, 100 << 20, 512 << 20} {
			check(t, g.Update(t.Context(), cgroup.Limits{MemoryBytes: size, SwapBytes: -1}))
		}
	})
}

// Somebody removes the empty tree while the service runs.
func TestTreeIsMadeAgain(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		check(t, create(t, tree, cgrouptest.Limits()).Delete(t.Context()))
		check(t, cgroup.RemoveTree(tree))
		if names, err := tree.List(t.Context()); err != nil || len(names) != 0 {
			t.Fatalf("List = %v, %v", names, err)
		}
		g := create(t, tree, cgrouptest.Limits())
		start(t, g, "sleep")
		check(t, g.Kill(t.Context()))
		check(t, g.Delete(t.Context()))
		check(t, cgroup.RemoveTree(tree))
		g, err := tree.Create(t.Context(), "a/b", cgrouptest.Limits())
		check(t, err)
		bear(t, g, "sleep")
	})
}

// Creating and deleting below one parent at once: no step trips over another.
func TestParentsUnderRace(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		ended := make(chan error)
		for n := range 4 {
			go func() {
				var err error
				for range 10 {
					g, e := tree.Create(t.Context(), fmt.Sprintf("pod/x/%d", n), cgroup.Limits{Pids: 5, CPUSet: "0"})
					if e != nil {
						err = e
						break
					}
					if err = g.Delete(t.Context()); err != nil {
						break
					}
				}
				ended <- err
			}()
		}
		for range 4 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if dirs := cgroup.Directories(tree, "pod"); len(dirs) != 0 {
			t.Errorf("left behind: %v", dirs)
		}
	})
}

// A group outside of the tree that somebody else made is never touched.
func TestForeignGroup(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		name := fmt.Sprintf("gantry-foreign-%d", os.Getpid())
		var dirs []string
		g := create(t, tree, cgroup.Limits{})
		paths, err := g.Paths()
		check(t, err)
		for _, p := range paths {
			dir := filepath.Join(p.Mount, name)
			check(t, os.Mkdir(dir, 0o755))
			t.Cleanup(func() { check(t, os.Remove(dir)) })
			dirs = append(dirs, dir)
		}
		_, err = tree.Create(t.Context(), "/"+name, cgroup.Limits{})
		if !errors.Is(err, errdefs.ErrConflict) {
			t.Errorf("Create = %v", err)
		}
		if _, err = tree.Open(t.Context(), "/"+name); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("Open = %v", err)
		}
		below, err := tree.Create(t.Context(), "/"+name+"/below", cgroup.Limits{})
		check(t, err)
		check(t, below.Delete(t.Context()))
		for _, dir := range dirs {
			if _, err := os.Stat(dir); err != nil {
				t.Error(err)
			}
		}
	})
}

// Sub-groups that were frozen by themselves, by either version, do not keep
// processes from being killed.
func TestKillNestedFrozen(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		g := create(t, tree, cgroup.Limits{})
		_, cmd := start(t, g, "spin")
		for _, dir := range cgroup.Directories(tree, "one") {
			sub := filepath.Join(dir, "guest", "deep")
			check(t, os.MkdirAll(sub, 0o755))
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				copyDown(t, dir, file)
			}
			check(t, os.WriteFile(filepath.Join(sub, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0o644))
			for file, value := range map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"} {
				if _, err := os.Stat(filepath.Join(sub, file)); err == nil {
					check(t, os.WriteFile(filepath.Join(sub, file), []byte(value), 0o644))
				}
			}
		}
		check(t, g.Kill(t.Context()))
		check(t, g.Delete(t.Context()))
	})
}

// What cannot be killed in time is named. A tracer that stops a process at its
// exit keeps one here, as a device that does not answer would.
func TestKillNamesWhatIsLeft(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		runtime.LockOSThread() // the tracer is a thread
		defer runtime.UnlockOSThread()
		g := create(t, tree, cgroup.Limits{})
		_, cmd := start(t, g, "sleep")
		pid := cmd.Process.Pid
		if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, unix.PTRACE_O_TRACEEXIT, 0, 0); errno != 0 {
			t.Fatal(errno)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		err := g.Kill(ctx)
		left, ok := errors.AsType[*cgroup.LeftError](err)
		if !ok || !errors.Is(err, errdefs.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Kill = %v", err)
		}
		if !slices.Equal(left.Pids, []int{pid}) || left.States != "t" || !strings.Contains(err.Error(), fmt.Sprintf("1 processes are left: %d (t)", pid)) {
			t.Errorf("Kill = %v, want %d", err, pid)
		}
		check(t, unix.PtraceDetach(pid))
		check(t, g.Kill(t.Context()))
	})
}

// Stats have what the load did.
func TestStatsInFull(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		l := cgroup.Limits{MemoryBytes: 256 << 20, SwapBytes: -1, Pids: 40}
		if tree.Supports(cgroup.LimitHugePages) {
			l.HugePages = []cgroup.HugePageLimit{{PageSize: "2MB", Bytes: 4 << 20}}
		}
		g := create(t, tree, l)
		out, _ := start(t, g, fmt.Sprintf("keep %d", 16<<20))
		readLine(t, out)
		l.CPUQuota = 10000
		check(t, g.Update(t.Context(), l))
		start(t, g, "spin")
		var s cgroup.Stats
		for deadline := time.Now().Add(time.Minute); s.CPUThrottledPeriods == 0 || s.CPUThrottled == 0 || s.CPUUser == 0; {
			var err error
			s, err = g.Stats(t.Context())
			check(t, err)
			if time.Now().After(deadline) {
				t.Fatalf("never throttled: %+v", s)
			}
		}
		for what, ok := range map[string]bool{
			"cpu":     s.CPUTime > 0 && s.CPUPeriods >= s.CPUThrottledPeriods && s.CPUThrottled > 0,
			"memory":  s.Memory.Usage >= 16<<20 && s.Memory.Anon >= 16<<20 && s.Memory.Peak >= s.Memory.Anon && s.Memory.Limit == 256<<20,
			"working": s.MemoryBytes >= 16<<20 && s.MemoryBytes <= s.Memory.Usage,
			"kernel":  s.Memory.Kernel > 0 && s.Memory.Swap == 0,
			"pids":    s.Pids >= 2 && s.PidsLimit == 40,
			"pages":   len(s.HugePages) > 0 == tree.Supports(cgroup.LimitHugePages),
		} {
			if !ok {
				t.Errorf("%s: %+v", what, s)
			}
		}
		for _, h := range s.HugePages {
			if h.PageSize == "2MB" && h.Limit != 4<<20 || h.PageSize == "1GB" && h.Limit != -1 {
				t.Errorf("huge pages: %+v", h)
			}
		}
		check(t, g.Update(t.Context(), cgroup.Limits{}))
		s, err := g.Stats(t.Context())
		check(t, err)
		if s.Memory.Limit != -1 || s.PidsLimit != -1 {
			t.Errorf("without limits: %+v", s)
		}
	})
}

// Events ends when the group is removed.
func TestEventsEndWithTheGroup(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		g := create(t, tree, cgroup.Limits{MemoryBytes: 64 << 20})
		start(t, g, "sleep")
		ended := make(chan error)
		go func() {
			for _, err := range g.Events(t.Context()) {
				if err != nil {
					ended <- err
				}
			}
			close(ended)
		}()
		check(t, g.Kill(t.Context()))
		check(t, g.Delete(t.Context()))
		if err := <-ended; err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			t.Error(err)
		}
	})
}

// A process that is born in the group is in all of its hierarchies, and so is
// what it starts.
func TestBornEverywhere(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		g := create(t, tree, cgrouptest.Limits())
		_, cmd := bear(t, g, "sleep")
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
		check(t, err)
		dirs := cgroup.Directories(tree, "one")
		for _, dir := range dirs {
			procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			check(t, err)
			if strings.TrimSpace(string(procs)) != fmt.Sprint(cmd.Process.Pid) {
				t.Errorf("%s has %q; %s", dir, procs, b)
			}
		}
	})
}

// A tree whose place is a path, as a delegated part of systemd's.
func TestTreeAtAPath(t *testing.T) {
	for layout, mountinfo := range layouts(t) {
		t.Run(layout, func(t *testing.T) {
			top := fmt.Sprintf("gantry-path-%d", os.Getpid())
			tree, err := cgroup.New(t.Context(), cgroup.Options{Name: top + "/sub/instances", MountInfo: mountinfo})
			check(t, err)
			t.Cleanup(func() { check(t, cgroup.RemoveBelow(tree, top)) })
			g := create(t, tree, cgrouptest.Limits())
			start(t, g, "sleep")
			s, err := g.Stats(t.Context())
			check(t, err)
			if s.PidsLimit != 32 {
				t.Errorf("Stats = %+v", s)
			}
			check(t, g.Kill(t.Context()))
			check(t, g.Delete(t.Context()))
		})
	}
}

// Nothing stays open, however often groups live and die.
func TestNoDescriptorLeaks(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		open := func() int {
			entries, err := os.ReadDir("/proc/self/fd")
			check(t, err)
			return len(entries)
		}
		var before int
		for n := range 20 {
			g := create(t, tree, cgrouptest.Limits())
			files, err := g.BirthFiles()
			check(t, err)
			for _, f := range files {
				check(t, f.Close())
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			for _, err := range g.Events(ctx) {
				check(t, err)
			}
			cancel()
			check(t, g.Update(t.Context(), cgroup.Limits{BlockIO: &cgroup.BlockIO{}, CPUSet: "0"}))
			_, err = tree.Create(t.Context(), "two", cgroup.Limits{CPUSet: "99999"})
			if err == nil {
				t.Fatal("a group on a processor that is not there")
			}
			check(t, g.Delete(t.Context()))
			if n == 0 {
				before = open()
			}
		}
		if after := open(); after > before {
			t.Errorf("%d descriptors, then %d", before, after)
		}
	})
}
