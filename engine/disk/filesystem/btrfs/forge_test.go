package btrfs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"testing"
)

const (
	forgedNode = 4096
	forgedSize = 1 << 20
)

// forge makes metadata blocks that no mkfs would. Logical addresses are
// offsets in the image, and there are no checksums.
type forge struct {
	image []byte
	next  uint64
}

// pointer is an entry of an inner block.
type pointer struct {
	key               key
	block, generation uint64
}

func newForge() *forge { return &forge{image: make([]byte, forgedSize), next: 64 << 10} }

// block makes room for one.
func (f *forge) block() uint64 {
	f.next += forgedNode
	return f.next - forgedNode
}

func (f *forge) head(at uint64, level uint8, count int, generation uint64) []byte {
	b := f.image[at : at+forgedNode]
	le := binary.LittleEndian
	le.PutUint64(b[48:], at)
	le.PutUint64(b[80:], generation)
	le.PutUint32(b[96:], uint32(count))
	b[100] = level
	return b
}

func putKey(b []byte, k key) {
	le := binary.LittleEndian
	le.PutUint64(b, k.object)
	b[8] = k.kind
	le.PutUint64(b[9:], k.offset)
}

// leaf makes a leaf of generation 1.
func (f *forge) leaf(items ...item) uint64 {
	at := f.block()
	b, end := f.head(at, 0, len(items), 1), forgedNode
	for i, it := range items {
		end -= len(it.data)
		copy(b[end:], it.data)
		entry := b[headerSize+i*itemSize:]
		putKey(entry, it.key)
		binary.LittleEndian.PutUint32(entry[keySize:], uint32(end-headerSize))
		binary.LittleEndian.PutUint32(entry[keySize+4:], uint32(len(it.data)))
	}
	return at
}

// inner makes an inner block at the place at, of generation 1.
func (f *forge) inner(at uint64, level uint8, pointers ...pointer) uint64 {
	b := f.head(at, level, len(pointers), 1)
	for i, p := range pointers {
		entry := b[headerSize+i*ptrSize:]
		putKey(entry, p.key)
		binary.LittleEndian.PutUint64(entry[keySize:], p.block)
		binary.LittleEndian.PutUint64(entry[keySize+8:], p.generation)
	}
	return at
}

// forest reads what was made.
func (f *forge) forest() *forest {
	return &forest{
		super: &super{nodeSize: forgedNode, sectorSize: 4096}, device: device{bytes.NewReader(f.image), forgedSize},
		chunks: []chunk{{length: forgedSize}}, blocks: newCache(forgedNode),
	}
}

// files is a view of a tree of files with these items.
func (f *forge) files(items ...item) *FileSystem {
	slices.SortFunc(items, func(a, b item) int { return a.key.compare(b.key) })
	roots := []item{{key{fsTree, kindRoot, 0}, rootItem(f.leaf(items...))}}
	return f.volumes(roots...)
}

// volumes is a view of a root tree with these items.
func (f *forge) volumes(items ...item) *FileSystem {
	slices.SortFunc(items, func(a, b item) int { return a.key.compare(b.key) })
	t := f.forest()
	t.super.root = tree{id: rootTree, block: f.leaf(items...), generation: 1}
	return &FileSystem{volumes: &volumes{forest: t}}
}

func rootItem(block uint64) []byte {
	b := make([]byte, 439)
	le := binary.LittleEndian
	le.PutUint64(b[160:], 1)
	le.PutUint64(b[168:], firstFree)
	le.PutUint64(b[176:], block)
	le.PutUint32(b[216:], 1)
	return b
}

func inodeItem(mode uint32, size uint64) []byte {
	b := make([]byte, 160)
	binary.LittleEndian.PutUint64(b[16:], size)
	binary.LittleEndian.PutUint32(b[52:], mode)
	return b
}

// rootRef is the data of a reference between a subvolume and its directory.
func rootRef(dir uint64, name string) []byte {
	b := make([]byte, 18+len(name))
	binary.LittleEndian.PutUint64(b, dir)
	binary.LittleEndian.PutUint16(b[16:], uint16(len(name)))
	copy(b[18:], name)
	return b
}

func inodeRef(name string) []byte {
	b := make([]byte, 10+len(name))
	binary.LittleEndian.PutUint16(b[8:], uint16(len(name)))
	copy(b[10:], name)
	return b
}

func dirEntry(location key, name, value string) []byte {
	b := make([]byte, 30)
	putKey(b, location)
	binary.LittleEndian.PutUint16(b[25:], uint16(len(value)))
	binary.LittleEndian.PutUint16(b[27:], uint16(len(name)))
	return append(append(b, name...), value...)
}

// forgedExtent is the data of an extent item.
type forgedExtent struct {
	whole                       uint64
	compression, encryption     uint8
	kind                        uint8
	block, size, offset, length uint64
}

func (e forgedExtent) data() []byte {
	b := make([]byte, 53)
	le := binary.LittleEndian
	le.PutUint64(b[8:], e.whole)
	b[16], b[17], b[20] = e.compression, e.encryption, e.kind
	for i, n := range []uint64{e.block, e.size, e.offset, e.length} {
		le.PutUint64(b[21+8*i:], n)
	}
	return b
}

func TestForge(t *testing.T) {
	f := newForge()
	a := f.leaf(item{key{1, 1, 1}, []byte("a")}, item{key{1, 2, 0}, []byte("bc")})
	b := f.leaf(item{key{2, 0, 0}, nil}, item{key{9, 9, 9}, []byte("d")})
	tr := tree{id: 7, level: 1, generation: 1, block: f.inner(f.block(), 1, pointer{key{1, 1, 1}, a, 1}, pointer{key{2, 0, 0}, b, 1})}
	s := f.forest()
	for _, c := range []struct {
		k           key
		from, until string
	}{
		{key{}, "a", ""},
		{key{1, 1, 1}, "a", "a"},
		{key{1, 1, 2}, "bc", "a"},
		{key{1, 255, 0}, "", "bc"},
		{key{3, 0, 0}, "d", ""},
		{key{10, 0, 0}, "-", "d"},
	} {
		it, found, err := s.seek(tr, c.k)
		if got := cmp.Or(string(it.data), map[bool]string{false: "-"}[found]); got != c.from || err != nil {
			t.Errorf("%v: from %q, %v", c.k, got, err)
		}
		it, found, err = s.floor(tr, c.k)
		if got := string(it.data); got != c.until || err != nil || found != (c.k.compare(key{1, 1, 1}) >= 0) {
			t.Errorf("%v: until %q, %v, %v", c.k, got, found, err)
		}
	}
}
