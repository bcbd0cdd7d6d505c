package ext

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	superStart = 1024
	superSize  = 1024
	magic      = 0xef53
	// mostGroups bounds the memory for tables; 128 TiB with blocks of 4 KiB.
	mostGroups = 1 << 20
)

// Features that this package acts upon.
const (
	compatJournal      = 0x4
	compatSparseSuper2 = 0x200
	compatFastCommit   = 0x400

	incompatRecover  = 0x4
	incompatMetaBG   = 0x10
	incompatExtents  = 0x40
	incompat64Bit    = 0x80
	incompatFlexBG   = 0x200
	incompatCsumSeed = 0x2000
	incompatLargeDir = 0x4000

	roCompatSparseSuper  = 0x1
	roCompatHugeFile     = 0x8
	roCompatGDTCsum      = 0x10
	roCompatDirNlink     = 0x20
	roCompatExtraIsize   = 0x40
	roCompatBigalloc     = 0x200
	roCompatMetadataCsum = 0x400
	roCompatShared       = 0x4000
	roCompatVerity       = 0x8000

	// filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode,
	// csum_seed, largedir, inline_data
	incompatKnown = 0x2 | incompatRecover | incompatMetaBG | incompatExtents | incompat64Bit | 0x100 | incompatFlexBG | 0x400 |
		incompatCsumSeed | incompatLargeDir | 0x8000
)

// What is refused by name; other incompatible features are by number.
var (
	refusedIncompat = map[uint32]string{0x1: "compression", 0x8: "journal_dev", 0x1000: "dirdata", 0x10000: "encrypt", 0x20000: "casefold"}
	refusedROCompat = map[uint32]string{roCompatShared: "shared_blocks", roCompatVerity: "verity"}
)

// super is what is used of the superblock.
type super struct {
	compat, incompat, roCompat uint32

	blockSize      int
	blocks         uint64
	firstBlock     uint64
	blocksPerGroup uint64
	groups         uint64

	inodes, inodesPerGroup, firstInode uint32
	inodeSize                          int

	descSize    int
	firstMetaBG uint32
	backups     [2]uint32

	state        uint16
	journalInode uint32
	uuid         [16]byte
	label        string
	seed         uint32 // of checksums
}

func le16(b []byte, at int) uint16 { return binary.LittleEndian.Uint16(b[at:]) }
func le32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }

// parseSuper reads a superblock; size is that of the disk.
func parseSuper(b []byte, size int64, check bool) (super, error) {
	if le16(b, 0x38) != magic {
		return super{}, fmt.Errorf("no magic number: %w", errdefs.ErrNotFound)
	}
	s := super{
		compat: le32(b, 0x5c), incompat: le32(b, 0x60), roCompat: le32(b, 0x64),
		blocks: uint64(le32(b, 0x4)), firstBlock: uint64(le32(b, 0x14)), blocksPerGroup: uint64(le32(b, 0x20)),
		inodes: le32(b, 0x0), inodesPerGroup: le32(b, 0x28), firstInode: le32(b, 0x54), inodeSize: int(le16(b, 0x58)),
		descSize: 32, firstMetaBG: le32(b, 0x104), backups: [2]uint32{le32(b, 0x24c), le32(b, 0x250)},
		state: le16(b, 0x3a), journalInode: le32(b, 0xe0),
	}
	copy(s.uuid[:], b[0x68:])
	s.label, _, _ = strings.Cut(string(b[0x78:0x88]), "\x00")
	if le32(b, 0x4c) == 0 { // revision 0 has neither features nor sizes
		s.compat, s.incompat, s.roCompat, s.inodeSize, s.firstInode = 0, 0, 0, 128, 11
	}
	if s.roCompat&roCompatMetadataCsum != 0 && check && checksum(^uint32(0), b[:0x3fc]) != le32(b, 0x3fc) {
		return super{}, corrupt("checksum differs")
	}
	if err := s.features(); err != nil {
		return super{}, err
	}
	if s.incompat&incompat64Bit != 0 {
		s.blocks |= uint64(le32(b, 0x150)) << 32
		s.descSize = int(le16(b, 0xfe))
	}
	s.seed = checksum(^uint32(0), s.uuid[:])
	if s.incompat&incompatCsumSeed != 0 {
		s.seed = le32(b, 0x270)
	}
	return s, s.geometry(le32(b, 0x18), size)
}

