package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/disk/disktest"
	diskjail "github.com/gantry-project/gantry/engine/disk/jail"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/jail"
	"github.com/gantry-project/gantry/engine/layer"
	layerjail "github.com/gantry-project/gantry/engine/layer/jail"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// jailed is a host whose images are read in jails, as the service's are.
func jailed(t *testing.T) *enginetest.Host {
	t.Helper()
	walls := jail.New(jail.Options{MemoryBytes: jailMemory})
	h := enginetest.NewHost(t)
	h.Unpack, h.ReadDisk, h.WriteDisk = layerjail.New(walls).Apply, diskjail.New(walls).Convert, diskjail.New(walls)
	return h
}

// diskTree is a root with one of each thing that an image may hold.
func diskTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(dir)
	check(t, err)
	defer f.Close()
	_, err = layer.Apply(t.Context(), f, bytes.NewReader(enginetest.Busybox(t)), layer.Options{})
	check(t, err)
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string, mode os.FileMode, uid, gid int) {
		check(t, os.WriteFile(at(name), []byte(text), 0o600))
		check(t, os.Lchown(at(name), uid, gid))
		check(t, os.Chmod(at(name), mode))
	}
	check(t, os.MkdirAll(at("usr/share/deep/er"), 0o751))
	check(t, os.MkdirAll(at("boot"), 0o700))
	write("etc/fstab", "UUID=none / ext4 defaults 0 1\n", 0o644, 0, 0)
	write("boot/vmlinuz", "kernel", 0o600, 0, 0)
	write("etc/shadow", "root:!::", 0o640, 0, 42)
	write("bin/su", "x", 0o755|os.ModeSetuid, 0, 0)
	write("bin/wall", "x", 0o755|os.ModeSetgid, 0, 5)
	write("usr/share/deep/er/owned", strings.Repeat("data", 5000), 0o600, 1000, 1001)
	write("usr/share/ünïcode \n name", "", 0o644, 65534, 65534)
	check(t, os.Link(at("etc/fstab"), at("usr/share/fstab")))
	check(t, os.Symlink("/usr/share/none", at("usr/share/dangling")))
	check(t, os.Symlink(strings.Repeat("x", 200), at("usr/share/long")))
	check(t, unix.Mkfifo(at("usr/share/pipe"), 0o622))
	check(t, unix.Mknod(at("dev/sda"), unix.S_IFBLK|0o660, int(unix.Mkdev(8, 0))))
	check(t, os.Chmod(at("tmp"), 0o777|os.ModeSticky))
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	write("bin/ping", "x", 0o755, 0, 0)
	check(t, unix.Lsetxattr(at("bin/ping"), "security.capability", []byte(capability), 0))
	check(t, unix.Lsetxattr(at("usr/share/deep"), "user.note", []byte("kept"), 0))
	sparse, err := os.Create(at("usr/share/sparse"))
	check(t, err)
	_, err = sparse.WriteAt([]byte("end"), 20<<20)
	check(t, errors.Join(err, sparse.Close()))
	for i := range 300 {
		write(fmt.Sprintf("usr/share/deep/%d", i), fmt.Sprint(i), 0o644, i, i)
	}
	// whole seconds: mkfs knows no others
	check(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		ts := []unix.Timespec{{Sec: 1}, {Sec: 1_500_000_000 + int64(len(p))}}
		return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW))
	}))
	return dir
}

// listing describes each entry of a tree: what a layer keeps of it.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	inodes := map[uint64]string{}
	var out []string
	check(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(p, dir)
		if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFBLK || name == "/lost+found" {
			return nil // the one is not made, the other mkfs adds
		}
		line := fmt.Sprintf("%q %o %d:%d", name, st.Mode, st.Uid, st.Gid)
		if name != "" { // mkfs makes the root anew
			line += fmt.Sprintf(" %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		case unix.S_IFREG:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d bytes %x", len(data), sha256.Sum256(data))
			if first, ok := inodes[st.Ino]; ok {
				line += " is " + first
			}
			inodes[st.Ino] = name
			if st.Size > 10<<20 && st.Blocks*512 > st.Size/2 {
				line += " without holes"
			}
		}
		for _, x := range []string{"security.capability", "user.note"} {
			var v [100]byte
			if n, err := unix.Lgetxattr(p, x, v[:]); err == nil {
				line += fmt.Sprintf(" %s=%x", x, v[:n])
			}
		}
		out = append(out, line)
		return nil
	}))
	slices.Sort(out)
	return out
}

