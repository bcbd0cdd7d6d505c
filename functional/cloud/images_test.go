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

// diskRoot is a root file system with an init that tells how it was started.
func diskRoot(t *testing.T) string {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("%v (package busybox-static)", err)
	}
	return disktest.Tree(t, map[string]string{
		"bin/busybox": string(busybox), "bin/sh": "->busybox", "bin/sleep": "->busybox", "etc/fstab": "UUID=none / ext4 defaults 0 1\n",
		"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "boot/vmlinuz": "no kernel", "proc/": "", "sys/": "", "dev/": "", "tmp/": "", "root/": "",
		"sbin/init": "#!/bin/sh\necho booted from a disk image, $(/bin/busybox hostname) is $$\nwhile :; do sleep 1000; done\n",
	})
}

// TestDiskImagesBoot: what clouds have, raw and qcow2 with a partition table, is
// uploaded by the stock client and boots without a change.
func TestDiskImagesBoot(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := as(t, p, "demo")
	disk := disktest.Disk(t, 48*disktest.MiB, "label: gpt\nsize=4MiB, type="+disktest.TypeEFI+"\nsize=32MiB, type="+disktest.TypeLinux+"\n",
		map[int64]string{5 * disktest.MiB: disktest.Make(t, "ext4", diskRoot(t), 32*disktest.MiB)})
	for name, format := range map[string]string{disk: "raw", disktest.QCOW2(t, disk, "-c"): "qcow2"} {
		t.Run(format, func(t *testing.T) {
			p.OpenStack(t, "demo", "image", "create", "--disk-format", format, "--container-format", "bare", "--file", name, "disk-"+format)
			id := p.OpenStack(t, "demo", "server", "create", "--image", "disk-"+format, "--flavor", "m1.tiny", "--network", "private", "--wait", "-f", "value", "-c", "id", format)
			c.await(t, id, "ACTIVE")
			cloudtest.Eventually(t, "console", func() (bool, error) {
				text, err := servers.ShowConsoleOutput(t.Context(), c.Compute, id, servers.ShowConsoleOutputOpts{}).Extract()
				return strings.Contains(text, "booted from a disk image, "+format+" is 1"), err
			})
			c.delete(t, id)
		})
	}
}

// TestDiskImagesThatDoNotBoot: the fault says what is wrong with the image.
func TestDiskImagesThatDoNotBoot(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := as(t, p, "demo")
	root := disktest.Make(t, "ext4", diskRoot(t), 32*disktest.MiB)
	backing := filepath.Join(t.TempDir(), "backing")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", backing, "1M")
	vmdk := filepath.Join(t.TempDir(), "vmdk")
	disktest.Run(t, "qemu-img", "convert", "-O", "vmdk", root, vmdk)
	for name, i := range map[string]struct{ file, format, fault string }{
		"backing":  {backing, "qcow2", "backing file"},
		"mismatch": {root, "qcow2", "declared to have the disk_format qcow2"},
		"vmdk":     {vmdk, "vmdk", "raw and qcow2 are supported"},
	} {
		t.Run(name, func(t *testing.T) {
			p.OpenStack(t, "demo", "image", "create", "--disk-format", i.format, "--container-format", "bare", "--file", i.file, name)
			id := p.OpenStack(t, "demo", "server", "create", "--image", name, "--flavor", "m1.tiny", "--network", "private", "-f", "value", "-c", "id", name)
			if s := c.await(t, id, "ERROR"); !strings.Contains(s.Fault.Message, i.fault) {
				t.Errorf("fault %+v", s.Fault)
			}
			c.delete(t, id)
		})
	}
}
