package ext

import (
	"errors"
	"fmt"
	"io"
	"math"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
)

// Open implements filesystem.FileSystem.
func (f *fileSystem) Open(node filesystem.Node) (filesystem.File, error) {
	n, err := f.node(node)
	if err != nil {
		return nil, err
	}
	if n.kind() != unix.S_IFREG {
		return nil, invalid("inode %d is no regular file", n.number)
	}
	if n.has(flagInline) {
		data, err := f.inlineData(n)
		if err != nil {
			return nil, err
		}
		return inlineFile(data), nil
	}
	return &file{f: f, n: n}, nil
}

// file is content in blocks.
type file struct {
	f *fileSystem
	n *inode
}

// errDone ends a walk.
var errDone = errors.New("done")

// ReadAt implements io.ReaderAt.
func (h *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, invalid("read of inode %d at %d", h.n.number, off)
	}
	if off >= h.n.size {
		return 0, io.EOF
	}
	eof := int64(len(p)) > h.n.size-off
	if eof {
		p = p[:h.n.size-off]
	}
	size := uint64(h.f.blockSize)
	if uint64(off)/size > math.MaxUint32 {
		clear(p) // beyond what can be mapped
	} else if err := h.read(p, off, size); err != nil {
		return 0, err
	}
	if eof {
		return len(p), io.EOF
	}
	return len(p), nil
}

// read fills p.
func (h *file) read(p []byte, off int64, size uint64) error {
	done := 0
	err := h.f.runs(h.n, uint64(off)/size, func(r run) error {
		at := int64(r.logical * size)
		if r.unwritten {
			return nil
		}
		skip := at - (off + int64(done)) // a hole before the run
		if skip >= int64(len(p)-done) {
			return errDone
		}
		if skip > 0 {
			clear(p[done : done+int(skip)])
			done += int(skip)
		}
		inside := off + int64(done) - at
		part := p[done:]
		if left := int64(r.count*size) - inside; int64(len(part)) > left {
			part = part[:left]
		}
		if k, err := h.f.disk.r.ReadAt(part, int64(r.physical*size)+inside); err != nil && k < len(part) {
			return fmt.Errorf("inode %d: %w", h.n.number, err)
		}
		if done += len(part); done == len(p) {
			return errDone
		}
		return nil
	})
	if err != nil && !errors.Is(err, errDone) {
		return err
	}
	clear(p[done:])
	return nil
}

// Segments implements filesystem.File.
func (h *file) Segments(visit func(offset, length int64) error) error {
	size := int64(h.f.blockSize)
	err := h.f.runs(h.n, 0, func(r run) error {
		offset := int64(r.logical) * size
		if offset >= h.n.size {
			return errDone
		}
		if r.unwritten {
			return nil
		}
		return visit(offset, min(int64(r.count)*size, h.n.size-offset))
	})
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// Readlink implements filesystem.FileSystem.
func (f *fileSystem) Readlink(node filesystem.Node) (string, error) {
	n, err := f.node(node)
	if err != nil {
		return "", err
	}
	if n.kind() != unix.S_IFLNK {
		return "", invalid("inode %d is no symbolic link", n.number)
	}
	switch {
	case n.size > int64(min(f.blockSize, 4095)):
		return "", corrupt("inode %d: symbolic link of %d bytes", n.number, n.size)
	case n.has(flagInline):
		data, err := f.inlineData(n)
		return string(data), err
	case n.size < blockAreaLen && !n.has(flagExtents):
		return string(n.area()[:n.size]), nil
	}
	buf := make([]byte, n.size)
	if err := (&file{f: f, n: n}).read(buf, 0, uint64(f.blockSize)); err != nil {
		return "", err
	}
	return string(buf), nil
}
