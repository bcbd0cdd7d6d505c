//go:build linux

package cgroup_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/cgroup/cgrouptest"
)

func TestFakeSuite(t *testing.T) {
	cgrouptest.Run(t, func(*testing.T) cgrouptest.Host { return fakeHost{cgroup.NewFake()} })
}

type fakeHost struct{ f *cgroup.Fake }

func (h fakeHost) Tree() cgroup.Tree                               { return h.f }
func (h fakeHost) Spawn(_ *testing.T, name string, _ cgroup.Group) { h.f.SetProcesses(name, 1) }
func (h fakeHost) Bear(_ *testing.T, name string, _ cgroup.Group)  { h.f.SetProcesses(name, 1) }
func (h fakeHost) OOM(_ *testing.T, name string, _ cgroup.Group)   { h.f.AddOOMKill(name) }

// layouts returns those that this machine can show: the one it has, and v1
// alone when it is a hybrid.
func layouts(t testing.TB) map[string]string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var v1, v2 []string
	for line := range strings.Lines(string(b)) {
		switch {
		case strings.Contains(line, " - cgroup2 "):
			v2 = append(v2, line)
		case strings.Contains(line, " - cgroup "):
			v1 = append(v1, line)
		}
	}
	out := map[string]string{}
	switch {
	case len(v1) > 0 && len(v2) > 0:
		out["hybrid"], out["v1"] = strings.Join(append(v1, v2...), ""), strings.Join(v1, "")
	case len(v1) > 0:
		out["v1"] = strings.Join(v1, "")
	default:
		out["v2"] = strings.Join(v2, "")
	}
	return out
}

// eachLayout runs fn with a tree of its own for each layout, and looks that
// nothing is left.
func eachLayout(t *testing.T, fn func(t *testing.T, tree cgroup.Tree)) {
	for layout, mountinfo := range layouts(t) {
		t.Run(layout, func(t *testing.T) { fn(t, newTree(t, mountinfo)) })
	}
}

func newTree(t testing.TB, mountinfo string) cgroup.Tree {
	name := fmt.Sprintf("gantry-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	tree, err := cgroup.New(t.Context(), cgroup.Options{Name: name, MountInfo: mountinfo})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		names, err := tree.List(context.WithoutCancel(t.Context()))
		check(t, err)
		for _, n := range names {
			if g, err := tree.Open(context.WithoutCancel(t.Context()), n); err == nil {
				check(t, g.Kill(context.WithoutCancel(t.Context())))
				check(t, g.Delete(context.WithoutCancel(t.Context())))
			}
		}
		if err := cgroup.RemoveTree(tree); err != nil {
			t.Errorf("left behind: %v", err)
		}
		for _, dir := range cgroup.Directories(tree, ".") {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("left behind: %s", dir)
			}
		}
	})
	return tree
}

type kernelHost struct{ tree cgroup.Tree }

func (h kernelHost) Tree() cgroup.Tree { return h.tree }
func (h kernelHost) Spawn(t *testing.T, _ string, g cgroup.Group) {
	start(t, g, "sleep")
}

func (h kernelHost) Bear(t *testing.T, _ string, g cgroup.Group) {
	bear(t, g, "sleep")
}

func (h kernelHost) OOM(t *testing.T, _ string, g cgroup.Group) {
	_, cmd := start(t, g, fmt.Sprintf("eat %d", 64<<20))
	if err := cmd.Wait(); err == nil {
		t.Fatal("it ate more than the limit")
	}
}

func TestLinuxSuite(t *testing.T) {
	for layout, mountinfo := range layouts(t) {
		t.Run(layout, func(t *testing.T) {
			cgrouptest.Run(t, func(t *testing.T) cgrouptest.Host { return kernelHost{newTree(t, mountinfo)} })
		})
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, tree cgroup.Tree, l cgroup.Limits) cgroup.Group {
	t.Helper()
	g, err := tree.Create(t.Context(), "one", l)
	check(t, err)
	return g
}

// The files of the kernel hold what was asked for, and the defaults after an
// update with no limits.
func TestLimitFiles(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		l := cgrouptest.Limits()
		l.SwapBytes = -1
		g := create(t, tree, l)
		one := func(file string, want ...string) {
			t.Helper()
			if got, ok := cgroup.File(tree, "one", file); ok && !slices.Contains(want, got) {
				t.Errorf("%s = %q, want %q", file, got, want)
			}
		}
		one("memory.limit_in_bytes", "67108864")
		one("memory.memsw.limit_in_bytes", "67108864")
		one("memory.max", "67108864")
		one("memory.swap.max", "0")
		one("cpu.cfs_quota_us", "50000")
		one("cpu.max", "50000 100000")
		one("cpu.shares", "1024")
		one("cpu.weight", "39")
		one("pids.max", "32")
		one("cpuset.cpus", "0")
		one("devices.list", "c 136:* rw\nc 1:3 rwm\nc 1:5 r")
		check(t, g.Update(t.Context(), cgroup.Limits{}))
		one("memory.limit_in_bytes", "9223372036854771712")
		one("memory.memsw.limit_in_bytes", "9223372036854771712")
		one("memory.max", "max")
		one("memory.swap.max", "max")
		one("cpu.cfs_quota_us", "-1")
		one("cpu.max", "max 100000")
		one("cpu.shares", "1024")
		one("cpu.weight", "100")
		one("pids.max", "max")
		whole, _ := cgroup.File(tree, ".", "cpuset.cpus")
		effective, _ := cgroup.File(tree, ".", "cpuset.cpus.effective")
		one("cpuset.cpus", whole, effective)
		one("devices.list", "c 136:* rw\nc 1:3 rwm\nc 1:5 r")
	})
}

