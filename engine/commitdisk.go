package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/disk/filesystem/ext"
	"github.com/gantry-project/gantry/engine/disk/qcow2"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/jail"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
	"github.com/gantry-project/gantry/internal/undo"
)

// ErrNoDisk says that an image is no disk image. It is of the class
// errdefs.ErrInvalid.
var ErrNoDisk = fmt.Errorf("no disk image: %w", errdefs.ErrInvalid)

// CommitDiskRequest says what CommitDisk makes.
type CommitDiskRequest struct {
	// Format is disk.Raw or disk.QCOW2.
	Format string
	// Original streams the disk image that the container's image was imported
	// from; its last error (a hash that differs) is passed on.
	Original io.Reader
	// OriginalFormat is the declared one, or empty.
	OriginalFormat string
}

// CommitDisk opens a disk image that boots as a machine: the original one with
// the container's files on its root file system, which is made anew in the shape
// of the old one; all else of the disk is as it was. A running container is held
// still as by Commit. Besides temporary files, which have no name, the host needs
// room for the original and for the disk.
//
// ErrNoDisk if the original is something else, after its first bytes.
// errdefs.ErrInvalid, with a text for tenants, if its root file system is none
// that can be written (ext4) or the files do not fit.
func (e *Engine) CommitDisk(ctx context.Context, id ContainerID, req CommitDiskRequest) (Committed, error) {
	out, err := e.commitDisk(ctx, id, req)
	if err != nil {
		return Committed{}, fmt.Errorf("commit container %s as a disk: %w", id, err)
	}
	return out, nil
}

func (e *Engine) commitDisk(ctx context.Context, id ContainerID, req CommitDiskRequest) (_ Committed, err error) {
	if req.Format != disk.Raw && req.Format != disk.QCOW2 {
		return Committed{}, fmt.Errorf("format %q: %w", req.Format, errdefs.ErrInvalid)
	}
	original, size, err := e.spoolDisk(ctx, req.Original)
	if err != nil {
		return Committed{}, err
	}
	defer func() { _ = original.Close() }() // it was only read since
	target, err := e.nameless()
	if err != nil {
		return Committed{}, err
	}
	defer func() {
		if err != nil {
			_ = target.Close() // what it held is gone
		}
	}()
	frame, err := e.rewriteDisk(ctx, id, original, size, req.OriginalFormat, target)
	if err != nil {
		return Committed{}, err
	}
	if frame.Size < 0 || frame.Size > disk.MaxFrame+disk.MaxFrame/2 {
		return Committed{}, fmt.Errorf("a disk of %d bytes: %w", frame.Size, errdefs.ErrCorrupt) // a child has made it up
	}
	if err := errors.Join(target.Truncate(frame.Size), failpoint.Hit("engine.commit.disk")); err != nil {
		return Committed{}, err
	}
	return diskContent(ctx, req.Format, target, frame.Size)
}

// nameless makes a file that is gone with its last descriptor, however the
// service ends.
func (e *Engine) nameless() (*os.File, error) {
	f, err := os.CreateTemp(e.tmpDir(), "disk-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// spoolDisk brings a disk image to a file.
func (e *Engine) spoolDisk(ctx context.Context, r io.Reader) (_ *os.File, size int64, err error) {
	in := bufio.NewReaderSize(r, image.SniffLen)
	head, err := in.Peek(image.SniffLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, fmt.Errorf("read the original image: %w", err)
	}
	if !image.IsDisk(head) {
		return nil, 0, ErrNoDisk
	}
	f, err := e.nameless()
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	size, err = io.Copy(f, struct{ io.Reader }{in})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the original image: %w", err)
	}
	return f, size, nil
}

// rewriteDisk writes the disk with the container's present files.
func (e *Engine) rewriteDisk(ctx context.Context, id ContainerID, original *os.File, size int64, format string, target *os.File) (_ disk.Frame, err error) {
	var undone undo.Stack
	defer func() { err = errors.Join(err, undone.Unwind(ctx)) }()
	view, err := e.exportView(ctx, id, &undone)
	if err != nil {
		return disk.Frame{}, err
	}
	need, err := needOf(ctx, view)
	if err != nil {
		return disk.Frame{}, err
	}
	opts := disk.Options{Format: format, Arch: runtime.GOARCH}
	w := e.opts.WriteDisk
	if w == nil {
		w = disk.Direct{}
	}
	frame, err := w.CopyFrame(ctx, original, size, opts, need, target)
	if errors.Is(err, jail.ErrImpossible) {
		e.warnUnjailed(err)
		w = disk.Direct{}
		frame, err = w.CopyFrame(ctx, original, size, opts, need, target)
	}
	if err != nil {
		return frame, err
	}
	if err := failpoint.Hit("engine.commit.frame"); err != nil {
		return frame, err
	}
	tree := streamed(func(out io.Writer) error { return diffTo(ctx, view, out) }, func() error { return nil })
	done, err := w.Fill(ctx, frame, tree, target)
	if err = errors.Join(err, tree.Close()); err != nil {
		return frame, err
	}
	e.opts.Log.Info().Str(logging.Container, string(id)).Str("root", frame.Where).Int64("bytes", frame.Size).
		Int64("entries", done.Entries).Int64("blocks", done.Blocks).Msg("disk image written")
	return frame, nil
}

// needOf measures a tree.
func needOf(ctx context.Context, dir string) (ext.Need, error) {
	const block = 4096
	need := ext.Need{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		need.Entries++
		switch {
		case d.IsDir():
			need.Bytes += max(block, st.Size+st.Size/4)
		case d.Type().IsRegular():
			need.Bytes += min((st.Size+block-1)/block*block, (st.Blocks*512+block-1)/block*block) / max(1, int64(st.Nlink))
		}
		return nil
	})
	if err != nil {
		return need, fmt.Errorf("measure the tree: %w", err)
	}
	return need, nil
}

// diskContent streams a disk, whose file it closes at the end.
func diskContent(ctx context.Context, format string, f *os.File, size int64) (Committed, error) {
	out := Committed{Size: size}
	write := func(w io.Writer) error {
		_, err := io.Copy(w, struct{ io.Reader }{io.NewSectionReader(f, 0, size)})
		return err
	}
	if format == disk.QCOW2 {
		img, err := qcow2.NewWriter(f, size, func(from int64) (int64, int64, error) { return segmentOf(f, from) })
		if err != nil {
			return out, err
		}
		out.Size = img.Size()
		write = func(w io.Writer) error { return img.Write(ctx, w) }
	}
	out.Content = streamed(write, func() error {
		if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			return err
		}
		return nil
	})
	return out, nil
}

// segmentOf finds data in a file, as qcow2.Segments.
func segmentOf(f *os.File, from int64) (start, end int64, err error) {
	start, err = f.Seek(from, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err == nil {
		end, err = f.Seek(start, unix.SEEK_HOLE)
	}
	return start, end, err
}
