package process

import (
	"encoding/binary"
	"io"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// A mover moves console output from masters to logs, one chunk at a time, so
// that a kill -9 at any instruction neither loses a byte nor writes one twice.
// Its memory and its pipe outlive it when there is a guard.
//
// A chunk is under way in these steps:
//
//  1. begin writes down whose it will be, and where its log ends;
//  2. splice(2) moves it from the terminal into the pipe: in one of both it is;
//  3. the count is written down;
//  4. it is read from the pipe into the memory, all or nothing;
//  5. it is written to the log; how much of it is there, the log's end tells;
//  6. the count becomes zero.
//
// resume goes on behind the step that was done last.
type mover struct {
	mem     []byte // layout of guard_state.go, up to offCommands
	pipe    [2]int
	scratch []byte // what is written to the log
}

const (
	// chunkSize is what a terminal gives at once.
	chunkSize = 4 << 10

	// Journal, from offJournal.
	jCount = offJournal      // 32 bits: bytes under way, 0 none, finalChunk
	jHeld  = offJournal + 4  // 8 bits: the output before ended in '\r'
	jBirth = offJournal + 8  // 64 bits: whose (parked.Birth)
	jInode = offJournal + 16 // 64 bits each: conlog.Mark
	jSize  = offJournal + 24

	// finalChunk is the count of the '\r' that is held at a console's end.
	finalChunk = 1 << 31
)

// newMover returns one whose memory and pipe are its own.
func newMover() (*mover, error) {
	m := &mover{mem: make([]byte, offChunk+chunkSize), scratch: make([]byte, 0, chunkSize+1)}
	if err := unix.Pipe2(m.pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *mover) count() uint32 { return binary.LittleEndian.Uint32(m.mem[jCount:]) }

// setCount is a step of its own: no store may pass it.
//
//go:noinline
func (m *mover) setCount(n uint32) { binary.LittleEndian.PutUint32(m.mem[jCount:], n) }

func (m *mover) begin(p *proc) {
	le := binary.LittleEndian
	var mark conlog.Mark
	if p.log != nil {
		mark = p.log.Mark()
	}
	m.mem[jHeld] = m.mem[offHeld+p.slot]
	le.PutUint64(m.mem[jBirth:], p.birth)
	le.PutUint64(m.mem[jInode:], mark.Inode)
	le.PutUint64(m.mem[jSize:], uint64(mark.Size))
}

// move moves one chunk; show sees it first. It returns io.EOF at the console's
// end, unix.EAGAIN when there is nothing to read; fail gets errors of the log,
// which lose output but end nothing.
func (m *mover) move(p *proc, show func([]byte), fail func(error)) error {
	limit := chunkSize
	if p.log != nil {
		// resume knows of one new segment, not of more
		limit = int(min(int64(limit), p.log.SegmentSize()))
	}
	m.begin(p)
	n, err := linux.RetryEINTR(func() (int64, error) {
		return unix.Splice(p.console.master, nil, m.pipe[1], nil, limit, unix.SPLICE_F_NONBLOCK)
	})
	switch {
	case err == unix.EAGAIN: //nolint:errorlint // an errno as the kernel gave it
		return err
	case err != nil || n == 0: // EIO: the slave has no holder left
		return io.EOF
	}
	m.setCount(uint32(n))
	chunk := m.mem[offChunk:][:n]
	if err := m.readPipe(chunk); err != nil {
		fail(err)
	}
	show(chunk)
	m.finish(p, chunk, 0, fail)
	return nil
}

// readPipe fills b.
func (m *mover) readPipe(b []byte) error {
	for len(b) > 0 {
		n, err := linux.RetryEINTR(func() (int, error) { return unix.Read(m.pipe[0], b) })
		if err != nil {
			return err
		}
		if n <= 0 {
			return io.ErrUnexpectedEOF
		}
		b = b[n:]
	}
	return nil
}

// finish writes chunk, of which skip bytes are in the log, and ends the step.
func (m *mover) finish(p *proc, chunk []byte, skip int64, fail func(error)) {
	var held bool
	m.scratch, held = unixLines(m.scratch[:0], chunk, m.mem[jHeld] != 0)
	if out := m.scratch[min(skip, int64(len(m.scratch))):]; p.log != nil && len(out) > 0 {
		if _, err := p.log.Write(out); err != nil {
			fail(err)
		}
	}
	m.hold(p.slot, held)
	m.setCount(0)
}

func (m *mover) hold(slot int, held bool) {
	m.mem[offHeld+slot] = 0
	if held {
		m.mem[offHeld+slot] = 1
	}
}

// end writes what is held at the end of a console.
func (m *mover) end(p *proc, fail func(error)) {
	if m.mem[offHeld+p.slot] == 0 {
		return
	}
	m.begin(p)
	m.setCount(finalChunk)
	m.finishEnd(p, 0, fail)
}

func (m *mover) finishEnd(p *proc, skip int64, fail func(error)) {
	if p.log != nil && skip == 0 {
		if _, err := p.log.Write([]byte{'\r'}); err != nil {
			fail(err)
		}
	}
	m.hold(p.slot, false)
	m.setCount(0)
}

// resume ends what a mover before this one had begun. find returns the process
// of a birth, nil if it is not known any more.
func (m *mover) resume(find func(birth uint64) *proc, fail func(error)) {
	le := binary.LittleEndian
	inPipe, err := unix.IoctlGetInt(m.pipe[0], unix.TIOCINQ)
	if err != nil {
		inPipe = 0
	}
	count := m.count()
	if count == finalChunk {
		if p := find(le.Uint64(m.mem[jBirth:])); p != nil {
			m.finishEnd(p, m.written(p), fail)
		}
		m.setCount(0)
		return
	}
	if count == 0 {
		count = uint32(max(0, inPipe)) // behind step 2
	}
	if count == 0 || count > chunkSize || inPipe > int(count) {
		m.discard()
		return
	}
	chunk := m.mem[offChunk:][:count]
	m.setCount(count)
	if err := m.readPipe(chunk[int(count)-inPipe:]); err != nil {
		fail(err)
	}
	if p := find(le.Uint64(m.mem[jBirth:])); p != nil {
		m.finish(p, chunk, m.written(p), fail)
	}
	m.setCount(0)
}

// written returns how much of the chunk under way is in the log of p.
func (m *mover) written(p *proc) int64 {
	le := binary.LittleEndian
	if p.log == nil {
		return 0
	}
	n, _ := p.log.Since(conlog.Mark{Inode: le.Uint64(m.mem[jInode:]), Size: int64(le.Uint64(m.mem[jSize:]))})
	return n
}

// discard empties the pipe.
func (m *mover) discard() {
	for {
		if n, err := linux.RetryEINTR(func() (int, error) { return unix.Read(m.pipe[0], m.mem[offChunk:][:chunkSize]) }); err != nil || n <= 0 {
			break
		}
	}
	m.setCount(0)
}

// unixLines appends p to dst with "\r\n" as "\n". held says that the byte
// before p was a '\r' that is not written yet, and the result that p ended so.
func unixLines(dst, p []byte, held bool) ([]byte, bool) {
	for _, b := range p {
		if held && b != '\n' {
			dst = append(dst, '\r')
		}
		if held = b == '\r'; !held {
			dst = append(dst, b)
		}
	}
	return dst, held
}
