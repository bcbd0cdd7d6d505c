package local_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/local"
	"github.com/gantry-project/gantry/engine/disk/disktest"
	"github.com/gantry-project/gantry/engine/disk/qcow2"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// TestDiskSnapshots: an instance of a disk image becomes a disk image again, which
// boots; one of another image a whole archive; and without the image there is none.
func TestDiskSnapshots(t *testing.T) {
	r := newRig(t)
	r.format = local.SnapshotQCOW2
	r.again(t, 0)
	const archive = "c0ffee00-0000-4000-8000-00000000000c"
	busybox := must(os.ReadFile("/bin/busybox"))(t)
	tree := disktest.Tree(t, map[string]string{
		"bin/busybox": string(busybox), "bin/sh": "->busybox", "etc/": "", "usr/": "", "proc/": "", "sys/": "", "dev/": "",
		"sbin/init": "#!/bin/sh\nexec /bin/busybox sleep 1000\n",
	})
	r.images.data[archive] = r.images.data[bootable]
	r.images.data[bootable] = must(os.ReadFile(disktest.Make(t, "ext4", tree, 32*disktest.MiB)))(t)
	before := r.residue(t)
	req := request()
	req.Image = imageOf(bootable)
	check(t, r.driver.Spawn(t.Context(), req))
	img := r.snap(t, req.UUID, first)
	if img.DiskFormat != "qcow2" || img.ContainerFormat != "bare" || !bytes.HasPrefix(r.images.data[first], []byte(qcow2.Magic)) {
		t.Errorf("%+v, %q", img, r.images.data[first][:4])
	}

	disk := r.images.data[bootable]
	delete(r.images.data, bootable)
	_, err := r.driver.Snapshot(t.Context(), driver.Credentials{}, req.UUID)
	if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(errdefs.PublicText(err, ""), bootable) {
		t.Errorf("without the image: %v", err)
	}
	r.images.data[bootable] = disk
	r.images.fail = errdefs.ErrCorrupt
	if _, err := r.driver.Snapshot(t.Context(), driver.Credentials{}, req.UUID); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("of an image that is another one: %v", err)
	}
	r.images.fail = nil
	check(t, r.driver.Destroy(t.Context(), req.UUID))

	r.forget(t)
	req = request()
	req.Image = imageOf(first)
	req.Image.DiskFormat, req.Image.ContainerFormat = "qcow2", "bare"
	check(t, r.driver.Spawn(t.Context(), req))
	check(t, r.driver.Destroy(t.Context(), req.UUID))
	r.forget(t)

	req = request() // of an archive
	req.Image = imageOf(archive)
	req.Image.ContainerFormat = "bare"
	check(t, r.driver.Spawn(t.Context(), req))
	if img := r.snap(t, req.UUID, second); img.DiskFormat != "raw" || img.ContainerFormat != "docker" {
		t.Errorf("of an archive: %+v", img)
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
	r.forget(t)
	if after := r.residue(t); len(after) != len(before) {
		t.Errorf("left on the host:\n  before %q\n  after  %q", before, after)
	}
}