func (s *super) features() error {
	if unknown := s.incompat &^ incompatKnown; unknown != 0 {
		bit := unknown & -unknown
		name, ok := refusedIncompat[bit]
		if !ok {
			name = fmt.Sprintf("incompatible %#x", bit)
		}
		return fmt.Errorf("feature %s: %w", name, errdefs.ErrUnsupported)
	}
	if refused := s.roCompat & (roCompatShared | roCompatVerity); refused != 0 {
		return fmt.Errorf("feature %s: %w", refusedROCompat[refused&-refused], errdefs.ErrUnsupported)
	}
	return nil
}

// geometry checks the numbers that others are computed from.
func (s *super) geometry(logBlockSize uint32, size int64) error {
	if logBlockSize > 6 {
		return corrupt("block size 2^(10+%d)", logBlockSize)
	}
	s.blockSize = 1024 << logBlockSize
	switch {
	case s.inodeSize < 128 || s.inodeSize > s.blockSize || bits.OnesCount(uint(s.inodeSize)) != 1:
		return corrupt("inodes of %d bytes", s.inodeSize)
	case s.descSize < 32 || s.descSize > 1024 || bits.OnesCount(uint(s.descSize)) != 1:
		return corrupt("group descriptors of %d bytes", s.descSize)
	case s.incompat&incompat64Bit != 0 && s.descSize < 64:
		return corrupt("64-bit group descriptors of %d bytes", s.descSize)
	case s.blocks > uint64(size)/uint64(s.blockSize):
		return corrupt("%d blocks of %d bytes on a disk of %d bytes", s.blocks, s.blockSize, size)
	case s.firstBlock >= s.blocks || s.firstBlock > 1:
		return corrupt("first block %d of %d", s.firstBlock, s.blocks)
	case s.blocksPerGroup < 8 || s.inodesPerGroup == 0 || uint64(s.inodesPerGroup) > 8*uint64(s.blockSize):
		return corrupt("%d blocks and %d inodes in a group", s.blocksPerGroup, s.inodesPerGroup)
	}
	s.groups = (s.blocks - s.firstBlock + s.blocksPerGroup - 1) / s.blocksPerGroup
	switch {
	case s.groups > mostGroups:
		return fmt.Errorf("%d groups: %w", s.groups, errdefs.ErrUnsupported)
	case uint64(s.inodes) > s.groups*uint64(s.inodesPerGroup) || s.inodes < s.firstInode || s.firstInode < 11:
		return corrupt("%d inodes from %d in %d groups of %d", s.inodes, s.firstInode, s.groups, s.inodesPerGroup)
	}
	return nil
}

// kind is the name that blkid gives it.
func (s *super) kind() string {
	const four = roCompatHugeFile | roCompatGDTCsum | roCompatDirNlink | roCompatExtraIsize | roCompatBigalloc | roCompatMetadataCsum
	switch {
	case s.incompat&^(0x2|incompatRecover|incompatMetaBG) != 0 || s.roCompat&four != 0:
		return "ext4"
	case s.compat&compatJournal != 0:
		return "ext3"
	}
	return "ext2"
}

func (s *super) uuidText() string {
	if s.uuid == [16]byte{} {
		return ""
	}
	u := s.uuid
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// unclean is true of a file system without a journal that was not unmounted.
func (s *super) unclean() bool { return s.compat&compatJournal == 0 && s.state&1 == 0 }

// hasSuper says whether a group begins with a copy of the superblock.
func (s *super) hasSuper(group uint64) bool {
	switch {
	case group == 0:
		return true
	case s.compat&compatSparseSuper2 != 0:
		return slices.Contains(s.backups[:], uint32(group))
	case group == 1 || s.roCompat&roCompatSparseSuper == 0:
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}
