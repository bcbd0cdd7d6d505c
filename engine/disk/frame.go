package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/gantry-project/gantry/engine/disk/filesystem/ext"
	"github.com/gantry-project/gantry/engine/disk/partition"
	"github.com/gantry-project/gantry/engine/disk/qcow2"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Frame is a disk without the files of its root: what CopyFrame has written, and
// where Fill writes. It may be stored as JSON.
type Frame struct {
	// Size of the disk in bytes.
	Size int64
	// Start of the root file system, in bytes.
	Start int64
	// Where as in Disk.
	Where string
	// Shape of the root file system.
	Shape ext.Shape
}

// A Rewriter makes a disk that has the root of another tree. The methods are
// CopyFrame and Fill, or do the same somewhere safer (engine/disk/jail); an error
// that is jail.ErrImpossible says that the host cannot do it so. Where files are
// needed for that, r and to have to be files.
type Rewriter interface {
	CopyFrame(ctx context.Context, r io.ReaderAt, size int64, opts Options, need ext.Need, to ext.Output) (Frame, error)
	Fill(ctx context.Context, f Frame, tree io.Reader, to ext.Output) (ext.Written, error)
}

// Direct is the Rewriter of this process.
type Direct struct{}

// MaxFrame bounds the disks that CopyFrame copies.
const MaxFrame = ext.MaxWritten

// CopyFrame copies a disk image, all but its root file system, to zeros: boot
// loader, partition table, the other partitions, and the gaps between them. Where
// a tree of the size of need would not fit, the root file system becomes longer,
// if it is the last partition. Blocks of zeros are not written.
//
// Errors are those of Open; errdefs.ErrInvalid with a text for tenants if the
// root is no file system that Fill can write, or has no room; errdefs.ErrExhausted
// if the host has none.
func (Direct) CopyFrame(ctx context.Context, r io.ReaderAt, size int64, opts Options, need ext.Need, to ext.Output) (Frame, error) {
	d, err := Open(ctx, r, size, opts)
	if err != nil {
		return Frame{}, err
	}
	if d.Format == QCOW2 {
		if r, err = qcow2.Open(r, size); err != nil {
			return Frame{}, fmt.Errorf("copy disk: %w", err)
		}
	}
	if d.Size > MaxFrame {
		return Frame{}, refuse(errdefs.ErrInvalid, "the disk of the image has %d bytes, of which no snapshot in the form of a disk image is made", d.Size)
	}
	if kind := d.Root.Info().Type; kind != "ext4" {
		return Frame{}, refuse(errdefs.ErrInvalid, "the root file system of the disk image is %s: a snapshot in the form of a disk image is made of ext4 only, one in the forms tar and full of any", kind)
	}
	old, err := ext.ShapeOf(io.NewSectionReader(r, d.part.Start, d.part.Size), d.part.Size)
	if errors.Is(err, errdefs.ErrUnsupported) {
		return Frame{}, refuse(errdefs.ErrInvalid, "the root file system of the disk image cannot be written anew for a snapshot: %v; the forms tar and full can be made", err)
	}
	if err != nil {
		return Frame{}, fmt.Errorf("copy disk: %w", err)
	}
	f := Frame{Size: d.Size, Start: d.part.Start, Where: d.Where}
	if f.Shape, err = old.For(need, MaxFrame-d.part.Start); err != nil {
		return Frame{}, noRoom(err)
	}
	out := output{to}
	if err := copyData(ctx, r, out, 0, d.part.Start+ext.KeptBytes); err != nil {
		return Frame{}, err
	}
	if f.Shape.Bytes() <= d.part.Size {
		return f, copyData(ctx, r, out, d.part.Start+old.Bytes(), d.Size)
	}
	end := (d.part.Start + f.Shape.Bytes() + partition.Align - 1) / partition.Align * partition.Align
	if f.Size, err = partition.Grow(r, d.Size, d.table, d.part, end, out); errors.Is(err, errdefs.ErrUnsupported) {
		return Frame{}, noRoom(err)
	}
	return f, err
}

// noRoom says that a tree does not fit.
func noRoom(err error) error {
	return errdefs.WithPublic(fmt.Errorf("copy disk: %w: %s", errdefs.ErrInvalid, err.Error()), // of this class only
		"the files of the instance do not fit onto the root partition of its disk image, which cannot be made larger; a snapshot can be made in the forms tar and full")
}

// Fill writes the root file system of a frame with the files of a tar stream.
// Errors are those of ext.Write.
func (Direct) Fill(ctx context.Context, f Frame, tree io.Reader, to ext.Output) (ext.Written, error) {
	if f.Start < 0 || f.Start > MaxFrame {
		return ext.Written{}, fmt.Errorf("fill disk: a root at byte %d: %w", f.Start, errdefs.ErrInvalid)
	}
	done, err := ext.Write(ctx, f.Shape, tree, shifted{output{to}, f.Start})
	if err != nil {
		return done, fmt.Errorf("fill disk: %s: %w", f.Where, err)
	}
	return done, nil
}

// copyData copies what is not zeros between two bytes of a disk.
func copyData(ctx context.Context, r io.ReaderAt, to io.WriterAt, from, end int64) error {
	const block = 4096
	buf := make([]byte, 256*block)
	zeros := string(make([]byte, block))
	for at := from; at < end; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("copy disk: %w: %w", errdefs.ErrAborted, err)
		}
		b := buf[:min(int64(len(buf)), end-at)]
		if n, err := r.ReadAt(b, at); n < len(b) {
			return fmt.Errorf("copy disk: read at %d: %w", at, err)
		}
		for off := 0; off < len(b); off += block {
			part := b[off:min(off+block, len(b))]
			if strings.HasPrefix(zeros, string(part)) {
				continue
			}
			if _, err := to.WriteAt(part, at+int64(off)); err != nil {
				return fmt.Errorf("copy disk: %w", err)
			}
		}
		at += int64(len(b))
	}
	return nil
}

// output tells of a host without room in words.
type output struct{ ext.Output }

// WriteAt implements io.WriterAt.
func (o output) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.Output.WriteAt(p, off)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return n, errdefs.WithPublic(fmt.Errorf("%w: %w", errdefs.ErrExhausted, err), "the host has no disk space left for the snapshot")
	}
	return n, err
}

// shifted is an output from a byte on.
type shifted struct {
	to ext.Output
	by int64
}

// ReadAt implements io.ReaderAt.
func (s shifted) ReadAt(p []byte, off int64) (int, error) { return s.to.ReadAt(p, off+s.by) }

// WriteAt implements io.WriterAt.
func (s shifted) WriteAt(p []byte, off int64) (int, error) { return s.to.WriteAt(p, off+s.by) }