// layerDirs are the directories of the layers of a host.
func layerDirs(t *testing.T, h *enginetest.Host) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(h.Root, "snapshots", "layers", "*"))
	check(t, err)
	return list
}

// TestDiskImages: a root in every form that a cloud's disk images have is
// imported in jails, is the same tree entry by entry, and runs.
func TestDiskImages(t *testing.T) {
	tree := diskTree(t)
	want := listing(t, tree)
	root := disktest.Make(t, "ext4", tree, 64*disktest.MiB)
	gpt := disktest.Disk(t, 80*disktest.MiB, "label: gpt\nsize=4MiB, type="+disktest.TypeEFI+"\nsize=64MiB, type="+disktest.TypeLinux+"\n",
		map[int64]string{disktest.MiB: disktest.Make(t, "vfat", "", 4*disktest.MiB), 5 * disktest.MiB: root})
	mbr := disktest.Disk(t, 80*disktest.MiB, "label: dos\nsize=64MiB, type=83, bootable\n", map[int64]string{disktest.MiB: root})
	h := jailed(t)
	for name, c := range map[string]struct{ file, format string }{
		"raw, in its file":    {mbr, "raw"},
		"qcow2, in its file":  {disktest.QCOW2(t, gpt), "qcow2"},
		"raw":                 {root, "raw"},
		"raw, MBR":            {mbr, "raw"},
		"raw, GPT":            {gpt, "raw"},
		"qcow2":               {disktest.QCOW2(t, gpt), "qcow2"},
		"qcow2, version 2":    {disktest.QCOW2(t, mbr, "-o", "compat=0.10"), "qcow2"},
		"qcow2, compressed":   {disktest.QCOW2(t, gpt, "-c"), "qcow2"},
		"qcow2, zstd":         {disktest.QCOW2(t, gpt, "-c", "-o", "compression_type=zstd"), "qcow2"},
		"qcow2, extended L2":  {disktest.QCOW2(t, gpt, "-o", "extended_l2=on"), "qcow2"},
		"btrfs":               {disktest.Make(t, "btrfs", tree, 256*disktest.MiB), "raw"},
		"XFS, qcow2":          {disktest.QCOW2(t, disktest.Make(t, "xfs", tree, 300*disktest.MiB)), "qcow2"},
		"ext3":                {disktest.Make(t, "ext3", tree, 64*disktest.MiB), "raw"},
		"qcow2, not declared": {disktest.QCOW2(t, root, "-c"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			h, inFile := h, strings.HasSuffix(name, "in its file")
			if inFile {
				h = jailed(t) // where no other image has the same layer
			}
			h.Log = &log
			e, done := h.Engine(t)
			defer done()
			f, err := os.Open(c.file)
			check(t, err)
			defer f.Close()
			before := layerDirs(t, h)
			req := engine.ImportRequest{Ref: name, Content: f, DiskFormat: c.format, ContainerFormat: "bare"}
			if inFile {
				req.File = f
			}
			_, err = e.Import(t.Context(), req)
			check(t, err)
			if inFile { // the same tree is the same layer
				_, err = f.Seek(0, io.SeekStart)
				check(t, err)
				req.Ref = "again"
				_, err = e.Import(t.Context(), req)
				check(t, err)
			}
			if strings.Contains(log.String(), "without a jail") || !strings.Contains(log.String(), "disk image read") {
				t.Errorf("log:\n%s", log.String())
			}
			more := slices.DeleteFunc(layerDirs(t, h), func(l string) bool { return slices.Contains(before, l) })
			if len(more) != 1 {
				t.Fatalf("%d layers", len(more))
			}
			got := listing(t, filepath.Join(more[0], "fs"))
			if name == "btrfs" { // whose mkfs writes holes as zeros
				for i := range got {
					got[i] = strings.TrimSuffix(got[i], " without holes")
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: name, Limits: limits}))
			check(t, e.Start(t.Context(), "c", initRequest))
			console(t, e, "c", "up as 1")
			check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
			check(t, e.Delete(t.Context(), "c"))
		})
	}
}

