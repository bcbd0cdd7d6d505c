package xfs

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// forged is an image with other bytes at some places.
type forged struct {
	*filesystemtest.Image
	t     *testing.T
	fs    *FS // as it was
	edits map[int64][]byte
}

func newForged(t *testing.T, name string) *forged {
	t.Helper()
	image, err := filesystemtest.ReadPacked(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	fs, err := open(image, image.Size(), false)
	if err != nil {
		t.Fatal(err)
	}
	return &forged{Image: image, t: t, fs: fs, edits: map[int64][]byte{}}
}

// ReadAt implements io.ReaderAt.
func (f *forged) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.Image.ReadAt(p, off)
	for at, b := range f.edits {
		for i := range b {
			if k := at + int64(i) - off; k >= 0 && k < int64(n) {
				p[k] = b[i]
			}
		}
	}
	return n, err
}

func (f *forged) set(at int64, b ...byte) { f.edits[at] = b }

func (f *forged) set16(at int64, v uint16) { f.set(at, be.AppendUint16(nil, v)...) }
func (f *forged) set32(at int64, v uint32) { f.set(at, be.AppendUint32(nil, v)...) }
func (f *forged) set64(at int64, v uint64) { f.set(at, be.AppendUint64(nil, v)...) }

// node finds a path.
func (f *forged) node(path string) filesystem.Node {
	f.t.Helper()
	n, found := f.fs.Root(), errors.New("found")
	for name := range strings.SplitSeq(path, "/") {
		err := f.fs.ReadDir(n, func(base string, child filesystem.Node) error {
			if base == name {
				n = child
				return found
			}
			return nil
		})
		if err != found {
			f.t.Fatalf("%s: %v", path, err)
		}
	}
	return n
}

// inode returns where the inode of a path is, and what it holds.
func (f *forged) inode(path string) (int64, *inode) {
	f.t.Helper()
	n := f.node(path)
	i, err := f.fs.inode(n)
	if err != nil {
		f.t.Fatal(err)
	}
	off, _ := f.fs.sb.inodeOffset(n.Inode)
	return off, i
}

func (f *forged) data(path string) *fork {
	_, i := f.inode(path)
	fork, err := f.fs.newFork(i.num, i.format, i.extents, i.data)
	if err != nil {
		f.t.Fatal(err)
	}
	return fork
}

// block returns where in the image a block of a fork is.
func (f *forged) block(fork *fork, at uint64) int64 {
	f.t.Helper()
	fsb, err := fork.mapped(at)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.fs.sb.offset(fsb)
}

// top returns where the keys and the pointers of the first node with several
// children are, in the extent tree of a file of version 5.
func (f *forged) top(path string) (keys, pointers int64) {
	f.t.Helper()
	at, _ := f.inode(path)
	root := f.data(path).root
	room := int64(len(root)-4) / 16
	if be.Uint16(root[2:]) > 1 {
		return at + coreV3 + 4, at + coreV3 + 4 + 8*room
	}
	off := f.fs.sb.offset(be.Uint64(root[4+8*room:])) + 72
	return off, off + (f.fs.sb.blockSize()-72)/16*8
}

// attrs returns where block 0 of the attribute fork is.
func (f *forged) attrs(path string) int64 {
	_, i := f.inode(path)
	fork, err := f.fs.newFork(i.num, i.attrFormat, i.attrExtents, i.attrs)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.block(fork, 0)
}

func readAll(fs filesystem.FileSystem, n filesystem.Node) error {
	file, err := fs.Open(n)
	if err != nil {
		return err
	}
	a, err := fs.Stat(n)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.NewSectionReader(file, 0, a.Size))
	return errors.Join(err, file.Segments(func(int64, int64) error { return nil }))
}

func readDir(fs filesystem.FileSystem, n filesystem.Node) error {
	return fs.ReadDir(n, func(string, filesystem.Node) error { return nil })
}

func xattrs(fs filesystem.FileSystem, n filesystem.Node) error {
	_, err := fs.Xattrs(n)
	return err
}

func readlink(fs filesystem.FileSystem, n filesystem.Node) error {
	_, err := fs.Readlink(n)
	return err
}

