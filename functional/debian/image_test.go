//go:build debian

package debian

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/disk/disktest"
)

// uuid of the root file systems: that of fstab and of GRUB's configuration.
const uuid = "5f6a1c1e-7a3c-4d0e-9a51-0c1d2e3f4a5b"

const (
	rootAt   = 2 * disktest.MiB
	rootSize = 1200 * disktest.MiB // mkfs.btrfs with a tree takes more than the tree
)

// suites are those that are to be tested.
func suites(t *testing.T) []string {
	t.Helper()
	list := strings.Fields(os.Getenv("GANTRY_DEBIAN_SUITES"))
	if len(list) == 0 {
		t.Fatal("GANTRY_DEBIAN_SUITES is empty: use functional/debian/run")
	}
	return list
}

// configured writes what of a tree depends on the file system: fstab and GRUB's
// configuration.
func configured(t *testing.T, suite, kind string) string {
	t.Helper()
	tree := filepath.Join(os.Getenv("GANTRY_DEBIAN_TREES"), suite)
	for name, text := range map[string]string{
		"etc/fstab": "UUID=" + uuid + " / " + kind + " defaults 0 1\n",
		"boot/grub/grub.cfg": "serial --unit=0\nterminal_output serial\nsearch --fs-uuid --set=root " + uuid + "\n" +
			"linux /vmlinuz root=UUID=" + uuid + " rw console=ttyS0 systemd.mask=systemd-networkd-wait-online.service cloud-init=disabled\ninitrd /initrd.img\nboot\n",
	} {
		file := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// image makes a raw disk of a suite: a table, GRUB where table is MBR, and the
// root. It returns the disk.
func image(t *testing.T, suite, table, kind string) string {
	t.Helper()
	tree := configured(t, suite, kind)
	options := map[string][]string{"ext4": {"-U", uuid}, "xfs": {"-m", "uuid=" + uuid}, "btrfs": {"-U", uuid}}
	root := disktest.Make(t, kind, tree, rootSize, options[kind]...)
	script := fmt.Sprintf("label: dos\nstart=%d, size=%d, type=83, bootable\n", rootAt/512, rootSize/512)
	if table == "gpt" {
		script = fmt.Sprintf("label: gpt\nstart=%d, size=%d, type=%s\n", rootAt/512, rootSize/512, disktest.TypeRootX86)
	}
	disk := disktest.Disk(t, rootAt+rootSize+2*disktest.MiB, script, map[int64]string{rootAt: root})
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	if table == "mbr" {
		grub(t, tree, disk)
	}
	return disk
}

// grub puts the boot loader before the first partition: what grub-install would
// do, without a device.
func grub(t *testing.T, tree, disk string) {
	t.Helper()
	disktest.Run(t, "chroot", tree, "grub-mkimage", "-O", "i386-pc", "-o", "/boot/grub/core.img", "-p", "(hd0,msdos1)/boot/grub",
		"biosdisk", "part_msdos", "ext2", "normal", "linux", "search", "search_fs_uuid", "serial", "terminal", "boot")
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at, name := range map[int64]string{0: "usr/lib/grub/i386-pc/boot.img", 512: "boot/grub/core.img"} {
		b, err := os.ReadFile(filepath.Join(tree, name))
		if err != nil {
			t.Fatal(err)
		}
		if at == 0 {
			b = b[:440] // the table is behind it
		}
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
}

// mounted shows the root of a disk by the host's kernel until the test ends.
func mounted(t *testing.T, disk, kind string) string {
	t.Helper()
	dir := t.TempDir()
	options := fmt.Sprintf("loop,ro,noatime,offset=%d,sizelimit=%d", rootAt, rootSize)
	if kind == "xfs" {
		options += ",nouuid"
	}
	disktest.Run(t, "mount", "-t", kind, "-o", options, disk, dir)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil { //nolint:noctx // the test's has ended
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// machine boots a qcow2 disk under QEMU and returns what it says on its serial
// line until it is off.
func machine(t *testing.T, disk string) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "serial"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.CommandContext(t.Context(), "timeout", "--foreground", "900", "qemu-system-x86_64", "-m", "768", "-smp", "2", "-nographic", "-monitor", "none",
		"-serial", "stdio", "-no-reboot", "-nic", "none", "-device", "virtio-rng-pci", "-drive", "file="+disk+",format=qcow2,if=virtio")
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	if _, serr := out.Seek(0, io.SeekStart); serr != nil {
		t.Fatal(serr)
	}
	text, rerr := io.ReadAll(out)
	if err != nil || rerr != nil {
		t.Fatalf("the machine: %v, %v\n%s", err, rerr, text[max(0, len(text)-6000):])
	}
	return string(text)
}
