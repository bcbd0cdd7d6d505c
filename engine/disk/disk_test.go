package disk_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/disk/disktest"
	"github.com/gantry-project/gantry/engine/disk/partition"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const mib = disktest.MiB

// open opens an image file as an amd64 host.
func open(t testing.TB, name, format string) (*disk.Disk, error) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return disk.Open(t.Context(), f, st.Size(), disk.Options{Format: format, Arch: "amd64"})
}

// ext4 makes a small file system of files.
func ext4(t testing.TB, files map[string]string) string {
	t.Helper()
	return disktest.Make(t, "ext4", disktest.Tree(t, files), 8*mib)
}

// gpt makes a disk with partitions of 8 MiB each, of the types and with the
// contents given.
func gpt(t testing.TB, list ...[2]string) string {
	t.Helper()
	script := "label: gpt\n"
	parts := map[int64]string{}
	for i, p := range list {
		at := int64(1+8*i) * mib
		script += "size=8MiB, type=" + p[0] + "\n"
		if p[1] != "" {
			parts[at] = p[1]
		}
	}
	return disktest.Disk(t, int64(2+8*len(list))*mib, script, parts)
}

func TestOpen(t *testing.T) {
	tree := disktest.Tree(t, disktest.Root())
	root := disktest.Make(t, "ext4", tree, 8*mib)
	efi := disktest.Make(t, "vfat", "", 8*mib)
	boot := ext4(t, map[string]string{"vmlinuz": "x", "grub/grub.cfg": "x", "lost+found/": ""})
	home := ext4(t, map[string]string{"user/.profile": "x"})
	gptDisk := gpt(t, [2]string{disktest.TypeEFI, efi}, [2]string{disktest.TypeLinux, boot}, [2]string{disktest.TypeLinux, root}, [2]string{disktest.TypeLinux, home})
	mbrDisk := disktest.Disk(t, 20*mib, "label: dos\nstart=1MiB, size=8MiB, type=83, bootable\nstart=10MiB, size=9MiB, type=5\nstart=11MiB, size=1MiB, type=82\n", map[int64]string{mib: root})
	logical := disktest.Disk(t, 20*mib, "label: dos\nstart=1MiB, size=18MiB, type=5\nstart=2MiB, size=8MiB, type=83\n", map[int64]string{2 * mib: root})
	for name, c := range map[string]struct {
		image, format string
		table         partition.Kind
		where, kind   string
	}{
		"raw":                     {root, "raw", partition.None, "the whole disk", "ext4"},
		"raw, nothing declared":   {root, "", partition.None, "the whole disk", "ext4"},
		"raw, MBR":                {mbrDisk, "raw", partition.MBR, "partition 1", "ext4"},
		"raw, logical":            {logical, "raw", partition.MBR, "partition 5", "ext4"},
		"raw, GPT":                {gptDisk, "raw", partition.GPT, "partition 3", "ext4"},
		"ext2":                    {disktest.Make(t, "ext2", tree, 8*mib), "raw", partition.None, "the whole disk", "ext2"},
		"btrfs":                   {disktest.Make(t, "btrfs", tree, 128*mib), "raw", partition.None, "the whole disk", "btrfs"},
		"qcow2":                   {disktest.QCOW2(t, root), "qcow2", partition.None, "the whole disk", "ext4"},
		"qcow2, nothing declared": {disktest.QCOW2(t, root), "", partition.None, "the whole disk", "ext4"},
		"qcow2, GPT, compressed":  {disktest.QCOW2(t, gptDisk, "-c"), "qcow2", partition.GPT, "partition 3", "ext4"},
		"qcow2, MBR, zstd":        {disktest.QCOW2(t, mbrDisk, "-c", "-o", "compression_type=zstd"), "qcow2", partition.MBR, "partition 1", "ext4"},
		"the type decides": {
			gpt(t, [2]string{disktest.TypeLinux, root}, [2]string{disktest.TypeRootX86, root}), "raw", partition.GPT, "partition 2", "ext4",
		},
		"content before type": {
			gpt(t, [2]string{disktest.TypeLinux, root}, [2]string{disktest.TypeRootX86, home}), "raw", partition.GPT, "partition 1", "ext4",
		},
		"an old root that has no init": {
			gpt(t, [2]string{disktest.TypeLinux, root}, [2]string{disktest.TypeLinux, ext4(t, map[string]string{"etc/fstab": "x", "usr/": ""})}), "raw", partition.GPT, "partition 1", "ext4",
		},
		"shell only": {ext4(t, map[string]string{"etc/passwd": "x", "bin/busybox": "x", "bin/sh": "->busybox"}), "raw", partition.None, "the whole disk", "ext4"},
		"absolute links": {
			ext4(t, map[string]string{"etc/passwd": "x", "opt/sys/init": "x", "usr/x": "->/opt/../../opt/sys", "sbin": "->/usr/x"}), "raw", partition.None, "the whole disk", "ext4",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := open(t, c.image, c.format)
			if err != nil {
				t.Fatal(err)
			}
			if d.Table != c.table || d.Where != c.where || d.Root.Info().Type != c.kind {
				t.Errorf("found %s, %s, %s", d.Table, d.Where, d.Root.Info().Type)
			}
		})
	}
}

