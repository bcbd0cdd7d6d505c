package xfs

const (
	sector   = 512 // a basic block: the log's unit whatever the block size
	logMagic = 0xfeedbabe
	// maxRecord is more than the longest record with its headers, in sectors.
	maxRecord = 1024
	// unmountOp is XLOG_UNMOUNT_TRANS of struct xlog_op_header.
	unmountOp = 0x20
)

// logClean says whether the log ends with the record that unmounting writes
// last, so that nothing in it still has to be written back.
func (fs *FS) logClean() (bool, error) {
	head, empty, err := fs.logHead()
	if err != nil || empty {
		return empty, err
	}
	size := fs.logSectors()
	b := make([]byte, sector)
	for back := uint64(1); back <= min(maxRecord, size); back++ {
		at := (head + size - back) % size
		if err := fs.readLog(b, at); err != nil {
			return false, err
		}
		if be.Uint32(b) == logMagic {
			return fs.isUnmount(b, at, back)
		}
	}
	return false, nil
}

// isUnmount says whether the record with header b, struct xlog_rec_header, at
// sector at consists of the unmount operation and ends after length sectors.
func (fs *FS) isUnmount(b []byte, at, length uint64) (bool, error) {
	headers := uint64(1)
	const perHeader = 32 << 10 // XLOG_HEADER_CYCLE_SIZE
	if size := uint64(be.Uint32(b[320:])); fs.sb.logV2 && be.Uint32(b[8:])&2 != 0 && size > perHeader {
		headers = (size + perHeader - 1) / perHeader
	}
	content := (uint64(be.Uint32(b[12:])) + sector - 1) / sector
	if be.Uint32(b[40:]) != 1 || content == 0 || headers+content != length {
		return false, nil
	}
	err := fs.readLog(b, (at+headers)%fs.logSectors())
	return b[9]&unmountOp != 0, err
}

// logHead returns the sector after the last that was written. Each sector
// shows in which round through the log it was written: those before the head
// one more than those from it on, or zero if there was no round before. empty:
// nothing was ever written.
func (fs *FS) logHead() (head uint64, empty bool, err error) {
	size := fs.logSectors()
	first, err := fs.logCycle(0)
	if err != nil || first == 0 {
		return 0, err == nil, err
	}
	low, high := uint64(0), size // low was written in the first sector's round
	for high-low > 1 {
		mid := (low + high) / 2
		cycle, err := fs.logCycle(mid)
		if err != nil {
			return 0, false, err
		}
		if cycle == first {
			low = mid
		} else {
			high = mid
		}
	}
	return high % size, false, nil
}

// logCycle returns the round in which a sector of the log was written. It is
// the first word, or in a record's header the word after the magic number.
func (fs *FS) logCycle(at uint64) (uint32, error) {
	var b [8]byte
	if err := fs.readLog(b[:], at); err != nil {
		return 0, err
	}
	if cycle := be.Uint32(b[:]); cycle != logMagic {
		return cycle, nil
	}
	return be.Uint32(b[4:]), nil
}

func (fs *FS) logSectors() uint64 { return fs.sb.logBlocks << (fs.sb.blockLog - 9) }

// readLog fills b from a sector of the log on.
func (fs *FS) readLog(b []byte, at uint64) error {
	return fs.dev.read(b, fs.sb.offset(fs.sb.logStart)+int64(at)*sector)
}
