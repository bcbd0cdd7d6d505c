// Package ext reads ext2, ext3 and ext4 file systems, and writes ext4 anew.
//
// It knows what mke2fs makes and the kernel mounts: block maps and extents,
// 64-bit and meta_bg layouts, flexible groups, bigalloc, inline data,
// attributes in inodes, blocks and inodes of their own, and the extra bits of
// times. Directories are read from end to end; their hash trees are not used.
// Checksums (metadata_csum) of what is read are verified: the superblock,
// group descriptors, inodes, extent blocks, attribute blocks and directory
// leaves.
//
// A journal that was not emptied is read as if it had been: the blocks of its
// committed transactions are shown in place of those on disk (journal.go).
// What it cannot show that way, fast commits and journals on other devices,
// makes Info.Dirty true. The list of orphans needs no reading: what is on it
// has no name, or is too long only beyond its size.
//
// File systems with encryption, case folding, verity, shared blocks,
// compression or an unknown incompatible feature are refused with
// errdefs.ErrUnsupported and the name of the feature.
//
// Blocks that several inodes claim are not searched for, as that takes a map
// of the whole disk; they cost no more than the limits of WriteTar allow.
// Inode tables that overlap are refused.
//
// Write makes an ext4 file system in the shape of another one, which is the
// superblock: sizes, features, UUID, label, options. The new one keeps the
// features with these exceptions: fast_commit and orphan_file go, ext_attr comes,
// resize_inode goes if there are no blocks for it. Directories have no hash tree,
// and journal, maps and tables are where they fit. Not written: ext2 and ext3,
// bigalloc, meta_bg, sparse_super2, mmp, quota, blocks of more than 4 KiB, block
// devices of more than 4 TiB.
//
// Format: Linux Documentation/filesystems/ext4 (super.rst, group_descr.rst,
// inodes.rst, ifork.rst, attributes.rst, directory.rst, inlinedata.rst,
// journal.rst). The package imports engine/disk/filesystem and internal/errdefs
// only.
package ext

import (
	"fmt"
	"io"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Numbers of special inodes.
const rootInode = 2

// fileSystem implements filesystem.FileSystem.
type fileSystem struct {
	super
	disk *disk
	// check says that checksums are to be verified.
	check bool
	info  filesystem.Info
	// tables holds the first block of each group's inode table.
	tables []uint64
	last   *inode // the one read last
}

// Open is a filesystem.Opener.
func Open(r io.ReaderAt, size int64) (filesystem.FileSystem, error) {
	return open(r, size, true)
}

func open(r io.ReaderAt, size int64, check bool) (filesystem.FileSystem, error) {
	f, err := load(r, size, check)
	if err != nil {
		return nil, err
	}
	log, dirty, err := f.journal()
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if log != nil {
		// everything, the superblock included, may be another one now
		if f, err = load(log, size, check); err != nil {
			return nil, fmt.Errorf("with its journal: %w", err)
		}
	}
	f.info = filesystem.Info{Type: f.kind(), UUID: f.uuidText(), Label: f.label, Dirty: dirty || f.unclean()}
	return f, nil
}

// load reads what describes the whole file system.
func load(r io.ReaderAt, size int64, check bool) (*fileSystem, error) {
	raw := make([]byte, superSize)
	if size < superStart+superSize {
		return nil, fmt.Errorf("ext superblock: %d bytes are too few: %w", size, errdefs.ErrNotFound)
	}
	if _, err := r.ReadAt(raw, superStart); err != nil && err != io.EOF {
		return nil, fmt.Errorf("ext superblock: %w", err)
	}
	f := &fileSystem{check: check}
	var err error
	if f.super, err = parseSuper(raw, size, check); err != nil {
		return nil, fmt.Errorf("ext superblock: %w", err)
	}
	f.disk = newDisk(r, int64(f.blocks)*int64(f.blockSize), f.blockSize)
	if err := f.readGroups(); err != nil {
		return nil, err
	}
	return f, nil
}

// Info implements filesystem.FileSystem.
func (f *fileSystem) Info() filesystem.Info { return f.info }

// Root implements filesystem.FileSystem.
func (f *fileSystem) Root() filesystem.Node { return filesystem.Node{Inode: rootInode} }

func corrupt(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrCorrupt)...)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalid)...)
}
