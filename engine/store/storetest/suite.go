// Package storetest holds the conformance suite of engine/store: what each
// Store must do. It imports the contract and testing only.
package storetest

import (
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

// Factory makes an empty store that lives as long as t.
type Factory func(t *testing.T) store.Store

// Run checks the contract against stores made by f.
func Run(t *testing.T, f Factory) {
	for name, check := range map[string]func(*testing.T, store.Store){
		"containers":             containers,
		"images":                 images,
		"an image in use stays":  imageInUse,
		"blocks of ids":          blocks,
		"simultaneous blocks":    simultaneous,
		"leases":                 leases,
		"a leased image stays":   leasedImage,
		"use of images":          use,
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
		Limits: cgroup.Limits{MemoryBytes: 1 << 30, SwapBytes: -1, Devices: []cgroup.Device{{Type: 'c', Major: 1, Minor: -1, Access: "rw"}}},
		Disk:   store.Disk{Bytes: 1 << 34, Inodes: 1 << 20}, DiskEnforced: store.Disk{Bytes: 1 << 34},
		Created: at, Started: at.Add(1), Args: []string{"/bin/sh"}, Pid: 42, StartTime: 1 << 60, BootID: "boot",
		Exited: at.Add(2), ExitKnown: true, ExitCode: 137, ExitSignal: 9, ExitOOM: true, ExitCause: "why",
	}
}

// Image is a record with every field set.
func Image(ref string) store.Image {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return store.Image{
		Ref: ref, Chain: []string{"sha256:aa"}, DiffIDs: []string{"sha256:cc"},
		Config: image.Config{Env: []string{"A=b"}, Cmd: []string{"x"}, User: "1"}, RootFS: true, SizeBytes: 5, LayerBytes: []int64{5}, Imported: at, LastUsed: at,
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

func containers(t *testing.T, s store.Store) {
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

func images(t *testing.T, s store.Store) {
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

func imageInUse(t *testing.T, s store.Store) {
	ctx := t.Context()
	must(t, s.PutImage(ctx, Image("ref")), s.PutContainer(ctx, Container("c")))
	wantClass(t, s.DeleteImage(ctx, "ref"), errdefs.ErrConflict)
	_, err := s.Image(ctx, "ref")
	must(t, err, s.DeleteContainer(ctx, "c"), s.DeleteImage(ctx, "ref"))
}

func blocks(t *testing.T, s store.Store) {
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

func simultaneous(t *testing.T, s store.Store) {
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

func leases(t *testing.T, s store.Store) {
	ctx := t.Context()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a := store.Lease{ID: "a", Holder: "boot", Created: at, Expires: at.Add(time.Hour), Images: []string{"r"}, Layers: []string{"l"}}
	b := store.Lease{ID: "b", Expires: at}
	must(t, s.PutLease(ctx, b), s.PutLease(ctx, a))
	list, err := s.Leases(ctx)
	must(t, err)
	same(t, []store.Lease{a, b}, list)
	a.Images = nil
	must(t, s.PutLease(ctx, a), s.DeleteLease(ctx, "b"), s.DeleteLease(ctx, "b"))
	list, err = s.Leases(ctx)
	must(t, err)
	same(t, []store.Lease{a}, list)
	if a.Live(a.Expires) || !a.Live(at) {
		t.Error("a lease holds before it expires, and not when it has")
	}
}

func leasedImage(t *testing.T, s store.Store) {
	ctx := t.Context()
	must(t, s.PutImage(ctx, Image("ref")), s.PutLease(ctx, store.Lease{ID: "l", Images: []string{"ref"}, Expires: time.Now().Add(time.Hour)}))
	wantClass(t, s.DeleteImage(ctx, "ref"), errdefs.ErrConflict)
	must(t, s.PutLease(ctx, store.Lease{ID: "l", Images: []string{"ref"}, Expires: time.Now().Add(-time.Hour)}), s.DeleteImage(ctx, "ref"))
}

func use(t *testing.T, s store.Store) {
	ctx := t.Context()
	must(t, s.PutImage(ctx, Image("ref")))
	c := Container("c")
	c.Created = Image("ref").LastUsed.Add(time.Hour)
	_, err := s.CreateContainer(ctx, c)
	must(t, err)
	img, err := s.Image(ctx, "ref")
	must(t, err)
	if !img.LastUsed.Equal(c.Created) {
		t.Errorf("used last %v, want %v", img.LastUsed, c.Created)
	}
	before := time.Now()
	must(t, s.DeleteContainer(ctx, "c"))
	if img, err = s.Image(ctx, "ref"); err != nil || img.LastUsed.Before(before.Truncate(time.Second)) {
		t.Errorf("used last %v %v, want now", img.LastUsed, err)
	}
}

func keys(t *testing.T, s store.Store) {
	ctx := t.Context()
	wantClass(t, s.PutContainer(ctx, store.Container{}), errdefs.ErrInvalid)
	wantClass(t, s.PutImage(ctx, store.Image{}), errdefs.ErrInvalid)
	wantClass(t, s.PutLease(ctx, store.Lease{}), errdefs.ErrInvalid)
	_, err := s.CreateContainer(ctx, store.Container{})
	wantClass(t, err, errdefs.ErrInvalid)
}

func undamaged(t *testing.T, s store.Store) {
	ctx := t.Context()
	must(t, s.PutContainer(ctx, Container("a")), s.PutImage(ctx, Image("r")), s.PutLease(ctx, store.Lease{ID: "l"}))
	bad, err := s.Damaged(ctx)
	if err != nil || len(bad) != 0 {
		t.Fatal(bad, err)
	}
}
