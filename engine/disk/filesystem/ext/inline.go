package ext

import (
	"io"
)

// inlineData returns the content of an inode that keeps it in itself: the
// first 60 bytes in place of the block map, the others in an attribute. For a
// directory it is all of both, whatever the size says.
func (f *fileSystem) inlineData(n *inode) ([]byte, error) {
	rest, err := f.inlineRest(n)
	if err != nil {
		return nil, err
	}
	data := append(append(make([]byte, 0, blockAreaLen+len(rest)), n.area()...), rest...)
	if n.size > int64(len(data)) {
		return nil, corrupt("inode %d: %d bytes of inline data, of %d", n.number, len(data), n.size)
	}
	return data[:n.size], nil
}

// inlineFile is content in memory.
type inlineFile []byte

// ReadAt implements io.ReaderAt.
func (b inlineFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, invalid("read at %d", off)
	}
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Segments implements filesystem.File.
func (b inlineFile) Segments(visit func(offset, length int64) error) error {
	if len(b) == 0 {
		return nil
	}
	return visit(0, int64(len(b)))
}
