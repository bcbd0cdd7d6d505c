package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// The trees and objects with fixed numbers.
const (
	rootTree  = 1
	chunkTree = 3
	fsTree    = 5
	// firstFree and lastFree bound the numbers of subvolumes and inodes.
	firstFree = 256
	lastFree  = math.MaxUint64 - 255
)

// tree is where the root of a B-tree is.
type tree struct {
	id         uint64
	block      uint64
	level      uint8
	generation uint64
}

// forest reads the trees of a file system.
type forest struct {
	super  *super
	device device
	// chunks is sorted by logical address; the chunks do not overlap.
	chunks []chunk
	blocks *cache
	verify bool
}

// node returns the block at a logical address of the tree t. Its content is
// verified as far as it goes without knowing where it hangs.
func (f *forest) node(t tree, block uint64) (*node, error) {
	if n := f.blocks.get(block); n != nil {
		return n, nil
	}
	at, err := f.locate(block, uint64(f.super.nodeSize))
	if err != nil {
		return nil, fmt.Errorf("tree %d: block %d: %w", t.id, block, err)
	}
	var first error
	for i, offset := range at {
		if i > 0 && offset == at[0] {
			break
		}
		n, err := f.readNode(t, block, offset)
		if err == nil {
			f.blocks.add(block, n)
			return n, nil
		}
		if first == nil || !errors.Is(err, errdefs.ErrCorrupt) {
			first = err
		}
	}
	return nil, first
}

// readNode reads and verifies one copy of a block.
func (f *forest) readNode(t tree, block uint64, offset int64) (*node, error) {
	b := make([]byte, f.super.nodeSize)
	if err := f.device.read(b, offset); err != nil {
		return nil, err
	}
	switch {
	case f.verify && !f.super.checksum.matches(b):
		return nil, corrupt("tree %d: block %d: checksum", t.id, block)
	case [16]byte(b[32:]) != f.super.metadataID:
		return nil, corrupt("tree %d: block %d: belongs to another file system", t.id, block)
	case binary.LittleEndian.Uint64(b[48:]) != block:
		return nil, corrupt("tree %d: block %d: says that it is %d", t.id, block, binary.LittleEndian.Uint64(b[48:]))
	}
	n, err := parseNode(b)
	if err != nil {
		return nil, corrupt("tree %d: block %d: %v", t.id, block, err)
	}
	return n, nil
}

// span is what the block above promises of a block: the first key, and the key
// that all are below, where there is one.
type span struct {
	first, limit     key
	bounded, limited bool
}

// leaf goes down from the root of t to the leaf that would hold k, and returns
// it with its span. Every step is verified against the block above.
func (f *forest) leaf(t tree, k key) (*node, span, error) {
	var s span
	block, generation := t.block, t.generation
	for level := int(t.level); ; level-- {
		n, err := f.node(t, block)
		if err != nil {
			return nil, s, err
		}
		switch {
		case int(n.level) != level:
			return nil, s, corrupt("tree %d: block %d: is at level %d, not %d", t.id, block, n.level, level)
		case n.generation != generation:
			return nil, s, corrupt("tree %d: block %d: is of generation %d, not %d", t.id, block, n.generation, generation)
		case n.count == 0 && (s.bounded || level > 0):
			return nil, s, corrupt("tree %d: block %d: is empty", t.id, block)
		case s.bounded && n.key(0) != s.first:
			return nil, s, corrupt("tree %d: block %d: begins with %v, not %v", t.id, block, n.key(0), s.first)
		case s.limited && n.key(n.count-1).compare(s.limit) >= 0:
			return nil, s, corrupt("tree %d: block %d: ends with %v, beyond %v", t.id, block, n.key(n.count-1), s.limit)
		case level == 0:
			return n, s, nil
		}
		i := max(n.last(k), 0)
		s.first, s.bounded = n.key(i), true
		if i+1 < n.count {
			s.limit, s.limited = n.key(i+1), true
		}
		block, generation = n.child(i)
	}
}

// seek returns the first item of t whose key is not below k; found is false if
// there is none.
func (f *forest) seek(t tree, k key) (it item, found bool, err error) {
	for {
		n, s, err := f.leaf(t, k)
		if err != nil {
			return item{}, false, err
		}
		if i := n.search(k); i < n.count {
			return n.item(i), true, nil
		}
		if !s.limited {
			return item{}, false, nil
		}
		k = s.limit // the first key of the next leaf
	}
}

// floor returns the last item of t whose key is not above k; found is false if
// there is none.
func (f *forest) floor(t tree, k key) (it item, found bool, err error) {
	n, _, err := f.leaf(t, k)
	if err != nil {
		return item{}, false, err
	}
	if i := n.last(k); i >= 0 {
		return n.item(i), true, nil
	}
	return item{}, false, nil
}

// get returns the data of the item with the key k; found is false if there is
// none.
func (f *forest) get(t tree, k key) (data []byte, found bool, err error) {
	it, found, err := f.floor(t, k)
	return it.data, found && it.key == k, err
}

// each calls visit for the items of one object and kind in the order of their
// offsets. An error of visit ends it and is returned as it is. Between two
// calls no block is held but those in the cache.
func (f *forest) each(t tree, object uint64, kind uint8, visit func(item) error) error {
	for k := (key{object, kind, 0}); ; k.offset++ {
		it, found, err := f.seek(t, k)
		if err != nil {
			return err
		}
		if !found || it.key.object != object || it.key.kind != kind {
			return nil
		}
		k = it.key
		if err := visit(it); err != nil {
			return err
		}
		if k.offset == math.MaxUint64 {
			return nil
		}
	}
}
