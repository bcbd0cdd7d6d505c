package conlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Options of Open say which part of a log to read. The zero value is all that
// is kept.
type Options struct {
	// Since leaves out output that was written before, to within 50 ms (more
	// for logs with very many short writes): never too much is left out. The
	// zero time leaves out nothing.
	Since time.Time
	// Lines > 0 leaves out all but the last lines of what is there at Open; a
	// line without a final newline counts. Lines < 0 leaves out all of that.
	Lines int
	// Follow waits for more at the end instead of returning io.EOF.
	Follow bool
}

// Reader reads a log while it is written. One goroutine may read; Finish and
// Close may be called by others at any time.
type Reader struct {
	ctx  context.Context //nolint:containedctx // io.Reader has no other way to be told
	path string

	wake *watcher // nil unless following

	mu       sync.Mutex
	closed   bool       // guarded by mu, as are all below
	follow   bool       // false after Finish
	segments []*os.File // the first is being read
	rotated  bool       // the first has lost its name: nothing is added to it
}

// Open returns a reader of the log at path, which need not exist. ctx ends a
// read that waits, with ctx's cause. Memory is bounded whatever the log's size.
// A follower that is slower than the writer misses output that the log no
// longer keeps; it never sees any twice or out of order. It ends with io.EOF
// when the log is removed.
func Open(ctx context.Context, path string, o Options) (*Reader, error) {
	r := &Reader{ctx: ctx, path: path, follow: o.Follow}
	var err error
	if o.Follow {
		if r.wake, err = watch(path); err != nil {
			return nil, fmt.Errorf("follow console log %s: %w", path, err)
		}
	}
	if r.segments, err = openBoth(path); err == nil {
		err = r.position(o)
	}
	if err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("read console log %s: %w", path, err)
	}
	return r, nil
}

// position moves to where reading begins.
func (r *Reader) position(o Options) error {
	starts := make([]int64, len(r.segments))
	ends := make([]int64, len(r.segments))
	for i, f := range r.segments {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		ends[i] = info.Size()
		if o.Lines < 0 {
			starts[i] = ends[i]
		} else if !o.Since.IsZero() {
			if starts[i], err = offsetSince(r.path, f, o.Since); err != nil {
				return err
			}
		}
	}
	if o.Lines > 0 {
		if err := skipLines(r.segments, starts, ends, o.Lines); err != nil {
			return err
		}
	}
	for i, f := range r.segments {
		if _, err := f.Seek(starts[i], io.SeekStart); err != nil {
			return err
		}
	}
	return nil
}

// skipLines moves starts so that n lines are left in front of ends.
func skipLines(segments []*os.File, starts, ends []int64, n int) error {
	const block = 16 << 10
	buf := make([]byte, block)
	last := true // no byte was looked at yet
	for i := len(segments) - 1; i >= 0; i-- {
		for at := ends[i]; at > starts[i]; {
			from := max(starts[i], at-block)
			part := buf[:at-from]
			if _, err := segments[i].ReadAt(part, from); err != nil {
				return err
			}
			if last && part[len(part)-1] == '\n' {
				part = part[:len(part)-1] // ends the last line
			}
			last = false
			for k := bytes.LastIndexByte(part, '\n'); k >= 0; k = bytes.LastIndexByte(part, '\n') {
				if n--; n == 0 {
					starts[i] = from + int64(k) + 1
					for j := range i {
						starts[j] = ends[j]
					}
					return nil
				}
				part = part[:k]
			}
			at = from
		}
	}
	return nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for {
		n, err := r.read(p)
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		if err := r.wake.wait(r.ctx); err != nil {
			return 0, fmt.Errorf("follow console log %s: %w", r.path, err)
		}
	}
}

// read returns 0 and nil when more may come.
func (r *Reader) read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.closed {
			return 0, os.ErrClosed
		}
		if len(r.segments) > 0 {
			n, err := r.segments[0].Read(p)
			if err == nil || !errors.Is(err, io.EOF) {
				return n, err
			}
			if len(r.segments) > 1 {
				r.drop()
				continue
			}
		}
		more, err := r.advance()
		if err != nil || !more {
			return 0, err
		}
	}
}

// drop needs mu and two segments.
func (r *Reader) drop() {
	_ = r.segments[0].Close()
	r.segments, r.rotated = r.segments[1:], false
}

// advance looks for what comes behind the only segment, which is read to its
// end. It reports whether reading on makes sense; io.EOF if nothing will come.
// It needs mu.
func (r *Reader) advance() (bool, error) {
	var current *os.File
	if len(r.segments) > 0 {
		current = r.segments[0]
	}
	if current != nil && !r.rotated {
		same, err := stillNamed(current, r.path)
		if err != nil {
			return false, err
		}
		if !same {
			r.rotated = true // and what was written before is still to be read
			return true, nil
		}
		return false, r.ended()
	}
	both, err := openBoth(r.path)
	if err != nil {
		return false, err
	}
	if len(both) == 0 && current != nil {
		return false, io.EOF // removed
	}
	newer := both
	for i, f := range both {
		if current != nil && sameFile(f, current) {
			closeAll(both[:i+1])
			newer = both[i+1:]
		}
	}
	if len(newer) == 0 {
		return false, r.ended()
	}
	r.segments = append(r.segments, newer...)
	if current != nil {
		r.drop()
	}
	return true, nil
}

// ended needs mu.
func (r *Reader) ended() error {
	if r.follow {
		return nil
	}
	return io.EOF
}

func sameFile(a, b *os.File) bool {
	x, errA := a.Stat()
	y, errB := b.Stat()
	return errA == nil && errB == nil && os.SameFile(x, y)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// Finish makes a follower return io.EOF when it has read what was written
// before. Call it when the writer is done.
func (r *Reader) Finish() {
	r.mu.Lock()
	r.follow = false
	r.mu.Unlock()
	r.wake.kick()
}

// Close ends reading; a Read that waits returns os.ErrClosed.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return os.ErrClosed
	}
	r.closed = true
	closeAll(r.segments)
	return r.wake.close()
}
