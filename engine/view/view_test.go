package view_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/view"
	"github.com/gantry-project/gantry/internal/errdefs"
)

var update = flag.Bool("update", false, "write what is rendered to testdata")

func pathsV1(dir string) []cgroup.Path {
	var list []cgroup.Path
	for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "blkio"} {
		list = append(list, cgroup.Path{Controllers: []string{c}, Mount: "/", Dir: filepath.Join(dir, c)})
	}
	return list
}

var (
	all  = view.NeedMemory | view.NeedTime | view.NeedDisk
	host = view.Host{CPUs: 16, MemoryBytes: 1 << 36}
)

func TestSource(t *testing.T) {
	v2 := []cgroup.Path{{Mount: "/", Dir: "testdata/v2"}}
	withoutSets := pathsV1("testdata/v1")
	withoutSets[2].Dir, withoutSets[4].Dir = "/", "/" // the group has none of its own
	for name, c := range map[string]struct {
		paths []cgroup.Path
		host  view.Host
		want  view.Guest
	}{
		"v1": {pathsV1("testdata/v1"), host, view.Guest{
			CPUs: 2, User: 12345678901, System: 2345678901,
			Disk: view.Disk{ReadBytes: 4608, WriteBytes: 8192, ReadOps: 2, WriteOps: 2},
		}},
		"v1, no group of some": {withoutSets, host, view.Guest{CPUs: 2, User: 12345678901, System: 2345678901}},
		"hybrid":               {append(pathsV1("testdata/v1"), v2...), view.Host{CPUs: 1}, view.Guest{CPUs: 1, User: 12345678901, System: 2345678901, Disk: view.Disk{ReadBytes: 4608, WriteBytes: 8192, ReadOps: 2, WriteOps: 2}}},
		"v2": {v2, host, view.Guest{
			CPUs: 2, User: 4 * time.Second, System: time.Second,
			Disk: view.Disk{ReadBytes: 90434560, WriteBytes: 299008000, ReadOps: 8951, WriteOps: 1252},
			Memory: view.Memory{
				Total: 512 << 20, Used: 128 << 20, SwapTotal: 256 << 20, SwapUsed: 1 << 20,
				File: 60 << 20, Shmem: 4 << 20, Mapped: 20 << 20, Anon: 40 << 20, ActiveAnon: 14 << 20, InactiveAnon: 30 << 20,
				ActiveFile: 32 << 20, InactiveFile: 24 << 20, Dirty: 8192, Writeback: 4096,
				SlabReclaimable: 6 << 20, SlabUnreclaimable: 2 << 20, KernelStack: 512 << 10, PageTables: 1 << 20, AnonHuge: 2 << 20,
			},
		}},
	} {
		var got view.Guest
		if err := view.NewSource(c.paths).Read(&got, c.host, all); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if m := got.Memory; strings.HasPrefix(name, "v1") || name == "hybrid" {
			if m.Total != 256<<20 || m.Used <= 0 || m.Used > m.Total || m.SwapTotal != 0 || m.ActiveFile+m.InactiveFile <= 0 || m.Anon <= 0 {
				t.Errorf("%s: memory %+v", name, m)
			}
			got.Memory = view.Memory{}
		}
		if got != c.want {
			t.Errorf("%s:\n%+v\nwant\n%+v", name, got, c.want)
		}
	}
}

// Without limits a guest has what the host has; what cannot be read is no guest's.
func TestSourceWithoutLimits(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"cpu.max": "max 100000\n", "memory.max": "max\n", "memory.current": "4096\n", "memory.stat": "anon x\nfile 4096", "cpu.stat": "",
		"cpuset.cpus.effective": "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := view.NewSource([]cgroup.Path{{Mount: "/", Dir: dir}})
	var g view.Guest
	if err := s.Read(&g, host, all); err != nil || g.CPUs != 16 || g.Memory.Total != 1<<36 || g.Memory.SwapTotal != 0 {
		t.Errorf("%+v, %v", g, err)
	}
	if err := os.Remove(filepath.Join(dir, "memory.max")); err != nil {
		t.Fatal(err)
	}
	if err := s.Read(&g, host, view.NeedMemory); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a group that is gone: %v", err)
	}
	if err := view.NewSource(nil).Read(&g, host, all); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("no group: %v", err)
	}
}

