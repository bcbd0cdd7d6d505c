package layer

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// tiny files have no holes that are worth a call each.
	tiny = 4096
	// what is read at once, and how much of it is written at once
	smallFile, packPiece = 128 << 10, 1 << 20
	// pages, so that holes are holes in the pack and data can be shared
	packAlign = 4096
)

// crew copies contents into a pack on several processors. Each hand gathers
// small files and writes them together.
type crew struct {
	jobs   chan job
	hands  sync.WaitGroup
	own    *hand // of who calls now
	failed atomic.Bool
	mu     sync.Mutex
	errs   []error // guarded by mu
}

// job is one open file, whose descriptor is the crew's.
type job struct {
	ctx   context.Context //nolint:containedctx // of the pass, which waits for the job
	node  *staged
	fd    int
	holes bool
}

func newCrew(pack *os.File, size *atomic.Int64) *crew {
	c := &crew{jobs: make(chan job, 64), own: newHand(pack, size)}
	for range min(runtime.GOMAXPROCS(0), 4) {
		c.hands.Go(func() {
			h := newHand(pack, size)
			for j := range c.jobs {
				c.note(h.copy(j))
			}
			c.note(h.flush())
		})
	}
	return c
}

func (c *crew) note(err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, err)
	c.failed.Store(true)
}

// do has a file copied by one of the crew.
func (c *crew) do(ctx context.Context, j job) error {
	j.ctx = ctx
	if c.failed.Load() { // close tells why
		return errors.Join(ctx.Err(), unix.Close(j.fd))
	}
	c.jobs <- j
	return nil
}

// now copies a file before it returns.
func (c *crew) now(ctx context.Context, j job) error {
	j.ctx = ctx
	return errors.Join(c.own.copy(j), c.own.flush())
}

// close waits for the end of all work and returns its errors.
func (c *crew) close() error {
	close(c.jobs)
	c.hands.Wait()
	return errors.Join(c.errs...)
}

// hand copies files, one at a time.
type hand struct {
	pack   *os.File
	size   *atomic.Int64
	copier *copier
	// piece is what is not written yet, of files whose places in it are to be
	// told.
	piece []byte
	files []*staged
	attrs []byte
}

func newHand(pack *os.File, size *atomic.Int64) *hand {
	return &hand{pack: pack, size: size, copier: newCopier(pack, true), attrs: make([]byte, 65536)}
}

// copy copies the content and the attributes of a file, and closes it.
func (h *hand) copy(j job) (err error) {
	defer func() { err = errors.Join(err, unix.Close(j.fd)) }()
	n := j.node
	var st unix.Stat_t
	if err := unix.Fstat(j.fd, &st); err != nil {
		return wrap("stat", n.path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		n.gone = true // replaced since it was looked at
		return nil
	}
	if n.xattrs, _, err = readXattrs(j.fd, h.attrs); err != nil || n.size == 0 {
		return err
	}
	if n.size <= smallFile && !j.holes {
		return wrap("copy", n.path, h.small(j.fd, n))
	}
	n.at = h.room(n.size)
	return wrap("copy", n.path, h.copier.contentAt(j.ctx, j.fd, int(h.pack.Fd()), n.at, n.size))
}

// room takes so many bytes of the pack.
func (h *hand) room(size int64) int64 {
	size = (size + packAlign - 1) &^ (packAlign - 1)
	return h.size.Add(size) - size
}

// small reads a file into the piece. Of one that has shrunk since it was looked
// at the end is zeros.
func (h *hand) small(fd int, n *staged) error {
	if len(h.piece)+int(n.size) > packPiece {
		if err := h.flush(); err != nil {
			return err
		}
	}
	if h.piece == nil {
		h.piece = make([]byte, 0, packPiece)
	}
	n.at = int64(len(h.piece))
	h.piece = h.piece[:n.at+n.size]
	into := h.piece[n.at:]
	got, err := unix.Pread(fd, into, 0)
	if err != nil {
		return err
	}
	clear(into[got:])
	h.files = append(h.files, n)
	return nil
}

// flush writes the piece and says where its files are.
func (h *hand) flush() error {
	if len(h.files) == 0 {
		return nil
	}
	at := h.room(int64(len(h.piece)))
	for _, n := range h.files {
		n.at += at
	}
	_, err := h.pack.WriteAt(h.piece, at)
	h.piece, h.files = h.piece[:0], h.files[:0]
	return err
}
