package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/disk/disktest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// diskOf makes a disk of a tree: a table, a partition before the root with
// something in it, and the root as the last one.
func diskOf(t *testing.T, kind, tree string, mkfs ...string) string {
	t.Helper()
	boot := filepath.Join(t.TempDir(), "boot")
	check(t, os.WriteFile(boot, bytes.Repeat([]byte("boot loader "), 10000), 0o600))
	script := "label: gpt\nsize=1MiB, type=" + disktest.TypeEFI + "\nsize=64MiB, type=" + disktest.TypeLinux + "\n"
	if kind == "mbr" {
		script = "label: dos\nsize=1MiB, type=ef\nsize=64MiB, type=83, bootable\n"
	}
	root := disktest.Make(t, "ext4", tree, 64*disktest.MiB, mkfs...)
	if kind == "none" {
		return root
	}
	return disktest.Disk(t, 68*disktest.MiB, script, map[int64]string{disktest.MiB: boot, 2 * disktest.MiB: root})
}

// diskCommit takes a snapshot in the form of a disk image to a file.
func diskCommit(ctx context.Context, e *engine.Engine, format string, original []byte) (engine.Committed, error) {
	return e.CommitDisk(ctx, "c", engine.CommitDiskRequest{Format: format, Original: bytes.NewReader(original)})
}

func saved(t *testing.T, c engine.Committed) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "snapshot")
	f, err := os.Create(name)
	check(t, err)
	n, err := io.Copy(f, c.Content)
	check(t, errors.Join(err, c.Content.Close(), f.Close()))
	if n != c.Size {
		t.Errorf("%d bytes, said to be %d", n, c.Size)
	}
	return name
}

// TestCommitDisk: a snapshot of an instance of a disk image is that disk with the
// instance's files: the same table, the same other partitions, a root that fsck
// and the kernel take, and that is an image again.
func TestCommitDisk(t *testing.T) {
	for _, kind := range []string{"gpt", "mbr", "none"} {
		for _, format := range []string{"raw", "qcow2"} {
			t.Run(kind+" "+format, func(t *testing.T) { commitDisk(t, kind, format) })
		}
	}
}

func commitDisk(t *testing.T, kind, format string) {
	h := jailed(t)
	e, done := h.Engine(t)
	defer done()
	name := diskOf(t, kind, diskTree(t), "-L", "cloudimg-rootfs")
	original := readFile(t, name)
	image := name
	if format == "qcow2" {
		image = disktest.QCOW2(t, name, "-c")
	}
	_, err := e.Import(t.Context(), engine.ImportRequest{Ref: "disk", Content: bytes.NewReader(readFile(t, image)), DiskFormat: format, ContainerFormat: "bare"})
	check(t, err)
	changedOf(t, e, "c", "disk")
	before := left(t, h.Root)
	c, err := diskCommit(t.Context(), e, format, readFile(t, image))
	check(t, err)
	snap := saved(t, c)
	if d := cmp.Diff(before, left(t, h.Root)); d != "" {
		t.Errorf("left on the host:\n%s", d)
	}
	raw := snap
	if format == "qcow2" {
		disktest.Run(t, "qemu-img", "check", "-f", "qcow2", snap)
		raw = filepath.Join(t.TempDir(), "raw")
		disktest.Run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", snap, raw)
	}
	now := readFile(t, raw)
	root, old := now, original
	if kind != "none" {
		if !bytes.Equal(now[:2*disktest.MiB], original[:2*disktest.MiB]) || !bytes.Equal(now[66*disktest.MiB:], original[66*disktest.MiB:]) {
			t.Error("the disk around the root is another one")
		}
		root, old = now[2*disktest.MiB:66*disktest.MiB], original[2*disktest.MiB:66*disktest.MiB]
	}
	if !bytes.Equal(root[1024+0x68:1024+0x88], old[1024+0x68:1024+0x88]) || len(now) != len(original) {
		t.Error("another UUID, label or length")
	}
	file := filepath.Join(t.TempDir(), "root")
	check(t, os.WriteFile(file, root, 0o600))
	disktest.Run(t, "e2fsck", "-fn", file)

	want, err := e.Export(t.Context(), "c")
	check(t, err)
	before2, err := io.ReadAll(want)
	check(t, errors.Join(err, want.Close()))
	_, err = e.Import(t.Context(), engine.ImportRequest{Ref: "again", Content: bytes.NewReader(readFile(t, snap)), DiskFormat: format, ContainerFormat: "bare"})
	check(t, err)
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "d", Image: "again", Limits: limits}))
	got, err := e.Export(t.Context(), "d")
	check(t, err)
	after, err := io.ReadAll(got)
	check(t, errors.Join(err, got.Close()))
	if d := cmp.Diff(tarList(t, before2), tarList(t, after)); d != "" {
		t.Errorf("the files (-instance +snapshot):\n%s", d)
	}
	check(t, errors.Join(e.Delete(t.Context(), "c"), e.Delete(t.Context(), "d")))
}

