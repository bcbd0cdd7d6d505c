package partition

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	mbrTable      = 446
	mbrEntrySize  = 16
	mbrProtective = 0xee
	maxLogical    = 128
)

// mbrEntry is one of the four entries of a boot record, in sectors.
type mbrEntry struct {
	kind         byte
	start, count int64
}

// used says that the entry describes anything.
func (e mbrEntry) used() bool { return e.kind != 0 && e.count != 0 }

func (e mbrEntry) extended() bool { return e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85 }

// mbrEntries reads the four entries of a boot record. It is none without its
// mark, and the boot sector of a file system is told from it by the first byte
// of an entry, which is 0 or 0x80.
func mbrEntries(record []byte) ([]mbrEntry, bool) {
	if record[510] != 0x55 || record[511] != 0xaa {
		return nil, false
	}
	var out []mbrEntry
	var any bool
	for i := range 4 {
		raw := record[mbrTable+i*mbrEntrySize:]
		if raw[0]&0x7f != 0 {
			return nil, false
		}
		e := mbrEntry{raw[4], int64(binary.LittleEndian.Uint32(raw[8:])), int64(binary.LittleEndian.Uint32(raw[12:]))}
		any = any || e.used()
		out = append(out, e)
	}
	return out, any
}

// readMBR lists the partitions of a boot record and of the chains behind it, on
// a disk of size bytes.
func readMBR(r io.ReaderAt, size int64, entries []mbrEntry) ([]Partition, error) {
	var out []Partition
	logical := 5
	for i, e := range entries {
		switch {
		case !e.used():
		case e.extended():
			list, err := readExtended(r, size, e, logical)
			if err != nil {
				return nil, err
			}
			out, logical = append(out, list...), logical+len(list)
		default:
			out = append(out, e.partition(i+1, 0))
		}
	}
	return out, nil
}

// partition at base, in sectors.
func (e mbrEntry) partition(number int, base int64) Partition {
	return Partition{Number: number, Start: (base + e.start) * sector, Size: e.count * sector, Type: fmt.Sprintf("0x%02x", e.kind)}
}

// readExtended follows the chain of boot records in an extended partition. Each
// holds a partition relative to itself and the place of the next record relative
// to the whole; a record that comes again is an error.
func readExtended(r io.ReaderAt, size int64, whole mbrEntry, number int) ([]Partition, error) {
	var out []Partition
	var record [sector]byte
	seen := map[int64]bool{}
	for at := whole.start; ; {
		switch {
		case seen[at] || len(seen) == maxLogical:
			return nil, corrupt("the chain of its logical partitions has no end")
		case at*sector > size-sector:
			return nil, corrupt("the logical partition %d is outside of the disk", number)
		}
		seen[at] = true
		if err := readFull(r, record[:], at*sector); err != nil {
			return nil, err
		}
		entries, ok := mbrEntries(record[:])
		if !ok {
			return out, nil // an empty extended partition
		}
		next := int64(-1)
		for _, e := range entries[:2] {
			switch {
			case !e.used():
			case e.extended():
				next = whole.start + e.start
			case at+e.start+e.count > whole.start+whole.count:
				return nil, corrupt("the logical partition %d leaves the extended one", number)
			default:
				out = append(out, e.partition(number, at))
				number++
			}
		}
		if next < 0 {
			return out, nil
		}
		if next >= whole.start+whole.count {
			return nil, corrupt("the chain of its logical partitions leaves the extended one")
		}
		at = next
	}
}
