package ext

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Flags of inodes.
const (
	flagCompressed = 0x4
	flagEncrypted  = 0x800
	flagExtents    = 0x80000
	flagEAInode    = 0x200000
	flagInline     = 0x10000000
)

// blockArea is where an inode has its block map, extents, or content.
const (
	blockArea    = 0x28
	blockAreaLen = 60
)

// inode is one that was found to be in use.
type inode struct {
	number uint32
	raw    []byte
	mode   uint32
	flags  uint32
	size   int64
	// extra is the length of the fields beyond the first 128 bytes.
	extra int
	// seed of the checksums of its blocks.
	seed uint32
}

func (n *inode) kind() uint32   { return n.mode & unix.S_IFMT }
func (n *inode) area() []byte   { return n.raw[blockArea : blockArea+blockAreaLen] }
func (n *inode) has(f int) bool { return n.flags&uint32(f) != 0 }

// node returns the inode of a Node: one that a directory may name.
func (f *fileSystem) node(node filesystem.Node) (*inode, error) {
	if node.Volume != 0 || node.Inode > uint64(f.inodes) || node.Inode < uint64(f.firstInode) && node.Inode != rootInode {
		return nil, corrupt("inode %d.%d is outside of the file system", node.Volume, node.Inode)
	}
	if f.last != nil && uint64(f.last.number) == node.Inode {
		return f.last, nil
	}
	n, err := f.inode(uint32(node.Inode))
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", node.Inode, err)
	}
	switch {
	case n.has(flagEAInode):
		return nil, corrupt("inode %d holds an attribute", n.number)
	case n.has(flagEncrypted) || n.has(flagCompressed):
		return nil, fmt.Errorf("inode %d is encrypted or compressed: %w", n.number, errdefs.ErrUnsupported)
	}
	switch n.kind() {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return nil, corrupt("inode %d has mode %o", n.number, n.mode)
	}
	f.last = n
	return n, nil
}

// inode reads any inode that is in use, with a number from 1.
func (f *fileSystem) inode(number uint32) (*inode, error) {
	if number == 0 || number > f.inodes {
		return nil, corrupt("outside of the file system")
	}
	group, index := (number-1)/f.inodesPerGroup, (number-1)%f.inodesPerGroup
	raw, err := f.disk.bytes(int64(f.tables[group])*int64(f.blockSize)+int64(index)*int64(f.inodeSize), f.inodeSize)
	if err != nil {
		return nil, err
	}
	n := &inode{number: number, raw: raw, mode: uint32(le16(raw, 0)), flags: le32(raw, 0x20)}
	size := uint64(le32(raw, 0x4))
	if n.kind() == unix.S_IFREG || f.incompat&incompatLargeDir != 0 {
		size |= uint64(le32(raw, 0x6c)) << 32
	}
	if n.size = int64(size); n.size < 0 {
		return nil, corrupt("size %d", size)
	}
	if f.inodeSize > 128 {
		if n.extra = int(le16(raw, 0x80)); n.extra > f.inodeSize-128 || n.extra%4 != 0 {
			return nil, corrupt("%d bytes of extra fields", n.extra)
		}
	}
	if f.roCompat&roCompatMetadataCsum != 0 {
		if err := f.checkInode(n); err != nil {
			return nil, err
		}
	}
	if n.mode == 0 || le16(raw, 0x1a) == 0 {
		return nil, corrupt("not in use")
	}
	return n, nil
}

func (f *fileSystem) checkInode(n *inode) error {
	var number [4]byte
	binary.LittleEndian.PutUint32(number[:], n.number)
	n.seed = checksum(checksum(f.seed, number[:]), n.raw[0x64:0x68])
	if !f.check {
		return nil
	}
	c := checksum(n.seed, n.raw[:0x7c])
	c = checksum(checksum(c, zero4[:2]), n.raw[0x7e:128])
	mask := uint32(0xffff)
	want := uint32(le16(n.raw, 0x7c))
	if len(n.raw) > 128 {
		c = checksum(c, n.raw[128:0x82])
		if n.extra >= 4 {
			mask, want = ^uint32(0), want|uint32(le16(n.raw, 0x82))<<16
			c = checksum(c, zero4[:2])
		} else {
			c = checksum(c, n.raw[0x82:0x84])
		}
		c = checksum(c, n.raw[0x84:])
	}
	if c&mask != want {
		return corrupt("checksum differs")
	}
	return nil
}

// Stat implements filesystem.FileSystem.
func (f *fileSystem) Stat(node filesystem.Node) (filesystem.Attr, error) {
	n, err := f.node(node)
	if err != nil {
		return filesystem.Attr{}, err
	}
	b := n.raw
	a := filesystem.Attr{
		Mode: n.mode, UID: uint32(le16(b, 0x2)) | uint32(le16(b, 0x78))<<16, GID: uint32(le16(b, 0x18)) | uint32(le16(b, 0x7a))<<16,
		Links: uint32(le16(b, 0x1a)), Size: n.size,
		Atime: n.time(0x8, 0x8c), Ctime: n.time(0xc, 0x84), Mtime: n.time(0x10, 0x88),
	}
	if n.kind() == unix.S_IFCHR || n.kind() == unix.S_IFBLK {
		a.Major, a.Minor = device(n.area())
	}
	return a, nil
}

// time reads one whose seconds are at base, with the nanoseconds and two more
// bits of seconds at extra if the inode is long enough.
func (n *inode) time(base, extra int) time.Time {
	sec, nsec := int64(int32(le32(n.raw, base))), int64(0)
	if 128+n.extra >= extra+4 {
		x := le32(n.raw, extra)
		sec += int64(x&3) << 32
		nsec = int64(x >> 2)
	}
	return time.Unix(sec, nsec)
}

// device reads its number, of 16 bits in the first word or 32 in the second.
func device(area []byte) (major, minor uint32) {
	if old := le32(area, 0); old != 0 {
		return old >> 8 & 0xff, old & 0xff
	}
	dev := le32(area, 4)
	return dev >> 8 & 0xfff, dev&0xff | dev>>12&0xfff00
}
