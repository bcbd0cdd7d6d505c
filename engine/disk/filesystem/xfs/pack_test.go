package xfs

import (
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
)

var update = flag.String("update", "", "make the images of testdata again whose names begin so")

// v4 are options for a file system of version 4, which needs a kernel with
// CONFIG_XFS_SUPPORT_V4 to be filled.
var v4 = []string{"-m", "crc=0,finobt=0,reflink=0,rmapbt=0,inobtcount=0,bigtime=0", "-i", "sparse=0,size=256"}

// packs are small images with one of each structure. They are kept as files
// because not every kernel can make them.
var packs = map[string]struct {
	mkfs []string
	// parents turns parent pointers and exchange-range on, which mkfs.xfs
	// does from its version 6.10 on.
	parents bool
	// dirty ends the file system in the midst of work.
	dirty bool
}{
	"v4":       {mkfs: append([]string{"-b", "size=512", "-n", "size=4096,ftype=0"}, v4...)},
	"v4-dirty": {mkfs: append([]string{"-b", "size=1024", "-n", "size=4096,ftype=1"}, v4...), dirty: true},
	"v5":       {mkfs: []string{"-b", "size=1024", "-m", "rmapbt=1"}},
	"v5-dirty": {mkfs: []string{"-b", "size=1024", "-i", "nrext64=1"}, parents: true, dirty: true},
}

// TestPacked reads the images of testdata. With -update=NAME it makes them
// first; what the kernel shows of them is compared then, and what the reader
// shows is kept.
func TestPacked(t *testing.T) {
	for name, how := range packs {
		packed, golden := filepath.Join("testdata", name+".gz"), filepath.Join("testdata", name+".txt")
		if *update != "" && strings.HasPrefix(name, *update) {
			m := maker(append([]string{"-d", "agcount=2"}, how.mkfs...)...)
			m.Size = 32 << 20
			image := m.Image(t)
			if how.parents {
				addFeatures(t, image, 1<<6|1<<7)
			}
			m.Mounted(t, image, "", func(dir string) { fill(t, dir, how.dirty) })
			filesystemtest.Pack(t, image, packed)
			fs := openPacked(t, packed)
			m.Mounted(t, image, "", func(string) {}) // recovers it
			m.Mounted(t, image, "ro", func(dir string) { filesystemtest.Compare(t, fs, dir) })
			if err := os.WriteFile(golden, []byte(listing(t, fs)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			fs := openPacked(t, packed)
			if got := listing(t, fs); got != string(want) {
				t.Errorf("got:\n%s", got)
			}
			if replayed := fs.dev.replayed != nil; replayed != how.dirty || fs.Info().Dirty {
				t.Errorf("replayed %v, dirty %v", replayed, fs.Info().Dirty)
			}
		})
	}
}

// FuzzReader changes the images; checksums are not looked at.
func FuzzReader(f *testing.F) {
	names := slices.Sorted(maps.Keys(packs))
	for i, name := range names {
		names[i] = filepath.Join("testdata", name+".gz")
	}
	filesystemtest.Fuzz(f, unchecked, names...)
}

func openPacked(t *testing.T, packed string) *FS {
	t.Helper()
	image, err := filesystemtest.ReadPacked(packed)
	if err != nil {
		t.Fatal(err)
	}
	fs, err := Open(image, image.Size())
	if err != nil {
		t.Fatal(err)
	}
	return fs.(*FS)
}

// addFeatures sets incompatible features in the superblock.
func addFeatures(t *testing.T, image string, bits uint32) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, sector)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	be.PutUint32(b[216:], be.Uint32(b[216:])|bits)
	seal(b, 224)
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
}

// seal puts the right checksum at offset at of b.
func seal(b []byte, at int) {
	clear(b[at : at+4])
	binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b, castagnoli))
}

