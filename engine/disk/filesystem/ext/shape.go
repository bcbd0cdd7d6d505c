package ext

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Features that a new file system does not have even if the one whose place it
// takes has them: they speak of files that are not written again.
const (
	compatExtAttr     = 0x8
	compatResizeInode = 0x10
	compatOrphanFile  = 0x1000

	roCompatLargeFile     = 0x2
	roCompatOrphanPresent = 0x10000

	incompatFiletype = 0x2
)

// What Write can do.
const (
	writableIncompat = incompatFiletype | incompatRecover | incompatExtents | incompat64Bit | incompatFlexBG | 0x400 | incompatCsumSeed |
		incompatLargeDir | 0x8000
	writableROCompat = roCompatSparseSuper | roCompatLargeFile | roCompatHugeFile | roCompatGDTCsum | roCompatDirNlink | roCompatExtraIsize |
		roCompatMetadataCsum | 0x2000 | roCompatOrphanPresent
)

// MaxWritten bounds the file systems that Write makes: its map of blocks is in memory.
const MaxWritten = 4 << 40

const (
	mostBlocks   = 1 << 30
	leastJournal = 1024 // the kernel takes no shorter one
)

// KeptBytes at the beginning of a file system belong to a boot loader; Write does
// not write them.
const KeptBytes = superStart

// Shape is what a new file system has in common with the one whose place it
// takes: all but its files. It may be stored as JSON.
type Shape struct {
	// Super is the superblock, 1,024 bytes.
	Super []byte
	// JournalBlocks is the length of the journal; 0 for none.
	JournalBlocks uint32
}

// Need is what a tree takes on a disk.
type Need struct {
	// Bytes of files and directories, each counted in blocks of 4 KiB.
	Bytes int64
	// Entries is the number of inodes.
	Entries int64
}

// ShapeOf reads the shape of the file system in r, size bytes long. The errors
// are those of Open; errdefs.ErrUnsupported names what Write cannot make.
func ShapeOf(r io.ReaderAt, size int64) (Shape, error) {
	opened, err := Open(r, size)
	if err != nil {
		return Shape{}, err
	}
	f, ok := opened.(*fileSystem)
	if !ok {
		return Shape{}, fmt.Errorf("ext: %w", errdefs.ErrUnsupported)
	}
	s := Shape{Super: make([]byte, superSize)}
	if _, err := f.disk.r.ReadAt(s.Super, superStart); err != nil {
		return Shape{}, fmt.Errorf("ext superblock: %w", err)
	}
	if f.compat&compatJournal != 0 {
		if f.journalInode == 0 {
			return Shape{}, cannotWrite("journal on another device")
		}
		n, err := f.inode(f.journalInode)
		if err != nil {
			return Shape{}, fmt.Errorf("journal: %w", err)
		}
		s.JournalBlocks = uint32(min(n.size/int64(f.blockSize), 10240000))
	}
	_, err = s.plan()
	return s, err
}

func cannotWrite(what string) error {
	return fmt.Errorf("feature %s: %w", what, errdefs.ErrUnsupported)
}

// plan checks that a file system of the shape can be written, and lays it out.
func (s Shape) plan() (*plan, error) {
	if len(s.Super) != superSize {
		return nil, fmt.Errorf("superblock of %d bytes: %w", len(s.Super), errdefs.ErrInvalid)
	}
	p := &plan{raw: append([]byte(nil), s.Super...), journal: s.JournalBlocks}
	blocks := uint64(le32(p.raw, 4)) | uint64(le32(p.raw, 0x150))<<32
	if le32(p.raw, 0x60)&incompat64Bit == 0 {
		blocks &= 1<<32 - 1
	}
	if le32(p.raw, 0x18) > 2 || blocks > mostBlocks {
		return nil, cannotWrite("blocks of more than 4096 bytes, or too many")
	}
	var err error
	if p.super, err = parseSuper(p.raw, int64(blocks)<<(10+le32(p.raw, 0x18)), false); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return p, p.measure()
}

// check refuses what is not written.
func (p *plan) check() error {
	bad := []struct {
		is   bool
		what string
	}{
		{p.incompat&incompatExtents == 0 || p.incompat&incompatFiletype == 0, "extents is missing (ext2, ext3)"},
		{p.incompat&^writableIncompat != 0, fmt.Sprintf("incompatible %#x", p.incompat&^writableIncompat)},
		{p.roCompat&roCompatBigalloc != 0 || le32(p.raw, 0x1c) != le32(p.raw, 0x18), "bigalloc"},
		{p.roCompat&^writableROCompat != 0, fmt.Sprintf("read-only compatible %#x", p.roCompat&^writableROCompat)},
		{p.compat&compatSparseSuper2 != 0, "sparse_super2"},
		{p.descSize != 32 && p.descSize != 64, "long group descriptors"},
		{p.blocksPerGroup%8 != 0 || p.blocksPerGroup > 8*uint64(p.blockSize), "odd groups of blocks"},
		{p.inodesPerGroup%8 != 0 || int(p.inodesPerGroup)*p.inodeSize%p.blockSize != 0, "odd tables of inodes"},
		{uint64(p.inodes) != p.groups*uint64(p.inodesPerGroup), "odd groups of inodes"},
		{(p.firstBlock != 0) != (p.blockSize == 1024), "odd first block"},
		{p.blocks > mostBlocks, "more than 4 TiB, or 2^30 blocks"},
		{p.compat&compatResizeInode != 0 && p.roCompat&roCompatSparseSuper == 0, "resize_inode without sparse_super"},
		{p.compat&compatJournal != 0 && p.journal < leastJournal, "odd journal"},
	}
	for _, b := range bad {
		if b.is {
			return cannotWrite(b.what)
		}
	}
	return nil
}