func TestOOMKillIsCounted(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		g := create(t, tree, cgroup.Limits{MemoryBytes: 48 << 20, SwapBytes: -1})
		_, cmd := start(t, g, fmt.Sprintf("eat %d", 256<<20))
		if err := cmd.Wait(); err == nil {
			t.Fatal("it ate more than the limit")
		}
		n, err := g.OOMKills(t.Context())
		if err != nil || n != 1 {
			t.Fatalf("OOMKills = %d, %v", n, err)
		}
		out, _ := start(t, g, fmt.Sprintf("eat %d", 4<<20))
		if line := readLine(t, out); line != "ate 4194304" {
			t.Fatalf("a small one: %q", line)
		}
	})
}

func TestDevices(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		try := func(g cgroup.Group, what string) string {
			t.Helper()
			out, _ := start(t, g, "open "+what)
			return readLine(t, out)
		}
		g := create(t, tree, cgrouptest.Limits()) // null rwm, zero r
		const no = "operation not permitted"
		for _, c := range []struct{ what, want string }{
			{"/dev/null w", "ok"}, {"/dev/zero r", "ok"}, {"/dev/zero w", no}, {"/dev/urandom r", no},
		} {
			if got := try(g, c.what); got != c.want {
				t.Errorf("%s: %s, want %s", c.what, got, c.want)
			}
		}
		check(t, g.Update(t.Context(), cgroup.Limits{Devices: []cgroup.Device{{Type: 'c', Major: 1, Minor: 9, Access: "rw"}}}))
		for _, c := range []struct{ what, want string }{{"/dev/null w", no}, {"/dev/urandom r", "ok"}} {
			if got := try(g, c.what); got != c.want {
				t.Errorf("after update: %s: %s, want %s", c.what, got, c.want)
			}
		}
		check(t, g.Update(t.Context(), cgroup.Limits{DeviceRules: []cgroup.DeviceRule{
			{Allow: true, Type: 'a', Major: -1, Minor: -1, Access: "rwm"},
			{Type: 'c', Major: 1, Minor: 9, Access: "rwm"},
			{Type: 'c', Major: 1, Minor: 5, Access: "w"},
		}}))
		for _, c := range []struct{ what, want string }{
			{"/dev/null w", "ok"}, {"/dev/zero r", "ok"}, {"/dev/zero w", no}, {"/dev/urandom r", no},
		} {
			if got := try(g, c.what); got != c.want {
				t.Errorf("all but some: %s: %s, want %s", c.what, got, c.want)
			}
		}
		check(t, g.Update(t.Context(), cgroup.Limits{Devices: []cgroup.Device{}}))
		if got := try(g, "/dev/urandom r"); got != no {
			t.Errorf("empty list: %s", got)
		}
	})
}

// A process that forks as fast as it can is killed with all its children, with
// the number of them bounded by the pids limit and not by us.
func TestKillForkBomb(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		g := create(t, tree, cgroup.Limits{Pids: 60})
		start(t, g, "bomb")
		for deadline := time.Now().Add(time.Minute); ; {
			s, err := g.Stats(t.Context())
			check(t, err)
			if s.Pids > 50 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the bomb does not go off: %+v", s)
			}
		}
		check(t, g.Kill(t.Context()))
		for _, dir := range cgroup.Directories(tree, "one") {
			if b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err != nil || len(b) != 0 {
				t.Fatalf("%s: %q, %v", dir, b, err)
			}
		}
		check(t, g.Delete(t.Context()))
	})
}

// Processes in sub-groups that the guest made are frozen, counted, killed.
func TestSubgroups(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		g := create(t, tree, cgroup.Limits{Pids: 100})
		_, cmd := start(t, g, "spin")
		for _, dir := range cgroup.Directories(tree, "one") {
			sub := filepath.Join(dir, "guest", "deep")
			check(t, os.MkdirAll(sub, 0o755))
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				copyDown(t, dir, file)
			}
			check(t, os.WriteFile(filepath.Join(sub, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0o644))
		}
		check(t, g.Freeze(t.Context()))
		if s, err := g.Stats(t.Context()); err != nil || s.Pids < 1 || s.CPUTime == 0 {
			t.Fatalf("Stats = %+v, %v", s, err)
		}
		if err := g.Delete(t.Context()); err == nil {
			t.Fatal("deleted with processes")
		}
		check(t, g.Kill(t.Context()))
		check(t, g.Delete(t.Context()))
	})
}

func copyDown(t *testing.T, dir, file string) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil || len(strings.TrimSpace(string(b))) == 0 {
		return
	}
	for _, sub := range []string{"guest", "guest/deep"} {
		check(t, os.WriteFile(filepath.Join(dir, sub, file), b, 0o644))
	}
}

func TestFrozenDoesNotRun(t *testing.T) {
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		g := create(t, tree, cgroup.Limits{})
		start(t, g, "spin")
		used := func() time.Duration {
			s, err := g.Stats(t.Context())
			check(t, err)
			return s.CPUTime
		}
		for used() < 5*time.Millisecond {
		}
		check(t, g.Freeze(t.Context()))
		before := used()
		busy(20 * time.Millisecond)
		if after := used(); after != before {
			t.Fatalf("it ran for %s while frozen", after-before)
		}
		check(t, g.Thaw(t.Context()))
		for used() == before {
		}
	})
}

func busy(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

func BenchmarkCreateDelete(b *testing.B) {
	for layout, mountinfo := range layouts(b) {
		b.Run(layout, func(b *testing.B) {
			tree := newTree(b, mountinfo)
			l := cgrouptest.Limits()
			for n := 0; b.Loop(); n++ {
				g, err := tree.Create(b.Context(), "one", l)
				if err != nil {
					b.Fatal(err)
				}
				if err := g.Delete(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
