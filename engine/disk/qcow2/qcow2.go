// Package qcow2 reads disk images in the format of QEMU, version 2 and 3, as
// the plain disk that they hold, and writes them (Writer).
//
// An image is hostile input. No other file is ever opened: one with a backing
// file, an external data file or encryption is refused. Memory is bounded by
// maxCached for tables and as much for uncompressed clusters, whatever the
// header says, and every read ends: a table points to clusters, and what it
// points to is never taken for another table of the same level. Reference
// counts, internal snapshots, bitmaps and the mark that the image was not closed
// are ignored: they matter to who writes.
//
// Source of the format: QEMU docs/interop/qcow2.txt. The package imports
// internal/errdefs of ours.
package qcow2

import (
	"fmt"
	"io"
	"sync"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Magic is what every image begins with.
const Magic = "QFI\xfb"

// maxCached bounds each of the two caches, in bytes.
const maxCached = 8 << 20

// Image is the disk inside an image. It implements io.ReaderAt and is safe for
// concurrent use; reads happen one after the other.
type Image struct {
	r    io.ReaderAt
	file int64 // length of r
	header

	mu sync.Mutex // guards the caches and the decompressor
	// tables are second tables by their offset in the file, clusters are
	// uncompressed ones by their descriptor.
	tables, clusters cache
	inflater         inflater
}

// Open reads the header of the image in r, which is size bytes long and has to
// stay readable and unchanged. Errors, of Open and of ReadAt:
// errdefs.ErrInvalid for an image that refers to another file, is encrypted or
// too large, errdefs.ErrUnsupported for unknown versions and features,
// errdefs.ErrCorrupt where the image contradicts the format or ends too early.
// All of these have a text for tenants. Errors of r are wrapped.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	h, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	most := int(max(2, min(256, maxCached/h.cluster())))
	return &Image{r: r, file: size, header: *h, tables: newCache(most), clusters: newCache(most), inflater: inflater{zstd: h.zstd}}, nil
}

// Size is the length of the disk in bytes. It may be any number up to 2^62 and
// says nothing about how much the image holds.
func (i *Image) Size() int64 { return i.size }

// ReadAt implements io.ReaderAt.
func (i *Image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read disk at %d: %w", off, errdefs.ErrInvalid)
	}
	if off >= i.size {
		return 0, io.EOF
	}
	want := int(min(int64(len(p)), i.size-off))
	i.mu.Lock()
	defer i.mu.Unlock()
	n := 0
	for n < want {
		k, err := i.readCluster(p[n:want], off+int64(n))
		n += k
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// refuse makes an error whose text a tenant may read.
func refuse(class error, format string, args ...any) error {
	return errdefs.WithPublic(fmt.Errorf("read qcow2: %w", class), fmt.Sprintf(format, args...))
}

// corrupt says where the image contradicts the format.
func corrupt(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	return errdefs.WithPublic(fmt.Errorf("read qcow2: %w", errdefs.ErrCorrupt), "the qcow2 image is damaged: "+text)
}
