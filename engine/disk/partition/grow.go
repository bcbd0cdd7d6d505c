package partition

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Align is what the ends of partitions that Grow makes are multiples of, and as
// much is kept behind the last one.
const Align = 1 << 20

// Grow makes the last partition of a disk end at byte end, a multiple of Align,
// and the disk as long as it returns. r is the disk as it is, size bytes long, p
// the partition; what of the table changes is written to w, which already has
// the rest. A partition of the number 0 is a disk without a table.
//
// errdefs.ErrUnsupported: the partition is not the last, or a logical one, or
// the table cannot say so much.
func Grow(r io.ReaderAt, size int64, t *Table, p Partition, end int64, w io.WriterAt) (int64, error) {
	if last := len(t.Partitions) - 1; last >= 0 && t.Partitions[last].Number != p.Number {
		return 0, fmt.Errorf("partition %d is not the last: %w", p.Number, errdefs.ErrUnsupported)
	}
	switch t.Kind {
	case GPT:
		whole := max(size, end+Align)
		return whole, growGPT(r, size, p, end, whole, w)
	case MBR:
		return max(size, end), growMBR(r, p, end, w)
	case None:
	}
	return max(size, end), nil
}

func growMBR(r io.ReaderAt, p Partition, end int64, w io.WriterAt) error {
	sectors := (end - p.Start) / sector
	if p.Number > 4 || end/sector > 1<<32-1 {
		return fmt.Errorf("partition %d up to byte %d: %w", p.Number, end, errdefs.ErrUnsupported)
	}
	var first [sector]byte
	if err := readFull(r, first[:], 0); err != nil {
		return err
	}
	entry := first[mbrTable+(p.Number-1)*mbrEntrySize:]
	copy(entry[5:8], "\xfe\xff\xff") // further than cylinders reach
	binary.LittleEndian.PutUint32(entry[12:], uint32(sectors))
	_, err := w.WriteAt(first[:], 0)
	return err
}

func growGPT(r io.ReaderAt, size int64, p Partition, end, whole int64, w io.WriterAt) error {
	if _, err := readGPTAt(r, size, sector, sector); err != nil {
		return fmt.Errorf("the first header, with sectors of %d bytes: %w: %w", sector, errdefs.ErrUnsupported, err)
	}
	var first, header [sector]byte
	if err := readFull(r, first[:], 0); err != nil {
		return err
	}
	if err := readFull(r, header[:], sector); err != nil {
		return err
	}
	le := binary.LittleEndian
	each := int64(le.Uint32(header[84:]))
	table := make([]byte, int64(le.Uint32(header[80:]))*each)
	at := int64(le.Uint64(header[72:])) * sector
	if err := readFull(r, table, at); err != nil {
		return err
	}
	room := (int64(len(table)) + sector - 1) / sector * sector
	if room+sector > Align {
		return fmt.Errorf("a table of %d bytes: %w", len(table), errdefs.ErrUnsupported)
	}
	le.PutUint64(table[int64(p.Number-1)*each+40:], uint64(end/sector-1))
	last := whole/sector - 1
	le.PutUint64(header[32:], uint64(last))
	le.PutUint64(header[48:], uint64((whole-sector-room)/sector-1))
	le.PutUint32(header[88:], crc32.ChecksumIEEE(table))
	sealGPT(header[:])
	backup := header
	le.PutUint64(backup[24:], uint64(last))
	le.PutUint64(backup[32:], 1)
	le.PutUint64(backup[72:], uint64((whole-sector-room)/sector))
	sealGPT(backup[:])
	for i := range 4 {
		if e := first[mbrTable+i*mbrEntrySize:]; e[4] == mbrProtective {
			le.PutUint32(e[12:], uint32(min(last, 1<<32-1)))
		}
	}
	for _, part := range []struct {
		at int64
		b  []byte
	}{{0, first[:]}, {sector, header[:]}, {at, table}, {whole - sector - room, table}, {whole - sector, backup[:]}} {
		if _, err := w.WriteAt(part.b, part.at); err != nil {
			return err
		}
	}
	return nil
}

// sealGPT writes the checksum of a header.
func sealGPT(h []byte) {
	le := binary.LittleEndian
	clear(h[16:20])
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:le.Uint32(h[12:])]))
}
