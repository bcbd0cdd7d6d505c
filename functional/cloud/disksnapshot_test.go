//go:build functional

package cloud

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/gantry-project/gantry/engine/disk/disktest"
	"github.com/gantry-project/gantry/functional/cloudtest"
)

// TestDiskSnapshotsBoot: with snapshot_format = qcow2 a snapshot of an instance of
// a disk image is that disk with the instance's files, which boots again, and QEMU
// finds nothing wrong with it.
func TestDiskSnapshotsBoot(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"), "--snapshot-format", "qcow2")
	c := as(t, p, "demo")
	root := diskRoot(t)
	script := "#!/bin/sh\necho boot of $(/bin/busybox hostname) after: $(/bin/busybox cat /boots)\n/bin/busybox hostname >> /boots\nwhile :; do sleep 1000; done\n"
	if err := os.WriteFile(filepath.Join(root, "sbin/init"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	disk := disktest.Disk(t, 48*disktest.MiB, "label: gpt\nsize=4MiB, type="+disktest.TypeEFI+"\nsize=32MiB, type="+disktest.TypeLinux+"\n",
		map[int64]string{5 * disktest.MiB: disktest.Make(t, "ext4", root, 32*disktest.MiB, "-L", "root")})
	p.OpenStack(t, "demo", "image", "create", "--disk-format", "qcow2", "--container-format", "bare", "--file", disktest.QCOW2(t, disk, "-c"), "disk")
	boot := func(image, name, says string) string {
		t.Helper()
		id := p.OpenStack(t, "demo", "server", "create", "--image", image, "--flavor", "m1.tiny", "--network", "private", "--wait", "-f", "value", "-c", "id", name)
		c.await(t, id, "ACTIVE")
		cloudtest.Eventually(t, "console", func() (bool, error) {
			text, err := servers.ShowConsoleOutput(t.Context(), c.Compute, id, servers.ShowConsoleOutputOpts{}).Extract()
			return strings.Contains(text, says), err
		})
		return id
	}
	id := boot("disk", "first", "boot of first after:")
	p.OpenStack(t, "demo", "server", "image", "create", "--wait", "--name", "snapshot", "first")
	c.delete(t, id)
	if got := p.OpenStack(t, "demo", "image", "show", "snapshot", "-f", "value", "-c", "disk_format", "-c", "container_format", "-c", "status"); strings.Join(strings.Fields(got), " ") != "bare qcow2 active" {
		t.Errorf("the snapshot is %q", got)
	}
	file := filepath.Join(t.TempDir(), "snapshot")
	p.OpenStack(t, "demo", "image", "save", "--file", file, "snapshot")
	disktest.Run(t, "qemu-img", "check", "-f", "qcow2", file)
	c.delete(t, boot("snapshot", "second", "boot of second after: first"))
}
