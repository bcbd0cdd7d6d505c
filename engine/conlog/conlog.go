// Package conlog keeps the console output of an instance in a file of bounded
// size and reads it: its tail, what is newer than a time, what is still to come.
//
// On disk a log is two segments: PATH, being written, and PATH.1, the one
// before it. When PATH has reached half of the limit it is renamed to PATH.1
// and begun anew, so the newest half of the limit is always there and both
// together never exceed it. A segment is the plain output; nothing else is in
// it, so it may be read with any tool.
//
// Beside each segment SEGMENT.times says when which part of it was written
// (times.go has the format). It takes at most a quarter of the limit more, is
// written as well as it goes, and may be absent: logs of earlier versions have
// none, and then the segment's time of change is all that is known.
//
// A log is made by its first byte: who says nothing has no file. Logs may share
// a directory.
//
// Writers: one at a time for a path. Readers: any number, in any process. The
// directory must be the engine's own; the files themselves are never followed
// through symbolic links and are made with mode 0600. The package imports no
// other of ours.
package conlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultLimit is used for a limit of zero: 1 MiB.
const DefaultLimit = 1 << 20

// older is the name of the segment before path.
func older(path string) string { return path + ".1" }

func openSegment(path string, flags int) (*os.File, error) {
	return os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
}

// Writer appends to a log. It is safe for concurrent use.
type Writer struct {
	path string
	half int64

	mu     sync.Mutex
	f      *os.File // guarded by mu; nil once closed, after a failed rotation or while unmade
	unmade bool     // the segment was absent when the log was opened, and nothing was written since
	inode  uint64   // of f
	size   int64    // of f
	times  stamps   // of f
	closed bool
}

// NewWriter opens the log at path for appending and bounds it to limit bytes
// from now on. An absent one is made by the first Write; its directory must be
// there. 0 means DefaultLimit; the smallest limit is 2.
func NewWriter(path string, limit int64) (*Writer, error) {
	if limit == 0 {
		limit = DefaultLimit
	}
	if limit < 2 {
		return nil, fmt.Errorf("open console log %s: limit %d too small", path, limit)
	}
	w := &Writer{path: path, half: limit / 2}
	err := w.open(0)
	if errors.Is(err, os.ErrNotExist) {
		w.unmade = true
		_, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("open console log %s: %w", path, err)
	}
	return w, nil
}

// open opens the current segment; with os.O_CREATE in more it makes an absent
// one. It needs w.mu, or a w nobody else has.
func (w *Writer) open(more int) error {
	f, err := openSegment(w.path, os.O_WRONLY|os.O_APPEND|more)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	w.f, w.unmade, w.size, w.inode = f, false, info.Size(), inode(info)
	w.times = stamps{path: timesOf(w.path), segment: w.inode, limit: maxStamps(w.half)}
	return nil
}

// Write appends p. After an error (a full disk, say) the writer stays usable:
// a later Write tries again, and what was lost stays lost.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, os.ErrClosed
	}
	written := 0
	for len(p) > 0 {
		if w.f == nil {
			if err := w.open(os.O_CREATE); err != nil {
				return written, err
			}
		}
		if w.size >= w.half {
			if err := w.rotate(); err != nil {
				return written, err
			}
			continue
		}
		part := p[:min(int64(len(p)), w.half-w.size)]
		now := time.Now()
		n, err := w.f.Write(part)
		if n > 0 {
			w.times.add(w.size, now)
		}
		written, w.size, p = written+n, w.size+int64(n), p[n:]
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// rotate needs w.mu.
func (w *Writer) rotate() error {
	err := w.f.Close()
	w.f = nil
	err = errors.Join(os.Rename(w.path, older(w.path)), err)
	if err == nil {
		// A file of times that has the wrong name is not used.
		_ = os.Rename(timesOf(w.path), timesOf(older(w.path)))
	}
	return err
}

// A Mark is a place in a log, to be told of after the writer is gone. The zero
// Mark is no place; the one before the first byte of a segment that is not made
// has the Size -1.
type Mark struct {
	Inode uint64
	Size  int64
}

// unmade is where a segment begins that is absent.
func unmade() Mark { return Mark{Size: -1} }

// Mark returns where the next Write begins.
func (w *Writer) Mark() Mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unmade {
		return unmade()
	}
	if w.f == nil {
		return Mark{}
	}
	return Mark{Inode: w.inode, Size: w.size}
}

