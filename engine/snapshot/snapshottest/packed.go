package snapshottest

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// packedLayers: a layer whose directory is made when it is wanted.
func packedLayers(t *testing.T, e *env) {
	ctx := t.Context()
	id, low := chainID("packed"), e.layer(t, "low", "a=1")
	fill := func(text string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, "stream"), []byte(text), 0o600) }
	}
	broken := errors.New("broken")
	if err := e.Pack(ctx, id, func(dir string) error { return errors.Join(fill("half")(dir), broken) }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if there, err := e.HasLayer(ctx, id); err != nil || there {
		t.Fatalf("after a pack that failed: %v %v", there, err)
	}
	if err := e.Pack(ctx, "../x", fill("")); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a name that leads out: %v", err)
	}
	if _, err := e.Packed(ctx, low); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a layer that is none: %v", err)
	}
	must(t, e.Pack(ctx, id, fill("stream")))
	must(t, e.Pack(ctx, id, func(string) error { t.Error("packed twice"); return nil }))
	must(t, e.Pack(ctx, low, func(string) error { t.Error("an unpacked one is packed"); return nil }))

	e.Close()
	e.Snapshotter = e.f(t, e.store())
	wantPacked(t, e, id, low)
	if err := e.Unpack(ctx, id, func(dir string) error { return errors.Join(write(dir, "b=half"), broken) }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	wantPacked(t, e, id, low)
	sound(t, e, snapshot.CheckRequest{Repair: true, References: &snapshot.References{Layers: []string{id, low}}})

	dir, err := e.Packed(ctx, id)
	must(t, err)
	open, err := os.Open(filepath.Join(dir, "stream"))
	must(t, err)
	defer open.Close()
	must(t, e.Unpack(ctx, id, func(dir string) error { return write(dir, "b=2") }),
		e.Unpack(ctx, id, func(string) error { t.Error("unpacked twice"); return nil }))
	if text, err := io.ReadAll(open); err != nil || string(text) != "stream" {
		t.Errorf("a file that was open says %q, %v", text, err)
	}
	if _, err := e.Packed(ctx, id); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unpacked, and packed: %v", err)
	}
	content, err := e.Layer(ctx, id)
	must(t, err)
	wantFile(t, filepath.Join(content, "b"), "2")
	must(t, e.Prepare(ctx, "c", []string{low, id}, snapshot.Limit{}))
	sound(t, e, snapshot.CheckRequest{Repair: true, References: &snapshot.References{Layers: []string{id, low}, Disks: []string{"c"}}})
	must(t, e.Remove(ctx, "c"), e.RemoveLayer(ctx, id))
	damagedPack(t, e, fill("stream"))
}

// wantPacked: it is here, and nothing can be made of it yet.
func wantPacked(t *testing.T, e *env, id, low string) {
	t.Helper()
	ctx := t.Context()
	there, err := e.HasLayer(ctx, id)
	list, lerr := e.Layers(ctx)
	if err != nil || lerr != nil || !there || !slices.Contains(list, id) {
		t.Fatalf("here: %v %v, listed: %v %v", there, err, list, lerr)
	}
	dir, err := e.Packed(ctx, id)
	must(t, err)
	wantFile(t, filepath.Join(dir, "stream"), "stream")
	if _, err := e.Layer(ctx, id); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("its directory: %v", err)
	}
	if err := e.Prepare(ctx, "c", []string{low, id}, snapshot.Limit{}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a disk over it: %v", err)
	}
	target := filepath.Join(t.TempDir(), "view")
	must(t, os.Mkdir(target, 0o755))
	if err := e.View(ctx, []string{low, id}, target); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a view of it: %v", err)
	}
}

// damagedPack: what a power cut has taken of a packed layer is found, and it can
// be removed.
func damagedPack(t *testing.T, e *env, fill func(dir string) error) {
	t.Helper()
	ctx := t.Context()
	id := chainID("damaged")
	must(t, e.Pack(ctx, id, fill))
	dir, err := e.Packed(ctx, id)
	must(t, err, os.Truncate(filepath.Join(dir, "stream"), 0))
	found, err := e.Check(ctx, snapshot.CheckRequest{})
	if got := kinds(found); err != nil || !slices.Equal(got, []string{"damaged-layer " + id}) {
		t.Errorf("found %v %v", got, err)
	}
	must(t, e.RemoveLayer(ctx, id))
	if there, err := e.HasLayer(ctx, id); err != nil || there {
		t.Errorf("removed: %v %v", there, err)
	}
}
