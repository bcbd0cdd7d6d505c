package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Rebuild writes the tar stream that dir was unpacked from, by the recipe that a
// Recorder has made of it. errdefs.ErrCorrupt: the directory does not have what
// the recipe says, which is also so when a later entry of the stream has replaced
// an earlier one. The caller compares the digest of what was written. Errors of
// w are passed on.
func Rebuild(ctx context.Context, dir *os.File, recipe io.Reader, w io.Writer) error {
	buf := make([]byte, 256<<10)
	err := rebuild(ctx, recipe, w, func(p piece) error { return pour(dir, p, w, buf) })
	runtime.KeepAlive(dir)
	return err
}

// Unpacked writes the tar stream of the layer of a pack, by the recipe that
// Stage.Pack has made of it. errdefs.ErrCorrupt: they do not belong together.
// The caller compares the digest of what was written. Errors of w are passed on.
func Unpacked(ctx context.Context, pack *os.File, recipe io.Reader, w io.Writer) error {
	st, err := pack.Stat()
	if err != nil {
		return fmt.Errorf("unpack packed layer: %w", err)
	}
	buf := make([]byte, 256<<10)
	return rebuild(ctx, recipe, w, func(p piece) error {
		if p.name != packName || p.size != st.Size() {
			return fmt.Errorf("%w: the pack has %d bytes, and not the %d of %q", errdefs.ErrCorrupt, st.Size(), p.size, p.name)
		}
		return pourPart(pack, p, w, buf)
	})
}

// rebuild follows a recipe; contents are what pour writes.
func rebuild(ctx context.Context, recipe io.Reader, w io.Writer, pour func(p piece) error) error {
	r, err := newRecipeReader(recipe)
	if err != nil {
		return fmt.Errorf("rebuild layer: %w", err)
	}
	defer r.close()
	for {
		p, err := r.next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		switch {
		case err != nil:
		case p.name == "":
			_, err = w.Write(p.raw)
		default:
			err = pour(p)
		}
		if err != nil {
			return fmt.Errorf("rebuild layer: %w", err)
		}
	}
}

func pourPart(f *os.File, p piece, w io.Writer, buf []byte) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.NewSectionReader(f, p.offset, p.length)}, buf)
	return err
}

// pour writes the piece of a file, which has to be of the size.
func pour(dir *os.File, p piece, w io.Writer, buf []byte) error {
	fd, err := openBelow(int(dir.Fd()), p.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, resolve)
	if err != nil {
		return fmt.Errorf("%w: open %q: %w", errdefs.ErrCorrupt, p.name, err)
	}
	f := os.NewFile(uintptr(fd), p.name)
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() != p.size) {
		err = fmt.Errorf("%w: %q is not a file of %d bytes", errdefs.ErrCorrupt, p.name, p.size)
	}
	if err == nil {
		err = pourPart(f, p, w, buf)
	}
	return errors.Join(err, f.Close())
}