// Since returns how many bytes were written behind m, by this writer and those
// before it; false when that cannot be told since more than one segment was
// begun meanwhile.
func (w *Writer) Since(m Mark) (int64, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case m == unmade() && (w.unmade || w.f != nil):
		return w.size, true
	case w.f == nil || m == (Mark{}):
		return 0, false
	}
	n, known := w.size-m.Size, m.Inode == w.inode
	if info, err := os.Lstat(older(w.path)); !known && err == nil && inode(info) == m.Inode {
		n, known = info.Size()-m.Size+w.size, true
	}
	return n, known && n >= 0
}

// SegmentSize returns how much a segment holds: no Write of that many bytes or
// fewer begins more than one.
func (w *Writer) SegmentSize() int64 { return w.half }

// Close ends writing. The log stays. Later calls return os.ErrClosed.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return os.ErrClosed
	}
	w.closed = true
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}

// Remove deletes a log. Absent is nil.
func Remove(path string) error {
	var errs []error
	for _, p := range []string{path, older(path), timesOf(path), timesOf(older(path))} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Tail returns the newest output: at most the last lines lines (all of them
// for lines <= 0) and at most maxBytes bytes (no bound for <= 0). A line
// without a final newline counts. An absent log is empty.
func Tail(path string, lines int, maxBytes int64) ([]byte, error) {
	segments, err := openBoth(path)
	if err != nil {
		return nil, fmt.Errorf("read console log %s: %w", path, err)
	}
	var data []byte
	for _, f := range segments {
		part, err := io.ReadAll(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("read console log %s: %w", path, err)
		}
		data = append(data, part...)
	}
	if maxBytes > 0 && int64(len(data)) > maxBytes {
		data = data[int64(len(data))-maxBytes:]
	}
	return lastLines(data, lines), nil
}

// Last returns at most the newest n bytes of the log, from the beginning of a
// line unless all that is kept fits, or they hold no end of a line. An absent
// log is empty. It reads no more than it returns.
func Last(path string, n int64) ([]byte, error) {
	segments, err := openBoth(path)
	if err != nil {
		return nil, fmt.Errorf("read console log %s: %w", path, err)
	}
	defer closeAll(segments)
	var data []byte
	left, cut := n, false
	for i := len(segments) - 1; i >= 0 && left > 0; i-- {
		info, err := segments[i].Stat()
		if err != nil {
			return nil, fmt.Errorf("read console log %s: %w", path, err)
		}
		part := make([]byte, min(info.Size(), left))
		if _, err := segments[i].ReadAt(part, info.Size()-int64(len(part))); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read console log %s: %w", path, err)
		}
		cut = info.Size() > left || i > 0 && info.Size() == left
		data, left = append(part, data...), left-int64(len(part))
	}
	if i := bytes.IndexByte(data, '\n'); cut && i >= 0 {
		data = data[i+1:]
	}
	return data, nil
}

func inode(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// openBoth opens the segments that exist, the older first. When the writer has
// rotated in between, it looks again: the current segment must still have its
// name once the older one is open.
func openBoth(path string) ([]*os.File, error) {
	for {
		current, err := openIfThere(path)
		if err != nil {
			return nil, err
		}
		before, err := openIfThere(older(path))
		if err != nil {
			closeIfThere(current)
			return nil, err
		}
		same, err := stillNamed(current, path)
		if err == nil && same {
			var both []*os.File
			for _, f := range []*os.File{before, current} {
				if f != nil {
					both = append(both, f)
				}
			}
			return both, nil
		}
		closeIfThere(current)
		closeIfThere(before)
		if err != nil {
			return nil, err
		}
	}
}

// stillNamed reports whether path names f, or nothing if f is nil. An open
// file's identity cannot be given to another.
func stillNamed(f *os.File, path string) (bool, error) {
	now, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return f == nil, nil
	}
	if err != nil || f == nil {
		return false, err
	}
	opened, err := f.Stat()
	return err == nil && os.SameFile(opened, now), err
}

func openIfThere(path string) (*os.File, error) {
	f, err := openSegment(path, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func closeIfThere(f *os.File) {
	if f != nil {
		_ = f.Close()
	}
}

// lastLines returns the end of data that holds n lines.
func lastLines(data []byte, n int) []byte {
	if n <= 0 {
		return data
	}
	end := len(data)
	if end > 0 && data[end-1] == '\n' {
		end--
	}
	for i := end - 1; i >= 0; i-- {
		if data[i] != '\n' {
			continue
		}
		if n--; n == 0 {
			return data[i+1:]
		}
	}
	return data
}
