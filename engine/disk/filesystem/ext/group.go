package ext

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// readGroups reads where each group has its inodes.
func (f *fileSystem) readGroups() error {
	perBlock := uint64(f.blockSize / f.descSize)
	f.tables = make([]uint64, f.groups)
	var block []byte
	for g := range f.groups {
		if g%perBlock == 0 {
			var err error
			if block, err = f.disk.block(f.descBlock(g / perBlock)); err != nil {
				return fmt.Errorf("group descriptor %d: %w", g, err)
			}
		}
		d := block[int(g%perBlock)*f.descSize:][:f.descSize]
		if f.check && f.roCompat&roCompatMetadataCsum != 0 && f.descSum(g, d) != le16(d, 0x1e) {
			return corrupt("group descriptor %d: checksum differs", g)
		}
		f.tables[g] = uint64(le32(d, 0x8))
		if f.descSize >= 64 {
			f.tables[g] |= uint64(le32(d, 0x28)) << 32
		}
	}
	return f.checkTables()
}

// descBlock returns the block that holds part n of the group descriptors.
func (f *fileSystem) descBlock(n uint64) uint64 {
	first := uint64(superStart / f.blockSize)
	if f.incompat&incompatMetaBG == 0 || n < uint64(f.firstMetaBG) {
		return first + 1 + n
	}
	group := n * uint64(f.blockSize/f.descSize)
	at := f.firstBlock + group*f.blocksPerGroup
	if f.hasSuper(group) {
		at++
	}
	if n == 0 && f.blockSize == 1024 && f.firstBlock == 0 {
		at++ // the superblock is block 1 of group 0
	}
	return at
}

// descSum is the checksum of a descriptor, with metadata_csum.
func (s *super) descSum(group uint64, d []byte) uint16 {
	var n [4]byte
	binary.LittleEndian.PutUint32(n[:], uint32(group))
	c := checksum(checksum(s.seed, n[:]), d[:0x1e])
	c = checksum(c, zero4[:2])
	return uint16(checksum(c, d[0x20:]))
}

// checkTables refuses inode tables that lie outside or in each other: two
// inodes would be one.
func (f *fileSystem) checkTables() error {
	length := (uint64(f.inodesPerGroup)*uint64(f.inodeSize) + uint64(f.blockSize) - 1) / uint64(f.blockSize)
	sorted := slices.Sorted(slices.Values(f.tables))
	for i, at := range sorted {
		switch {
		case at <= f.firstBlock || at > f.blocks || length > f.blocks-at:
			return corrupt("inode table at block %d is outside of the file system", at)
		case i > 0 && at-sorted[i-1] < length:
			return corrupt("inode tables at blocks %d and %d overlap", sorted[i-1], at)
		}
	}
	return nil
}
