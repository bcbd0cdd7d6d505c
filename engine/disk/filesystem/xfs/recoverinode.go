package xfs

import (
	"fmt"
	"slices"
)

const (
	inodeFormat = 56 // struct xfs_inode_log_format

	// ilf_fields.
	logData     = 0x002 | 0x004 // the data fork as it is on the disk
	logDataRoot = 0x008         // the root of its tree
	logDevice   = 0x010
	logAttr     = 0x040 | 0x080
	logAttrRoot = 0x100
)

// inode applies a struct xfs_inode_log_format: the inode's core and, of those
// that changed, the forks.
func (p *replay) inode(i *logItem, lsn uint64) error {
	f := i.regions[0]
	if len(f) == inodeFormat-4 { // struct xfs_inode_log_format_32
		f = slices.Insert(slices.Clone(f), 12, 0, 0, 0, 0)
	}
	if len(f) != inodeFormat || i.total < 2 {
		return corrupt("log: inode item of %d bytes", len(f))
	}
	number, at := le.Uint64(f[16:]), int64(le.Uint64(f[40:]))
	if p.cancelled[at] > 0 {
		return nil
	}
	bad := func() error { return corrupt("log: item of inode %d", number) }
	size := 1 << p.fs.sb.inodeLog
	off := at*sector + int64(le.Uint32(f[52:]))
	if at < 0 || at > p.fs.dev.size/sector {
		return bad()
	}
	b := make([]byte, size)
	if err := p.fs.dev.read(b, off); err != nil {
		return fmt.Errorf("log: inode %d: %w", number, err)
	}
	if p.fs.isNewer(b, i.regions[1], lsn) {
		return nil
	}
	if !p.fs.putCore(b, i.regions[1], lsn) {
		return bad()
	}
	if !p.putForks(b, le.Uint32(f[4:]), f[24:28], i.regions[2:]) {
		return bad()
	}
	return p.write(b, off)
}

// isNewer says whether the inode on the disk is newer than the change.
func (fs *FS) isNewer(b, core []byte, lsn uint64) bool {
	if string(b[:2]) != "IN" || len(core) < 32 {
		return false
	}
	if fs.sb.v5 {
		has := be.Uint64(b[112:])
		return string(b[160:176]) == string(fs.sb.metaUUID[:]) && has != 0 && has != 1<<64-1 && has > lsn
	}
	const wrap = 0xffff // DI_MAX_FLUSH
	disk, logged := be.Uint16(b[30:]), le.Uint16(core[30:])
	return logged < disk && (disk != wrap || logged >= wrap>>1)
}

// putCore writes a struct xfs_log_dinode into the inode b: the same fields at
// the same places, in the byte order of the disk.
func (fs *FS) putCore(b, core []byte, lsn uint64) bool {
	size := 96
	if fs.sb.v5 {
		size = coreV3
	}
	if len(core) < size || le.Uint16(core) != 0x494e || (core[4] == 3) != fs.sb.v5 {
		return false
	}
	copy(b, core[:size])
	var flags2 uint64
	if fs.sb.v5 {
		flags2 = le.Uint64(core[120:])
	}
	for _, at := range []int{0, 2, 6, 20, 22, 80, 88, 90} {
		be.PutUint16(b[at:], le.Uint16(core[at:]))
	}
	for _, at := range []int{8, 12, 16, 32, 36, 40, 44, 48, 52, 72, 76, 84, 92} {
		be.PutUint32(b[at:], le.Uint32(core[at:]))
	}
	for _, at := range []int{56, 64} {
		be.PutUint64(b[at:], le.Uint64(core[at:]))
	}
	if flags2&flags2Extents != 0 {
		be.PutUint64(b[24:], le.Uint64(core[24:]))
	} else {
		clear(b[24:32]) // padding, and a count of flushes that is of no use any more
	}
	if !fs.sb.v5 {
		return true
	}
	be.PutUint32(b[96:], le.Uint32(core[96:]))
	be.PutUint32(b[128:], le.Uint32(core[128:]))
	be.PutUint32(b[144:], le.Uint32(core[144:]))
	be.PutUint32(b[148:], le.Uint32(core[148:]))
	if flags2&flags2Bigtime != 0 {
		for _, at := range []int{32, 40, 48, 144} {
			be.PutUint64(b[at:], le.Uint64(core[at:]))
		}
	}
	for _, at := range []int{104, 120, 152} {
		be.PutUint64(b[at:], le.Uint64(core[at:]))
	}
	be.PutUint64(b[112:], lsn)
	return true
}

// putForks writes the forks that were logged into the inode b.
func (p *replay) putForks(b []byte, fields uint32, dev []byte, regions [][]byte) bool {
	core := coreV2
	if p.fs.sb.v5 {
		core = coreV3
	}
	data := b[core:]
	var attr []byte
	if fork := int(b[82]) * 8; fork >= len(data) {
		return false
	} else if fork != 0 {
		data, attr = data[:fork], data[fork:]
	}
	if fields&logDevice != 0 {
		be.PutUint32(data, le.Uint32(dev))
	}
	for _, f := range []struct {
		area       []byte
		flat, root uint32
	}{{data, logData, logDataRoot}, {attr, logAttr, logAttrRoot}} {
		if fields&(f.flat|f.root) == 0 {
			continue
		}
		if len(regions) == 0 {
			return false
		}
		region := regions[0]
		regions = regions[1:]
		if fields&f.root != 0 {
			if !p.putRoot(f.area, region) {
				return false
			}
			continue
		}
		if len(region) > len(f.area) {
			return false
		}
		copy(f.area, region)
	}
	return true
}

// putRoot writes a tree's root, which is logged as a whole block, into a fork:
// xfs_bmbt_to_bmdr.
func (p *replay) putRoot(area, block []byte) bool {
	header := 24
	if p.fs.sb.v5 {
		header = 72
	}
	if len(block) < header || len(area) < 4 {
		return false
	}
	count, room, has := int(be.Uint16(block[6:])), (len(area)-4)/16, (len(block)-header)/16
	if count > room || count > has {
		return false
	}
	copy(area, block[4:8])
	copy(area[4:], block[header:header+8*count])
	copy(area[4+8*room:], block[header+8*has:header+8*has+8*count])
	return true
}
