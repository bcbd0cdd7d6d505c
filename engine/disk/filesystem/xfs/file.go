package xfs

import (
	"io"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// file implements filesystem.File.
type file struct {
	fork *fork
	size int64
}

// Open implements filesystem.FileSystem.
func (fs *FS) Open(n filesystem.Node) (filesystem.File, error) {
	i, err := fs.typed(n, modeRegular, "regular file")
	if err != nil {
		return nil, err
	}
	if i.realtime {
		return nil, corrupt("inode %d: in a real-time section that there is not", i.num)
	}
	f, err := fs.newFork(i.num, i.format, i.extents, i.data)
	if err != nil {
		return nil, err
	}
	return &file{fork: f, size: i.size}, nil
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errdefs.ErrInvalid
	}
	if off >= f.size {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > f.size-off {
		p, eof = p[:f.size-off], io.EOF
	}
	done := 0
	for done < len(p) {
		n, err := f.readPart(p[done:], off+int64(done))
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, eof
}

// readPart fills the first part of p, which is one extent's or one hole's.
func (f *file) readPart(p []byte, off int64) (int, error) {
	sb := &f.fork.fs.sb
	block := uint64(off) >> sb.blockLog
	e, ok, err := f.fork.next(block)
	if err != nil {
		return 0, err
	}
	if !ok {
		clear(p)
		return len(p), nil
	}
	// In blocks first: a file may end at the last byte that 63 bits can name.
	last := uint64(off+int64(len(p))-1) >> sb.blockLog
	if e.off > block {
		if e.off <= last {
			p = p[:int64(e.off)<<sb.blockLog-off]
		}
		clear(p)
		return len(p), nil
	}
	if end := e.off + e.count; end <= last {
		p = p[:int64(end)<<sb.blockLog-off]
	}
	if e.unwritten {
		clear(p)
		return len(p), nil
	}
	at := sb.offset(e.fsb) + off - int64(e.off)<<sb.blockLog
	return len(p), f.fork.fs.dev.readData(p, at)
}

// Segments implements filesystem.File.
func (f *file) Segments(visit func(offset, length int64) error) error {
	sb := &f.fork.fs.sb
	if f.size == 0 {
		return nil
	}
	last := uint64(f.size-1) >> sb.blockLog
	for block := uint64(0); block <= last; {
		e, ok, err := f.fork.next(block)
		if err != nil || !ok || e.off > last {
			return err
		}
		block = e.off + e.count
		if e.unwritten {
			continue
		}
		from, to := int64(e.off)<<sb.blockLog, f.size
		if block <= last {
			to = int64(block) << sb.blockLog
		}
		if err := visit(from, to-from); err != nil {
			return err
		}
	}
	return nil
}

// Readlink implements filesystem.FileSystem.
func (fs *FS) Readlink(n filesystem.Node) (string, error) {
	i, err := fs.typed(n, modeLink, "symbolic link")
	if err != nil {
		return "", err
	}
	const maxTarget = 1024 // XFS_SYMLINK_MAXLEN
	if i.size == 0 || i.size > maxTarget {
		return "", corrupt("inode %d: symbolic link of %d bytes", i.num, i.size)
	}
	if i.format == formatLocal {
		return string(i.data[:i.size]), nil
	}
	f, err := fs.newFork(i.num, i.format, i.extents, i.data)
	if err != nil {
		return "", err
	}
	target := make([]byte, 0, i.size)
	for block := uint64(0); len(target) < int(i.size); {
		part, blocks, err := fs.readLinkPart(f, block, int(i.size)-len(target))
		if err != nil {
			return "", err
		}
		target, block = append(target, part...), block+blocks
	}
	return string(target), nil
}

// readLinkPart returns what one extent holds of a target, at most want bytes,
// and the number of its blocks. In version 5 a header precedes each extent's
// share, and a checksum covers all of the extent.
func (fs *FS) readLinkPart(f *fork, block uint64, want int) ([]byte, uint64, error) {
	e, ok, err := f.next(block)
	if err != nil {
		return nil, 0, err
	}
	const maxBytes = uint64(64 << 10) // a block at most, or a few of the smallest
	if !ok || e.off != block || e.unwritten || e.count > max(1, maxBytes>>fs.sb.blockLog) {
		return nil, 0, corrupt("inode %d: target of a symbolic link is missing", f.inode)
	}
	b := make([]byte, e.count<<fs.sb.blockLog)
	off, err := fs.readBlock(b, e.fsb)
	if err != nil {
		return nil, 0, err
	}
	if fs.sb.v5 {
		if b, err = fs.stripRemote(b, off, f.inode, "XSLM", &linkLayout); err != nil {
			return nil, 0, err
		}
	}
	return b[:min(want, len(b))], e.count, nil
}

// stripRemote verifies a block whose header is a struct xfs_dsymlink_hdr or
// xfs_attr3_rmt_hdr, and returns the content.
func (fs *FS) stripRemote(b []byte, off int64, inode uint64, magic string, l *layout) ([]byte, error) {
	const header = 56
	if string(b[:4]) != magic {
		return nil, corrupt("inode %d: no %s at %d", inode, l.what, off)
	}
	if err := fs.verify(b, off, inode, l); err != nil {
		return nil, err
	}
	size := be.Uint32(b[8:])
	if size == 0 || uint64(size) > uint64(len(b)-header) {
		return nil, corrupt("inode %d: %s at %d: %d bytes", inode, l.what, off, size)
	}
	return b[header : header+size], nil
}