// TestCommitDiskGrows: what has no room on the root partition of the image gets
// some, where it is the last one.
func TestCommitDiskGrows(t *testing.T) {
	for _, kind := range []string{"gpt", "mbr", "none"} {
		t.Run(kind, func(t *testing.T) {
			h := jailed(t)
			e, done := h.Engine(t)
			defer done()
			image := readFile(t, diskOf(t, kind, diskTree(t)))
			_, err := e.Import(t.Context(), engine.ImportRequest{Ref: "disk", Content: bytes.NewReader(image)})
			check(t, err)
			check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "disk", Limits: limits}))
			req := initRequest
			req.Args = []string{"/bin/sh", "-c", "dd if=/dev/urandom of=/root/large bs=1048576 count=90 && echo changed; exec sleep 1000"}
			check(t, e.Start(t.Context(), "c", req))
			console(t, e, "c", "changed")
			c, err := diskCommit(t.Context(), e, disk.Raw, image)
			check(t, err)
			snap := saved(t, c)
			if kind != "none" {
				if out := disktest.Run(t, "sfdisk", "--verify", snap); !strings.Contains(out, "No errors detected") {
					t.Error(out)
				}
				data := readFile(t, snap)
				root := filepath.Join(t.TempDir(), "root")
				check(t, os.WriteFile(root, data[2*disktest.MiB:], 0o600))
				snap = root
			}
			disktest.Run(t, "e2fsck", "-fn", snap)
			check(t, e.Delete(t.Context(), "c"))
		})
	}
}

// TestCommitDiskRefuses what cannot be made, in words, and leaves nothing.
func TestCommitDiskRefuses(t *testing.T) {
	h := jailed(t)
	e, done := h.Engine(t)
	defer done()
	tree := disktest.Tree(t, disktest.Root())
	good := readFile(t, diskOf(t, "gpt", diskTree(t)))
	_, err := e.Import(t.Context(), engine.ImportRequest{Ref: "disk", Content: bytes.NewReader(good)})
	check(t, err)
	changedOf(t, e, "c", "disk")
	before := left(t, h.Root)
	swapped := disktest.Disk(t, 68*disktest.MiB, "label: gpt\nstart=2MiB, size=18MiB, type="+disktest.TypeLinux+"\nsize=1MiB, type="+disktest.TypeEFI+"\n",
		map[int64]string{2 * disktest.MiB: disktest.Make(t, "ext4", tree, 8*disktest.MiB, "-b", "1024", "-N", "64")})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx      context.Context
		original []byte
		class    error
		text     string
	}{
		"an archive":     {t.Context(), bytes.Repeat([]byte("no disk "), 20000), engine.ErrNoDisk, ""},
		"btrfs":          {t.Context(), readFile(t, disktest.Make(t, "btrfs", tree, 128*disktest.MiB)), errdefs.ErrInvalid, "is btrfs"},
		"ext3":           {t.Context(), readFile(t, disktest.Make(t, "ext3", tree, 64*disktest.MiB)), errdefs.ErrInvalid, "tar and full"},
		"bigalloc":       {t.Context(), readFile(t, disktest.Make(t, "ext4", tree, 64*disktest.MiB, "-O", "bigalloc")), errdefs.ErrInvalid, "bigalloc"},
		"no room":        {t.Context(), readFile(t, swapped), errdefs.ErrInvalid, "do not fit"},
		"no root":        {t.Context(), readFile(t, disktest.Make(t, "ext4", "", 8*disktest.MiB)), errdefs.ErrInvalid, "no root file system"},
		"a backing file": {t.Context(), backed(t), errdefs.ErrInvalid, "backing file"},
		"cut off":        {t.Context(), good[:3*disktest.MiB], errdefs.ErrCorrupt, ""},
		"cancelled":      {cancelled, good, errdefs.ErrAborted, ""},
	} {
		_, err := diskCommit(c.ctx, e, disk.QCOW2, c.original)
		if c.ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = errors.Join(err, errdefs.ErrAborted)
		}
		if !errors.Is(err, c.class) || !strings.Contains(errdefs.PublicText(err, ""), c.text) {
			t.Errorf("%s: %v (%q)", name, err, errdefs.PublicText(err, ""))
		}
		if d := cmp.Diff(before, left(t, h.Root)); d != "" {
			t.Errorf("%s: left on the host:\n%s", name, d)
		}
	}
	check(t, e.Delete(t.Context(), "c"))
}

// left is what a snapshot may leave on a host.
func left(t *testing.T, root string) (out []string) {
	t.Helper()
	for _, dir := range []string{"tmp", "rootfs", "journal"} {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) && dir != "journal" {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, dir+"/"+e.Name())
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	check(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, root) {
			out = append(out, line)
		}
	}
	return out
}

// tarList has a line for each entry of an archive.
func tarList(t *testing.T, archive []byte) (out []string) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		check(t, err)
		sum := sha256.New()
		_, err = io.Copy(sum, r)
		check(t, err)
		if h.Name == "lost+found/" {
			continue // e2fsck wants one
		}
		delete(h.PAXRecords, "mtime")
		if h.Name == "./" {
			h.ModTime = time.Time{} // each start changes it
		}
		out = append(out, fmt.Sprintf("%s %c %o %d:%d %s %q %v %x", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime, h.Linkname, h.PAXRecords, sum.Sum(nil)))
	}
}

// backed is an image that refers to a file of the host.
func backed(t *testing.T) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "backed")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", name, "1M")
	return readFile(t, name)
}
