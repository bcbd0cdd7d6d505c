package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// TestTrees that lie. Each is looked at from one end to the other.
func TestTrees(t *testing.T) {
	first, second, third := key{1, 1, 0}, key{2, 1, 0}, key{3, 1, 0}
	for want, make := range map[string]func(f *forge) tree{
		"is at level 1, not 0": func(f *forge) tree { // a block that is its own child
			at := f.block()
			return tree{level: 1, block: f.inner(at, 1, pointer{first, at, 1}), generation: 1}
		},
		"is of generation 1, not 2":     func(f *forge) tree { return tree{block: f.leaf(item{key: first}), generation: 2} },
		"is of generation 1, not 99":    func(f *forge) tree { return above(f, pointer{first, f.leaf(item{key: first}), 99}) },
		"begins with (2 1 0)":           func(f *forge) tree { return above(f, pointer{first, f.leaf(item{key: second}), 1}) },
		"is empty":                      func(f *forge) tree { return above(f, pointer{first, f.leaf(), 1}) },
		"has (2 1 0) before (1 1 0)":    func(f *forge) tree { return tree{block: f.leaf(item{key: second}, item{key: first}), generation: 1} },
		"has (1 1 0) before (1 1 0)":    func(f *forge) tree { return tree{block: f.leaf(item{key: first}, item{key: first}), generation: 1} },
		"no chunk holds the address":    func(f *forge) tree { return above(f, pointer{first, 1 << 50, 1}) },
		"go beyond their chunk":         func(f *forge) tree { return above(f, pointer{first, forgedSize - 10, 1}) },
		"no chunk holds the address 18": func(f *forge) tree { return above(f, pointer{first, math.MaxUint64, 1}) },
		"ends with (3 1 0), beyond (2 1 0)": func(f *forge) tree {
			return above(f, pointer{first, f.leaf(item{key: first}, item{key: third}), 1}, pointer{second, f.leaf(item{key: second}), 1})
		},
		"begins with (1 1 0), not (2 1 0)": func(f *forge) tree { // one child twice
			at := f.leaf(item{key: first})
			return above(f, pointer{first, at, 1}, pointer{second, at, 1})
		},
		"says that it is": func(f *forge) tree {
			at := f.leaf(item{key: first})
			binary.LittleEndian.PutUint64(f.image[at+48:], 77)
			return tree{block: at, generation: 1}
		},
		"belongs to another": func(f *forge) tree {
			at := f.leaf(item{key: first})
			f.image[at+32] = 1
			return tree{block: at, generation: 1}
		},
		"is at level 9": func(f *forge) tree {
			at := f.leaf(item{key: first})
			f.image[at+100] = 9
			return tree{block: at, generation: 1}
		},
		"has 4294967295 entries": func(f *forge) tree {
			at := f.leaf(item{key: first})
			binary.LittleEndian.PutUint32(f.image[at+96:], math.MaxUint32)
			return tree{block: at, generation: 1}
		},
		"lies at 101 to 111": func(f *forge) tree { // in the table of items
			at := f.leaf(item{first, []byte("0123456789")})
			binary.LittleEndian.PutUint32(f.image[at+headerSize+keySize:], 0)
			return tree{block: at, generation: 1}
		},
		"to 4294968": func(f *forge) tree {
			at := f.leaf(item{first, []byte("0123456789")})
			binary.LittleEndian.PutUint32(f.image[at+headerSize+keySize+4:], math.MaxUint32-3000)
			return tree{block: at, generation: 1}
		},
	} {
		f := newForge()
		tr := make(f)
		err := walk(f.forest(), tr)
		if !errors.Is(err, errdefs.ErrCorrupt) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// above is a tree of an inner block with these children.
func above(f *forge, children ...pointer) tree {
	return tree{level: 1, block: f.inner(f.block(), 1, children...), generation: 1}
}

// walk visits each item of a tree.
func walk(f *forest, t tree) error {
	for k := (key{}); ; k.offset++ {
		it, found, err := f.seek(t, k)
		if err != nil || !found {
			return err
		}
		k = it.key
	}
}

func TestChunks(t *testing.T) {
	le := binary.LittleEndian
	data := func(stripes uint16, length, profile uint64) []byte {
		b := make([]byte, chunkHead+chunkStripe*int(min(stripes, 4)))
		le.PutUint64(b, length)
		le.PutUint64(b[24:], profile)
		le.PutUint16(b[44:], stripes)
		return b
	}
	far := data(1, 100, 0)
	le.PutUint64(far[chunkHead+8:], math.MaxUint64)
	for name, c := range map[string]struct {
		k    key
		data []byte
	}{
		"kind":       {key{chunkObject, 1, 0}, data(1, 100, 0)},
		"object":     {key{1, kindChunk, 0}, data(1, 100, 0)},
		"short":      {key{chunkObject, kindChunk, 0}, data(1, 100, 0)[:40]},
		"no stripes": {key{chunkObject, kindChunk, 0}, data(0, 100, 0)},
		"stripes":    {key{chunkObject, kindChunk, 0}, data(65535, 100, 0)},
		"length":     {key{chunkObject, kindChunk, 0}, data(1, 0, 0)},
		"end":        {key{chunkObject, kindChunk, math.MaxInt64 - 50}, data(1, 100, 0)},
		"far":        {key{chunkObject, kindChunk, 0}, far},
		"dup":        {key{chunkObject, kindChunk, 0}, data(1, 100, profileDUP)},
		"single":     {key{chunkObject, kindChunk, 0}, data(2, 100, 0)},
	} {
		if _, _, err := (&super{}).parseChunk(c.k, c.data); !errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := (&super{}).parseChunk(key{chunkObject, kindChunk, 0}, data(2, 100, 1<<4)); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Error(err)
	}
	f := newForge()
	s := f.forest()
	s.chunks = nil
	s.super.systemChunks = append(keyBytes(key{chunkObject, kindChunk, 0}), data(1, forgedSize, 0)...)
	for _, c := range []struct {
		want  error
		items []uint64
	}{{nil, []uint64{0, 100, 300}}, {errdefs.ErrCorrupt, []uint64{0, 99}}} {
		var list []item
		for _, at := range c.items {
			list = append(list, item{key{chunkObject, kindChunk, at}, data(1, 100, 0)})
		}
		s.chunks, s.super.chunk = nil, tree{id: chunkTree, block: f.leaf(list...), generation: 1}
		if err := s.loadChunks(); !errors.Is(err, c.want) || c.want == nil && len(s.chunks) != len(c.items) {
			t.Errorf("%v: %d chunks, %v", c.items, len(s.chunks), err)
		}
	}
	s.super.systemChunks = s.super.systemChunks[:30]
	if err := s.loadChunks(); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Error(err)
	}
}

func keyBytes(k key) []byte {
	b := make([]byte, keySize)
	putKey(b, k)
	return b
}

// TestExtents that lie: reading ends, with an error where it has to.
func TestExtents(t *testing.T) {
	const ino, size = 300, 1 << 20
	good := forgedExtent{whole: 8192, kind: 1, block: 512 << 10, size: 8192, length: 8192}
	with := func(change func(e *forgedExtent)) forgedExtent {
		e := good
		change(&e)
		return e
	}
	corrupt, unsupported := errdefs.ErrCorrupt, errdefs.ErrUnsupported
	for name, c := range map[string]struct {
		want    error
		extents map[uint64]forgedExtent
	}{
		"good":              {nil, map[uint64]forgedExtent{0: good, 8192: good, 16385: good}},
		"beyond its end":    {nil, map[uint64]forgedExtent{size - 100: good}},
		"beyond the file":   {nil, map[uint64]forgedExtent{0: good, size * 4: good}},
		"overlap":           {corrupt, map[uint64]forgedExtent{0: good, 8191: good}},
		"outside of extent": {corrupt, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.offset = 1 })}},
		"offset":            {corrupt, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.offset = math.MaxUint64 })}},
		"length":            {corrupt, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.length, e.block = math.MaxUint64, 0 })}},
		"nowhere":           {corrupt, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.block = 1 << 40 })}},
		"half outside":      {corrupt, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.block = forgedSize - 4096 })}},
		"wraps":             {corrupt, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.block = math.MaxUint64 - 100 })}},
		"at":                {corrupt, map[uint64]forgedExtent{1 << 63: good}},
		"kind":              {unsupported, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.kind = 3 })}},
		"encrypted":         {unsupported, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.encryption = 1 })}},
		"compression":       {unsupported, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.compression = 4 })}},
		"large when expanded": {corrupt, map[uint64]forgedExtent{0: with(func(e *forgedExtent) {
			e.compression, e.whole = 1, maxCompressed+1
		})}},
		"large compressed": {corrupt, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.compression, e.size = 3, maxCompressed+1 })}},
		"not zlib":         {corrupt, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.compression = 1 })}},
		"not LZO":          {corrupt, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.compression = 2 })}},
		"not zstd":         {corrupt, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.compression = 3 })}},
		"empty":            {nil, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.length = 0 }), 1: good}},
		"reserved":         {nil, map[uint64]forgedExtent{0: with(func(e *forgedExtent) { e.kind, e.block = 2, 1<<40 })}},
	} {
		f := newForge()
		items := []item{{key{ino, kindInode, 0}, inodeItem(0o100644, size)}}
		for at, e := range c.extents {
			items = append(items, item{key{ino, kindExtent, at}, e.data()})
		}
		file, err := f.files(items...).Open(filesystem.Node{Volume: fsTree, Inode: ino})
		if err != nil {
			t.Fatal(err)
		}
		end := int64(0)
		err = file.Segments(func(offset, length int64) error {
			if offset < end || length <= 0 || length > size-offset {
				t.Errorf("%s: segment %d+%d", name, offset, length)
			}
			end = offset + length
			return nil
		})
		n, rerr := io.Copy(io.Discard, io.NewSectionReader(file, 0, size))
		if err = errors.Join(err, rerr); !errors.Is(err, c.want) || c.want == nil && (err != nil || n != size) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}

