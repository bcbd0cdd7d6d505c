package fuse

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// workers answer requests at the same time.
const workers = 4

// MemorySize is how much memory a Conn needs that outlives its process: for each
// worker a request, and how often it was tried.
const MemorySize = workers * workerSize

const (
	workerSize = bufferSize + 8
	// maxTries is how many servers may have ended over one request. Some may be
	// killed for no fault of it, one after the other.
	maxTries = 8
)

// Conn serves a mount.
type Conn struct {
	device int // its own
	memory []byte
	tree   Tree
	texts  texts
	// handles are numbers that no server before this one has given.
	handles struct {
		sync.Mutex
		next uint64
	}
	// stuck is called when a request takes longer than patience.
	patience time.Duration
	stuck    func()
}

// Options of New.
type Options struct {
	// Device is the descriptor of what Mount has returned, or of a copy of it. It
	// stays the caller's, who may close it afterwards.
	Device int
	// Memory is MemorySize bytes that are shared with the server after this one:
	// zero for the first.
	Memory []byte
	Tree   Tree
	// Stuck is called, once or more, when an answer takes longer than Patience: it
	// ends the process, as the only thing that helps. 0 is never.
	Patience time.Duration
	Stuck    func()
}

// New makes a Conn; errdefs.ErrInvalid for memory that is too small.
func New(o Options) (*Conn, error) {
	if len(o.Memory) < MemorySize {
		return nil, fmt.Errorf("serve files: %d bytes of memory: %w", len(o.Memory), errdefs.ErrInvalid)
	}
	var start [8]byte
	if _, err := rand.Read(start[:]); err != nil {
		return nil, err
	}
	device, err := unix.FcntlInt(uintptr(o.Device), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("serve files: %w", os.NewSyscallError("fcntl", err))
	}
	c := &Conn{device: device, memory: o.Memory, tree: o.Tree, patience: o.Patience, stuck: o.Stuck}
	c.handles.next = binary.NativeEndian.Uint64(start[:]) | 1
	return c, nil
}

// Serve answers requests, those first that an earlier server has left. It
// returns nil when the mount is gone, and otherwise never; a process that ends
// meanwhile may be followed by another at any time.
func (c *Conn) Serve() error {
	errs := make(chan error, workers)
	for i := range workers {
		part := c.memory[i*workerSize : (i+1)*workerSize]
		go func() { errs <- c.work(part[:bufferSize], part[bufferSize:]) }()
	}
	var err error
	for range workers {
		err = errors.Join(err, <-errs)
	}
	_ = unix.Close(c.device) // nothing is written to it that could be lost
	return err
}

// work serves with a place for one request; tries counts how often it was tried.
func (c *Conn) work(place, tries []byte) error {
	var buf []byte
	size := place[:4] // a request begins with its size
	watch := time.AfterFunc(time.Hour, func() {
		if c.stuck != nil {
			c.stuck()
		}
	})
	watch.Stop()
	le := binary.NativeEndian
	for {
		if le.Uint32(size) == 0 {
			n, err := unix.Read(c.device, place)
			switch {
			case err == unix.ENODEV:
				return nil
			case err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT: // ENOENT: nobody waits for it any more
				clear(size)
				continue
			case err != nil:
				return fmt.Errorf("serve files: %w", os.NewSyscallError("read", err))
			case n < inHeader:
				return fmt.Errorf("serve files: read of %d bytes: %w", n, errdefs.ErrCorrupt)
			}
		}
		tried := le.Uint32(tries) + 1
		le.PutUint32(tries, tried)
		if c.patience > 0 {
			watch.Reset(c.patience)
		}
		r, err := parseRequest(place)
		switch {
		case err != nil: // left by something that was not this program
		case tried > maxTries:
			buf = answer(buf, r.unique, unix.EIO, nil)
			err = c.send(buf)
		default:
			var wanted bool
			if buf, wanted = c.answer(buf, r); wanted {
				err = c.send(buf)
			}
		}
		watch.Stop()
		le.PutUint32(tries, 0)
		clear(size)
		if cap(buf) > 64<<10 {
			buf = nil
		}
		if err != nil && !errors.Is(err, errdefs.ErrCorrupt) {
			return fmt.Errorf("serve files: %w", err)
		}
	}
}

// send gives an answer to the kernel. That nobody waits for it is no error.
func (c *Conn) send(b []byte) error {
	_, err := linux.RetryEINTR(func() (int, error) { return unix.Write(c.device, b) })
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return os.NewSyscallError("write", err)
}

