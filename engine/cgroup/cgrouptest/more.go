package cgrouptest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func testBorn(t *testing.T, h Host) {
	g := create(t, h.Tree(), "one")
	pids, err := g.Pids(t.Context())
	check(t, err)
	if len(pids) != 0 {
		t.Fatalf("Pids = %v", pids)
	}
	h.Bear(t, "one", g)
	if pids, err = g.Pids(t.Context()); err != nil || len(pids) != 1 || pids[0] <= 0 {
		t.Fatalf("Pids = %v, %v", pids, err)
	}
	paths, err := g.Paths()
	check(t, err)
	if len(paths) == 0 {
		t.Fatal("no paths")
	}
	for _, p := range paths {
		if !filepath.IsAbs(p.Mount) || p.Dir != p.Mount && !strings.HasPrefix(p.Dir, p.Mount+"/") {
			t.Errorf("path %+v", p)
		}
	}
	check(t, g.Kill(t.Context()))
	check(t, g.Delete(t.Context()))
}

// Parents come and go with their groups.
func testNested(t *testing.T, h Host) {
	tree := h.Tree()
	one := create(t, tree, "pods/a/one")
	two := create(t, tree, "pods/two")
	create(t, tree, "three")
	names(t, tree, "pods/a/one", "pods/two", "three")
	h.Spawn(t, "pods/a/one", one)
	_, err := tree.Create(t.Context(), "pods/a/one", Limits())
	class(t, "Create over processes", err, errdefs.ErrConflict)
	check(t, two.Delete(t.Context()))
	names(t, tree, "pods/a/one", "three")
	again, err := tree.Open(t.Context(), "pods/a/one")
	check(t, err)
	check(t, again.Kill(t.Context()))
	check(t, again.Delete(t.Context()))
	names(t, tree, "three")
	_, err = tree.Open(t.Context(), "pods")
	class(t, "Open of a parent that should be gone", err, errdefs.ErrNotFound)
	create(t, tree, "pods")
	names(t, tree, "pods", "three")
}

// A group outside of the tree is not listed, and leaves nothing.
func testAbsolute(t *testing.T, h Host) {
	tree := h.Tree()
	top := fmt.Sprintf("/gantry-suite-%d", os.Getpid())
	name := top + "/below/one"
	_, err := tree.Open(t.Context(), name)
	class(t, "Open", err, errdefs.ErrNotFound)
	g := create(t, tree, name)
	t.Cleanup(func() {
		check(t, g.Kill(context.WithoutCancel(t.Context())))
		check(t, g.Delete(context.WithoutCancel(t.Context())))
	})
	h.Spawn(t, name, g)
	names(t, tree)
	g, err = tree.Open(t.Context(), name)
	check(t, err)
	s, err := g.Stats(t.Context())
	check(t, err)
	if s.Pids < 1 {
		t.Fatalf("Stats = %+v", s)
	}
	check(t, g.Kill(t.Context()))
	check(t, g.Delete(t.Context()))
	for _, name := range []string{name, top + "/below", top} {
		_, err = tree.Open(t.Context(), name)
		class(t, "Open "+name, err, errdefs.ErrNotFound)
	}
}

func testEvents(t *testing.T, h Host) {
	tree := h.Tree()
	if !tree.Supports(cgroup.LimitMemory) || tree.Supports("none such") {
		t.Fatal("Supports is wrong")
	}
	g, err := tree.Create(t.Context(), "one", cgroup.Limits{MemoryBytes: 32 << 20, SwapBytes: -1})
	check(t, err)
	for range g.Events(cancelled(t)) {
		t.Fatal("an event, after the end")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen, ended := make(chan cgroup.Event), make(chan error, 1)
	go func() {
		for e, err := range g.Events(ctx) {
			if err != nil {
				ended <- err
				return
			}
			seen <- e
		}
		ended <- nil
	}()
	// One that dies before the watch looks is not seen, so it goes on.
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	var kills []int64
	for len(kills) < 2 {
		h.OOM(t, "one", g)
		select {
		case e := <-seen:
			kills = append(kills, e.OOMKills)
		case err := <-ended:
			t.Fatalf("Events ended: %v", err)
		case <-again.C:
		}
	}
	if kills[0] < 1 || kills[1] <= kills[0] {
		t.Errorf("kills = %v", kills)
	}
	cancel()
	for err := range drain(seen, ended) {
		check(t, err)
	}
	check(t, g.Kill(t.Context()))
	check(t, g.Delete(t.Context()))
}

// drain waits for the end of a watch, whatever it still saw.
func drain(seen chan cgroup.Event, ended chan error) func(func(error) bool) {
	return func(yield func(error) bool) {
		for {
			select {
			case <-seen:
			case err := <-ended:
				yield(err)
				return
			}
		}
	}
}

func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
