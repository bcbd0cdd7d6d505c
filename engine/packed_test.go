package engine_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// packs are the packed layers of a host.
func packs(t *testing.T, root string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "snapshots", "layers", "*", "packed", "pack"))
	check(t, err)
	return found
}

// A committed layer is exported as it is packed, becomes a directory with the
// first container, and is the same layer then.
func TestCommittedLayerIsUnpackedWhenItIsWanted(t *testing.T) {
	h, e, done := fixture(t)
	ctx := t.Context()
	changed(t, e, "c")
	_, err := e.CommitImage(ctx, "c", "mine")
	check(t, err)
	packed := diffIDs(t, taken(e.ExportImage(ctx, "mine"))(t))
	if got := packs(t, h.Root); len(got) != 1 || len(packed) != 2 {
		t.Fatalf("packs %v, layers %v", got, packed)
	}
	check(t, e.Delete(ctx, "c"))
	done()
	e, done = h.Engine(t) // which keeps what an image has
	defer func() { done() }()
	if found, err := e.Check(ctx, engine.CheckOptions{Deep: true}); err != nil || len(found) != 0 {
		t.Errorf("found %v %v", found, err)
	}
	check(t, e.Create(ctx, engine.CreateRequest{ID: "d", Image: "mine", Limits: limits}))
	req := initRequest
	req.Args = []string{"/bin/sh", "-c", "cat /root/new; test -e /etc/passwd || echo removed; stat -c owner=%u:%g /root/new; exec sleep 1000"}
	check(t, e.Start(ctx, "d", req))
	for _, says := range []string{"new", "removed", "owner=7:8"} {
		console(t, e, "d", says)
	}
	if got := packs(t, h.Root); len(got) != 0 {
		t.Errorf("still packed: %v", got)
	}
	if got := diffIDs(t, taken(e.ExportImage(ctx, "mine"))(t)); !slices.Equal(got, packed) {
		t.Errorf("packed %v, unpacked %v", packed, got)
	}
	if found, err := e.Check(ctx, engine.CheckOptions{Deep: true}); err != nil || len(found) != 0 {
		t.Errorf("found %v %v", found, err)
	}
	check(t, e.Delete(ctx, "d"))
}

// A pack that a power cut has damaged makes no container, is found by a deep
// check, and its image is forgotten after the host went down.
func TestDamagedPack(t *testing.T) {
	h, e, done := fixture(t)
	ctx := t.Context()
	changed(t, e, "c")
	_, err := e.CommitImage(ctx, "c", "mine")
	check(t, err)
	check(t, e.Delete(ctx, "c"))
	pack := packs(t, h.Root)[0]
	data, err := os.ReadFile(pack)
	check(t, err)
	check(t, os.WriteFile(pack, bytes.ReplaceAll(data, []byte("new\n"), []byte("old\n")), 0o600))
	if err := e.Create(ctx, engine.CreateRequest{ID: "d", Image: "mine", Limits: limits}); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("a container of it: %v", err)
	}
	if all, err := e.List(ctx); err != nil || len(all) != 0 || len(packs(t, h.Root)) != 1 {
		t.Errorf("left: %v %v", all, err)
	}
	found, err := e.Check(ctx, engine.CheckOptions{Deep: true})
	if err != nil || len(found) != 1 || found[0].Kind != engine.FindingDamagedLayer {
		t.Errorf("found %v %v", found, err)
	}
	done()
	crashed(t, h.Root)
	e, done = h.Engine(t)
	defer done()
	awaitEngine(t, "end of the damaged image", func() bool { return len(packs(t, h.Root)) == 0 })
	images, err := e.Images(ctx)
	if err != nil || len(images) != 1 {
		t.Errorf("images %v %v", images, err)
	}
}

// Containers that are made at the same time unpack the layer once, and an image
// that is removed meanwhile takes nothing away from them.
func TestUnpackedOnceForAll(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	ctx := t.Context()
	changed(t, e, "c")
	_, err := e.CommitImage(ctx, "c", "mine")
	check(t, err)
	errs := make(chan error)
	ids := []engine.ContainerID{"d1", "d2", "d3", "d4"}
	for _, id := range ids {
		go func() { errs <- e.Create(ctx, engine.CreateRequest{ID: id, Image: "mine", Limits: limits}) }()
	}
	for range ids {
		check(t, <-errs)
	}
	if got := packs(t, h.Root); len(got) != 0 {
		t.Errorf("still packed: %v", got)
	}
	for _, id := range append(ids, "c") {
		check(t, e.Delete(ctx, id))
	}
	check(t, e.RemoveImage(ctx, "mine"))
	if got := layers(t, h); len(got) != 1 {
		t.Errorf("layers left: %v", got)
	}
}
