// Package cgrouptest is the contract suite of cgroup.Tree and cgroup.Group.
package cgrouptest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Host is what the suite runs on: a Tree that nobody else uses, empty.
type Host interface {
	Tree() cgroup.Tree
	// Spawn starts a process that sleeps for ever in the group, by its
	// JoinFiles, and returns when it has joined.
	Spawn(t *testing.T, name string, g cgroup.Group)
	// Bear is Spawn by BirthFiles.
	Bear(t *testing.T, name string, g cgroup.Group)
	// OOM makes one process of the group, which has a memory limit, die for it.
	OOM(t *testing.T, name string, g cgroup.Group)
}

// Run runs the suite; newHost returns a separate host for each test.
func Run(t *testing.T, newHost func(t *testing.T) Host) {
	for _, c := range []struct {
		name string
		fn   func(t *testing.T, h Host)
	}{
		{"CreateOpenListDelete", testLife},
		{"TakeOver", testTakeOver},
		{"Refused", testRefused},
		{"Update", testUpdate},
		{"FreezeThaw", testFreeze},
		{"Kill", testKill},
		{"Absent", testAbsent},
		{"Born", testBorn},
		{"Nested", testNested},
		{"Absolute", testAbsolute},
		{"Events", testEvents},
	} {
		t.Run(c.name, func(t *testing.T) { c.fn(t, newHost(t)) })
	}
}

