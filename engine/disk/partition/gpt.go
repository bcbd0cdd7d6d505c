package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	gptMagic      = "EFI PART"
	gptHeaderSize = 92
	gptEntrySize  = 128
	maxGPTTable   = 1 << 20 // bytes of the table of entries
)

// readGPT reads the table of the first header that is whole: the primary one,
// for sectors of 512 and of 4096 bytes, then the backup at the end of the disk.
func readGPT(r io.ReaderAt, size int64) ([]Partition, error) {
	var first error
	for _, backup := range []bool{false, true} {
		for _, unit := range []int64{512, 4096} {
			at := unit
			if backup {
				at = (size/unit - 1) * unit
			}
			list, err := readGPTAt(r, size, at, unit)
			if !errors.Is(err, errdefs.ErrCorrupt) {
				return list, err
			}
			if first == nil {
				first = err
			}
		}
	}
	return nil, first
}

// readGPTAt reads the header at a byte of the disk and the entries it points to.
func readGPTAt(r io.ReaderAt, size, at, unit int64) ([]Partition, error) {
	if at <= 0 || at > size-unit {
		return nil, corrupt("it has no GPT header")
	}
	raw := make([]byte, unit)
	if err := readFull(r, raw, at); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	length := int64(le.Uint32(raw[12:]))
	if string(raw[:8]) != gptMagic || length < gptHeaderSize || length > unit {
		return nil, corrupt("it has no GPT header")
	}
	sum := le.Uint32(raw[16:])
	clear(raw[16:20])
	if crc32.ChecksumIEEE(raw[:length]) != sum {
		return nil, corrupt("the checksum of its GPT header is wrong")
	}
	if le.Uint64(raw[24:]) != uint64(at/unit) {
		return nil, corrupt("its GPT header says to be in another place")
	}
	count, each := int64(le.Uint32(raw[80:])), int64(le.Uint32(raw[84:]))
	where := le.Uint64(raw[72:])
	if each < gptEntrySize || each > maxGPTTable || each%8 != 0 || count > maxGPTTable/each {
		return nil, corrupt("its GPT is said to have %d entries of %d bytes", count, each)
	}
	if where >= uint64(size/unit) || count*each > size-int64(where)*unit {
		return nil, corrupt("the entries of its GPT are outside of the disk")
	}
	table := make([]byte, count*each)
	if err := readFull(r, table, int64(where)*unit); err != nil && len(table) > 0 {
		return nil, err
	}
	if crc32.ChecksumIEEE(table) != le.Uint32(raw[88:]) {
		return nil, corrupt("the checksum of its GPT entries is wrong")
	}
	return gptEntries(table, each, unit)
}

// gptEntries lists the entries that are used.
func gptEntries(table []byte, each, unit int64) ([]Partition, error) {
	var out []Partition
	le := binary.LittleEndian
	for i := int64(0); i*each < int64(len(table)); i++ {
		raw := table[i*each:][:gptEntrySize]
		if bytes.Equal(raw[:16], make([]byte, 16)) {
			continue
		}
		first, last := le.Uint64(raw[32:]), le.Uint64(raw[40:])
		if first > last || last >= 1<<49 {
			return nil, corrupt("partition %d reaches from sector %d to %d", i+1, first, last)
		}
		out = append(out, Partition{
			Number: int(i) + 1, Start: int64(first) * unit, Size: int64(last-first+1) * unit, Type: guid(raw[:16]), Name: label(raw[56:128]),
		})
	}
	return out, nil
}

// guid writes a GUID as text: the first three fields are little-endian.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

// label reads UTF-16 up to its end or the first zero.
func label(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
