package btrfs

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"sort"
)

const (
	keySize    = 17
	headerSize = 101
	itemSize   = 25
	ptrSize    = 33
)

// The kinds of items that are read here.
const (
	kindInode    = 1
	kindInodeRef = 12
	kindXattr    = 24
	kindDirItem  = 84
	kindDirIndex = 96
	kindExtent   = 108
	kindRoot     = 132
	kindBackref  = 144
	kindRootRef  = 156
	kindChunk    = 228
)

// chunkObject is the object of all chunks.
const chunkObject = 256

// key orders the items of a tree.
type key struct {
	object uint64
	kind   uint8
	offset uint64
}

// String names k in errors.
func (k key) String() string { return fmt.Sprintf("(%d %d %d)", k.object, k.kind, k.offset) }

func parseKey(b []byte) key {
	le := binary.LittleEndian
	return key{le.Uint64(b), b[8], le.Uint64(b[9:])}
}

func (k key) compare(o key) int {
	if c := cmp.Compare(k.object, o.object); c != 0 {
		return c
	}
	if c := cmp.Compare(k.kind, o.kind); c != 0 {
		return c
	}
	return cmp.Compare(k.offset, o.offset)
}

// item is an entry of a leaf. The data is shared with the cache: it is read
// only, and keeping it keeps the whole block.
type item struct {
	key  key
	data []byte
}

// node is a metadata block whose inner structure has been verified: the keys
// ascend strictly and the data of all items lies within.
type node struct {
	data       []byte
	level      uint8
	count      int
	generation uint64
}

// parseNode verifies the block b, which has nodeSize bytes.
func parseNode(b []byte) (*node, error) {
	le := binary.LittleEndian
	count := le.Uint32(b[96:])
	n := &node{data: b, level: b[100], generation: le.Uint64(b[80:])}
	if n.level > maxLevel {
		return nil, fmt.Errorf("is at level %d", n.level)
	}
	if uint64(count)*uint64(n.entrySize()) > uint64(len(b)-headerSize) {
		return nil, fmt.Errorf("has %d entries", count)
	}
	n.count = int(count)
	table := headerSize + n.count*itemSize
	for i := range n.count {
		if i > 0 && n.key(i-1).compare(n.key(i)) >= 0 {
			return nil, fmt.Errorf("has %v before %v", n.key(i-1), n.key(i))
		}
		if n.level > 0 {
			continue
		}
		start, end := n.bounds(i)
		if start < uint64(table) || end > uint64(len(b)) {
			return nil, fmt.Errorf("item %v lies at %d to %d", n.key(i), start, end)
		}
	}
	return n, nil
}

func (n *node) entrySize() int {
	if n.level > 0 {
		return ptrSize
	}
	return itemSize
}

func (n *node) key(i int) key { return parseKey(n.data[headerSize+i*n.entrySize():]) }

// bounds says where in a leaf the data of item i lies.
func (n *node) bounds(i int) (start, end uint64) {
	le := binary.LittleEndian
	at := headerSize + i*itemSize + keySize
	start = headerSize + uint64(le.Uint32(n.data[at:]))
	return start, start + uint64(le.Uint32(n.data[at+4:]))
}

// item returns item i of a leaf.
func (n *node) item(i int) item {
	start, end := n.bounds(i)
	return item{n.key(i), n.data[start:end:end]}
}

// child returns the address and the generation of child i of an inner node.
func (n *node) child(i int) (block, generation uint64) {
	le := binary.LittleEndian
	at := headerSize + i*ptrSize + keySize
	return le.Uint64(n.data[at:]), le.Uint64(n.data[at+8:])
}

// search returns the index of the first entry whose key is not below k.
func (n *node) search(k key) int {
	return sort.Search(n.count, func(i int) bool { return n.key(i).compare(k) >= 0 })
}

// last returns the index of the last entry whose key is not above k, -1 if
// there is none.
func (n *node) last(k key) int {
	return sort.Search(n.count, func(i int) bool { return n.key(i).compare(k) > 0 }) - 1
}
