package btrfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// maxCompressed is the most that a compressed extent has, before and after.
const maxCompressed = 128 << 10

// file implements filesystem.File.
type file struct {
	*volumes
	inode inode
}

// Open implements filesystem.FileSystem.
func (s *FileSystem) Open(n filesystem.Node) (filesystem.File, error) {
	i, err := s.typed(n, formatRegular, "regular file")
	if err != nil {
		return nil, err
	}
	return &file{s.volumes, i}, nil
}

// extent is a part of a file.
type extent struct {
	start, end int64 // in the file
	// hole says that it reads as zeros.
	hole        bool
	compression compression
	// inline is the content, where the tree itself holds it.
	inline []byte
	// block and size say which part of the logical address space it is a part
	// of, and offset where it begins within; if it is compressed, within the
	// whole bytes that it expands to.
	block, size, offset, whole uint64
}

// parseExtent reads an extent item.
func (f *file) parseExtent(it item) (extent, error) {
	const inlineHead, size = 21, 53
	le, b := binary.LittleEndian, it.data
	bad := func(format string, args ...any) (extent, error) {
		return extent{}, corrupt("%v: extent at %d: %s", f.inode, it.key.offset, fmt.Sprintf(format, args...))
	}
	if len(b) < inlineHead || it.key.offset > math.MaxInt64 {
		return bad("has %d bytes", len(b))
	}
	if b[17] != 0 || b[18] != 0 || b[19] != 0 {
		return extent{}, unsupported("%v: extent at %d: encryption or an encoding", f.inode, it.key.offset)
	}
	e := extent{start: int64(it.key.offset), whole: le.Uint64(b[8:]), compression: compression(b[16])}
	if !e.compression.known() {
		return extent{}, unsupported("%v: extent at %d: compression of type %d", f.inode, e.start, e.compression)
	}
	if e.compression != compressNone && e.whole > maxCompressed {
		return bad("expands to %d bytes", e.whole)
	}
	length := e.whole
	switch kind := b[20]; kind {
	case 0:
		e.inline = b[inlineHead:]
		if e.compression == compressNone {
			length = uint64(len(e.inline)) // the item's own size is what counts
		}
	case 1, 2:
		if len(b) < size {
			return bad("has %d bytes", len(b))
		}
		e.block, e.size, e.offset, length = le.Uint64(b[21:]), le.Uint64(b[29:]), le.Uint64(b[37:]), le.Uint64(b[45:])
		e.hole = kind == 2 || e.block == 0
		whole := e.size
		if e.compression != compressNone {
			whole = e.whole
		}
		if !e.hole && (e.offset > whole || length > whole-e.offset) {
			return bad("%d bytes at %d of %d", length, e.offset, whole)
		}
		if !e.hole && e.compression != compressNone && e.size > maxCompressed {
			return bad("has %d compressed bytes", e.size)
		}
	default:
		return extent{}, unsupported("%v: extent at %d: of type %d", f.inode, e.start, kind)
	}
	if length > uint64(math.MaxInt64-e.start) {
		return bad("has a length of %d", length)
	}
	e.end = e.start + int64(length)
	return e, nil
}

// at returns the extent that holds offset, or the hole from there to the next.
func (f *file) at(offset int64) (extent, error) {
	k := key{f.inode.number, kindExtent, uint64(offset)}
	it, found, err := f.floor(f.inode.volume.tree, k)
	if err != nil {
		return extent{}, err
	}
	if found && it.key.object == k.object && it.key.kind == k.kind {
		e, err := f.parseExtent(it)
		if err != nil || offset < e.end {
			return e, err
		}
	}
	hole := extent{start: offset, end: f.inode.attr.Size, hole: true}
	k.offset++
	it, found, err = f.seek(f.inode.volume.tree, k)
	if err != nil {
		return extent{}, err
	}
	if found && it.key.object == k.object && it.key.kind == k.kind && it.key.offset < uint64(hole.end) {
		hole.end = int64(it.key.offset)
	}
	return hole, nil
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("btrfs: %v: read at %d: %w", f.inode, offset, errdefs.ErrInvalid)
	}
	if offset >= f.inode.attr.Size {
		return 0, io.EOF
	}
	var end error
	if rest := f.inode.attr.Size - offset; int64(len(p)) >= rest {
		p = p[:rest]
		end = io.EOF
	}
	for n := 0; n < len(p); {
		e, err := f.at(offset + int64(n))
		if err != nil {
			return n, err
		}
		part := p[n:]
		if left := e.end - offset - int64(n); int64(len(part)) > left {
			part = part[:left]
		}
		if err := f.read(part, e, offset+int64(n)-e.start); err != nil {
			return n, fmt.Errorf("%v: extent at %d: %w", f.inode, e.start, err)
		}
		n += len(part)
	}
	return len(p), end
}

// read fills p from e, beginning at the offset into it. All of it is within.
func (f *file) read(p []byte, e extent, into int64) error {
	from := e.offset + uint64(into)
	switch {
	case e.hole:
		clear(p)
		return nil
	case e.compression != compressNone:
		whole, err := f.expand(e)
		if err == nil {
			copy(p, whole[from:])
		}
		return err
	case e.inline != nil:
		copy(p, e.inline[into:])
		return nil
	}
	return f.readData(p, e.block+from)
}

// extentCache keeps the extent that was expanded last: whoever reads a file in
// small pieces needs each several times.
type extentCache struct {
	of        extent
	in, whole [maxCompressed]byte
}

// expand returns the content of a compressed extent, e.whole bytes, which stay
// valid until the next call.
func (v *volumes) expand(e extent) ([]byte, error) {
	c := &v.cache
	whole, in := c.whole[:e.whole], e.inline
	if in == nil {
		if c.of.block == e.block && c.of.size == e.size && c.of.compression == e.compression && c.of.whole == e.whole {
			return whole, nil
		}
		in = c.in[:e.size]
		if err := v.readData(in, e.block); err != nil {
			return nil, err
		}
	}
	c.of = extent{}
	clear(whole)
	if err := v.expander.expand(e.compression, whole, in, int(v.super.sectorSize)); err != nil {
		return nil, err
	}
	if e.inline == nil {
		c.of = e
	}
	return whole, nil
}

// Segments implements filesystem.File. What was allocated and never written is
// a hole; neighbours are joined.
func (f *file) Segments(visit func(offset, length int64) error) error {
	size := f.inode.attr.Size
	var start, end, last int64 // the segment so far, and the end of the extents so far
	report := func() error {
		if start >= min(end, size) {
			return nil
		}
		return visit(start, min(end, size)-start)
	}
	err := f.each(f.inode.volume.tree, f.inode.number, kindExtent, func(it item) error {
		e, err := f.parseExtent(it)
		switch {
		case err != nil:
			return err
		case e.start < last:
			return corrupt("%v: extent at %d: overlaps the one before", f.inode, e.start)
		}
		last = e.end
		switch {
		case e.hole:
			return nil
		case e.start == end:
			end = e.end
			return nil
		}
		err = report()
		start, end = e.start, e.end
		return err
	})
	if err != nil {
		return err
	}
	return report()
}
