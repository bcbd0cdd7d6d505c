package ext

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// forged is an image that a test changes.
type forged struct {
	t  *testing.T
	b  []byte
	fs *fileSystem // as it was
}

func newForged(t *testing.T, pack string) *forged {
	t.Helper()
	image, err := filesystemtest.ReadPacked(filepath.Join("testdata", pack+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	f := &forged{t: t, b: make([]byte, image.Size())}
	if _, err := image.ReadAt(f.b, 0); err != nil {
		t.Fatal(err)
	}
	if f.fs, err = load(bytes.NewReader(bytes.Clone(f.b)), image.Size(), false); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *forged) set8(at int, v byte)    { f.b[at] = v }
func (f *forged) set16(at int, v uint16) { binary.LittleEndian.PutUint16(f.b[at:], v) }
func (f *forged) set32(at int, v uint32) { binary.LittleEndian.PutUint32(f.b[at:], v) }

// super is where a field of the superblock is.
func (f *forged) super(field int) int { return superStart + field }

// group is where a group descriptor is.
func (f *forged) group(n int) int { return int(f.fs.descBlock(0))*f.fs.blockSize + n*f.fs.descSize }

// number finds the inode of a path.
func (f *forged) number(path string) uint32 {
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
	return uint32(n.Inode)
}

// inode is where the inode of a path is, block where its first block is.
func (f *forged) inode(path string) int {
	n := f.number(path) - 1
	return int(f.fs.tables[n/f.fs.inodesPerGroup])*f.fs.blockSize + int(n%f.fs.inodesPerGroup)*f.fs.inodeSize
}

func (f *forged) block(path string) int {
	n, err := f.fs.inode(f.number(path))
	at := 0
	if err == nil {
		err = f.fs.runs(n, 0, func(r run) error { at = int(r.physical); return errDone })
	}
	if err != errDone {
		f.t.Fatal(err)
	}
	return at * f.fs.blockSize
}

// entry is where the entry of a path is in its directory.
func (f *forged) entry(path string) int {
	dir, base := filepath.Split(path)
	at := f.block(strings.TrimSuffix(dir, "/"))
	return at + bytes.Index(f.b[at:at+f.fs.blockSize], []byte(base)) - dirEntryLen
}

func TestLies(t *testing.T) {
	area := func(f *forged) int { return f.inode("pieces") + blockArea }
	// child is where the first node below the root is
	child := func(f *forged) int { return int(le32(f.b, area(f)+16)) * f.fs.blockSize }
	for name, c := range map[string]struct {
		pack string
		lie  func(f *forged)
		want error
		text string
	}{
		"compression":     {"extents", func(f *forged) { f.b[f.super(0x60)] |= 1 }, errdefs.ErrUnsupported, "feature compression"},
		"encryption":      {"extents", func(f *forged) { f.b[f.super(0x62)] |= 1 }, errdefs.ErrUnsupported, "feature encrypt"},
		"case folding":    {"extents", func(f *forged) { f.b[f.super(0x62)] |= 2 }, errdefs.ErrUnsupported, "feature casefold"},
		"journal device":  {"extents", func(f *forged) { f.b[f.super(0x60)] |= 8 }, errdefs.ErrUnsupported, "feature journal_dev"},
		"unknown":         {"extents", func(f *forged) { f.b[f.super(0x63)] |= 0x80 }, errdefs.ErrUnsupported, "0x80000000"},
		"verity":          {"extents", func(f *forged) { f.b[f.super(0x65)] |= 0x80 }, errdefs.ErrUnsupported, "feature verity"},
		"shared blocks":   {"extents", func(f *forged) { f.b[f.super(0x65)] |= 0x40 }, errdefs.ErrUnsupported, "feature shared_blocks"},
		"encrypted inode": {"extents", func(f *forged) { f.b[f.inode("last")+0x21] |= 8 }, errdefs.ErrUnsupported, "encrypted"},

		"block size":            {"map", func(f *forged) { f.set32(f.super(0x18), 7) }, errdefs.ErrCorrupt, "block size"},
		"more blocks than disk": {"map", func(f *forged) { f.set32(f.super(0x4), 2049) }, errdefs.ErrCorrupt, "2049 blocks"},
		"no inodes in a group":  {"map", func(f *forged) { f.set32(f.super(0x28), 0) }, errdefs.ErrCorrupt, "0 inodes"},
		"no blocks in a group":  {"map", func(f *forged) { f.set32(f.super(0x20), 0) }, errdefs.ErrCorrupt, "0 blocks"},
		"inode size":            {"map", func(f *forged) { f.set16(f.super(0x58), 384) }, errdefs.ErrCorrupt, "384"},
		"too many inodes":       {"map", func(f *forged) { f.set32(f.super(0), math.MaxUint32) }, errdefs.ErrCorrupt, "inodes"},
		"descriptor size":       {"extents", func(f *forged) { f.set16(f.super(0xfe), 16) }, errdefs.ErrCorrupt, "descriptors of 16"},
		"tables overlap":        {"map", func(f *forged) { f.set32(f.group(1)+8, le32(f.b, f.group(0)+8)+1) }, errdefs.ErrCorrupt, "overlap"},
		"tables are one":        {"map", func(f *forged) { f.set32(f.group(1)+8, le32(f.b, f.group(0)+8)) }, errdefs.ErrCorrupt, "overlap"},
		"table is outside":      {"map", func(f *forged) { f.set32(f.group(1)+8, 2047) }, errdefs.ErrCorrupt, "outside"},

		"extent magic": {"extents", func(f *forged) { f.set16(area(f), 1) }, errdefs.ErrCorrupt, "header"},
		"extent count": {"extents", func(f *forged) { f.set16(area(f)+2, 5) }, errdefs.ErrCorrupt, "header"},
		"extent depth": {"extents", func(f *forged) { f.set16(area(f)+6, 6) }, errdefs.ErrCorrupt, "depth"},
		"extents in themselves": {"extents", func(f *forged) {
			f.set16(area(f)+6, 2)
			copy(f.b[child(f):], f.b[area(f):area(f)+24])
		}, errdefs.ErrCorrupt, "depth 2 below one of 2"},
		"extent node is outside": {"extents", func(f *forged) { f.set32(area(f)+16, math.MaxUint32) }, errdefs.ErrCorrupt, "outside"},
		"extent node is empty":   {"extents", func(f *forged) { f.set16(child(f)+2, 0) }, errdefs.ErrCorrupt, "empty"},
		"extents overlap":        {"extents", func(f *forged) { f.set16(child(f)+12+4, 2000) }, errdefs.ErrCorrupt, "runs into"},
		"extents go back":        {"extents", func(f *forged) { f.set32(child(f)+24, 0) }, errdefs.ErrCorrupt, "not in order"},
		"extent of nothing":      {"extents", func(f *forged) { f.set16(child(f)+12+4, 0) }, errdefs.ErrCorrupt, "extent of 0"},
		"extent is outside":      {"extents", func(f *forged) { f.set32(child(f)+12+8, 4095); f.set16(child(f)+12+4, 2) }, errdefs.ErrCorrupt, "outside"},
		"extent of superblock":   {"extents", func(f *forged) { f.set32(child(f)+12+8, 1) }, errdefs.ErrCorrupt, "outside"},

		"map in itself":    {"map", func(f *forged) { f.set32(child12(f), le32(f.b, area(f)+4*13)) }, errdefs.ErrCorrupt, "in itself"},
		"map is outside":   {"map", func(f *forged) { f.set32(area(f)+4*12, 1<<20) }, errdefs.ErrCorrupt, "outside"},
		"block is outside": {"map", func(f *forged) { f.set32(f.inode("last")+blockArea, 2048) }, errdefs.ErrCorrupt, "outside"},

		"entry without length":    {"map", func(f *forged) { f.set16(f.entry("dir/file")+4, 0) }, errdefs.ErrCorrupt, "entry of 0 bytes"},
		"entry of odd length":     {"map", func(f *forged) { f.set16(f.entry("dir/file")+4, 18) }, errdefs.ErrCorrupt, "entry of 18"},
		"entry beyond its block":  {"map", func(f *forged) { f.set16(f.entry("dir/file")+4, 2000) }, errdefs.ErrCorrupt, "entry of 2000"},
		"name beyond its entry":   {"map", func(f *forged) { f.set8(f.entry("dir/file")+6, 200) }, errdefs.ErrCorrupt, "directory entry"},
		"entry to no inode":       {"map", func(f *forged) { f.set32(f.entry("dir/file"), 1<<30) }, errdefs.ErrCorrupt, `"file"`},
		"entry to a reserved one": {"map", func(f *forged) { f.set32(f.entry("dir/file"), 8) }, errdefs.ErrCorrupt, "inode 0.8"},
		"entry to a free one":     {"map", func(f *forged) { f.set32(f.entry("dir/file"), f.fs.inodes) }, errdefs.ErrCorrupt, "not in use"},
		"directory in itself":     {"map", func(f *forged) { f.set32(f.entry("dir/file"), f.number("dir")) }, errdefs.ErrCorrupt, "by another name"},
		"root below itself":       {"map", func(f *forged) { f.set32(f.entry("dir/sub"), 2) }, errdefs.ErrCorrupt, `"dir/sub"`},
		"name with a slash":       {"map", func(f *forged) { copy(f.b[f.entry("dir/file")+8:], "../x") }, errdefs.ErrCorrupt, "../x"},
		"directory of no blocks":  {"map", func(f *forged) { f.set32(f.inode("dir")+4, 0) }, errdefs.ErrCorrupt, "directory of 0"},
		"directory with a hole":   {"map", func(f *forged) { f.set32(f.inode("dir")+4, 4096) }, errdefs.ErrCorrupt, "directory of 4 blocks"},
		"directory is a hole":     {"map", func(f *forged) { f.set32(f.inode("dir")+blockArea, 0) }, errdefs.ErrCorrupt, "has 0"},

		"size is negative": {"map", func(f *forged) { f.set32(f.inode("last")+0x6c, 1<<31) }, errdefs.ErrCorrupt, "size"},
		"size is huge":     {"map", func(f *forged) { f.set32(f.inode("last")+0x6c, 1<<30) }, errdefs.ErrInvalid, "more than 68719476736 bytes"},
		"mode":             {"map", func(f *forged) { f.set16(f.inode("last"), 0o170644) }, errdefs.ErrCorrupt, "mode"},
		"link is huge":     {"map", func(f *forged) { f.set32(f.inode("long")+4, 1025) }, errdefs.ErrCorrupt, "1025"},
		"extra fields":     {"extents", func(f *forged) { f.set16(f.inode("last")+0x80, 200) }, errdefs.ErrCorrupt, "extra"},
		"inline is short":  {"inline", func(f *forged) { f.set32(f.inode("last")+4, 2000) }, errdefs.ErrCorrupt, "inline"},

		"attributes are nowhere":     {"map", func(f *forged) { f.set32(f.inode("pieces")+0x68, 1<<30) }, errdefs.ErrCorrupt, "attributes"},
		"attributes are none":        {"map", func(f *forged) { f.set32(f.inode("pieces")+0x68, 1) }, errdefs.ErrCorrupt, "holds none"},
		"value is outside":           {"map", func(f *forged) { f.set32(xattrBlock(f, "pieces")+8, 5000) }, errdefs.ErrCorrupt, "outside"},
		"value has no inode":         {"extents", func(f *forged) { f.set32(xattrBlock(f, "dir/file")+4, 1<<30) }, errdefs.ErrCorrupt, "inode 1073741824"},
		"value in a usual file":      {"extents", func(f *forged) { f.set32(xattrBlock(f, "dir/file")+4, f.number("last")) }, errdefs.ErrCorrupt, "no such attribute"},
		"value is huge":              {"extents", func(f *forged) { f.set32(xattrBlock(f, "dir/file")+8, math.MaxUint32) }, errdefs.ErrCorrupt, "4294967295 bytes"},
		"file that holds attributes": {"extents", func(f *forged) { f.b[f.inode("last")+0x22] |= 0x20 }, errdefs.ErrCorrupt, "attribute"},

		"journal is none":      {"journal", func(f *forged) { f.set32(journal(f), 0) }, errdefs.ErrCorrupt, "superblock"},
		"journal goes beyond":  {"journal", func(f *forged) { f.set32(journal(f)+0x10, math.MaxUint32) }, errdefs.ErrCorrupt, "journal"},
		"journal starts late":  {"journal", func(f *forged) { f.set32(journal(f)+0x1c, 0xffff0000) }, errdefs.ErrCorrupt, "journal"},
		"journal is unknown":   {"journal", func(f *forged) { f.b[journal(f)+0x28] |= 0x80 }, errdefs.ErrUnsupported, "journal"},
		"journal has no inode": {"journal", func(f *forged) { f.set32(f.super(0xe0), math.MaxUint32) }, errdefs.ErrCorrupt, "inode 4294967295"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForged(t, c.pack)
			c.lie(f)
			fs, err := unchecked(bytes.NewReader(f.b), int64(len(f.b)))
			if err == nil {
				_, err = filesystem.WriteTar(t.Context(), fs, io.Discard, filesystem.TarOptions{})
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, want %v with %q", err, c.want, c.text)
			}
		})
	}
}

// child12 is where the double indirect block of "pieces" is.
func child12(f *forged) int { return int(le32(f.b, f.inode("pieces")+blockArea+4*13)) * f.fs.blockSize }

// xattrBlock is where the first entry of the attribute that is in no inode is.
func xattrBlock(f *forged, path string) int {
	at := f.inode(path)
	if block := le32(f.b, at+0x68); block != 0 {
		at = int(block) * f.fs.blockSize
	}
	name := []byte("large")
	if path == "dir/file" {
		name = []byte("own")
	}
	return at + bytes.Index(f.b[at:at+f.fs.blockSize], name) - xattrEntryLen
}

func journal(f *forged) int {
	n, err := f.fs.inode(f.fs.journalInode)
	at := 0
	if err == nil {
		err = f.fs.runs(n, 0, func(r run) error { at = int(r.physical); return errDone })
	}
	if err != errDone {
		f.t.Fatal(err)
	}
	return at * f.fs.blockSize
}

// TestChecksums: one bit anywhere in what has a checksum is found.
func TestChecksums(t *testing.T) {
	for name, at := range map[string]func(f *forged) int{
		"superblock":  func(f *forged) int { return f.super(0x78) },
		"group":       func(f *forged) int { return f.group(2) + 0xc },
		"inode":       func(f *forged) int { return f.inode("last") + 0x18 },
		"inode's end": func(f *forged) int { return f.inode("last") + 250 },
		"extents":     func(f *forged) int { return int(le32(f.b, f.inode("pieces")+blockArea+16))*1024 + 14 },
		"directory":   func(f *forged) int { return f.entry("dir/file") + 8 },
		"attributes":  func(f *forged) int { return xattrBlock(f, "pieces") + 20 },
	} {
		t.Run(name, func(t *testing.T) {
			f := newForged(t, "extents")
			f.b[at(f)] ^= 1
			fs, err := Open(bytes.NewReader(f.b), int64(len(f.b)))
			if err == nil {
				_, err = filesystem.WriteTar(t.Context(), fs, io.Discard, filesystem.TarOptions{})
			}
			if !errors.Is(err, errdefs.ErrCorrupt) || !strings.Contains(err.Error(), "checksum") {
				t.Error(err)
			}
		})
	}
}

// TestManyGroups: a superblock alone claims a disk whose tables take more
// memory than there may be.
func TestManyGroups(t *testing.T) {
	f := newForged(t, "map")
	f.set32(f.super(0x4), math.MaxUint32)
	f.set32(f.super(0x20), 8)
	_, err := unchecked(bytes.NewReader(f.b), math.MaxInt64)
	if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "groups") {
		t.Error(err)
	}
}
