package qcow2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Segments finds the parts of a disk that hold data: the first that ends behind
// the byte from. io.EOF if there is none.
type Segments func(from int64) (start, end int64, err error)

// What is written: version 3 with clusters of 64 KiB and reference counts of 16
// bits. A second table, and a block of counts, is one cluster.
const (
	writtenBits    = 16
	writtenCluster = 1 << writtenBits
	writtenL2      = writtenCluster / 8
	writtenCounts  = writtenCluster / 2
	copied         = 1 << 63
)

// Writer writes one disk as an image, from its first byte to its last.
type Writer struct {
	r    io.ReaderAt
	size int64
	// data has a bit for each cluster of the disk that holds anything.
	data     []byte
	clusters int64 // with data
	tables   int64 // second tables
	layout
}

// layout is where the parts of an image begin, in clusters.
type layout struct{ refTable, refBlocks, l1, l2, first, end int64 }

// NewWriter looks at the disk in r, size bytes long, which has to stay readable
// and unchanged. Nothing but what segments finds is read. errdefs.ErrInvalid:
// the disk is larger than QEMU takes.
func NewWriter(r io.ReaderAt, size int64, segments Segments) (*Writer, error) {
	w := &Writer{r: r, size: size}
	total := (size + writtenCluster - 1) / writtenCluster
	if l1 := (total + writtenL2 - 1) / writtenL2; size < 0 || l1 > maxL1 {
		return nil, fmt.Errorf("write qcow2: a disk of %d bytes: %w", size, errdefs.ErrInvalid)
	}
	w.data = make([]byte, (total+7)/8)
	for at := int64(0); at < size; {
		start, end, err := segments(at)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("write qcow2: find data behind %d: %w", at, err)
		}
		if start < 0 || end <= at || end <= start {
			return nil, fmt.Errorf("write qcow2: data from %d to %d: %w", start, end, errdefs.ErrInvalid)
		}
		for c := start / writtenCluster; c < total && c*writtenCluster < end; c++ {
			w.data[c/8] |= 1 << (c % 8)
		}
		at = end
	}
	table := int64(-1)
	for c := range total {
		if !w.has(c) {
			continue
		}
		w.clusters++
		if c/writtenL2 != table {
			table = c / writtenL2
			w.tables++
		}
	}
	w.place(total)
	return w, nil
}

func (w *Writer) has(c int64) bool { return w.data[c/8]&(1<<(c%8)) != 0 }

func (w *Writer) place(total int64) {
	up := func(n, by int64) int64 { return (n + by - 1) / by }
	l1 := up(up(total, writtenL2), writtenL2)
	blocks, table := int64(1), int64(1)
	for {
		w.layout = layout{refTable: 1, refBlocks: 1 + table, l1: 1 + table + blocks}
		w.l2 = w.l1 + l1
		w.first = w.l2 + w.tables
		w.end = w.first + w.clusters
		if up(w.end, writtenCounts) <= blocks && up(blocks, writtenL2) <= table {
			return
		}
		blocks = up(w.end, writtenCounts)
		table = up(blocks, writtenL2)
	}
}

// Size is how long the image becomes, in bytes.
func (w *Writer) Size() int64 { return w.end * writtenCluster }

// Write writes the image. errdefs.ErrAborted when ctx ends; errors of the disk and
// of to are wrapped.
func (w *Writer) Write(ctx context.Context, to io.Writer) error {
	steps := []func(io.Writer) error{w.writeHeader, w.writeCounts, w.writeL1, w.writeL2}
	for _, step := range steps {
		if err := step(to); err != nil {
			return fmt.Errorf("write qcow2: %w", err)
		}
	}
	buf := make([]byte, writtenCluster)
	for c := int64(0); c*writtenCluster < w.size; c++ {
		if !w.has(c) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("write qcow2: %w: %w", errdefs.ErrAborted, err)
		}
		n := int(min(writtenCluster, w.size-c*writtenCluster))
		if k, err := w.r.ReadAt(buf[:n], c*writtenCluster); k < n {
			return fmt.Errorf("write qcow2: read disk at %d: %w", c*writtenCluster, err)
		}
		clear(buf[n:])
		if _, err := to.Write(buf); err != nil {
			return fmt.Errorf("write qcow2: %w", err)
		}
	}
	return nil
}

func (w *Writer) writeHeader(to io.Writer) error {
	b, be := make([]byte, writtenCluster), binary.BigEndian
	copy(b, Magic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], writtenBits)
	be.PutUint64(b[24:], uint64(w.size+511)&^511)
	be.PutUint32(b[36:], uint32((w.size+writtenCluster*writtenL2-1)/(writtenCluster*writtenL2)))
	be.PutUint64(b[40:], uint64(w.l1*writtenCluster))
	be.PutUint64(b[48:], uint64(w.refTable*writtenCluster))
	be.PutUint32(b[56:], uint32(w.refBlocks-w.refTable))
	be.PutUint32(b[96:], 4) // counts of 2^4 bits
	be.PutUint32(b[100:], headerV3)
	_, err := to.Write(b)
	return err
}

// writeCounts writes the table of reference counts and its blocks: each cluster
// of the image is used once.
func (w *Writer) writeCounts(to io.Writer) error {
	table, be := make([]byte, (w.refBlocks-w.refTable)*writtenCluster), binary.BigEndian
	blocks := w.l1 - w.refBlocks
	for i := range blocks {
		be.PutUint64(table[i*8:], uint64((w.refBlocks+i)*writtenCluster))
	}
	if _, err := to.Write(table); err != nil {
		return err
	}
	for i := range blocks {
		b := make([]byte, writtenCluster)
		for c := range min(writtenCounts, max(0, w.end-i*writtenCounts)) {
			b[2*c+1] = 1
		}
		if _, err := to.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) writeL1(to io.Writer) error {
	b, next := make([]byte, (w.l2-w.l1)*writtenCluster), w.l2
	for c := int64(0); c*writtenCluster < w.size; c++ {
		if i := c / writtenL2 * 8; w.has(c) && binary.BigEndian.Uint64(b[i:]) == 0 {
			binary.BigEndian.PutUint64(b[i:], uint64(next*writtenCluster)|copied)
			next++
		}
	}
	_, err := to.Write(b)
	return err
}

func (w *Writer) writeL2(to io.Writer) error {
	b, any, next := make([]byte, writtenCluster), false, w.first
	total := (w.size + writtenCluster - 1) / writtenCluster
	for c := range total {
		if w.has(c) {
			binary.BigEndian.PutUint64(b[c%writtenL2*8:], uint64(next*writtenCluster)|copied)
			any = true
			next++
		}
		if c%writtenL2 != writtenL2-1 && c != total-1 || !any {
			continue
		}
		if _, err := to.Write(b); err != nil {
			return err
		}
		clear(b)
		any = false
	}
	return nil
}
