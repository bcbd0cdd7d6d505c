package xfs

import (
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// struct xfs_dsb.
const (
	superMagic = "XFSB"
	superSize  = 264 // as far as it is read

	versionMask    = 0x000f
	versionBorg    = 0x4000 // names differ in more than case; stored as given
	versionDirV2   = 0x2000
	versionLogV2   = 0x0400
	versionMore    = 0x8000 // features2 counts
	versionNlink   = 0x0020
	features2Ftype = 0x0200

	incompatFtype    = 1 << 0
	incompatMetaUUID = 1 << 2
	incompatRepair   = 1 << 4
)

// incompat names the bits of sb_features_incompat. Those that are known to
// this package carry true: what they change is either handled (ftype, sparse
// inodes, bigtime, nrext64, parent pointers, meta_uuid) or cannot be seen in
// a file system that is only read (exchange-range).
var incompat = []struct {
	name  string
	known bool
}{
	{"ftype", true},
	{"sparse inodes", true},
	{"meta_uuid", true},
	{"bigtime", true},
	{"needsrepair", true},
	{"nrext64", true},
	{"exchange-range", true},
	{"parent pointers", true},
	{"metadata directories", false},
	{"zoned", false},
	{"zone gaps", false},
}

// superblock is what this package uses of it, checked.
type superblock struct {
	v5        bool
	checksums bool // verify them
	ftype     bool
	logV2     bool

	uuid, metaUUID uuid.UUID
	label          string
	root           uint64

	blockLog, sectorLog, inodeLog, agBlockLog uint
	dirBlocks                                 uint64 // in a directory block
	blocks, agBlocks, agCount                 uint64

	logStart, logBlocks uint64
	logFeatures         uint32 // sb_features_log_incompat
}

func (s *superblock) blockSize() int64 { return 1 << s.blockLog }

// readSuperblock reads and checks the first superblock. errdefs.ErrNotFound:
// there is none.
func readSuperblock(d *device, checksums bool) (superblock, error) {
	var s superblock
	b := make([]byte, 512)
	if d.size < int64(len(b)) {
		return s, fmt.Errorf("xfs: %w: shorter than a sector", errdefs.ErrNotFound)
	}
	if err := d.read(b, 0); err != nil {
		return s, err
	}
	if string(b[:4]) != superMagic {
		return s, fmt.Errorf("xfs: %w: no superblock", errdefs.ErrNotFound)
	}
	version := be.Uint16(b[100:])
	switch version & versionMask {
	case 4:
	case 5:
		s.v5, s.checksums = true, checksums
	default:
		return s, unsupported("superblock: version %d", version&versionMask)
	}
	if err := s.readGeometry(b, d.size); err != nil {
		return s, err
	}
	if err := s.verify(d); err != nil {
		return s, err
	}
	return s, s.readFeatures(b, version)
}

// verify checks the checksum, which is that of a whole sector.
func (s *superblock) verify(d *device) error {
	if !s.checksums {
		return nil
	}
	b := make([]byte, 1<<s.sectorLog)
	if err := d.read(b, 0); err != nil {
		return err
	}
	if !checksumOK(b, 224) && !d.isReplayed(0, len(b)) {
		return corrupt("superblock: checksum differs")
	}
	return nil
}

func (s *superblock) readGeometry(b []byte, size int64) error {
	s.blockLog, s.sectorLog, s.inodeLog = uint(b[120]), uint(b[121]), uint(b[122])
	s.agBlockLog = uint(b[124])
	s.blocks, s.agBlocks, s.agCount = be.Uint64(b[8:]), uint64(be.Uint32(b[84:])), uint64(be.Uint32(b[88:]))
	dirLog := uint(b[192])
	s.dirBlocks = 1 << (dirLog & 31)
	minInode := uint(8)
	if s.v5 {
		minInode = 9
	}
	switch {
	case b[126] != 0:
		return corrupt("superblock: mkfs.xfs did not end")
	case s.blockLog < 9 || s.blockLog > 16 || be.Uint32(b[4:]) != 1<<s.blockLog:
		return corrupt("superblock: block size %d, 2 to the power of %d", be.Uint32(b[4:]), s.blockLog)
	case s.sectorLog < 9 || s.sectorLog > 15 || be.Uint16(b[102:]) != 1<<s.sectorLog || s.sectorLog > s.blockLog:
		return corrupt("superblock: sector size %d, 2 to the power of %d", be.Uint16(b[102:]), s.sectorLog)
	case s.inodeLog < minInode || s.inodeLog > 11 || s.inodeLog > s.blockLog || be.Uint16(b[104:]) != 1<<s.inodeLog:
		return corrupt("superblock: inode size %d, 2 to the power of %d", be.Uint16(b[104:]), s.inodeLog)
	case s.blockLog+dirLog > 16:
		return corrupt("superblock: directory blocks of 2 to the power of %d bytes", s.blockLog+dirLog)
	case s.agBlocks == 0 || s.agBlocks > 1<<31 || s.agBlockLog > 31 || s.agBlocks > 1<<s.agBlockLog || s.agBlocks <= 1<<s.agBlockLog>>1:
		return corrupt("superblock: allocation groups of %d blocks, at most 2 to the power of %d", s.agBlocks, s.agBlockLog)
	case s.agCount == 0 || s.blocks > s.agCount*s.agBlocks || s.blocks <= (s.agCount-1)*s.agBlocks:
		return corrupt("superblock: %d blocks in %d allocation groups of %d", s.blocks, s.agCount, s.agBlocks)
	case s.blocks > uint64(size)>>s.blockLog:
		return corrupt("superblock: cut off: %d blocks of %d bytes in an image of %d bytes", s.blocks, s.blockSize(), size)
	}
	return nil
}

func (s *superblock) readFeatures(b []byte, version uint16) error {
	s.root = be.Uint64(b[56:])
	s.uuid = uuid.UUID(b[32:48])
	s.metaUUID = s.uuid
	s.label = strings.TrimRight(string(b[108:120]), "\x00")
	s.logStart, s.logBlocks = be.Uint64(b[48:]), uint64(be.Uint32(b[96:]))
	s.logV2 = s.v5 || version&versionLogV2 != 0
	if !s.v5 && version&versionDirV2 == 0 {
		return unsupported("superblock: directories of version 1")
	}
	if s.v5 {
		if err := s.readIncompat(b); err != nil {
			return err
		}
	} else {
		s.ftype = version&versionMore != 0 && be.Uint32(b[200:])&features2Ftype != 0
	}
	if be.Uint64(b[16:]) != 0 {
		return unsupported("superblock: real-time section of %d blocks", be.Uint64(b[16:]))
	}
	if s.logStart == 0 {
		return unsupported("superblock: log on another device")
	}
	if !s.extentOK(s.logStart, s.logBlocks) || s.logBlocks == 0 {
		return corrupt("superblock: log of %d blocks at block %d", s.logBlocks, s.logStart)
	}
	return nil
}

func (s *superblock) readIncompat(b []byte) error {
	bits := be.Uint32(b[216:])
	var unknown []string
	for i := range 32 {
		switch {
		case bits&(1<<i) == 0:
		case i >= len(incompat):
			unknown = append(unknown, fmt.Sprintf("bit %d", i))
		case !incompat[i].known:
			unknown = append(unknown, incompat[i].name)
		}
	}
	if unknown != nil {
		return unsupported("superblock: incompatible feature %s", strings.Join(unknown, ", "))
	}
	if bits&incompatRepair != 0 {
		return corrupt("superblock: marked as in need of xfs_repair")
	}
	s.ftype = bits&incompatFtype != 0
	s.logFeatures = be.Uint32(b[220:])
	if bits&incompatMetaUUID != 0 {
		s.metaUUID = uuid.UUID(b[248:264])
	}
	return nil
}

// extentOK says whether the count blocks from block number fsb lie in one
// allocation group of the file system.
func (s *superblock) extentOK(fsb, count uint64) bool {
	ag, block := fsb>>s.agBlockLog, fsb&(1<<s.agBlockLog-1)
	if ag >= s.agCount {
		return false
	}
	size := min(s.agBlocks, s.blocks-ag*s.agBlocks)
	return block < size && count <= size-block
}

// offset returns where in the image the block fsb begins, which extentOK has
// accepted.
func (s *superblock) offset(fsb uint64) int64 {
	ag, block := fsb>>s.agBlockLog, fsb&(1<<s.agBlockLog-1)
	return int64(ag*s.agBlocks+block) << s.blockLog
}

// inodeOffset returns where in the image an inode lies.
func (s *superblock) inodeOffset(number uint64) (int64, bool) {
	perBlock := s.blockLog - s.inodeLog
	fsb := number >> perBlock
	if !s.extentOK(fsb, 1) {
		return 0, false
	}
	return s.offset(fsb) + int64(number&(1<<perBlock-1))<<s.inodeLog, true
}
