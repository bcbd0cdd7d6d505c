package image

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// The disk formats that are read, in Glance's words and as content shows them.
const (
	diskRaw   = "raw"
	diskQCOW2 = "qcow2"
)

// DiskReader finds the root file system in a disk image of the format, raw or
// qcow2, that is in r, size bytes long, and returns it as a tar stream. Its
// errors, and those of the stream, are those of a Layer.
type DiskReader func(ctx context.Context, r io.ReaderAt, size int64, format string) (io.ReadCloser, error)

// checkDisk refuses disk images that can never be opened here, and those that
// are not what they were declared to be.
func checkDisk(content string, opts OpenOptions) error {
	switch {
	case opts.DiskFormat != "" && opts.DiskFormat != content:
		return refuse(errdefs.ErrInvalid, "the image is declared to have the disk_format %.20s, but its content is a disk image of another one (%s)", opts.DiskFormat, content)
	case content != diskRaw && content != diskQCOW2:
		return refuse(errdefs.ErrUnsupported, "the image is a disk image (%s); of disk images raw and qcow2 are supported", content)
	case opts.ContainerFormat != "" && opts.ContainerFormat != "bare":
		return refuse(errdefs.ErrInvalid, "the image is declared to have the container_format %.20s, but its content is a disk image; use bare", opts.ContainerFormat)
	case opts.Disk == nil:
		return refuse(errdefs.ErrUnsupported, "the image is a disk image (%s), which are not read here", content)
	}
	return nil
}

// openDisk is the image of a disk: one layer, no configuration.
func openDisk(format string, b blob, opts OpenOptions) *Archive {
	return &Archive{kind: DiskImage, layers: []Layer{&diskLayer{blob: b, format: format, read: opts.Disk, lim: opts.Limits}}}
}

// diskLayer is the root file system of a disk image.
type diskLayer struct {
	blob
	format string
	read   DiskReader
	lim    Limits
}

// DiffID implements Layer.
func (l *diskLayer) DiffID() digest.Digest { return "" }

// StoredSize implements Layer.
func (l *diskLayer) StoredSize() int64 { return l.len }

// Open implements Layer.
func (l *diskLayer) Open(ctx context.Context) (io.ReadCloser, error) {
	r, err := l.read(ctx, l.src, l.len, l.format)
	if err != nil {
		return nil, fmt.Errorf("read disk image: %w", err)
	}
	// clusters that are compressed, or used again and again, expand as
	// compressed streams do
	g := &guard{r: r, raw: l.format == diskRaw, src: &countReader{n: l.len}, lim: l.lim}
	return &layerReader{ctxReader(ctx, readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		g.n += int64(n)
		if err := g.check(); err != nil {
			return 0, err
		}
		return n, err
	})), r}, nil
}
