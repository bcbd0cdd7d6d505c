package disk

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Report says what a conversion found, for logs. It may be stored as JSON.
type Report struct {
	// Format, Table and Where as in Disk.
	Format, Table, Where string
	// FileSystem is its type as in mount(8); Dirty as in filesystem.Info.
	FileSystem string
	Dirty      bool
	// Tar is what was written and left out.
	Tar filesystem.TarResult
}

// Convert opens the image in r and writes its root file system to w as a tar
// stream. Errors are those of Open and of filesystem.WriteTar, and each of the
// classes ErrInvalid, ErrUnsupported and ErrCorrupt has a text for tenants; an
// error of w is passed on. What was written before an error is of no use.
func Convert(ctx context.Context, r io.ReaderAt, size int64, opts Options, w io.Writer) (Report, error) {
	d, err := Open(ctx, r, size, opts)
	if err != nil {
		return Report{}, err
	}
	info := d.Root.Info()
	rep := Report{Format: d.Format, Table: string(d.Table), Where: d.Where, FileSystem: info.Type, Dirty: info.Dirty}
	if rep.Tar, err = filesystem.WriteTar(ctx, d.Root, w, filesystem.TarOptions{Limits: opts.Limits}); err != nil {
		return rep, unreadable(info.Type, d.Where, err)
	}
	return rep, nil
}

// unreadable gives an error of a file system, if the image is the cause of it, a
// text for tenants.
func unreadable(kind, where string, err error) error {
	out := fmt.Errorf("read disk: %s: %w", where, err)
	for _, class := range []error{errdefs.ErrCorrupt, errdefs.ErrUnsupported, errdefs.ErrInvalid} {
		if errors.Is(err, class) {
			return errdefs.WithPublic(out, fmt.Sprintf("the %s file system of the disk image (%s) cannot be read: %v", kind, where, err))
		}
	}
	return out
}

// A Converter is Convert, or does the same somewhere safer (engine/disk/jail).
// An error that is jail.ErrImpossible says that the host cannot do it so.
type Converter func(ctx context.Context, r io.ReaderAt, size int64, opts Options, w io.Writer) (Report, error)
