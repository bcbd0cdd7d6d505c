// Package storetest holds the conformance suite of engine/store: what each
// Store must do. It imports the contract and testing only.
package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Recorder is a store that is a journal too.
type Recorder interface {
	store.Store
	store.Journal
}

// Factory makes an empty Recorder that lives as long as t.
type Factory func(t *testing.T) Recorder

// Run checks the contract against stores made by f.
func Run(t *testing.T, f Factory) {
	for name, check := range map[string]func(*testing.T, Recorder){
		"containers":             containers,
		"images":                 images,
		"an image in use stays":  imageInUse,
		"blocks of ids":          blocks,
		"simultaneous blocks":    simultaneous,
		"journal":                journal,
		"keys are needed":        keys,
		"nothing damaged at all": undamaged,
	} {
		t.Run(name, func(t *testing.T) { check(t, f(t)) })
	}
}

// Container is a record with every field set.
func Container(id string) store.Container {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	return store.Container{
		ID: id, Image: "ref", Chain: []string{"sha256:aa", "sha256:bb"}, IDBase: store.FirstID, Labels: map[string]string{"k": "v"},
		Limits:  cgroup.Limits{MemoryBytes: 1 << 30, SwapBytes: -1, Devices: []cgroup.Device{{Type: 'c', Major: 1, Minor: -1, Access: "rw"}}},
		Created: at, Started: at.Add(1), Args: []string{"/bin/sh"}, Pid: 42, StartTime: 1 << 60, BootID: "boot",
		Exited: at.Add(2), ExitKnown: true, ExitCode: 137, ExitSignal: 9, ExitOOM: true,
	}
}

// Image is a record with every field set.
func Image(ref string) store.Image {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return store.Image{
		Ref: ref, Chain: []string{"sha256:aa"}, DiffIDs: []string{"sha256:cc"},
		Config: image.Config{Env: []string{"A=b"}, Cmd: []string{"x"}, User: "1"}, RootFS: true, SizeBytes: 5, Imported: at, LastUsed: at,
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func wantClass(t *testing.T, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Fatalf("got error %v, want class %v", err, class)
	}
}

func same(t *testing.T, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func containers(t *testing.T, s Recorder) {
	ctx := t.Context()
	_, err := s.Container(ctx, "a")
	wantClass(t, err, errdefs.ErrNotFound)
	a, b := Container("a"), Container("b")
	must(t, s.PutContainer(ctx, b), s.PutContainer(ctx, a))
	got, err := s.Container(ctx, "a")
	must(t, err)
	same(t, a, got)
	a.Pid, a.Labels = 0, nil
	must(t, s.PutContainer(ctx, a))
	list, err := s.Containers(ctx)
	must(t, err)
	same(t, []store.Container{a, b}, list)
	must(t, s.DeleteContainer(ctx, "a"), s.DeleteContainer(ctx, "a"))
	list, err = s.Containers(ctx)
	must(t, err)
	same(t, []store.Container{b}, list)
}

func images(t *testing.T, s Recorder) {
	ctx := t.Context()
	_, err := s.Image(ctx, "r")
	wantClass(t, err, errdefs.ErrNotFound)
	r, q := Image("r"), Image("q")
	must(t, s.PutImage(ctx, r), s.PutImage(ctx, q))
	got, err := s.Image(ctx, "r")
	must(t, err)
	same(t, r, got)
	list, err := s.Images(ctx)
	must(t, err)
	same(t, []store.Image{q, r}, list)
	must(t, s.DeleteImage(ctx, "r"), s.DeleteImage(ctx, "r"))
	_, err = s.Image(ctx, "r")
	wantClass(t, err, errdefs.ErrNotFound)
}

func imageInUse(t *testing.T, s Recorder) {
	ctx := t.Context()
	must(t, s.PutImage(ctx, Image("ref")), s.PutContainer(ctx, Container("c")))
	wantClass(t, s.DeleteImage(ctx, "ref"), errdefs.ErrConflict)
	_, err := s.Image(ctx, "ref")
	must(t, err, s.DeleteContainer(ctx, "c"), s.DeleteImage(ctx, "ref"))
}

func blocks(t *testing.T, s Recorder) {
	ctx := t.Context()
	for i, id := range []string{"a", "b", "c"} {
		want := Container(id)
		got, err := s.CreateContainer(ctx, want)
		must(t, err)
		want.IDBase = store.FirstID + uint32(i)*store.IDBlock
		same(t, want, got)
		stored, err := s.Container(ctx, id)
		must(t, err)
		same(t, want, stored)
	}
	_, err := s.CreateContainer(ctx, Container("b"))
	wantClass(t, err, errdefs.ErrAlreadyExists)
	b, err := s.Container(ctx, "b")
	must(t, err, s.PutContainer(ctx, b), s.DeleteContainer(ctx, "b"), s.DeleteContainer(ctx, "b"), s.DeleteContainer(ctx, "unknown"))
	d, err := s.CreateContainer(ctx, Container("d"))
	must(t, err)
	if d.IDBase != b.IDBase {
		t.Fatalf("a freed block is not used again: %d, want %d", d.IDBase, b.IDBase)
	}
}

func simultaneous(t *testing.T, s Recorder) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := map[uint32]string{}
	for i := range 16 {
		wg.Go(func() {
			id := fmt.Sprint("c", i)
			c, err := s.CreateContainer(t.Context(), Container(id))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if other, ok := taken[c.IDBase]; ok {
				t.Errorf("%s and %s share the block %d", id, other, c.IDBase)
			}
			taken[c.IDBase] = id
		})
	}
	wg.Wait()
}

func journal(t *testing.T, s Recorder) {
	ctx := t.Context()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	late := store.Intent{Op: "create", ID: "a", Begun: at.Add(time.Second), Data: json.RawMessage(`{"k":1}`)}
	early := store.Intent{Op: "delete", ID: "b", Begun: at}
	must(t, s.Begin(ctx, late), s.Begin(ctx, early), s.Begin(ctx, late))
	list, err := s.Intents(ctx)
	must(t, err)
	same(t, []store.Intent{early, late}, list)
	must(t, s.End(ctx, "create", "a"), s.End(ctx, "create", "a"), s.End(ctx, "create", "b"))
	list, err = s.Intents(ctx)
	must(t, err)
	same(t, []store.Intent{early}, list)
}

func keys(t *testing.T, s Recorder) {
	ctx := t.Context()
	wantClass(t, s.PutContainer(ctx, store.Container{}), errdefs.ErrInvalid)
	wantClass(t, s.PutImage(ctx, store.Image{}), errdefs.ErrInvalid)
	wantClass(t, s.Begin(ctx, store.Intent{Op: "create"}), errdefs.ErrInvalid)
	wantClass(t, s.Begin(ctx, store.Intent{Op: "a\x00b", ID: "c"}), errdefs.ErrInvalid)
	_, err := s.CreateContainer(ctx, store.Container{})
	wantClass(t, err, errdefs.ErrInvalid)
}

func undamaged(t *testing.T, s Recorder) {
	ctx := t.Context()
	must(t, s.PutContainer(ctx, Container("a")), s.PutImage(ctx, Image("r")), s.Begin(ctx, store.Intent{Op: "o", ID: "i"}))
	bad, err := s.Damaged(ctx)
	if err != nil || len(bad) != 0 {
		t.Fatal(bad, err)
	}
}
