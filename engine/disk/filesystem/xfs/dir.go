package xfs

import (
	"fmt"
	"math"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
)

// A directory's entries lie in its first 32 GiB; an index of them follows, by
// which a single name is found. Only the former is read.
const dirDataEnd = 32 << 30

// dirCache is the directory block that was read last, verified.
type dirCache struct {
	inode, block uint64
	data         []byte
}

// ReadDir implements filesystem.FileSystem.
func (fs *FS) ReadDir(n filesystem.Node, visit func(name string, child filesystem.Node) error) error {
	i, err := fs.typed(n, modeDir, "directory")
	if err != nil {
		return err
	}
	if i.format == formatLocal {
		return fs.readShortDir(i, visit)
	}
	f, err := fs.newFork(i.num, i.format, i.extents, i.data)
	if err != nil {
		return err
	}
	end := uint64(min(i.size, dirDataEnd)) >> fs.sb.blockLog
	for block := uint64(0); ; block += fs.sb.dirBlocks {
		e, ok, err := f.next(block)
		if err != nil || !ok {
			return err
		}
		block = max(block, e.off&^(fs.sb.dirBlocks-1))
		if block >= end {
			return nil
		}
		if err := fs.readDirBlock(f, block, visit); err != nil {
			return err
		}
	}
}

// readShortDir reads a struct xfs_dir2_sf_hdr and its entries.
func (fs *FS) readShortDir(i *inode, visit func(name string, child filesystem.Node) error) error {
	b := i.data[:i.size]
	bad := func() error { return corrupt("inode %d: directory in the inode is cut off", i.num) }
	if len(b) < 6 {
		return bad()
	}
	count, width := int(b[0]), 4
	if b[1] != 0 {
		width = 8
	}
	if len(b) < 2+width {
		return bad()
	}
	b = b[2+width:]
	for range count {
		if len(b) < 3 || b[0] == 0 {
			return bad()
		}
		name, rest := int(b[0]), 3+int(b[0])
		if fs.sb.ftype {
			rest++
		}
		if len(b) < rest+width {
			return bad()
		}
		child := uint64(be.Uint32(b[rest:]))
		if width == 8 {
			child = be.Uint64(b[rest:])
		}
		if err := visit(string(b[3:3+name]), filesystem.Node{Inode: child}); err != nil {
			return err
		}
		b = b[rest+width:]
	}
	return nil
}

// readDirBlock reads the entries of one directory block: a sequence of struct
// xfs_dir2_data_entry and xfs_dir2_data_unused.
func (fs *FS) readDirBlock(f *fork, block uint64, visit func(name string, child filesystem.Node) error) error {
	b, err := fs.dirBlock(f, block)
	if err != nil {
		return err
	}
	at, end, err := fs.dirBounds(b)
	if err != nil {
		return fmt.Errorf("inode %d: directory block %d: %w", f.inode, block, err)
	}
	for at < end {
		e, err := fs.dirEntry(b[at:end])
		if err != nil {
			return fmt.Errorf("inode %d: directory block %d: %w", f.inode, block, err)
		}
		at += e.size
		if e.name == "" || e.name == "." || e.name == ".." {
			continue
		}
		if err := visit(e.name, filesystem.Node{Inode: e.inode}); err != nil {
			return err
		}
		// visit may have read other directories.
		if b, err = fs.dirBlock(f, block); err != nil {
			return err
		}
	}
	return nil
}

// dirBlock returns the directory block that begins at block of the fork. It is
// valid until the next call.
func (fs *FS) dirBlock(f *fork, block uint64) ([]byte, error) {
	if fs.dir.inode == f.inode && fs.dir.block == block {
		return fs.dir.data, nil
	}
	if fs.dir.data == nil {
		fs.dir.data = make([]byte, fs.sb.dirBlocks<<fs.sb.blockLog)
	}
	fs.dir.inode = math.MaxUint64 // no inode, until this has gone well
	var first int64
	for i := range fs.sb.dirBlocks {
		fsb, err := f.mapped(block + i)
		if err != nil {
			return nil, err
		}
		off, err := fs.readBlock(fs.dir.data[i<<fs.sb.blockLog:(i+1)<<fs.sb.blockLog], fsb)
		if err != nil {
			return nil, fmt.Errorf("inode %d: directory block %d: %w", f.inode, block+i, err)
		}
		if i == 0 {
			first = off
		}
	}
	if fs.sb.v5 {
		if err := fs.verify(fs.dir.data, first, f.inode, &dirLayout); err != nil {
			return nil, err
		}
	}
	fs.dir.inode, fs.dir.block = f.inode, block
	return fs.dir.data, nil
}

// dirBounds returns where the entries of a directory block begin and end. In
// the only block of a directory, an index follows them: struct
// xfs_dir2_leaf_entry for each, then xfs_dir2_block_tail.
func (fs *FS) dirBounds(b []byte) (from, to int, err error) {
	only, one, header := "XD2B", "XD2D", 16
	if fs.sb.v5 {
		only, one, header = "XDB3", "XDD3", 64
	}
	switch string(b[:4]) {
	case one:
		return header, len(b), nil
	case only:
		count := uint64(be.Uint32(b[len(b)-8:]))
		if count > uint64(len(b)-header-8)/8 {
			return 0, 0, corrupt("index of %d entries", count)
		}
		return header, len(b) - 8 - int(count)*8, nil
	default:
		return 0, 0, corrupt("magic number %x", b[:4])
	}
}

// dirEntry is one entry of a block; without a name, unused space.
type dirEntry struct {
	name  string
	inode uint64
	size  int
}

func (fs *FS) dirEntry(b []byte) (dirEntry, error) {
	if len(b) < 8 {
		return dirEntry{}, corrupt("an entry is cut off")
	}
	if be.Uint16(b) == 0xffff { // XFS_DIR2_DATA_FREE_TAG
		size := int(be.Uint16(b[2:]))
		if size < 8 || size > len(b) || size%8 != 0 {
			return dirEntry{}, corrupt("unused space of %d bytes", size)
		}
		return dirEntry{size: size}, nil
	}
	if len(b) < 16 {
		return dirEntry{}, corrupt("an entry is cut off")
	}
	name := int(b[8])
	size := 9 + name + 2
	if fs.sb.ftype {
		size++
	}
	size = (size + 7) &^ 7
	if name == 0 || size > len(b) {
		return dirEntry{}, corrupt("entry with a name of %d bytes in %d bytes", name, len(b))
	}
	return dirEntry{name: string(b[9 : 9+name]), inode: be.Uint64(b), size: size}, nil
}