// Limits is a set of limits that every host should have.
func Limits() cgroup.Limits {
	return cgroup.Limits{
		MemoryBytes: 64 << 20, CPUQuota: 50000, CPUPeriod: 100000, CPUShares: 1024, Pids: 32, CPUSet: "0",
		Devices: []cgroup.Device{
			{Type: 'c', Major: 1, Minor: 3, Access: "rwm"}, {Type: 'c', Major: 1, Minor: 5, Access: "r"}, {Type: 'c', Major: 136, Minor: -1, Access: "rw"},
		},
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func class(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s = %v, want %v", what, err, want)
	}
}

func names(t *testing.T, tree cgroup.Tree, want ...string) {
	t.Helper()
	got, err := tree.List(t.Context())
	check(t, err)
	if !slices.Equal(got, want) {
		t.Fatalf("List = %q, want %q", got, want)
	}
}

func create(t *testing.T, tree cgroup.Tree, name string) cgroup.Group {
	t.Helper()
	g, err := tree.Create(t.Context(), name, Limits())
	check(t, err)
	return g
}

func testLife(t *testing.T, h Host) {
	tree := h.Tree()
	names(t, tree)
	g := create(t, tree, "one")
	create(t, tree, "two")
	names(t, tree, "one", "two")
	files, err := g.JoinFiles()
	check(t, err)
	if len(files) == 0 {
		t.Fatal("nothing to join")
	}
	for _, f := range files {
		check(t, f.Close())
	}
	g2, err := tree.Open(t.Context(), "two")
	check(t, err)
	check(t, g2.Delete(t.Context()))
	names(t, tree, "one")
	h.Spawn(t, "one", g)
	s, err := g.Stats(t.Context())
	check(t, err)
	if s.Pids < 1 || s.CPUTime < 0 || s.MemoryBytes < 0 {
		t.Fatalf("Stats = %+v", s)
	}
	if n, err := g.OOMKills(t.Context()); n != 0 || err != nil {
		t.Fatalf("OOMKills = %d, %v", n, err)
	}
	class(t, "Delete of a group in use", g.Delete(t.Context()), errdefs.ErrConflict)
	names(t, tree, "one")
	check(t, g.Kill(t.Context()))
	check(t, g.Delete(t.Context()))
	names(t, tree)
	if tree.Describe() == "" {
		t.Fatal("no description")
	}
}

func testTakeOver(t *testing.T, h Host) {
	tree := h.Tree()
	g := create(t, tree, "one")
	check(t, g.Freeze(t.Context()))
	g = create(t, tree, "one") // empty: taken over, and thawed
	if is, err := g.Frozen(t.Context()); is || err != nil {
		t.Fatalf("Frozen = %v, %v", is, err)
	}
	h.Spawn(t, "one", g)
	_, err := tree.Create(t.Context(), "one", Limits())
	class(t, "Create over processes", err, errdefs.ErrConflict)
	if s, err := g.Stats(t.Context()); err != nil || s.Pids < 1 {
		t.Fatalf("Stats after conflict = %+v, %v", s, err)
	}
	check(t, g.Kill(t.Context()))
	create(t, tree, "one")
	names(t, tree, "one")
}

func testRefused(t *testing.T, h Host) {
	tree := h.Tree()
	for _, name := range []string{"", ".", "..", "a/../b", "a//b", "a/", "/", "//a", "../x", "a/tasks", ".hidden", "cgroup.procs", "memory.max", "tasks", "a\nb"} {
		_, err := tree.Create(t.Context(), name, cgroup.Limits{})
		class(t, "Create "+name, err, errdefs.ErrInvalid)
		_, err = tree.Open(t.Context(), name)
		class(t, "Open "+name, err, errdefs.ErrInvalid)
	}
	g := create(t, tree, "one")
	for what, l := range map[string]cgroup.Limits{
		"memory": {MemoryBytes: -1}, "swap": {SwapBytes: -2}, "quota": {CPUQuota: 999}, "period": {CPUPeriod: 999}, "shares": {CPUShares: 1},
		"many shares": {CPUShares: 262145}, "pids": {Pids: -1}, "cpuset": {CPUSet: "0 1"},
		"device type":   {Devices: []cgroup.Device{{Type: 'a', Access: "r"}}},
		"device access": {Devices: []cgroup.Device{{Type: 'c', Access: "x"}}},
		"device none":   {Devices: []cgroup.Device{{Type: 'c', Access: ""}}},
		"device number": {Devices: []cgroup.Device{{Type: 'c', Major: -2, Access: "r"}}},
	} {
		_, err := tree.Create(t.Context(), "two", l)
		class(t, "Create with "+what, err, errdefs.ErrInvalid)
		class(t, "Update with "+what, g.Update(t.Context(), l), errdefs.ErrInvalid)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := tree.Create(ctx, "two", Limits())
	class(t, "Create with cancelled context", err, context.Canceled)
	names(t, tree, "one")
}

func testUpdate(t *testing.T, h Host) {
	g := create(t, h.Tree(), "one")
	h.Spawn(t, "one", g)
	l := Limits()
	l.MemoryBytes, l.CPUQuota, l.Pids, l.Devices = 128<<20, 150000, 64, nil
	check(t, g.Update(t.Context(), l))
	check(t, g.Update(t.Context(), cgroup.Limits{}))
	check(t, g.Update(t.Context(), Limits()))
	check(t, g.Update(t.Context(), Limits()))
}

func testFreeze(t *testing.T, h Host) {
	g := create(t, h.Tree(), "one")
	h.Spawn(t, "one", g)
	want := func(want bool) {
		t.Helper()
		if is, err := g.Frozen(t.Context()); is != want || err != nil {
			t.Fatalf("Frozen = %v, %v", is, err)
		}
	}
	want(false)
	check(t, g.Thaw(t.Context()))
	for range 2 {
		check(t, g.Freeze(t.Context()))
		want(true)
	}
	again, err := h.Tree().Open(t.Context(), "one") // as after a restart
	check(t, err)
	for range 2 {
		check(t, again.Thaw(t.Context()))
		want(false)
	}
}

func testKill(t *testing.T, h Host) {
	g := create(t, h.Tree(), "one")
	check(t, g.Kill(t.Context())) // empty
	for range 3 {
		h.Spawn(t, "one", g)
	}
	check(t, g.Freeze(t.Context()))
	check(t, g.Kill(t.Context()))
	if is, err := g.Frozen(t.Context()); is || err != nil {
		t.Fatalf("Frozen = %v, %v", is, err)
	}
	check(t, g.Delete(t.Context()))
}

func testAbsent(t *testing.T, h Host) {
	tree := h.Tree()
	_, err := tree.Open(t.Context(), "one")
	class(t, "Open", err, errdefs.ErrNotFound)
	g := create(t, tree, "one")
	for range 2 {
		check(t, g.Delete(t.Context()))
	}
	check(t, g.Kill(t.Context()))
	_, err = g.JoinFiles()
	class(t, "JoinFiles", err, errdefs.ErrNotFound)
	_, err = g.Stats(t.Context())
	class(t, "Stats", err, errdefs.ErrNotFound)
	_, err = g.OOMKills(t.Context())
	class(t, "OOMKills", err, errdefs.ErrNotFound)
	class(t, "Update", g.Update(t.Context(), Limits()), errdefs.ErrNotFound)
	class(t, "Freeze", g.Freeze(t.Context()), errdefs.ErrNotFound)
	class(t, "Thaw", g.Thaw(t.Context()), errdefs.ErrNotFound)
	_, err = g.Frozen(t.Context())
	class(t, "Frozen", err, errdefs.ErrNotFound)
	_, err = g.BirthFiles()
	class(t, "BirthFiles", err, errdefs.ErrNotFound)
	_, err = g.Paths()
	class(t, "Paths", err, errdefs.ErrNotFound)
	_, err = g.Pids(t.Context())
	class(t, "Pids", err, errdefs.ErrNotFound)
	for _, err = range g.Events(t.Context()) {
		class(t, "Events", err, errdefs.ErrNotFound)
	}
	class(t, "Events", err, errdefs.ErrNotFound)
}