// answer returns what to say to a request, in b if it fits; not wanted where the
// kernel waits for nothing.
func (c *Conn) answer(b []byte, r request) (_ []byte, wanted bool) {
	var body func([]byte) []byte
	var err error
	switch r.op {
	case opForget, opBatchForget:
		return b, false
	case opInit:
		body, err = c.hello(r)
	case opDestroy, opReleasedir:
	case opRelease:
		c.texts.drop(r.handle())
	case opLookup:
		body, err = c.lookup(r)
	case opGetattr:
		body, err = c.stat(r)
	case opOpen:
		body = func(b []byte) []byte { return appendOpen(b, c.handle(), fopenDirectIO) }
	case opOpendir:
		body = func(b []byte) []byte { return appendOpen(b, 0, 0) }
	case opRead:
		body, err = c.read(r)
	case opReaddir:
		body, err = c.list(r)
	case opStatfs:
		body = func(b []byte) []byte { return append(b, make([]byte, statfsSize)...) }
	default:
		err = unix.ENOSYS
	}
	if err != nil {
		return answer(b, r.unique, errno(err), nil), true
	}
	return answer(b, r.unique, 0, body), true
}

// handle is a new one.
func (c *Conn) handle() uint64 {
	c.handles.Lock()
	defer c.handles.Unlock()
	c.handles.next++
	return c.handles.next
}

func (c *Conn) hello(r request) (func([]byte) []byte, error) {
	le := binary.NativeEndian
	if len(r.data) < 8 || le.Uint32(r.data) != major || le.Uint32(r.data[4:]) < minor {
		return nil, unix.EPROTO
	}
	return appendInit, nil
}

func (c *Conn) lookup(r request) (func([]byte) []byte, error) {
	name, ok := r.name()
	if !ok {
		return nil, unix.ENOENT
	}
	e, err := c.tree.Lookup(r.node, name)
	if err != nil {
		return nil, err
	}
	return func(b []byte) []byte { return appendEntry(b, e) }, nil
}

// stat tells the size of a file, which counts for who does not read(2) it.
func (c *Conn) stat(r request) (func([]byte) []byte, error) {
	e, err := c.tree.Stat(r.node)
	if err != nil {
		return nil, err
	}
	size := 0
	if !e.Dir {
		text, err := c.tree.Read(r.pid, r.node)
		if err != nil { // the read will say so
			text = nil
		}
		size = len(text)
	}
	return func(b []byte) []byte { return appendAttrOut(b, e, size) }, nil
}

// read answers reads of one handle from one text, as long as that is kept: who
// reads in small pieces is not to see the middle of something else.
func (c *Conn) read(r request) (func([]byte) []byte, error) {
	in, ok := r.read()
	if !ok {
		return nil, unix.EINVAL
	}
	text, kept := c.texts.get(in.handle)
	if in.offset == 0 || !kept {
		var err error
		if text, err = c.tree.Read(r.pid, r.node); err != nil {
			return nil, err
		}
		c.texts.put(in.handle, text)
	}
	from := min(in.offset, uint64(len(text)))
	text = text[from:min(from+uint64(in.size), uint64(len(text)))]
	return func(b []byte) []byte { return append(b, text...) }, nil
}

func (c *Conn) list(r request) (func([]byte) []byte, error) {
	in, ok := r.read()
	if !ok {
		return nil, unix.EINVAL
	}
	list, err := c.tree.List(r.node)
	if err != nil {
		return nil, err
	}
	return func(b []byte) []byte { return appendDir(b, list, in.offset, in.size) }, nil
}

// texts are what handles have been told, of a bounded size together: the oldest
// are forgotten first. The zero value is ready.
type texts struct {
	mu    sync.Mutex
	m     map[uint64][]byte // guarded by mu
	order []uint64          // guarded by mu: may name what is gone
	bytes int               // guarded by mu
}

// maxTexts bounds texts, maxHandles their number.
const (
	maxTexts   = 1 << 20
	maxHandles = 1024
)

func (t *texts) get(handle uint64) ([]byte, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text, ok := t.m[handle]
	return text, ok
}

func (t *texts) put(handle uint64, text []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		t.m = map[uint64][]byte{}
	}
	old, had := t.m[handle]
	t.bytes += len(text) - len(old)
	t.m[handle] = text
	if !had {
		t.order = append(t.order, handle)
	}
	for len(t.order) > maxHandles || t.bytes > maxTexts && len(t.order) > 0 {
		t.forget(t.order[0])
		t.order = t.order[1:]
	}
}

func (t *texts) drop(handle uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(handle)
	if len(t.m) == 0 {
		t.order = nil
	}
}

func (t *texts) forget(handle uint64) {
	t.bytes -= len(t.m[handle])
	delete(t.m, handle)
}