// TestSubvolumes: where distributions install to comes before its snapshots, and
// what a mount without options shows before all.
func TestSubvolumes(t *testing.T) {
	tree := disktest.Tree(t, disktest.Root())
	for name, c := range map[string]struct{ script, where, text string }{
		"debian":             {`btrfs subvolume create @rootfs; btrfs subvolume create @home; cp -a "$1/." @rootfs`, `subvolume "@rootfs" of the whole disk`, ""},
		"snapshots":          {`btrfs subvolume create @; cp -a "$1/." @; mkdir s; btrfs subvolume snapshot @ s/1; btrfs subvolume snapshot -r @ s/2`, `subvolume "@" of the whole disk`, ""},
		"the default":        {`btrfs subvolume create a; cp -a "$1/." a; btrfs subvolume snapshot a b; btrfs subvolume set-default b`, "the whole disk", ""},
		"the top":            {`cp -a "$1/." .; btrfs subvolume create @; cp -a "$1/." @`, "the whole disk", ""},
		"one of any name":    {`mkdir -p x/y; btrfs subvolume create x/y/z; cp -a "$1/." x/y/z`, `subvolume "x/y/z" of the whole disk`, ""},
		"nobody knows which": {`btrfs subvolume create a; cp -a "$1/." a; btrfs subvolume snapshot a b`, "", `more than one root file system: subvolume "a" of the whole disk, subvolume "b"`},
		"none":               {`btrfs subvolume create a`, "", "no root file system (found: the whole disk: btrfs)"},
	} {
		t.Run(name, func(t *testing.T) {
			img := disktest.Make(t, "btrfs", "", 128*mib)
			disktest.Script(t, img, c.script, tree)
			d, err := open(t, img, "raw")
			if c.text != "" {
				if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(errdefs.PublicText(err, ""), c.text) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || d.Where != c.where {
				t.Fatalf("found %+v, %v", d, err)
			}
			var tar bytes.Buffer
			f, err := os.Open(img)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			rep, err := disk.Convert(t.Context(), f, 128*mib, disk.Options{}, &tar)
			if err != nil || !bytes.Contains(tar.Bytes(), []byte("etc/os-release")) || rep.Where != c.where {
				t.Errorf("%+v, %v", rep, err)
			}
		})
	}
}

// TestArchitecture: a disk for several architectures has a root for each.
func TestArchitecture(t *testing.T) {
	root := ext4(t, disktest.Root())
	img := gpt(t, [2]string{disktest.TypeRootX86, root}, [2]string{"b921b045-1df0-41c3-af44-4c6f280d3fae", root})
	for arch, want := range map[string]string{"amd64": "partition 1", "arm64": "partition 2", "s390x": ""} {
		data := read(t, img)
		d, err := disk.Open(t.Context(), bytes.NewReader(data), int64(len(data)), disk.Options{Arch: arch})
		if want == "" {
			if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(errdefs.PublicText(err, ""), "the host has s390x") {
				t.Errorf("%s: %v", arch, err)
			}
			continue
		}
		if err != nil || d.Where != want {
			t.Errorf("%s: %+v, %v", arch, d, err)
		}
	}
}

// image is a file of size bytes with marks at places.
func image(t testing.TB, marks map[int64]string) string {
	t.Helper()
	data := make([]byte, 2*mib)
	for at, mark := range marks {
		copy(data[at:], mark)
	}
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestRefused(t *testing.T) {
	root := ext4(t, disktest.Root())
	empty := ext4(t, map[string]string{"a": "b"})
	noUsr := ext4(t, map[string]string{"etc/fstab": "x", "usr/": "", "sbin": "->usr/sbin", "bin": "->usr/bin"})
	usr := ext4(t, map[string]string{"bin/sh": "x", "lib/libc.so": "x", "share/doc/x": "x", "sbin/init": "x"})
	broken := bytes.Clone(read(t, root))
	broken[1024+24] = 200 // the size of its blocks
	overlap := read(t, gpt(t, [2]string{disktest.TypeLinux, root}))
	clear(overlap[512:1024])
	clear(overlap[len(overlap)-512:])
	for name, c := range map[string]struct {
		image, format string
		class         error
		text          string
	}{
		"qcow2 declared raw": {disktest.QCOW2(t, root), "raw", errdefs.ErrInvalid, "its content is qcow2"},
		"raw declared qcow2": {root, "qcow2", errdefs.ErrInvalid, "its content is raw"},
		"backing file": {
			withBacking(t, root), "qcow2", errdefs.ErrInvalid, "has a backing file",
		},
		"data file": {
			disktest.QCOW2(t, root, "-o", "data_file="+filepath.Join(t.TempDir(), "data")), "qcow2", errdefs.ErrInvalid, "keeps its data in another file",
		},
		"two roots": {gpt(t, [2]string{disktest.TypeLinux, root}, [2]string{disktest.TypeLinux, root}), "raw", errdefs.ErrInvalid, "more than one root file system: partition 1, partition 2"},
		"two roots by type": {
			gpt(t, [2]string{disktest.TypeRootX86, root}, [2]string{disktest.TypeRootX86, root}), "raw", errdefs.ErrInvalid, "more than one root",
		},
		"no root": {
			gpt(t, [2]string{disktest.TypeLinux, empty}, [2]string{disktest.TypeLinux, disktest.Make(t, "swap", "", 8*mib)}), "raw", errdefs.ErrInvalid,
			"no root file system (found: partition 1: ext; partition 2: swap)",
		},
		"nothing at all":  {image(t, nil), "raw", errdefs.ErrInvalid, "the whole disk: unknown"},
		"a loop of links": {ext4(t, map[string]string{"etc/passwd": "x", "usr/": "", "sbin": "->lib", "lib": "->sbin", "bin": "->bin", "init": "->init"}), "raw", errdefs.ErrInvalid, "no root"},
		"endless paths": {
			ext4(t, map[string]string{
				"etc/passwd": "x", "usr/": "", "sbin/init": "->" + strings.Repeat("../sbin/", 120) + "a",
				"sbin/a": "->" + strings.Repeat("../sbin/", 120) + "b", "sbin/b": "->" + strings.Repeat("../sbin/", 120) + "c", "sbin/c": "x",
			}), "raw", errdefs.ErrInvalid, "no root",
		},
		"an init nowhere":  {ext4(t, map[string]string{"etc/passwd": "x", "usr/": "", "sbin/init": "->/usr/none", "init/": ""}), "raw", errdefs.ErrInvalid, "no root"},
		"separate usr":     {gpt(t, [2]string{disktest.TypeLinux, noUsr}, [2]string{disktest.TypeLinux, usr}), "raw", errdefs.ErrUnsupported, "/usr on a partition of its own (partition 2; the root is on partition 1)"},
		"LVM":              {image(t, map[int64]string{512: "LABELONE"}), "raw", errdefs.ErrUnsupported, "the whole disk holds LVM"},
		"LVM in partition": {gpt(t, [2]string{disktest.TypeLinux, empty}, [2]string{disktest.TypeLinux, image(t, map[int64]string{512: "LABELONE"})}), "raw", errdefs.ErrUnsupported, "partition 2 holds LVM"},
		"LUKS":             {image(t, map[int64]string{0: "LUKS\xba\xbe"}), "raw", errdefs.ErrUnsupported, "LUKS encryption"},
		"RAID":             {image(t, map[int64]string{4096: "\xfc\x4e\x2b\xa9"}), "raw", errdefs.ErrUnsupported, "Linux RAID"},
		"ZFS":              {image(t, map[int64]string{132 << 10: "\x0c\xb1\xba\x00\x00\x00\x00\x00"}), "raw", errdefs.ErrUnsupported, "ZFS"},
		"f2fs":             {image(t, map[int64]string{1024: "\x10\x20\xf5\xf2"}), "raw", errdefs.ErrUnsupported, "f2fs"},
		"damaged superblock": {
			write(t, broken), "raw", errdefs.ErrCorrupt, "file system of the disk image (the whole disk) cannot be read",
		},
		"damaged table": {write(t, overlap), "raw", errdefs.ErrCorrupt, "partition table"},
		"cut off":       {write(t, read(t, disktest.QCOW2(t, root))[:384<<10]), "qcow2", errdefs.ErrCorrupt, "cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, c.image, c.format)
			if !errors.Is(err, c.class) || !strings.Contains(errdefs.PublicText(err, ""), c.text) {
				t.Errorf("got %v\nfor tenants %q", err, errdefs.PublicText(err, ""))
			}
		})
	}
}

func withBacking(t testing.TB, raw string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "over.qcow2")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw, name)
	return name
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestErrorsOfTheSource are not the tenant's fault.
func TestErrorsOfTheSource(t *testing.T) {
	data := read(t, gpt(t, [2]string{disktest.TypeLinux, ext4(t, disktest.Root())}))
	for from := int64(0); from < 4*mib; from += 100 << 10 {
		_, err := disk.Open(t.Context(), failing{bytes.NewReader(data), from}, int64(len(data)), disk.Options{})
		if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || errdefs.PublicText(err, "") != "") {
			t.Errorf("from %d: %v", from, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := disk.Open(ctx, bytes.NewReader(data), int64(len(data)), disk.Options{}); !errors.Is(err, errdefs.ErrAborted) {
		t.Error(err)
	}
}

// failing fails behind an offset.
type failing struct {
	*bytes.Reader
	from int64
}

// ReadAt implements io.ReaderAt.
func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, os.ErrDeadlineExceeded
	}
	return f.Reader.ReadAt(p, off)
}
