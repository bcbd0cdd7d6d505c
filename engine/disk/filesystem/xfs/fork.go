package xfs

import (
	"fmt"
	"math"
)

// extent is a struct xfs_bmbt_irec: count blocks of the file from its block
// off on, stored from the block fsb on.
type extent struct {
	off, fsb, count uint64
	unwritten       bool
}

const (
	extentSize = 16
	// maxOffset is beyond every block of a file: offsets have 54 bits.
	maxOffset = 1 << 54
	// maxLevel is more than the levels of the largest tree with the smallest
	// blocks.
	maxLevel = 16
)

// fork maps the blocks of one of an inode's forks.
type fork struct {
	fs    *FS
	inode uint64
	list  []extent // of a fork without a tree
	root  []byte   // struct xfs_bmdr_block of one with a tree
	// last is the leaf that was used last.
	last leafPlace
}

// leafPlace is where a leaf lies and which blocks of the file it is to map.
type leafPlace struct{ fsb, from, to uint64 }

// leafCache is a leaf, decoded and checked.
type leafCache struct {
	inode uint64
	place leafPlace
	list  []extent
}

// newFork returns the map of a fork that holds count extents.
func (fs *FS) newFork(inode uint64, format byte, count uint64, area []byte) (*fork, error) {
	f := &fork{fs: fs, inode: inode}
	switch format {
	case formatExtents:
		if count > uint64(len(area)/extentSize) {
			return nil, corrupt("inode %d: %d extents in a fork of %d bytes", inode, count, len(area))
		}
		var err error
		f.list, err = fs.decodeExtents(nil, inode, area[:count*extentSize], leafPlace{to: maxOffset})
		return f, err
	case formatBtree:
		f.root = area
		return f, nil
	default:
		return nil, corrupt("inode %d: fork of format %d", inode, format)
	}
}

// next returns the first extent that ends after block off of the file; false:
// there is none.
func (f *fork) next(off uint64) (extent, bool, error) {
	if f.root == nil {
		e, ok := search(f.list, off)
		return e, ok, nil
	}
	for off < maxOffset {
		if off < f.last.from || off >= f.last.to {
			var err error
			if f.last, err = f.descend(off); err != nil {
				return extent{}, false, err
			}
		}
		list, err := f.fs.readLeaf(f.inode, f.last)
		if err != nil {
			return extent{}, false, err
		}
		if e, ok := search(list, off); ok {
			return e, true, nil
		}
		off = f.last.to
	}
	return extent{}, false, nil
}

// mapped returns where the block off of the file lies, which has to be there.
func (f *fork) mapped(off uint64) (uint64, error) {
	e, ok, err := f.next(off)
	if err != nil {
		return 0, err
	}
	if !ok || e.off > off || e.unwritten {
		return 0, corrupt("inode %d: block %d of its metadata is missing", f.inode, off)
	}
	return e.fsb + off - e.off, nil
}

