package ext

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
)

const (
	// dirEntryLen is the length of an entry without its name.
	dirEntryLen = 8
	// dirTailLen and dirTailType are of the entry that holds a checksum.
	dirTailLen  = 12
	dirTailType = 0xde
)

// ReadDir implements filesystem.FileSystem. The order is that on disk.
func (f *fileSystem) ReadDir(node filesystem.Node, visit func(name string, child filesystem.Node) error) error {
	n, err := f.node(node)
	if err != nil {
		return err
	}
	if n.kind() != unix.S_IFDIR {
		return invalid("inode %d is no directory", n.number)
	}
	if n.has(flagInline) {
		return f.inlineDir(n, visit)
	}
	blocks := uint64(n.size) / uint64(f.blockSize)
	if n.size%int64(f.blockSize) != 0 || blocks == 0 || blocks > f.blocks {
		return corrupt("inode %d: directory of %d bytes", n.number, n.size)
	}
	next := uint64(0)
	err = f.runs(n, 0, func(r run) error {
		if r.logical != next || r.unwritten {
			return corrupt("inode %d: directory has a hole at block %d", n.number, next)
		}
		for ; next < r.end() && next < blocks; next++ {
			b, err := f.disk.block(r.physical + next - r.logical)
			if err != nil {
				return fmt.Errorf("inode %d: directory block %d: %w", n.number, next, err)
			}
			if err := f.dirBlock(n, b, visit); err != nil {
				return err
			}
		}
		if next == blocks {
			return errDone
		}
		return nil
	})
	switch {
	case errors.Is(err, errDone):
		return nil
	case err == nil:
		return corrupt("inode %d: directory of %d blocks has %d", n.number, blocks, next)
	}
	return err
}

// dirBlock verifies the checksum of a block that has one, and reads it.
func (f *fileSystem) dirBlock(n *inode, b []byte, visit func(string, filesystem.Node) error) error {
	if f.sums() && f.hasTail(b) && checksum(n.seed, b[:len(b)-dirTailLen]) != le32(b, len(b)-4) {
		return corrupt("inode %d: directory block: checksum differs", n.number)
	}
	return f.entries(n, b, visit)
}

// hasTail says whether the last entry of a block is a checksum. Blocks of the
// hash tree have none: one entry fills them, and anything may be below it.
func (f *fileSystem) hasTail(b []byte) bool {
	at, length := 0, 0
	for ; at < len(b)-dirTailLen; at += length {
		if length = f.entryLen(le16(b, at+4)); length < dirEntryLen {
			return false
		}
	}
	return at == len(b)-dirTailLen && le32(b, at) == 0 && le16(b, at+4) == dirTailLen && b[at+7] == dirTailType
}

// entries reads directory entries that fill b.
func (f *fileSystem) entries(n *inode, b []byte, visit func(string, filesystem.Node) error) error {
	for at := 0; at < len(b); {
		if len(b)-at < dirEntryLen {
			return corrupt("inode %d: %d bytes behind the last directory entry", n.number, len(b)-at)
		}
		e := b[at:]
		child, length, nameLen := le32(e, 0), f.entryLen(le16(e, 4)), int(e[6])
		if length < dirEntryLen+nameLen || length%4 != 0 || length > len(e) {
			return corrupt("inode %d: directory entry of %d bytes at %d", n.number, length, at)
		}
		name := string(e[dirEntryLen : dirEntryLen+nameLen])
		at += length
		if child == 0 || name == "." || name == ".." {
			continue
		}
		if child > f.inodes {
			return corrupt("inode %d: entry %q leads to inode %d of %d", n.number, name, child, f.inodes)
		}
		if err := visit(name, filesystem.Node{Inode: uint64(child)}); err != nil {
			return err
		}
	}
	return nil
}

// entryLen decodes a length; in blocks of 64 KiB it has more bits than 16.
func (f *fileSystem) entryLen(v uint16) int {
	switch {
	case f.blockSize < 1<<16:
		return int(v)
	case v == 0 || v == 0xffff:
		return f.blockSize
	}
	return int(v&^3) | int(v&3)<<16
}

// inlineDir reads a directory that is in its inode: the parent's number, then
// entries in both places.
func (f *fileSystem) inlineDir(n *inode, visit func(string, filesystem.Node) error) error {
	rest, err := f.inlineRest(n)
	if err == nil {
		err = f.entries(n, n.area()[4:], visit)
	}
	if err == nil {
		err = f.entries(n, rest, visit)
	}
	return err
}
