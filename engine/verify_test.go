package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// damageBusybox changes a byte of the image's largest file, as a power cut could.
func damageBusybox(t *testing.T, root string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "snapshots", "layers", "*", "*", "bin", "busybox"))
	check(t, err)
	if len(found) == 0 {
		found, err = filepath.Glob(filepath.Join(root, "snapshots", "layers", "*", "bin", "busybox"))
		check(t, err)
	}
	if len(found) != 1 {
		t.Fatalf("busybox is at %v", found)
	}
	f, err := os.OpenFile(found[0], os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt([]byte("XX"), 5000)
	check(t, errors.Join(err, f.Close()))
}

// crashed makes it look as if the host had gone down under the engine.
func crashed(t *testing.T, root string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(root, "running"), []byte("another boot"), 0o600))
}

// awaitEngine polls until ok.
func awaitEngine(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 24000 {
		if ok() {
			return
		}
		<-tick.C
	}
	t.Fatalf("%s does not come", what)
}

// After the host has gone down an image whose layer is not as it came is
// forgotten, so that it is fetched again.
func TestImagesAreVerifiedAfterACrashOfTheHost(t *testing.T) {
	h, e, done := fixture(t)
	ctx := t.Context()
	if found, err := e.Check(ctx, engine.CheckOptions{Deep: true}); err != nil || len(found) != 0 {
		t.Errorf("in the beginning: %v %v", found, err)
	}
	done()
	if _, err := os.Stat(filepath.Join(h.Root, "running")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after an orderly end: %v", err)
	}
	crashed(t, h.Root)
	e, done = h.Engine(t)
	if found, err := e.Check(ctx, engine.CheckOptions{Deep: true}); err != nil || len(found) != 0 {
		t.Errorf("after a crash that has damaged nothing: %v %v", found, err)
	}
	if _, err := e.Image(ctx, "busybox"); err != nil {
		t.Fatal(err)
	}
	done() // and with it the verification
	e, done = h.Engine(t)
	damageBusybox(t, h.Root)
	found, err := e.Check(ctx, engine.CheckOptions{Deep: true})
	if err != nil || len(found) != 1 || found[0].Kind != engine.FindingDamagedLayer {
		t.Errorf("a damaged layer: %v %v", found, err)
	}
	check(t, e.Create(ctx, engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	done()
	crashed(t, h.Root)
	e, done = h.Engine(t)
	if _, err := e.Image(ctx, "busybox"); err != nil {
		t.Errorf("an image that a container is made of: %v", err)
	}
	check(t, e.Delete(ctx, "c"))
	done()
	crashed(t, h.Root)
	e, done = h.Engine(t)
	defer done()
	awaitEngine(t, "the removal of the damaged image", func() bool {
		_, err := e.Image(ctx, "busybox")
		return errors.Is(err, errdefs.ErrNotFound)
	})
}
