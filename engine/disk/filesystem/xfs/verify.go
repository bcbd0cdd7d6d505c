package xfs

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksumOK verifies the CRC-32C that b holds, little endian, at offset at:
// that of b with zeros in this place.
func checksumOK(b []byte, at int) bool {
	sum := crc32.Update(0, castagnoli, b[:at])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	sum = crc32.Update(sum, castagnoli, b[at+4:])
	return sum == binary.LittleEndian.Uint32(b[at:])
}

// layout tells where a kind of block of version 5 keeps what identifies it.
type layout struct {
	what                      string
	sum, address, uuid, owner int
}

var (
	dirLayout  = layout{"directory block", 4, 8, 24, 40}         // xfs_dir3_blk_hdr
	daLayout   = layout{"attribute block", 12, 16, 32, 48}       // xfs_da3_blkinfo
	bmapLayout = layout{"extent tree block", 64, 24, 40, 56}     // xfs_btree_block_lhdr
	linkLayout = layout{"symbolic link block", 12, 40, 16, 32}   // xfs_dsymlink_hdr
	remLayout  = layout{"attribute value block", 12, 40, 16, 32} // xfs_attr3_rmt_hdr
)

// verify checks that b, a block of version 5 read from offset off, is intact,
// is meant to be there, and belongs to the inode.
func (fs *FS) verify(b []byte, off int64, inode uint64, l *layout) error {
	switch {
	case fs.sb.checksums && !checksumOK(b, l.sum) && !fs.dev.isReplayed(off, len(b)):
		return corrupt("inode %d: %s at %d: checksum differs", inode, l.what, off)
	case be.Uint64(b[l.address:]) != uint64(off)>>9:
		return corrupt("inode %d: %s at %d: says that it is at sector %d", inode, l.what, off, be.Uint64(b[l.address:]))
	case be.Uint64(b[l.owner:]) != inode:
		return corrupt("inode %d: %s at %d: belongs to inode %d", inode, l.what, off, be.Uint64(b[l.owner:]))
	case !bytes.Equal(b[l.uuid:l.uuid+16], fs.sb.metaUUID[:]):
		return corrupt("inode %d: %s at %d: belongs to another file system", inode, l.what, off)
	}
	return nil
}