// TestInodes that lie.
func TestInodes(t *testing.T) {
	node := filesystem.Node{Volume: fsTree, Inode: 300}
	at := func(kind uint8, offset uint64) key { return key{300, kind, offset} }
	inner := key{301, kindInode, 0}
	for name, c := range map[string]struct {
		mode uint32
		size uint64
		item
	}{
		"size":                   {0o100644, 1 << 63, item{}},
		"link without length":    {0o120777, 0, item{}},
		"link too long":          {0o120777, 4096, item{}},
		"link elsewhere":         {0o120777, 10, item{at(kindExtent, 0), forgedExtent{kind: 1, block: 1 << 50, size: 4096, length: 4096}.data()}},
		"entry cut off":          {0o040755, 0, item{at(kindDirIndex, 2), dirEntry(inner, "name", "")[:33]}},
		"entry with a tail":      {0o040755, 0, item{at(kindDirIndex, 2), append(dirEntry(inner, "name", ""), 0)}},
		"entry of another kind":  {0o040755, 0, item{at(kindDirIndex, 2), dirEntry(key{301, kindExtent, 0}, "name", "")}},
		"entry of a low number":  {0o040755, 0, item{at(kindDirIndex, 2), dirEntry(key{1, kindInode, 0}, "name", "")}},
		"entry of another tree":  {0o040755, 0, item{at(kindDirIndex, 2), dirEntry(key{2, kindRoot, 0}, "name", "")}},
		"attribute cut off":      {0o040755, 0, item{at(kindXattr, 2), dirEntry(key{}, "user.a", "b")[:35]}},
		"second attribute short": {0o040755, 0, item{at(kindXattr, 2), append(dirEntry(key{}, "user.a", "b"), 1, 2, 3)}},
	} {
		items := []item{{key{300, kindInode, 0}, inodeItem(c.mode, c.size)}}
		if c.data != nil {
			items = append(items, c.item)
		}
		s := newForge().files(items...)
		_, serr := s.Stat(node)
		derr := s.ReadDir(node, func(string, filesystem.Node) error { return nil })
		_, lerr := s.Readlink(node)
		_, xerr := s.Xattrs(node)
		if err := errors.Join(serr, derr, lerr, xerr); !errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var many []item
	for i := range uint64(3) {
		many = append(many, item{at(kindXattr, i), dirEntry(key{}, "user.a"+string(rune('0'+i)), strings.Repeat("v", 900))})
	}
	s := newForge().files(append(many, item{key{300, kindInode, 0}, inodeItem(0o100644, 0)})...)
	if x, err := s.Xattrs(node); err != nil || len(x) != 3 {
		t.Errorf("%d attributes, %v", len(x), err)
	}
}

// TestVolumes whose places lead in a circle, or nowhere.
func TestVolumes(t *testing.T) {
	ref := func(child, parent, dir uint64) item {
		return item{key{child, kindBackref, parent}, rootRef(dir, "sub")}
	}
	for want, make := range map[string]func(f *forge) []item{
		"a part of 3 bytes before a path of": func(f *forge) []item { // each inside the other
			a, b := rootItem(f.leaf()), rootItem(f.leaf())
			return []item{{key{256, kindRoot, 0}, a}, {key{257, kindRoot, 0}, b}, ref(256, 257, firstFree), ref(257, 256, firstFree)}
		},
		"a part of 1 bytes before a path of": func(f *forge) []item { // a directory that is its own parent
			loop := rootItem(f.leaf(item{key{300, kindInodeRef, 300}, inodeRef("d")}))
			return []item{{key{fsTree, kindRoot, 0}, loop}, {key{256, kindRoot, 0}, rootItem(f.leaf())}, ref(256, fsTree, 300)}
		},
		"is in no directory": func(f *forge) []item { return []item{{key{256, kindRoot, 0}, rootItem(f.leaf())}} },
		"has no parent": func(f *forge) []item {
			return []item{{key{fsTree, kindRoot, 0}, rootItem(f.leaf())}, {key{256, kindRoot, 0}, rootItem(f.leaf())}, ref(256, fsTree, 300)}
		},
		"is in the subvolume 999": func(f *forge) []item {
			return []item{{key{256, kindRoot, 0}, rootItem(f.leaf())}, ref(256, 999, 300)}
		},
		"its item has 100 bytes": func(*forge) []item { return []item{{key{256, kindRoot, 0}, make([]byte, 100)}} },
		"has 17 bytes": func(f *forge) []item {
			return []item{{key{256, kindRoot, 0}, rootItem(f.leaf())}, {key{256, kindBackref, 5}, make([]byte, 17)}}
		},
		"a tree of 200 levels": func(*forge) []item {
			b := rootItem(0)
			b[238] = 200
			return []item{{key{256, kindRoot, 0}, b}}
		},
	} {
		f := newForge()
		err := f.volumes(make(f)...).Subvolumes(func(Subvolume) error { return nil })
		if !errors.Is(err, errdefs.ErrCorrupt) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestExpand is about what the length of an extent and its content say.
func TestExpand(t *testing.T) {
	text := bytes.Repeat([]byte("twelve bytes"), 20000)
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	_, err := w.Write(text)
	enc, err2 := zstd.NewWriter(nil, zstd.WithWindowSize(maxCompressed))
	wide, err3 := zstd.NewWriter(nil, zstd.WithWindowSize(8<<20), zstd.WithSingleSegment(false))
	if err := errors.Join(err, w.Close(), err2, err3); err != nil {
		t.Fatal(err)
	}
	streams := map[compression][]byte{compressZlib: z.Bytes(), compressZstd: enc.EncodeAll(text[:maxCompressed], nil), compressLZO: lzoOf(text[:maxCompressed])}
	for c, in := range streams {
		var x expander
		for _, n := range []int{0, 1, 4095, 4096, 100000, maxCompressed} {
			out := make([]byte, n)
			if err := x.expand(c, out, append(bytes.Clone(in), make([]byte, 4000)...), 4096); err != nil || !bytes.Equal(out, text[:n]) {
				t.Errorf("%v: %d bytes: %v", c, n, err)
			}
		}
		for tail := range 6 { // the next frame seems to begin, and is cut off
			out := make([]byte, maxCompressed)
			if err := x.expand(c, out, append(bytes.Clone(in), make([]byte, tail)...), 4096); err != nil || !bytes.Equal(out, text[:len(out)]) {
				t.Errorf("%v: %d bytes behind it: %v", c, tail, err)
			}
		}
		for _, n := range []int{0, 1, 5, len(in) / 4} {
			if err := x.expand(c, make([]byte, maxCompressed), in[:n], 4096); !errors.Is(err, errdefs.ErrCorrupt) {
				t.Errorf("%v: %d bytes of %d: %v", c, n, len(in), err)
			}
		}
		out := make([]byte, maxCompressed)
		if err := x.expand(c, out[:100], in, 4096); err != nil || !bytes.Equal(out[:100], text[:100]) {
			t.Errorf("%v: after a failure: %v", c, err)
		}
	}
	z.Reset()
	w.Reset(&z)
	if _, err := w.Write(text[:50]); errors.Join(err, w.Close()) != nil {
		t.Fatal(err)
	}
	for c, in := range map[compression][]byte{compressZlib: z.Bytes(), compressZstd: enc.EncodeAll(text[:50], nil), compressLZO: lzoOf(text[:50])} {
		for _, tail := range []int{0, 1, 2, 3, 4, 500} {
			var x expander
			out := make([]byte, 100)
			if err := x.expand(c, out, append(bytes.Clone(in), make([]byte, tail)...), 4096); err != nil || !bytes.Equal(out, append(text[:50:50], make([]byte, 50)...)) {
				t.Errorf("%v: less than there ought to be, %d bytes behind: %v", c, tail, err)
			}
		}
	}
	var x expander
	if err := x.expand(compressZstd, make([]byte, maxCompressed), wide.EncodeAll(bytes.Repeat(text, 40), nil), 4096); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("a window of 8 MiB: %v", err)
	}
}

// lzoOf is the form that btrfs has for LZO, without any compression.
func lzoOf(text []byte) []byte {
	le := binary.LittleEndian
	out := make([]byte, 4)
	for ; len(text) > 0; text = text[min(len(text), 4096):] {
		piece := lzoLiterals(text[:min(len(text), 4096)])
		if left := 4096 - len(out)%4096; left < 4 {
			out = append(out, make([]byte, left)...)
		}
		out = append(le.AppendUint32(out, uint32(len(piece))), piece...)
	}
	le.PutUint32(out, uint32(len(out)))
	return out
}

// lzoLiterals is a run of literals and the end.
func lzoLiterals(text []byte) []byte {
	var out []byte
	if n := len(text); n < 238 {
		out = append(out, byte(n+17))
	} else {
		out = append(out, 0)
		for n -= 18; n > 255; n -= 255 {
			out = append(out, 0)
		}
		out = append(out, byte(n))
	}
	return append(append(out, text...), 17, 0, 0)
}
