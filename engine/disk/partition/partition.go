// Package partition reads the partition table of a disk: GPT, MBR with extended
// partitions, or none.
//
// A disk is hostile input. Partitions lie within the disk and share no byte with
// one another, or the whole table is errdefs.ErrCorrupt; chains of extended
// partitions end, and memory is bounded. Nothing is read of what is in a
// partition.
//
// Sources of the formats: UEFI specification 2.10, chapter 5; the layout of the
// master boot record as fdisk(8) of util-linux writes it. The package imports
// internal/errdefs of ours.
package partition

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Kind of a partition table.
type Kind string

// The kinds.
const (
	// None: the disk is one file system, or something unknown.
	None Kind = "none"
	GPT  Kind = "GPT"
	MBR  Kind = "MBR"
)

// Table of a disk.
type Table struct {
	Kind Kind
	// Partitions in the order of where they start; extended partitions, which
	// only hold others, are left out.
	Partitions []Partition
}

// Partition is one part of a disk.
type Partition struct {
	// Number as the kernel counts: from 1, logical ones from 5.
	Number int
	// Start and Size in bytes. Size is at least 1.
	Start, Size int64
	// Type is a GUID in lower case, or for MBR two hexadecimal digits with 0x
	// before.
	Type string
	// Name is GPT's label of the partition: any text, of at most 36 units.
	Name string
}

// sector is the unit of MBR, and of GPT on all but disks with sectors of 4096
// bytes.
const sector = 512

// Read reads the table of the disk in r, which is size bytes long. A disk
// without a table is no error. errdefs.ErrCorrupt, with a text for tenants: the
// table contradicts itself or the disk.
func Read(r io.ReaderAt, size int64) (*Table, error) {
	var first [sector]byte
	if size < sector {
		return &Table{Kind: None}, nil
	}
	if err := readFull(r, first[:], 0); err != nil {
		return nil, err
	}
	entries, ok := mbrEntries(first[:])
	if !ok {
		return &Table{Kind: None}, nil
	}
	t := &Table{Kind: MBR}
	var err error
	// as the kernel does, a GPT counts only where the MBR says so: a stale one
	// may be left on any disk
	if slices.ContainsFunc(entries, func(e mbrEntry) bool { return e.kind == mbrProtective }) {
		t.Kind = GPT
		t.Partitions, err = readGPT(r, size)
	} else {
		t.Partitions, err = readMBR(r, size, entries)
	}
	if err != nil {
		return nil, err
	}
	return t, t.check(size)
}

// check sorts the partitions and refuses those that overlap or leave the disk.
func (t *Table) check(size int64) error {
	slices.SortFunc(t.Partitions, func(a, b Partition) int { return cmp.Compare(a.Start, b.Start) })
	var end int64
	before := 0
	for _, p := range t.Partitions {
		switch {
		case p.Start > size || p.Size > size-p.Start:
			return corrupt("partition %d reaches to byte %d of a disk of %d bytes", p.Number, p.Start+p.Size, size)
		case p.Start < end:
			return corrupt("the partitions %d and %d overlap", before, p.Number)
		}
		end, before = p.Start+p.Size, p.Number
	}
	return nil
}

func readFull(r io.ReaderAt, p []byte, off int64) error {
	if n, err := r.ReadAt(p, off); n < len(p) {
		return fmt.Errorf("read partition table at %d: %w", off, err)
	}
	return nil
}

// corrupt makes an error that a tenant may read.
func corrupt(format string, args ...any) error {
	return errdefs.WithPublic(fmt.Errorf("read partition table: %w", errdefs.ErrCorrupt),
		"the partition table of the disk image is damaged: "+fmt.Sprintf(format, args...))
}