// Bytes is how long the file system is.
func (s Shape) Bytes() int64 {
	blocks := uint64(le32(s.Super, 4))
	if le32(s.Super, 0x60)&incompat64Bit != 0 {
		blocks |= uint64(le32(s.Super, 0x150)) << 32
	}
	return int64(blocks) << (10 + le32(s.Super, 0x18))
}

// For returns the shape, made longer by whole groups if a tree would fill more
// than nine tenths of it. errdefs.ErrInvalid if it would have to be longer than
// most bytes.
func (s Shape) For(need Need, most int64) (Shape, error) {
	p, err := s.plan()
	if err != nil {
		return s, err
	}
	want := uint64(need.Bytes)/uint64(p.blockSize) + uint64(need.Entries)/16 + 64
	if want += want / 9; want <= p.free() && need.Entries+64 <= int64(p.inodes-p.firstInode) {
		return s, nil
	}
	each := p.blocksPerGroup - min(p.blocksPerGroup/2, 3+uint64(p.tableBlocks())+p.descBlocks+p.reserved)
	more := max(uint64(1), (max(want, p.free())-p.free()+each-1)/each)
	if inodes := need.Entries + need.Entries/9 + 64 - int64(p.inodes-p.firstInode); inodes > 0 {
		more = max(more, uint64(inodes)/uint64(p.inodesPerGroup)+1)
	}
	blocks := p.firstBlock + (p.groups+more)*p.blocksPerGroup
	if int64(blocks)*int64(p.blockSize) > min(most, MaxWritten) || blocks > mostBlocks || (p.groups+more)*uint64(p.inodesPerGroup) > 1<<32-1 || blocks>>32 != 0 && p.incompat&incompat64Bit == 0 {
		return s, fmt.Errorf("%d bytes in %d files do not fit: %w", need.Bytes, need.Entries, errdefs.ErrInvalid)
	}
	return p.grown(blocks, p.groups+more), nil
}

// grown is the shape with more blocks. What was kept free for descriptors of
// groups takes those of the new ones.
func (p *plan) grown(blocks, groups uint64) Shape {
	out := Shape{Super: append([]byte(nil), p.raw...), JournalBlocks: p.journal}
	le := binary.LittleEndian
	reserve := uint64(le32(p.raw, 8))
	if p.incompat&incompat64Bit != 0 {
		reserve |= uint64(le32(p.raw, 0x154)) << 32
		le.PutUint32(out.Super[0x150:], uint32(blocks>>32))
	}
	part := float64(min(reserve, p.blocks/2)) / float64(p.blocks)
	reserve = uint64(part * float64(blocks))
	le.PutUint32(out.Super[8:], uint32(reserve))
	if p.incompat&incompat64Bit != 0 {
		le.PutUint32(out.Super[0x154:], uint32(reserve>>32))
	}
	le.PutUint32(out.Super[4:], uint32(blocks))
	le.PutUint32(out.Super[0:], uint32(groups)*p.inodesPerGroup)
	desc := (groups*uint64(p.descSize) + uint64(p.blockSize) - 1) / uint64(p.blockSize)
	left := p.descBlocks + p.reserved
	le.PutUint16(out.Super[0xce:], uint16(max(left, desc)-desc))
	return out
}

// fresh clears in the superblock what is about the life of the old file system.
func (p *plan) fresh(now time.Time) {
	le := binary.LittleEndian
	p.compat = p.compat&^(compatFastCommit|compatOrphanFile) | compatExtAttr
	if p.reserved == 0 {
		p.compat &^= compatResizeInode
	}
	p.incompat &^= incompatRecover
	p.roCompat &^= roCompatOrphanPresent
	if p.journal == 0 {
		le.PutUint32(p.raw[0xe0:], 0)
	}
	le.PutUint32(p.raw[0x5c:], p.compat)
	le.PutUint32(p.raw[0x60:], p.incompat)
	le.PutUint16(p.raw[0xce:], uint16(p.reserved))
	le.PutUint32(p.raw[0x30:], uint32(now.Unix())) // written
	le.PutUint16(p.raw[0x34:], 0)                  // mounts
	le.PutUint16(p.raw[0x3a:], 1)                  // clean
	le.PutUint32(p.raw[0x40:], uint32(now.Unix())) // checked
	for _, c := range [][2]int{
		{0xe8, 0xec}, {0x10c, 0x150}, {0x178, 0x200}, // orphans; journal; written, snapshots, errors
		{0x240, 0x24c}, {0x26c, 0x270}, {0x274, 0x284}, // quotas, overhead; high parts of times, orphan file
	} {
		clear(p.raw[c[0]:c[1]])
	}
}