// TestHostileDiskImages leave nothing behind, and say what is wrong with them.
func TestHostileDiskImages(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	check(t, os.WriteFile(secret, bytes.Repeat([]byte("canary "), 100_000), 0o600))
	root := disktest.Make(t, "ext4", disktest.Tree(t, disktest.Root()), 16*disktest.MiB)
	good, err := os.ReadFile(disktest.QCOW2(t, root))
	check(t, err)
	backing := filepath.Join(t.TempDir(), "backing")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, backing)
	dataFile := disktest.QCOW2(t, root, "-o", "data_file="+filepath.Join(t.TempDir(), "data"))
	nested := disktest.Disk(t, 32*disktest.MiB, "label: dos\nsize=16MiB, type=83\n", map[int64]string{disktest.MiB: disktest.QCOW2(t, root)})
	// a file of zeros that are there, which a qcow2 needs no room for
	zeros := disktest.Make(t, "ext4", disktest.Tree(t, disktest.Root()), 128*disktest.MiB, "-O", "^has_journal")
	disktest.Script(t, zeros, "dd if=/dev/zero of=z bs=1M count=80")
	for name, c := range map[string]struct {
		data         []byte
		format       string
		class        error
		text         string
		limits       layer.Limits
		imageLimits  image.Limits
		timeLimit    time.Duration
		withoutJails bool
	}{
		"backing file":              {data: readFile(t, backing), format: "qcow2", class: errdefs.ErrInvalid, text: "has a backing file"},
		"data file":                 {data: readFile(t, dataFile), format: "qcow2", class: errdefs.ErrInvalid, text: "its data in another file"},
		"qcow2 declared raw":        {data: good, format: "raw", class: errdefs.ErrInvalid, text: "declared to have the disk_format raw"},
		"raw declared qcow2":        {data: readFile(t, root), format: "qcow2", class: errdefs.ErrInvalid, text: "declared to have the disk_format qcow2"},
		"qcow2 within a partition":  {data: readFile(t, nested), format: "raw", class: errdefs.ErrInvalid, text: "no root file system"},
		"cut off":                   {data: good[:6<<16], format: "qcow2", class: errdefs.ErrCorrupt, text: "cut off"},
		"without a jail":            {data: good[:6<<16], format: "qcow2", class: errdefs.ErrCorrupt, text: "cut off", withoutJails: true},
		"a table that is a lie":     {data: overwrite(readFile(t, nested), 446+8, "\xff\xff\xff\x7f"), format: "raw", class: errdefs.ErrCorrupt, text: "partition 1 reaches"},
		"a bomb":                    {data: readFile(t, disktest.QCOW2(t, zeros, "-c")), format: "qcow2", class: errdefs.ErrInvalid, text: "expands to more than 200 times"},
		"more entries than allowed": {data: good, format: "qcow2", class: errdefs.ErrInvalid, text: "more than 5 entries", limits: layer.Limits{Entries: 5}},
		"deeper than allowed":       {data: good, format: "qcow2", class: errdefs.ErrInvalid, text: "2", limits: layer.Limits{Depth: 2}},
		"larger than allowed":       {data: good, format: "qcow2", class: errdefs.ErrInvalid, text: "more than 2048 bytes", imageLimits: image.Limits{LayerBytes: 2048}},
		"longer than allowed":       {data: good, format: "qcow2", class: errdefs.ErrInvalid, text: "longer than 1ns", timeLimit: 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := jailed(t)
			if c.withoutJails {
				h.Unpack, h.ReadDisk = nil, nil
			}
			h.LayerLimits, h.ImageLimits, h.ImageTime = c.limits, c.imageLimits, c.timeLimit
			e, done := h.Engine(t)
			defer done()
			for _, f := range []*os.File{nil, fileOf(t, c.data)} {
				_, err := e.Import(t.Context(), engine.ImportRequest{
					Ref: "bad", Content: bytes.NewReader(c.data), File: f, DiskFormat: c.format, ContainerFormat: "bare",
				})
				if !errors.Is(err, c.class) || !strings.Contains(errdefs.PublicText(err, ""), c.text) {
					t.Errorf("got %v\nfor tenants %q", err, errdefs.PublicText(err, ""))
				}
				if strings.Contains(fmt.Sprint(err), "canary") {
					t.Error("the host's file was read")
				}
				if left := files(t, filepath.Join(h.Root, "tmp")); len(layerDirs(t, h)) != 0 || len(left) != 0 {
					t.Errorf("left: %v, %v", layerDirs(t, h), left)
				}
				if _, err := e.Image(t.Context(), "bad"); !errors.Is(err, errdefs.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
}

// fileOf is an open file with the data.
func fileOf(t *testing.T, data []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	check(t, os.WriteFile(name, data, 0o600))
	f, err := os.Open(name)
	check(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	check(t, err)
	return data
}

// files are those below a directory.
func files(t *testing.T, dir string) (out []string) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, p)
		}
		return err
	}))
	return out
}