// TestLies has structures that contradict the format or one another.
func TestLies(t *testing.T) {
	const core = coreV3
	for _, c := range []struct {
		name, image, path string
		forge             func(f *forged, inode int64)
		read              func(filesystem.FileSystem, filesystem.Node) error
		want              string
	}{
		{"inode: no inode", "v5", "x0", func(f *forged, i int64) { f.set(i, 0) }, xattrs, "no inode there"},
		{"inode: version", "v5", "x0", func(f *forged, i int64) { f.set(i+4, 2) }, xattrs, "version 2"},
		{"inode: another's number", "v5", "x0", func(f *forged, i int64) { f.set64(i+152, 1) }, xattrs, "says that it is inode 1"},
		{"inode: another file system's", "v5", "x0", func(f *forged, i int64) { f.set(i+160, 0xff, 0xfe) }, xattrs, "another file system"},
		{"inode: free", "v5", "x0", func(f *forged, i int64) { f.set16(i+2, 0) }, xattrs, "not in use"},
		{"inode: no such type", "v5", "x0", func(f *forged, i int64) { f.set16(i+2, 0o170644) }, xattrs, "mode 170644"},
		{"inode: size", "v5", "x0", func(f *forged, i int64) { f.set(i+56, 0xff) }, xattrs, "bytes"},
		{"inode: forks", "v5", "x0", func(f *forged, i int64) { f.set(i+82, 200) }, xattrs, "attribute fork at 1600"},
		{"inode: regular file in the inode", "v5", "x0", func(f *forged, i int64) { f.set(i+5, 1) }, readAll, "data fork of format 1"},
		{"inode: real-time", "v5", "x0", func(f *forged, i int64) { f.set16(i+90, 1) }, readAll, "real-time"},
		{"extents: count", "v5", "few extents", func(f *forged, i int64) { f.set32(i+76, 1<<31) }, readAll, "2147483648 extents"},
		{"extents: empty", "v5", "few extents", func(f *forged, i int64) { f.set32(i+core+12, 0) }, readAll, "is empty"},
		{"extents: overlap", "v5", "few extents", func(f *forged, i int64) { f.set64(i+core+16, 0) }, readAll, "overlaps"},
		{"extents: out of range", "v5", "few extents", func(f *forged, i int64) { f.set64(i+core+8, 1<<63|1) }, readAll, "out of range"},
		{"extents: across groups", "v5", "few extents", func(f *forged, i int64) { f.set(i+core+13, 0x1f, 0xff, 0xff) }, readAll, "out of range"},
		{"tree: levels", "v5", "many extents", func(f *forged, i int64) { f.set16(i+core, 1000) }, readAll, "1000 levels"},
		{"tree: no levels", "v5", "many extents", func(f *forged, i int64) { f.set16(i+core, 0) }, readAll, "0 levels"},
		{"tree: entries of the root", "v5", "many extents", func(f *forged, i int64) { f.set16(i+core+2, 1000) }, readAll, "1000 of"},
		{"tree: order", "v5", "many extents", func(f *forged, _ int64) { keys, _ := f.top("many extents"); f.set64(keys+8, 0) }, readAll, "out of order"},
		{"tree: circle", "v4", "many extents", func(f *forged, _ int64) {
			// The node below the root is made its own child.
			fork := f.data("many extents")
			_, err := fork.descend(0)
			if err != nil || be.Uint16(fork.root) != 2 {
				f.t.Fatal("the tree has no node between root and leaf")
			}
			room := (len(fork.root) - 4) / 16
			fsb := be.Uint64(fork.root[4+8*room:])
			f.set64(f.fs.sb.offset(fsb)+24+8*((f.fs.sb.blockSize()-24)/16), fsb)
		}, readAll, "no block of level 0"},
		{"tree: one leaf twice", "v5", "many extents", func(f *forged, _ int64) {
			_, pointers := f.top("many extents")
			var first [8]byte
			_, _ = f.ReadAt(first[:], pointers)
			f.set(pointers+8, first[:]...)
		}, readAll, "overlaps"},
		{"tree: pointer", "v5", "many extents", func(f *forged, i int64) {
			room := int64(len(f.data("many extents").root)-4) / 16
			f.set64(i+core+4+8*room, 1<<60)
		}, readAll, "out of range"},
		{"tree: leaf of another file", "v5", "many extents", func(f *forged, _ int64) {
			place, err := f.data("many extents").descend(0)
			if err != nil {
				f.t.Fatal(err)
			}
			f.set64(f.fs.sb.offset(place.fsb)+56, 5)
		}, readAll, "belongs to inode 5"},
		{"tree: leaf elsewhere", "v5", "many extents", func(f *forged, _ int64) {
			place, _ := f.data("many extents").descend(0)
			f.set64(f.fs.sb.offset(place.fsb)+24, 5)
		}, readAll, "at sector 5"},
		{"tree: empty leaf", "v5", "many extents", func(f *forged, _ int64) {
			place, _ := f.data("many extents").descend(0)
			f.set16(f.fs.sb.offset(place.fsb)+6, 0)
		}, readAll, "with 0 extents"},
		{"directory in the inode: count", "v5", "d3", func(f *forged, i int64) { f.set(i+core, 200) }, readDir, "cut off"},
		{"directory in the inode: name", "v5", "d3", func(f *forged, i int64) { f.set(i+core+6, 250) }, readDir, "cut off"},
		{"directory in the inode: size", "v5", "d3", func(f *forged, i int64) { f.set64(i+56, 4000) }, readDir, "4000 bytes in a fork"},
		{"directory: magic number", "v5", "d200", func(f *forged, _ int64) { f.set(f.block(f.data("d200"), 0), 'Y') }, readDir, "magic number"},
		{"directory: unused space", "v5", "d560", func(f *forged, _ int64) {
			f.set32(f.block(f.data("d560"), 0)+64, 0xffff0000)
		}, readDir, "unused space of 0 bytes"},
		{"directory: name", "v5", "d560", func(f *forged, _ int64) { f.set(f.block(f.data("d560"), 0)+64+8, 0) }, readDir, "name of 0 bytes"},
		{"directory: index", "v5", "d30", func(f *forged, _ int64) { f.set32(f.block(f.data("d30"), 3)+1024-8, 1<<31) }, readDir, "index of"},
		{"directory: hole", "v5", "d30", func(f *forged, i int64) { f.set(i+core+15, 1) }, readDir, "missing"},
		{"attributes in the inode: size", "v5", "x0", func(f *forged, i int64) {
			_, in := f.inode("x0")
			f.set16(i+core+int64(len(in.data)), 5000)
		}, xattrs, "cut off"},
		{"attributes in the inode: count", "v5", "x0", func(f *forged, i int64) {
			_, in := f.inode("x0")
			f.set(i+core+int64(len(in.data))+2, 255)
		}, xattrs, "cut off"},
		{"attributes: chain", "v5", "x1", func(f *forged, _ int64) { f.set32(f.attrs("x1"), 0); f.set32(f.attrs("x1")+4, 7) }, xattrs, "says that it follows 7"},
		{"attributes: chain to itself", "v5", "x1", func(f *forged, _ int64) { f.set32(f.attrs("x1"), 1) }, xattrs, "follows 0"},
		{"attributes: count", "v5", "x1", func(f *forged, _ int64) { f.set16(f.attrs("x1")+56, 0xffff) }, xattrs, "65535 entries"},
		{"attributes: place", "v5", "x1", func(f *forged, _ int64) { f.set16(f.attrs("x1")+80+4, 3) }, xattrs, "is at 3"},
		{"attributes: node below itself", "v5", "x many", func(f *forged, _ int64) { f.set32(f.attrs("x many")+64+4, 0) }, xattrs, "no node below"},
		{"attributes: levels", "v5", "x many", func(f *forged, _ int64) { f.set16(f.attrs("x many")+58, 60000) }, xattrs, "no node below"},
		{"symbolic link: size", "v5", "link600", func(f *forged, i int64) { f.set64(i+56, 5000) }, readlink, "5000 bytes"},
		{"symbolic link: empty", "v5", "link600", func(f *forged, i int64) { f.set64(i+56, 0) }, readlink, "0 bytes"},
		{"symbolic link: longer than its blocks", "v5", "link600", func(f *forged, i int64) { f.set64(i+56, 1024) }, readlink, "missing"},
		{"symbolic link: header", "v5", "link600", func(f *forged, _ int64) { f.set32(f.block(f.data("link600"), 0)+8, 1<<30) }, readlink, "1073741824 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newForged(t, c.image)
			node := f.node(c.path)
			at, _ := f.inode(c.path)
			if err := c.read(f.fs, node); err != nil {
				t.Fatalf("before: %v", err)
			}
			c.forge(f, at)
			fs, err := open(f, f.Size(), false)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.read(fs, node); !errors.Is(err, errdefs.ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestSuperblock has superblocks that cannot be right, or are of file systems
// that this package does not read.
func TestSuperblock(t *testing.T) {
	for _, c := range []struct {
		name  string
		forge func(f *forged)
		class error
		want  string
	}{
		{"magic number", func(f *forged) { f.set(0, 'x') }, errdefs.ErrNotFound, "no superblock"},
		{"version", func(f *forged) { f.set(101, 6) }, errdefs.ErrUnsupported, "version"},
		{"features", func(f *forged) { f.set32(216, 1<<8|1<<9|1<<20) }, errdefs.ErrUnsupported, "metadata directories, zoned, bit 20"},
		{"in need of repair", func(f *forged) { f.set32(216, 1<<4) }, errdefs.ErrCorrupt, "xfs_repair"},
		{"mkfs went on", func(f *forged) { f.set(126, 1) }, errdefs.ErrCorrupt, "did not end"},
		{"real-time section", func(f *forged) { f.set64(16, 100) }, errdefs.ErrUnsupported, "real-time section of 100 blocks"},
		{"external log", func(f *forged) { f.set64(48, 0) }, errdefs.ErrUnsupported, "another device"},
		{"log out of range", func(f *forged) { f.set32(96, 1<<30) }, errdefs.ErrCorrupt, "log of"},
		{"block size", func(f *forged) { f.set(120, 63) }, errdefs.ErrCorrupt, "block size"},
		{"sector size", func(f *forged) { f.set(121, 40) }, errdefs.ErrCorrupt, "sector size"},
		{"inode size", func(f *forged) { f.set(122, 0) }, errdefs.ErrCorrupt, "inode size"},
		{"directory blocks", func(f *forged) { f.set(192, 255) }, errdefs.ErrCorrupt, "directory blocks"},
		{"groups", func(f *forged) { f.set32(88, 0) }, errdefs.ErrCorrupt, "0 allocation groups"},
		{"many groups", func(f *forged) { f.set32(88, 1<<32-1) }, errdefs.ErrCorrupt, "allocation groups"},
		{"size of groups", func(f *forged) { f.set32(84, 1<<31) }, errdefs.ErrCorrupt, "allocation groups"},
		{"too large", func(f *forged) { f.set64(8, 1<<62) }, errdefs.ErrCorrupt, "blocks"},
		{"root", func(f *forged) { f.set64(56, 3) }, errdefs.ErrCorrupt, "inode 3"},
		{"root that is no directory", func(f *forged) { f.set64(56, f.node("x0").Inode) }, errdefs.ErrCorrupt, "not a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newForged(t, "v5")
			c.forge(f)
			if _, err := open(f, f.Size(), false); !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	f := newForged(t, "v5")
	if _, err := Open(f, f.Size()-1); !errors.Is(err, errdefs.ErrCorrupt) || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("cut off: %v", err)
	}
	f.set(110, 'L')
	if _, err := Open(f, f.Size()); !errors.Is(err, errdefs.ErrCorrupt) || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("checksum: %v", err)
	}
}

// TestChecksums changes one byte in each kind of block.
func TestChecksums(t *testing.T) {
	for name, c := range map[string]struct {
		path string
		at   func(f *forged, inode int64) int64
		read func(filesystem.FileSystem, filesystem.Node) error
	}{
		"inode":         {"x0", func(_ *forged, i int64) int64 { return i + 8 }, xattrs},
		"directory":     {"d200", func(f *forged, _ int64) int64 { return f.block(f.data("d200"), 0) + 75 }, readDir},
		"attributes":    {"x2", func(f *forged, _ int64) int64 { return f.attrs("x2") + 1023 }, xattrs},
		"symbolic link": {"link600", func(f *forged, _ int64) int64 { return f.block(f.data("link600"), 0) + 100 }, readlink},
		"extents": {"many extents", func(f *forged, _ int64) int64 {
			p, _ := f.data("many extents").descend(0)
			return f.fs.sb.offset(p.fsb) + 90
		}, readAll},
	} {
		f := newForged(t, "v5")
		node := f.node(c.path)
		i, _ := f.inode(c.path)
		f.set(c.at(f, i), 0xa5)
		fs, err := Open(f, f.Size())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.read(fs, node); !errors.Is(err, errdefs.ErrCorrupt) || !strings.Contains(err.Error(), "checksum differs") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLoop: a directory that holds itself, or one above it, has no end for who
// walks it without care.
func TestLoop(t *testing.T) {
	for _, path := range []string{"", "d3"} {
		f := newForged(t, "v5")
		at, i := f.inode("d3")
		name := strings.Index(string(i.data), "file")
		if name < 0 || i.format != formatLocal {
			t.Fatal("d3 has no entry file in its inode")
		}
		target := f.fs.Root()
		if path != "" {
			target = f.node(path)
		}
		f.set32(at+coreV3+int64(name+len("file")+1), uint32(target.Inode))
		fs, err := open(f, f.Size(), false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := filesystem.WriteTar(t.Context(), fs, io.Discard, filesystem.TarOptions{}); !errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("%q within d3: %v", path, err)
		}
	}
}