// walk calls fn for each node below dir.
func walk(t *testing.T, dir view.NodeID, path string, cpus int, fn func(path string, n view.Node)) {
	t.Helper()
	for _, n := range view.List(dir, cpus) {
		if found, ok := view.Lookup(dir, n.Name, cpus); !ok || found != n {
			t.Errorf("lookup of %s/%s: %+v, %v", path, n.Name, found, ok)
		}
		if known, ok := view.Stat(n.ID); !ok || known != n {
			t.Errorf("stat of %s/%s: %+v, %v", path, n.Name, known, ok)
		}
		fn(path+"/"+n.Name, n)
		if n.Dir {
			walk(t, n.ID, path+"/"+n.Name, cpus, fn)
		}
	}
}

// All that a guest is shown, as text: -update writes it.
func TestRender(t *testing.T) {
	cpuinfo, err := os.ReadFile("testdata/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	g := view.Guest{
		Uptime: 3*time.Hour + 1234*time.Millisecond, Now: time.Unix(1700000000, 0), CPUInfo: string(cpuinfo),
		Load: view.Load{One: 0.5, Five: 1.25, Fifteen: 3, Running: 1, Blocked: 2, All: 17},
	}
	if err := view.NewSource([]cgroup.Path{{Mount: "/", Dir: "testdata/v2"}}).Read(&g, host, all); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	ids := map[view.NodeID]string{}
	walk(t, view.Root, "", g.CPUs, func(path string, n view.Node) {
		if ids[n.ID] != "" || n.ID >= 1<<view.NodeBits || n.ID <= view.Root {
			t.Errorf("%s has the number %d, as %q", path, n.ID, ids[n.ID])
		}
		ids[n.ID] = path
		text, ok := view.Render(n.ID, &g)
		if ok == n.Dir {
			t.Errorf("%s: a directory %v, a text %v", path, n.Dir, ok)
		}
		if ok {
			fmt.Fprintf(&b, "== %s\n%s", path, text)
		}
	})
	const golden = "testdata/guest.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != b.String() {
		t.Errorf("%s differs (%v):\n%s", golden, err, b.String())
	}
}

func TestTreeHasNothingElse(t *testing.T) {
	g := view.Guest{CPUs: 2}
	for _, c := range []struct {
		dir  string
		name string
	}{{"", "cpu3"}, {"", ""}, {"", ".."}, {"cpu", "cpu2"}, {"cpu", "cpu01"}, {"cpu", "cpu-1"}, {"cpu", "cpu+1"}, {"cpu", "cpu"}, {"node", "cpu0"}} {
		dir := view.Root
		if c.dir != "" {
			n, ok := view.Lookup(view.Root, c.dir, g.CPUs)
			if !ok {
				t.Fatalf("no %s", c.dir)
			}
			dir = n.ID
		}
		if n, ok := view.Lookup(dir, c.name, g.CPUs); ok {
			t.Errorf("%s/%s is %+v", c.dir, c.name, n)
		}
	}
	one, _ := view.Lookup(view.Root, "cpu", 9)
	ninth, ok := view.Lookup(one.ID, "cpu8", 9)
	if !ok || !ninth.May || len(view.List(ninth.ID, 2)) != 0 {
		t.Errorf("the ninth processor: %+v", ninth)
	}
	for _, id := range []view.NodeID{0, 9, 15, ninth.ID + 15, 1<<64 - 1} {
		if n, ok := view.Stat(id); ok {
			t.Errorf("node %d is %+v", id, n)
		}
		if text, ok := view.Render(id, &g); ok {
			t.Errorf("node %d says %q", id, text)
		}
	}
	for _, p := range view.Places() {
		if n, ok := view.Lookup(view.Root, p.Name, 1); !ok || n.Dir != p.Dir || filepath.Base(p.Path) != p.Name {
			t.Errorf("%+v is %+v", p, n)
		}
	}
}