func overwrite(data []byte, at int, with string) []byte {
	copy(data[at:], with)
	return data
}

// TestNoJailForDisks: a host that cannot make jails reads disk images in the
// process, which is said once.
func TestNoJailForDisks(t *testing.T) {
	var log bytes.Buffer
	h := enginetest.NewHost(t)
	h.Log, h.ReadDisk = &log, func(context.Context, io.ReaderAt, int64, disk.Options, io.Writer) (disk.Report, error) {
		return disk.Report{}, jail.ErrImpossible
	}
	e, done := h.Engine(t)
	defer done()
	root := disktest.Make(t, "ext4", disktest.Tree(t, disktest.Root()), 16*disktest.MiB)
	for _, name := range []string{root, disktest.QCOW2(t, root)} {
		_, err := e.Import(t.Context(), engine.ImportRequest{Ref: name, Content: bytes.NewReader(readFile(t, name)), ContainerFormat: "bare"})
		check(t, err)
	}
	if n := strings.Count(log.String(), "images are unpacked without a jail"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
}

// TestSnapshotOfADiskImage: the root of a disk is a layer like others: a snapshot
// has it below its own, and where it is already only the top is unpacked.
func TestSnapshotOfADiskImage(t *testing.T) {
	h := jailed(t)
	e, done := h.Engine(t)
	defer done()
	tree := diskTree(t)
	root := disktest.QCOW2(t, disktest.Make(t, "ext4", tree, 64*disktest.MiB))
	_, err := e.Import(t.Context(), engine.ImportRequest{Ref: "disk", Content: bytes.NewReader(readFile(t, root)), DiskFormat: "qcow2", ContainerFormat: "bare"})
	check(t, err)
	// a layer whose tar has the very bytes of the image would be another one
	if name := digest.FromBytes(readFile(t, root)).Encoded(); len(layerDirs(t, h)) != 1 || filepath.Base(layerDirs(t, h)[0]) == name {
		t.Errorf("layers %v", layerDirs(t, h))
	}
	changedOf(t, e, "c", "disk")
	snap := taken(e.Commit(t.Context(), "c"))(t)
	if n := len(diffIDs(t, snap)); n != 2 {
		t.Errorf("%d layers", n)
	}
	before := len(layerDirs(t, h))
	check(t, importOCI(t, e, "snap", snap))
	if after := len(layerDirs(t, h)); after != before+1 {
		t.Errorf("%d layers before the snapshot was imported, %d after", before, after)
	}
	check(t, e.Delete(t.Context(), "c"))

	other := jailed(t) // which knows nothing of the disk image
	e2, done2 := other.Engine(t)
	defer done2()
	check(t, importOCI(t, e2, "snap", snap))
	want := listing(t, tree)
	for _, dir := range layerDirs(t, other) {
		if got := listing(t, filepath.Join(dir, "fs")); len(got) > 300 {
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			return
		}
	}
	t.Error("the root of the disk image is not among the layers")
}
