// Package btrfs reads a btrfs file system without mounting it.
//
// It implements filesystem.FileSystem for a file system on one device, as a
// mount without options shows it: the default subvolume, with the subvolumes
// below it as directories. What other subvolumes there are tells Subvolumes,
// and WithRoot looks at one of them.
//
// Read are: all four checksums, big and small metadata blocks, mixed groups,
// the profiles single and DUP, holes with and without items, inline, regular
// and preallocated extents, zlib, LZO and zstd. Refused with
// errdefs.ErrUnsupported are several devices and the profiles that need them,
// zoned devices, the raid stripe tree, extent tree v2, encryption, and
// whatever incompatible feature is newer than this package. The trees that
// only a writer needs (extents, free space, block groups, quotas, checksums of
// data) are not looked at.
//
// Each metadata block is verified: checksum, place, owner's UUID, generation,
// level and the order of its keys against the block above. Since keys ascend
// strictly and each block begins with the key that its parent gives, no block
// is met twice in one pass over a tree, so that every pass ends. Data is not
// verified against the checksum tree: an image is verified as a whole before
// it gets here.
//
// The log tree, which holds what was fsynced after the last commit, is not
// replayed: Info.Dirty says that there is one, and the view is that of the
// last commit, consistent in itself. A crash may show this state too, so it is
// a state that the software inside has to cope with.
//
// Source of the format: "On-disk Format" in the documentation of
// btrfs-progs, and linux/btrfs_tree.h of the kernel's interface.
package btrfs

import (
	"fmt"
	"io"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// FileSystem is a view of a btrfs file system from one of its subvolumes.
// Views of one file system share their memory: they must not be used
// concurrently either.
type FileSystem struct {
	*volumes
	root filesystem.Node
}

var _ filesystem.FileSystem = (*FileSystem)(nil)

// Open reads the file system of size bytes that is in r, which stays in use as
// long as the result, a *FileSystem. It reads the superblock, the chunk tree
// and the inode of the top directory. For arguments and errors see
// filesystem.Opener.
func Open(r io.ReaderAt, size int64) (filesystem.FileSystem, error) {
	s, err := open(device{r, size}, true)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// open is Open, without looking at checksums if verify is false.
func open(dev device, verify bool) (*FileSystem, error) {
	super, err := readSuper(dev, verify)
	if err != nil {
		return nil, err
	}
	f := &forest{super: super, device: dev, blocks: newCache(int(super.nodeSize)), verify: verify}
	if err := f.loadChunks(); err != nil {
		return nil, fmt.Errorf("chunk tree: %w", err)
	}
	v := &volumes{forest: f}
	id, err := v.defaultSubvolume()
	if err != nil {
		return nil, fmt.Errorf("default subvolume: %w", err)
	}
	return (&FileSystem{volumes: v}).WithRoot(id)
}

// Info implements filesystem.FileSystem. It is the same for all views.
func (s *FileSystem) Info() filesystem.Info {
	return filesystem.Info{Type: "btrfs", UUID: uuidText(s.super.fsid), Label: s.super.label, Dirty: s.super.logRoot != 0}
}

// Root implements filesystem.FileSystem. For what Open returned it is the
// directory that a mount without options would show.
func (s *FileSystem) Root() filesystem.Node { return s.root }

// WithRoot returns a view whose Root is the top directory of the subvolume id,
// as a mount with subvolid=id would show it. All else is shared: a Node means
// the same in both, and the receiver stays valid. It fails with
// errdefs.ErrNotFound if there is no such subvolume.
func (s *FileSystem) WithRoot(id uint64) (*FileSystem, error) {
	v, err := s.volume(id)
	if err != nil {
		return nil, fmt.Errorf("open a view of btrfs: %w", err)
	}
	n := filesystem.Node{Volume: id, Inode: v.rootInode}
	a, err := s.Stat(n)
	if err != nil {
		return nil, err
	}
	if a.Mode&formatMask != formatDirectory {
		return nil, corrupt("subvolume %d: its root is not a directory", id)
	}
	return &FileSystem{s.volumes, n}, nil
}

// corrupt is an error of the class errdefs.ErrCorrupt.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("btrfs: %s: %w", fmt.Sprintf(format, args...), errdefs.ErrCorrupt)
}

// unsupported is an error of the class errdefs.ErrUnsupported.
func unsupported(format string, args ...any) error {
	return fmt.Errorf("btrfs: %s: %w", fmt.Sprintf(format, args...), errdefs.ErrUnsupported)
}
