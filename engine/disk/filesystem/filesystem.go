// Package filesystem is the contract of the readers that understand a file
// system inside a disk image without mounting it, and turns such a file system
// into a layer.
//
// A tenant's file system is hostile input that the host's kernel never sees:
// ext (ext2, ext3, ext4), xfs and btrfs parse it in Go, below this package,
// and WriteTar writes what they show as a tar stream for engine/layer. A
// reader promises memory safety, bounded memory and an end for every input, no
// more: what it shows may be nonsense, and layer.Apply trusts none of it.
//
// The package imports internal/errdefs only; readers import this package and
// nothing else of ours but internal/errdefs.
package filesystem

import (
	"io"
	"time"
)

// Node names one inode of a FileSystem. Two entries with the same Node are
// hard links to one file.
type Node struct {
	// Volume is the subvolume of a file system that has several; 0 otherwise.
	Volume uint64
	// Inode is the number within the volume.
	Inode uint64
}

// Opener is the form of the function Open that each reader exports. It reads
// the file system that begins at offset 0 of r, which is size bytes long;
// nothing is read beyond that, and what ought to be there makes the file
// system corrupt. errdefs.ErrNotFound: no file system of this type begins
// there. The errors of FileSystem otherwise.
type Opener func(r io.ReaderAt, size int64) (FileSystem, error)

// FileSystem is a read-only view of one file system.
//
// A method fails with errdefs.ErrCorrupt where the bytes contradict the format
// (the error names the structure and its number), a Node that no entry of the
// file system can have included, with errdefs.ErrInvalid where the inode is not
// of the type that the method is for, errdefs.ErrUnsupported where
// the file system uses a feature that the reader does not know, and with the
// error of the underlying reader, wrapped, where reading failed. No input makes
// it panic, run without end, or keep more than 32 MiB, whatever the size of
// the image. Not safe for concurrent use.
type FileSystem interface {
	Info() Info
	// Root is the directory that a mount without options would show.
	Root() Node
	// Stat returns the attributes of n.
	Stat(n Node) (Attr, error)
	// ReadDir calls visit for each entry of the directory n, "." and ".." left
	// out, in an order that is the same each time. The names are as stored:
	// they may be empty, hold slashes or appear twice if the file system is
	// damaged. An error of visit ends the reading and is returned as it is.
	ReadDir(n Node, visit func(name string, child Node) error) error
	// Readlink returns the target of the symbolic link n, at most 4,095 bytes.
	Readlink(n Node) (string, error)
	// Xattrs returns the extended attributes of n by full name
	// ("security.capability"), with the values that getxattr(2) would give;
	// nil when there are none. POSIX access control lists are left out of it
	// only where the reader says so.
	Xattrs(n Node) (map[string]string, error)
	// Open returns the content of the regular file n.
	Open(n Node) (File, error)
}

// Info describes a file system.
type Info struct {
	// Type as in mount(8): ext2, ext3, ext4, xfs, btrfs.
	Type string
	// UUID in its text form, lower case; Label as stored. Either may be empty.
	UUID, Label string
	// Dirty says that the file system was not unmounted: its journal or log
	// holds changes that this view does not show.
	Dirty bool
}

// Attr of an inode.
type Attr struct {
	// Mode is the st_mode of stat(2): type, set-id bits, sticky bit,
	// permissions (unix.S_IFMT and 07777).
	Mode uint32
	// UID and GID as stored.
	UID, GID uint32
	// Links is the number of names that the inode is said to have.
	Links uint32
	// Size in bytes. Never negative.
	Size int64
	// Major and Minor of a device.
	Major, Minor uint32
	// Atime, Mtime and Ctime with all the precision that is stored.
	Atime, Mtime, Ctime time.Time
}

// File is the content of a regular file, Attr.Size bytes.
type File interface {
	// ReadAt implements io.ReaderAt; holes, and what was allocated and never
	// written, read as zeros.
	io.ReaderAt
	// Segments calls visit for the parts that hold data, in ascending order,
	// without overlap, within the size, each longer than 0; what lies between
	// them is a hole. Neighbours may touch. An error of visit ends it and is
	// returned as it is.
	Segments(visit func(offset, length int64) error) error
}
