// Package xfs reads an XFS file system, versions 4 and 5, out of an
// io.ReaderAt: the FileSystem of engine/disk/filesystem for this format.
//
// The formats follow "XFS Algorithms & Data Structures" (3rd edition) and the
// names of libxfs' headers (xfs_format.h, xfs_da_format.h, xfs_log_format.h);
// offsets that carry no comment are those of the structure that is named.
// Checksums, owners and addresses of version 5 are verified wherever a
// structure is used. What the free space, the free inodes, the reverse map and
// the quotas say is not read at all.
//
// Refused with errdefs.ErrUnsupported: a real-time section, an external log,
// directories of version 1, and incompatible features that are not known
// (the error names them). A file system that xfs_repair has marked as not yet
// repaired, or that is cut off, is corrupt.
//
// The log of a file system that was not unmounted is read as recovery would
// read it, and what it holds is laid over the image in memory: an image of a
// running instance shows what a mount of it would. It stays Info.Dirty only
// where recovery would have gone on with a change that had begun (of extents
// shared or exchanged, of attributes), which then shows half done. A log with
// more than about 24 MiB of changes, or of a host with another byte order, is
// errdefs.ErrUnsupported: the tenant unmounts the file system (shuts the
// instance down) or freezes it before the image is taken.
//
// POSIX access control lists appear as system.posix_acl_access and
// system.posix_acl_default in the form that getxattr(2) gives them; the
// trusted.SGI_ACL_* of the same content that root sees are left out.
package xfs

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// XFS is big endian on every host, but for its checksums.
var be = binary.BigEndian

// FS is an open file system. It implements filesystem.FileSystem.
type FS struct {
	dev *device
	sb  superblock
	// leaf is the leaf of an extent tree that was read last, dir the directory
	// block: both live here and not with who reads them, so that any number
	// of open files and of directories being read costs no memory.
	leaf leafCache
	dir  dirCache
	info filesystem.Info
}

// Open reads the superblock, the log and the root directory's inode. See
// filesystem.Opener for the arguments and errors.
func Open(r io.ReaderAt, size int64) (filesystem.FileSystem, error) {
	fs, err := open(r, size, true)
	if err != nil {
		return nil, err
	}
	return fs, nil
}

// open is Open with the choice not to believe in checksums, which tests need
// to get past them.
func open(r io.ReaderAt, size int64, checksums bool) (*FS, error) {
	fs := &FS{dev: newDevice(r, size)}
	var err error
	if fs.sb, err = readSuperblock(fs.dev, checksums); err != nil {
		return nil, err
	}
	fs.info = filesystem.Info{Type: "xfs", UUID: fs.sb.uuid.String(), Label: fs.sb.label}
	clean, err := fs.replayLog()
	if err != nil {
		return nil, err
	}
	fs.info.Dirty = !clean
	if fs.dev.replayed != nil {
		// It may have grown.
		if fs.sb, err = readSuperblock(fs.dev, checksums); err != nil {
			return nil, err
		}
	}
	root, err := fs.inode(fs.Root())
	if err != nil {
		return nil, err
	}
	if root.mode&modeType != modeDir {
		return nil, corrupt("inode %d: the root is not a directory", root.num)
	}
	return fs, nil
}

// Info implements filesystem.FileSystem.
func (fs *FS) Info() filesystem.Info { return fs.info }

// Root implements filesystem.FileSystem.
func (fs *FS) Root() filesystem.Node { return filesystem.Node{Inode: fs.sb.root} }

// corrupt returns an error of class errdefs.ErrCorrupt.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("xfs: %w: %s", errdefs.ErrCorrupt, fmt.Sprintf(format, args...))
}

// unsupported returns an error of class errdefs.ErrUnsupported.
func unsupported(format string, args ...any) error {
	return fmt.Errorf("xfs: %w: %s", errdefs.ErrUnsupported, fmt.Sprintf(format, args...))
}
