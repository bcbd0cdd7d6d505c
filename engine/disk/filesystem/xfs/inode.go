package xfs

import (
	"bytes"
	"fmt"
	"math"
	"time"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// st_mode as Linux has it, which is how XFS stores it.
const (
	modeType    = 0o170000
	modeFIFO    = 0o010000
	modeChar    = 0o020000
	modeDir     = 0o040000
	modeBlock   = 0o060000
	modeRegular = 0o100000
	modeLink    = 0o120000
	modeSocket  = 0o140000
)

// enum xfs_dinode_fmt.
const (
	formatDev     = 0
	formatLocal   = 1
	formatExtents = 2
	formatBtree   = 3
)

const (
	coreV2 = 100 // bytes of struct xfs_dinode that versions 1 and 2 have
	coreV3 = 176

	flagRealtime  = 1 << 0
	flags2Bigtime = 1 << 3
	flags2Extents = 1 << 4 // XFS_DIFLAG2_NREXT64
)

// inode is a struct xfs_dinode.
type inode struct {
	num             uint64
	mode            uint16
	uid, gid, links uint32
	size            int64
	dev             uint32

	atime, mtime, ctime time.Time

	format, attrFormat   byte
	extents, attrExtents uint64
	realtime             bool
	data, attrs          []byte // the forks
}

// inode reads and checks the inode of a node.
func (fs *FS) inode(n filesystem.Node) (*inode, error) {
	off, ok := fs.sb.inodeOffset(n.Inode)
	if !ok || n.Volume != 0 {
		return nil, corrupt("inode %d: no such inode", n.Inode)
	}
	b := make([]byte, 1<<fs.sb.inodeLog)
	if err := fs.dev.read(b, off); err != nil {
		return nil, fmt.Errorf("inode %d: %w", n.Inode, err)
	}
	if err := fs.verifyInode(b, n.Inode, off); err != nil {
		return nil, err
	}
	i := &inode{
		num: n.Inode, mode: be.Uint16(b[2:]), links: be.Uint32(b[16:]),
		uid: be.Uint32(b[8:]), gid: be.Uint32(b[12:]),
		format: b[5], attrFormat: b[83],
		extents: uint64(be.Uint32(b[76:])), attrExtents: uint64(be.Uint16(b[80:])),
		realtime: be.Uint16(b[90:])&flagRealtime != 0,
	}
	if b[4] == 1 {
		i.links = uint32(be.Uint16(b[6:]))
	}
	var flags2 uint64
	core := coreV2
	if b[4] == 3 {
		core, flags2 = coreV3, be.Uint64(b[120:])
	}
	if flags2&flags2Extents != 0 {
		i.extents, i.attrExtents = be.Uint64(b[24:]), uint64(be.Uint32(b[76:]))
	}
	size := be.Uint64(b[56:])
	if size > math.MaxInt64 {
		return nil, corrupt("inode %d: %d bytes", i.num, size)
	}
	i.size = int64(size)
	big := flags2&flags2Bigtime != 0
	i.atime, i.mtime, i.ctime = timestamp(b[32:], big), timestamp(b[40:], big), timestamp(b[48:], big)
	return i, i.split(b[core:], int(b[82])*8)
}

// verifyInode checks that b, which lies at off, is the inode of that number,
// and in use.
func (fs *FS) verifyInode(b []byte, number uint64, off int64) error {
	version, v5 := b[4], fs.sb.v5
	switch {
	case string(b[:2]) != "IN":
		return corrupt("inode %d: no inode there", number)
	case v5 && version != 3, !v5 && version != 1 && version != 2:
		return corrupt("inode %d: version %d", number, version)
	case v5 && fs.sb.checksums && !checksumOK(b, 100) && !fs.dev.isReplayed(off, len(b)):
		return corrupt("inode %d: checksum differs", number)
	case v5 && be.Uint64(b[152:]) != number:
		return corrupt("inode %d: says that it is inode %d", number, be.Uint64(b[152:]))
	case v5 && !bytes.Equal(b[160:176], fs.sb.metaUUID[:]):
		return corrupt("inode %d: belongs to another file system", number)
	case be.Uint16(b[2:]) == 0:
		return corrupt("inode %d: not in use", number)
	}
	return nil
}

// split divides the literal area into the forks and checks that their formats
// suit the type.
func (i *inode) split(literal []byte, fork int) error {
	if fork >= len(literal) {
		return corrupt("inode %d: attribute fork at %d of %d bytes", i.num, fork, len(literal))
	}
	i.data = literal
	if fork != 0 {
		i.data, i.attrs = literal[:fork], literal[fork:]
	}
	var ok bool
	switch i.mode & modeType {
	case modeRegular:
		ok = i.format == formatExtents || i.format == formatBtree
	case modeDir:
		ok = i.format == formatLocal || i.format == formatExtents || i.format == formatBtree
	case modeLink:
		ok = i.format == formatLocal || i.format == formatExtents
	case modeChar, modeBlock:
		ok = i.format == formatDev && len(i.data) >= 4
		if ok {
			i.dev = be.Uint32(i.data)
		}
	case modeFIFO, modeSocket:
		ok = i.format == formatDev
	default:
		return corrupt("inode %d: mode %o", i.num, i.mode)
	}
	if !ok {
		return corrupt("inode %d: mode %o with a data fork of format %d", i.num, i.mode, i.format)
	}
	if i.format == formatLocal && i.size > int64(len(i.data)) {
		return corrupt("inode %d: %d bytes in a fork of %d", i.num, i.size, len(i.data))
	}
	return nil
}

// timestamp decodes xfs_timestamp_t, or with bigtime the nanoseconds since the
// earliest time that the former could hold.
func timestamp(b []byte, big bool) time.Time {
	if !big {
		return time.Unix(int64(int32(be.Uint32(b))), int64(be.Uint32(b[4:]))).UTC()
	}
	t := be.Uint64(b)
	return time.Unix(int64(t/1e9)+math.MinInt32, int64(t%1e9)).UTC()
}

// Stat implements filesystem.FileSystem.
func (fs *FS) Stat(n filesystem.Node) (filesystem.Attr, error) {
	i, err := fs.inode(n)
	if err != nil {
		return filesystem.Attr{}, err
	}
	return filesystem.Attr{
		Mode: uint32(i.mode), UID: i.uid, GID: i.gid, Links: i.links, Size: i.size,
		// sysv_encode_dev
		Major: i.dev >> 18 & 0x3fff, Minor: i.dev & 0x3ffff,
		Atime: i.atime, Mtime: i.mtime, Ctime: i.ctime,
	}, nil
}

// typed returns the inode of n if it is of the wanted type.
func (fs *FS) typed(n filesystem.Node, mode uint16, name string) (*inode, error) {
	i, err := fs.inode(n)
	if err != nil {
		return nil, err
	}
	if i.mode&modeType != mode {
		return nil, fmt.Errorf("xfs: inode %d: %w: not a %s", n.Inode, errdefs.ErrInvalid, name)
	}
	return i, nil
}
