package xfs

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	sector   = 512 // a basic block: the log's unit whatever the block size
	logMagic = 0xfeedbabe
	// perHeader is how many bytes of a record one sector of header describes:
	// XLOG_HEADER_CYCLE_SIZE.
	perHeader = 32 << 10
	// maxRecord is the longest record without its headers, in bytes:
	// XLOG_MAX_RECORD_BSIZE.
	maxRecord = 256 << 10
	// maxInFlight is how many sectors before the head may be written in any
	// order: XLOG_TOTAL_REC_SHIFT, in sectors.
	maxInFlight = 2 << 20 / sector
	// maxTorn is more than the number of records that are written at a time.
	maxTorn = 64
	// unmountOp is XLOG_UNMOUNT_TRANS of struct xlog_op_header.
	unmountOp = 0x20
)

// journal is the log: a ring of sectors, written in records.
type journal struct {
	dev    *device
	offset int64
	size   uint64 // in sectors
	v2, v5 bool
	buf    []byte // a record, reused
}

// record is a struct xlog_rec_header.
type record struct {
	at               uint64 // its first sector
	headers, content uint64 // its sectors
	length           int    // its bytes of content
	ops              int
	lsn, tail        uint64
	format, sum      uint32
}

func (fs *FS) journal() *journal {
	sb := &fs.sb
	return &journal{
		dev: fs.dev, offset: sb.offset(sb.logStart), size: sb.logBlocks << (sb.blockLog - 9),
		v2: sb.logV2, v5: sb.checksums,
	}
}

// last returns the record that was written last and the sector after it;
// false: nothing was ever written.
func (j *journal) last() (r record, end uint64, ok bool, err error) {
	head, ok, err := j.head()
	if err != nil || !ok {
		return r, 0, false, err
	}
	// What was being written at the end may be torn: then the one before it.
	for range maxTorn {
		if r, err = j.before(head); err != nil {
			return r, 0, false, err
		}
		if (r.at+r.sectors())%j.size == head%j.size {
			_, intact, err := j.content(&r)
			if err != nil || intact {
				return r, head % j.size, err == nil, err
			}
		}
		head = r.at
	}
	return r, 0, false, corrupt("log without an intact end")
}

func (r *record) sectors() uint64 { return r.headers + r.content }

// before returns the last record that begins before a sector.
func (j *journal) before(head uint64) (record, error) {
	const most = (maxRecord + maxRecord/perHeader*sector) / sector
	for back := uint64(1); back <= min(most+maxInFlight, j.size); back++ {
		r, ok, err := j.record((head + j.size - back) % j.size)
		if ok || err != nil {
			return r, err
		}
	}
	return record{}, corrupt("log without a record before sector %d", head)
}

// record reads the header at a sector; false: there is none.
func (j *journal) record(at uint64) (record, bool, error) {
	var b [sector]byte
	if err := j.read(b[:4], at); err != nil || be.Uint32(b[:]) != logMagic {
		return record{}, false, err
	}
	if err := j.read(b[:], at); err != nil {
		return record{}, false, err
	}
	r := record{
		at: at, headers: 1, length: int(be.Uint32(b[12:])), lsn: be.Uint64(b[16:]), tail: be.Uint64(b[24:]),
		sum: binary.LittleEndian.Uint32(b[32:]), ops: int(be.Uint32(b[40:])), format: be.Uint32(b[300:]),
	}
	if size := uint64(be.Uint32(b[320:])); j.v2 && be.Uint32(b[8:])&2 != 0 && size > perHeader {
		r.headers = (size + perHeader - 1) / perHeader
	}
	r.content = (uint64(r.length) + sector - 1) / sector
	if r.length > maxRecord || r.headers > maxRecord/perHeader || r.content > r.headers*(perHeader/sector) || r.sectors() > j.size {
		return record{}, false, corrupt("log record at sector %d: %d bytes", at, r.length)
	}
	return r, true, nil
}