// search returns the first extent that ends after off.
func search(list []extent, off uint64) (extent, bool) {
	low, high := 0, len(list)
	for low < high {
		mid := (low + high) / 2
		if list[mid].off+list[mid].count <= off {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == len(list) {
		return extent{}, false
	}
	return list[low], true
}

// descend walks from the root to the leaf for block off. Each step goes one
// level down and takes a narrower range, so that no tree, however knotted,
// leads in circles.
func (f *fork) descend(off uint64) (leafPlace, error) {
	place := leafPlace{to: maxOffset}
	if len(f.root) < 4 {
		return place, corrupt("inode %d: fork of %d bytes for an extent tree", f.inode, len(f.root))
	}
	level := int(be.Uint16(f.root))
	if level < 1 || level > maxLevel {
		return place, corrupt("inode %d: extent tree of %d levels", f.inode, level)
	}
	place, err := f.child(f.root[4:], int(be.Uint16(f.root[2:])), off, place)
	for level--; err == nil && level > 0; level-- {
		var b []byte
		var count int
		if b, count, err = f.fs.readBmap(f.inode, place.fsb, level); err == nil {
			place, err = f.child(b, count, off, place)
		}
	}
	return place, err
}

// child picks the child for block off out of a node's keys and pointers, which
// fill b to the half each.
func (f *fork) child(b []byte, count int, off uint64, place leafPlace) (leafPlace, error) {
	room := len(b) / 16
	if count < 1 || count > room {
		return place, corrupt("inode %d: extent tree node with %d of %d entries", f.inode, count, room)
	}
	from, to, at := place.from, place.to, 0
	for i := range count {
		key := be.Uint64(b[8*i:])
		if key < place.from || key >= place.to || i > 0 && key <= be.Uint64(b[8*i-8:]) {
			return place, corrupt("inode %d: extent tree node at block %d: key %d is out of order", f.inode, place.fsb, key)
		}
		if i > 0 && key <= off {
			from, at = key, i
		}
		if i > 0 && key > off {
			to = key
			break
		}
	}
	return leafPlace{fsb: be.Uint64(b[8*(room+at):]), from: from, to: to}, nil
}

// readBmap reads a block of an extent tree, struct xfs_btree_block, and
// returns what follows its header and the number of its records.
func (fs *FS) readBmap(inode, fsb uint64, level int) ([]byte, int, error) {
	b := make([]byte, fs.sb.blockSize())
	off, err := fs.readBlock(b, fsb)
	if err != nil {
		return nil, 0, fmt.Errorf("inode %d: extent tree: %w", inode, err)
	}
	magic, header := "BMAP", 24
	if fs.sb.v5 {
		magic, header = "BMA3", 72
	}
	if string(b[:4]) != magic || int(be.Uint16(b[4:])) != level {
		return nil, 0, corrupt("inode %d: block %d is no block of level %d of an extent tree", inode, fsb, level)
	}
	if fs.sb.v5 {
		if err := fs.verify(b, off, inode, &bmapLayout); err != nil {
			return nil, 0, err
		}
	}
	return b[header:], int(be.Uint16(b[6:])), nil
}

// readLeaf returns the extents of a leaf. They are valid until the next call.
func (fs *FS) readLeaf(inode uint64, place leafPlace) ([]extent, error) {
	if fs.leaf.inode == inode && fs.leaf.place == place {
		return fs.leaf.list, nil
	}
	fs.leaf.inode = math.MaxUint64 // no inode, until this has gone well
	b, count, err := fs.readBmap(inode, place.fsb, 0)
	if err != nil {
		return nil, err
	}
	if count < 1 || count > len(b)/extentSize {
		return nil, corrupt("inode %d: extent tree leaf at block %d with %d extents", inode, place.fsb, count)
	}
	list, err := fs.decodeExtents(fs.leaf.list[:0], inode, b[:count*extentSize], place)
	if err != nil {
		return nil, err
	}
	fs.leaf = leafCache{inode: inode, place: place, list: list}
	return list, nil
}

// decodeExtents appends the extents in b to list, which is empty, and checks
// that they are in order, within the place and within the file system.
func (fs *FS) decodeExtents(list []extent, inode uint64, b []byte, place leafPlace) ([]extent, error) {
	from := place.from
	for ; len(b) > 0; b = b[extentSize:] {
		high, low := be.Uint64(b), be.Uint64(b[8:])
		e := extent{
			off:       high >> 9 & (maxOffset - 1),
			fsb:       high&(1<<9-1)<<43 | low>>21,
			count:     low & (1<<21 - 1),
			unwritten: high>>63 != 0,
		}
		if e.count == 0 || e.off < from || e.off+e.count > place.to || !fs.sb.extentOK(e.fsb, e.count) {
			return nil, corrupt("inode %d: extent of %d blocks, %d of the file, %d of the file system, is empty, overlaps, or is out of range",
				inode, e.count, e.off, e.fsb)
		}
		from = e.off + e.count
		list = append(list, e)
	}
	return list, nil
}

// readBlock fills b from block fsb on, and returns its place in the image.
func (fs *FS) readBlock(b []byte, fsb uint64) (int64, error) {
	if !fs.sb.extentOK(fsb, uint64(len(b))>>fs.sb.blockLog) {
		return 0, corrupt("block %d is out of range", fsb)
	}
	off := fs.sb.offset(fsb)
	return off, fs.dev.read(b, off)
}
