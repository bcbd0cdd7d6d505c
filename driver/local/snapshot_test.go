package local_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/local"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// snap takes a snapshot into the image service.
func (r *rig) snap(t *testing.T, uuid driver.InstanceUUID, id string) driver.SnapshotImage {
	t.Helper()
	img, err := r.driver.Snapshot(t.Context(), driver.Credentials{}, uuid)
	check(t, err)
	r.images.data[id] = must(io.ReadAll(img.Content))(t)
	check(t, img.Content.Close())
	return img
}

// forget removes all images of the host, as another host has none.
func (r *rig) forget(t *testing.T) {
	t.Helper()
	for _, img := range must(r.engine.Images(t.Context()))(t) {
		check(t, r.engine.RemoveImage(t.Context(), img.Ref))
	}
}

const (
	first  = "c0ffee00-0000-4000-8000-00000000000a"
	second = "c0ffee00-0000-4000-8000-00000000000b"
)

// A delta snapshot of an instance of a delta snapshot boots on a host that has
// nothing, as long as what is below is in the image service.
func TestDeltaSnapshots(t *testing.T) {
	r := newRig(t)
	r.format = local.SnapshotDelta
	r.again(t, 0)
	before := r.residue(t)
	boot := func(id string) (driver.SpawnRequest, error) {
		req := request()
		req.Image = imageOf(id)
		return req, r.driver.Spawn(t.Context(), req)
	}
	req, err := boot(bootable)
	check(t, err)
	if img := r.snap(t, req.UUID, first); img.ContainerFormat != "docker" || img.DiskFormat != "raw" {
		t.Errorf("%+v", img)
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
	req, err = boot(first)
	check(t, err)
	r.snap(t, req.UUID, second)
	check(t, r.driver.Destroy(t.Context(), req.UUID))
	for _, id := range []string{first, second} {
		if n := len(r.images.data[id]); n > 64<<10 {
			t.Errorf("a snapshot of nothing new has %d bytes", n)
		}
	}

	r.forget(t)
	r.images.opens.Store(0)
	req, err = boot(second)
	check(t, err)
	check(t, r.driver.Destroy(t.Context(), req.UUID))
	if n := r.images.opens.Load(); n != 5 {
		t.Errorf("%d downloads: each delta is read once to see what it goes over, and once again", n)
	}

	r.forget(t)
	base := r.images.data[bootable]
	delete(r.images.data, bootable)
	_, err = boot(second)
	if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(errdefs.PublicText(err, ""), bootable) {
		t.Errorf("without what is below: %v", err)
	}
	r.images.data[bootable] = base
	r.forget(t)
	asBefore(t, r, before)
}

// A tarball has no configuration: it boots its init.
func TestTarSnapshot(t *testing.T) {
	r := newRig(t)
	r.format = local.SnapshotTar
	r.again(t, 0)
	req := request()
	check(t, r.driver.Spawn(t.Context(), req))
	if img := r.snap(t, req.UUID, bootable); img.ContainerFormat != "bare" || img.DiskFormat != "raw" {
		t.Errorf("%+v", img)
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
	r.forget(t)
	check(t, r.driver.Spawn(t.Context(), req))
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}
