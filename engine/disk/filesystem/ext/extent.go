package ext

import (
	"errors"
	"fmt"
	"math"
)

// run is a part of a file that lies in one piece on the disk.
type run struct {
	logical, count, physical uint64 // in blocks
	// unwritten ones are allocated and read as zeros.
	unwritten bool
}

func (r run) end() uint64 { return r.logical + r.count }

// runs calls visit for the runs of an inode that end behind the block from, in
// ascending order. An error of visit ends it and is returned as it is.
func (f *fileSystem) runs(n *inode, from uint64, visit func(run) error) error {
	var err error
	if n.has(flagExtents) {
		w := &extentWalk{f: f, n: n, from: from, visit: visit}
		err = w.node(n.area(), -1, 0, math.MaxUint32+1)
	} else {
		w := &mapWalk{f: f, from: from, visit: visit, end: (uint64(n.size) + uint64(f.blockSize) - 1) / uint64(f.blockSize)}
		err = w.walk(n.area())
	}
	if v, ok := errors.AsType[*visitError](err); ok {
		return v.error
	}
	if err != nil {
		return fmt.Errorf("inode %d: %w", n.number, err)
	}
	return nil
}

// visitError is one of the caller's own.
type visitError struct{ error }

// extentWalk goes through an extent tree.
type extentWalk struct {
	f     *fileSystem
	n     *inode
	from  uint64
	visit func(run) error
	total uint64
}

const (
	extentMagic    = 0xf30a
	extentDepth    = 5
	extentWritten  = 32768 // longer ones are unwritten
	extentEntryLen = 12
)

// node reads a node of the tree whose entries are about the blocks from lo to
// hi. above is the depth that the node above says it has, -1 at the root. As
// each entry is of other blocks than the one before, the walk ends even if
// nodes are shared.
func (w *extentWalk) node(b []byte, above int, lo, hi uint64) error {
	entries, most, depth := int(le16(b, 2)), int(le16(b, 4)), int(le16(b, 6))
	switch {
	case le16(b, 0) != extentMagic || entries > most || most > len(b)/extentEntryLen-1:
		return corrupt("extent node has a bad header")
	case above < 0 && depth > extentDepth || above >= 0 && depth != above-1:
		return corrupt("extent node has depth %d below one of %d", depth, above)
	case above >= 0 && entries == 0:
		return corrupt("extent node is empty")
	}
	if tail := extentEntryLen * (most + 1); above >= 0 && w.f.sums() && len(b) >= tail+4 && checksum(w.n.seed, b[:tail]) != le32(b, tail) {
		return corrupt("extent node: checksum differs")
	}
	for i := range entries {
		e := b[extentEntryLen*(i+1):]
		start, end := uint64(le32(e, 0)), hi
		if i+1 < entries {
			end = uint64(le32(e, extentEntryLen))
		}
		if start < lo || start >= end || end > hi {
			return corrupt("extent at block %d is outside of %d to %d, or not in order", start, lo, hi)
		}
		if err := w.entry(e, depth, start, end); err != nil {
			return err
		}
		lo = start
	}
	return nil
}

// entry reads an entry about blocks from start, none beyond end.
func (w *extentWalk) entry(e []byte, depth int, start, end uint64) error {
	if depth > 0 {
		if end <= w.from {
			return nil
		}
		child := uint64(le32(e, 4)) | uint64(le16(e, 8))<<32
		b, err := w.f.disk.block(child)
		if err == nil {
			err = w.node(b, depth, start, end)
		}
		return err
	}
	r := run{logical: start, count: uint64(le16(e, 4)), physical: uint64(le16(e, 6))<<32 | uint64(le32(e, 8))}
	if r.count > extentWritten {
		r.count, r.unwritten = r.count-extentWritten, true
	}
	if r.count == 0 || r.end() > end {
		return corrupt("extent of %d blocks at block %d runs into the one at %d", r.count, start, end)
	}
	if err := w.f.claim(&w.total, r); err != nil {
		return err
	}
	if r.end() <= w.from {
		return nil
	}
	if err := w.visit(r); err != nil {
		return &visitError{err}
	}
	return nil
}

// sums says whether checksums are to be verified.
func (f *fileSystem) sums() bool { return f.check && f.roCompat&roCompatMetadataCsum != 0 }

// claim checks that a run lies on the disk, and that a file has no more blocks
// than the disk.
func (f *fileSystem) claim(total *uint64, r run) error {
	if r.physical <= f.firstBlock || r.physical >= f.blocks || r.count > f.blocks-r.physical {
		return corrupt("%d blocks at %d are outside of the file system", r.count, r.physical)
	}
	if *total += r.count; *total > f.blocks {
		return corrupt("more blocks than the file system has")
	}
	return nil
}