// content reads a record's content, valid until the next call, and says
// whether its checksum is right.
func (j *journal) content(r *record) ([]byte, bool, error) {
	size := int(r.sectors() * sector)
	if cap(j.buf) < size {
		j.buf = make([]byte, size)
	}
	b := j.buf[:size]
	first := min(uint64(len(b)), (j.size-r.at)*sector)
	if err := j.read(b[:first], r.at); err != nil {
		return nil, false, err
	}
	if err := j.read(b[first:], 0); err != nil {
		return nil, false, err
	}
	headers, content := b[:r.headers*sector], b[r.headers*sector:]
	intact := j.intact(r, headers, content[:r.length])
	// The first word of each sector was replaced; xlog_unpack_data.
	for i := range int(r.content) {
		from := headers[44+4*i:]
		if i >= perHeader/sector {
			from = headers[i/(perHeader/sector)*sector+4+4*(i%(perHeader/sector)):]
		}
		copy(content[i*sector:], from[:4])
	}
	return content[:r.length], intact, nil
}

// intact verifies a record's checksum: xlog_cksum.
func (j *journal) intact(r *record, headers, content []byte) bool {
	if !j.v5 {
		return true
	}
	const header, extended = 328, 260 // sizes of the structures
	sum := crc32.Update(0, castagnoli, headers[:32])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	rest := crc32.Update(sum, castagnoli, headers[36:header])
	short := crc32.Update(sum, castagnoli, headers[36:header-4]) // as 32-bit hosts of old computed it
	for i := sector; i < len(headers) && i < (len(content)+perHeader-1)/perHeader*sector; i += sector {
		rest = crc32.Update(rest, castagnoli, headers[i:i+extended])
		short = crc32.Update(short, castagnoli, headers[i:i+extended])
	}
	return crc32.Update(rest, castagnoli, content) == r.sum || crc32.Update(short, castagnoli, content) == r.sum
}

// isUnmount says whether a record is the one that unmounting writes last.
func (j *journal) isUnmount(r *record) (bool, error) {
	content, _, err := j.content(r)
	return err == nil && r.ops == 1 && len(content) >= opHeader && content[9]&unmountOp != 0, err
}

// head returns the sector after the last that was written, from 1 to the size
// of the log; false: nothing was ever written. Each sector shows in which
// round through the log it was written: those before the head one more than
// those from it on, or zero if there was no round before.
func (j *journal) head() (uint64, bool, error) {
	first, err := j.cycle(0)
	if err != nil || first == 0 {
		return 0, false, err
	}
	low, high := uint64(0), j.size // low was written in the first sector's round
	for high-low > 1 {
		mid := (low + high) / 2
		cycle, err := j.cycle(mid)
		if err != nil {
			return 0, false, err
		}
		if cycle == first {
			low = mid
		} else {
			high = mid
		}
	}
	// The last records were written all at once: the first gap among them is
	// where the log ends.
	for back := min(maxInFlight, j.size); back > 0; back-- {
		at, want := (high+j.size-back)%j.size, first
		if at >= high {
			want--
		}
		cycle, err := j.cycle(at)
		if err != nil {
			return 0, false, err
		}
		if cycle != want {
			return at, true, nil
		}
	}
	return high, true, nil
}

// cycle returns the round in which a sector of the log was written. It is the
// first word, or in a record's header the word after the magic number.
func (j *journal) cycle(at uint64) (uint32, error) {
	var b [8]byte
	if err := j.read(b[:], at); err != nil {
		return 0, err
	}
	if cycle := be.Uint32(b[:]); cycle != logMagic {
		return cycle, nil
	}
	return be.Uint32(b[4:]), nil
}

// read fills b from a sector of the log on.
func (j *journal) read(b []byte, at uint64) error {
	if err := j.dev.read(b, j.offset+int64(at)*sector); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}