// fill makes directories, forks and attributes of each form, small and with
// little in them.
func fill(t *testing.T, dir string, dirty bool) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name ...any) string { return filepath.Join(dir, fmt.Sprint(name...)) }
	for _, n := range []int{3, 30, 200, 560} {
		must(os.Mkdir(at("d", n), 0o755))
		must(os.WriteFile(at("d", n, "/file"), []byte("short"), 0o640))
		for i := range n {
			must(os.Link(at("d", n, "/file"), at("d", n, "/name ", i)))
		}
	}
	extents := func(name string, n int) {
		f, err := os.Create(at(name))
		must(err)
		for i := range n {
			_, err := f.WriteAt([]byte{byte(i)}, int64(2*i)*1024)
			must(err)
		}
		must(f.Truncate(5 << 20))
		must(f.Close())
	}
	extents("few extents", 3)
	extents("many extents", 400)
	value := strings.Repeat("value ", 2000)
	for i, sizes := range [][]int{{5}, {0, 300}, {400, 500, 600}, {3000, 10, 12000}} {
		must(os.WriteFile(at("x", i), nil, 0o600))
		for k, size := range sizes {
			must(unix.Lsetxattr(at("x", i), fmt.Sprint([]string{"user.", "trusted.", "security."}[k%3], k), []byte(value[:size]), 0))
		}
	}
	must(os.WriteFile(at("x many"), nil, 0o600))
	for i := range 120 {
		must(unix.Lsetxattr(at("x many"), fmt.Sprint("user.attribute ", i), []byte(value[:i]), 0))
	}
	const acl = "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
	must(unix.Lsetxattr(at("x0"), "system.posix_acl_access", []byte(acl), 0))
	must(unix.Lsetxattr(at("d3"), "system.posix_acl_default", []byte(acl), 0))
	for _, n := range []int{10, 140, 600, 1000} {
		must(os.Symlink(strings.Repeat("l", n), at("link", n)))
	}
	must(unix.Mknod(at("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(300, 70000))))
	must(unix.Mkfifo(at("fifo"), 0o4644))
	f, err := os.Create(at("unwritten"))
	must(err)
	must(unix.Fallocate(int(f.Fd()), 0, 10000, 50000))
	_, err = f.WriteAt([]byte("x"), 30000)
	must(err)
	must(f.Close())
	if dirty {
		d, err := os.Open(dir)
		must(err)
		defer d.Close()
		must(unix.Syncfs(int(d.Fd())))
		for i := 0; i < 30; i += 2 {
			must(os.Remove(at("d30/name ", i)))
		}
		extents("d3/later", 40)
		must(os.Remove(at("x3")))
		must(os.Symlink(strings.Repeat("m", 900), at("d3/late link")))
		const goingDown, flushLog = 0x8004587d, 1 // XFS_IOC_GOINGDOWN
		must(unix.IoctlSetPointerInt(int(d.Fd()), goingDown, flushLog))
	}
}

// listing is all that a file system shows, as text: a line for each inode, and
// a sum of the names that inodes have besides.
func listing(t *testing.T, fs filesystem.FileSystem) string {
	t.Helper()
	var lines, again []string
	seen := map[filesystem.Node]bool{}
	var visit func(name string, n filesystem.Node) error
	visit = func(name string, n filesystem.Node) error {
		if seen[n] {
			again = append(again, fmt.Sprintf("%q %d", name, n.Inode))
			return nil
		}
		seen[n] = true
		a, err := fs.Stat(n)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%q %d mode %o %d:%d links %d size %d dev %d:%d times %d %d %d", name, n.Inode, a.Mode, a.UID, a.GID, a.Links, a.Size,
			a.Major, a.Minor, a.Atime.UnixNano(), a.Mtime.UnixNano(), a.Ctime.UnixNano())
		h := sha256.New()
		attrs, err := fs.Xattrs(n)
		if err != nil {
			return err
		}
		for _, k := range slices.Sorted(maps.Keys(attrs)) {
			fmt.Fprintf(h, "%q=%q\n", k, attrs[k])
		}
		switch a.Mode & modeType {
		case modeLink:
			target, err := fs.Readlink(n)
			if err != nil {
				return err
			}
			fmt.Fprint(h, target)
		case modeRegular:
			file, err := fs.Open(n)
			if err != nil {
				return err
			}
			if err := file.Segments(func(off, length int64) error { fmt.Fprintln(h, off, length); return nil }); err != nil {
				return err
			}
			if _, err := io.Copy(h, io.NewSectionReader(file, 0, a.Size)); err != nil {
				return err
			}
		case modeDir:
			if err := fs.ReadDir(n, func(base string, child filesystem.Node) error { return visit(name+"/"+base, child) }); err != nil {
				return err
			}
		}
		lines = append(lines, fmt.Sprintf("%s attributes %d sum %x", line, len(attrs), h.Sum(nil)[:8]))
		return nil
	}
	if err := visit("", fs.Root()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	slices.Sort(again)
	return fmt.Sprintf("%s\n%d further names, sum %x\n", strings.Join(lines, "\n"), len(again), sha256.Sum256([]byte(strings.Join(again, "\n"))))
}
