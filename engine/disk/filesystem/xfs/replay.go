package xfs

import "encoding/binary"

// The log's content is in the byte order of the host that wrote it.
var le = binary.LittleEndian

const (
	opHeader = 12 // struct xlog_op_header

	// Its oh_flags.
	opStart     = 0x01
	opCommit    = 0x02
	opContinue  = 0x04
	opContinued = 0x08 // XLOG_WAS_CONT_TRANS
	opEnd       = 0x10

	transHeader = 16 // struct xfs_trans_header

	// replayBudget bounds what the replay keeps, in bytes.
	replayBudget = 24 << 20
)

// replay reads the log as recovery after a crash would, and lays what it finds
// over the device.
//
// It goes through the log twice, as recovery does: what was freed later must
// not be written, since it may hold data by then.
type replay struct {
	fs    *FS
	log   *journal
	first bool // the first time through
	// cancelled counts, by sector, how often a buffer was freed.
	cancelled map[int64]int
	// intents are the changes that were announced and not done yet.
	intents map[uint64]bool
	open    map[uint32]*transaction
	kept    int
}

// transaction is what was read of one, until its end appears.
type transaction struct {
	lsn    uint64
	header int // bytes of it that were read
	items  []logItem
	bytes  int
}

// logItem is a change, in regions of which the first tells what it is.
type logItem struct {
	total   int
	regions [][]byte
}

// replayLog brings the view up to date. It says whether it is.
func (fs *FS) replayLog() (bool, error) {
	log := fs.journal()
	last, end, ok, err := log.last()
	if err != nil || !ok {
		return err == nil, err
	}
	if clean, err := log.isUnmount(&last); err != nil || clean {
		return clean, err
	}
	const attributes = 1 // XFS_SB_FEAT_INCOMPAT_LOG_XATTRS: intents that are known here
	if unknown := fs.sb.logFeatures &^ attributes; unknown != 0 {
		return false, unsupported("log with the features %#x, not written back: unmount the file system", unknown)
	}
	p := &replay{fs: fs, log: log, first: true, cancelled: map[int64]int{}, intents: map[uint64]bool{}}
	for range 2 {
		if err := p.pass(last.tail&0xffffffff, end); err != nil {
			return false, err
		}
		p.first = false
	}
	return len(p.intents) == 0, nil
}

// pass goes through the records from sector at to sector end.
func (p *replay) pass(at, end uint64) error {
	p.open = map[uint32]*transaction{}
	if at >= p.log.size {
		return corrupt("log that begins at sector %d of %d", at, p.log.size)
	}
	for left := (end + p.log.size - at) % p.log.size; left > 0; {
		r, ok, err := p.log.record(at)
		if err != nil {
			return err
		}
		if !ok || r.sectors() > left {
			return corrupt("log without a record at sector %d", at)
		}
		const littleEndian = 1 // XLOG_FMT_LINUX_LE
		if r.format != littleEndian {
			return unsupported("log of a host with another byte order, not written back: unmount the file system")
		}
		content, intact, err := p.log.content(&r)
		if err != nil {
			return err
		}
		if !intact {
			return corrupt("log record at sector %d: checksum differs", at)
		}
		if err := p.record(&r, content); err != nil {
			return err
		}
		at, left = (at+r.sectors())%p.log.size, left-r.sectors()
	}
	for tid := range p.open {
		p.end(tid)
	}
	return nil
}

// end forgets a transaction.
func (p *replay) end(tid uint32) {
	p.kept -= p.open[tid].bytes
	delete(p.open, tid)
}

// record takes the operations of one record.
func (p *replay) record(r *record, b []byte) error {
	bad := func() error { return corrupt("log record at sector %d: an operation is cut off", r.at) }
	for range r.ops {
		if len(b) == 0 {
			return nil
		}
		if len(b) < opHeader {
			return bad()
		}
		tid, size, flags := be.Uint32(b), uint64(be.Uint32(b[4:])), b[9]
		if b = b[opHeader:]; size > uint64(len(b)) {
			return bad()
		}
		if err := p.operation(r, tid, flags, b[:size]); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// operation takes one operation: xlog_recover_process_ophdr. What belongs to a
// transaction that began before the tail was written back long ago.
func (p *replay) operation(r *record, tid uint32, flags byte, b []byte) error {
	t := p.open[tid]
	if t == nil {
		if flags&opStart != 0 {
			t = &transaction{lsn: r.lsn}
			p.open[tid] = t
			return p.keep(t, 100)
		}
		return nil
	}
	flags &^= opEnd
	if flags&opContinued != 0 {
		flags &^= opContinue
	}
	switch flags {
	case 0, opContinue:
		return p.add(t, b)
	case opContinued:
		return p.extend(t, b)
	case opCommit:
		p.end(tid)
		return p.commit(t)
	case unmountOp:
		p.end(tid)
		return nil
	default:
		return corrupt("log record at sector %d: operation with the flags %#x", r.at, flags)
	}
}

// keep accounts for bytes that are kept, of a transaction or for good.
func (p *replay) keep(t *transaction, bytes int) error {
	p.kept += bytes
	if t != nil {
		t.bytes += bytes
	}
	if p.kept > replayBudget {
		return unsupported("the log holds more changes than can be read without writing them back: unmount the file system, or freeze it before the image is taken")
	}
	return nil
}

// add begins a region, of the last item or of a new one: struct
// xfs_trans_header comes first.
func (p *replay) add(t *transaction, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if t.header < transHeader {
		const magic = 0x5452414e // XFS_TRANS_HEADER_MAGIC
		if t.header != 0 || len(b) > transHeader || len(b) >= 4 && le.Uint32(b) != magic {
			return corrupt("log: transaction without a header")
		}
		t.header = len(b)
		return nil
	}
	if n := len(t.items); n == 0 || len(t.items[n-1].regions) == t.items[n-1].total {
		if len(b) < 4 || le.Uint16(b[2:]) == 0 || le.Uint16(b[2:]) > 1<<10 {
			return corrupt("log: item of %d bytes", len(b))
		}
		t.items = append(t.items, logItem{total: int(le.Uint16(b[2:]))})
	}
	item := &t.items[len(t.items)-1]
	item.regions = append(item.regions, append([]byte(nil), b...))
	return p.keep(t, len(b)+100)
}

// extend goes on with a region whose beginning was at the end of the record
// before.
func (p *replay) extend(t *transaction, b []byte) error {
	if t.header < transHeader {
		if t.header += len(b); t.header > transHeader {
			return corrupt("log: transaction without a header")
		}
		return nil
	}
	n := len(t.items)
	if n == 0 {
		return corrupt("log: the beginning of a region is missing")
	}
	regions := t.items[n-1].regions
	regions[len(regions)-1] = append(regions[len(regions)-1], b...)
	return p.keep(t, len(b))
}
