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
	r, err := newRecipeReader(recipe)
	if err != nil {
		return fmt.Errorf("rebuild layer: %w", err)
	}
	defer r.close()
	buf := make([]byte, 256<<10)
	for {
		p, err := r.next()
		if err == io.EOF {
			runtime.KeepAlive(dir)
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
			err = pour(dir, p, w, buf)
		}
		if err != nil {
			return fmt.Errorf("rebuild layer: %w", err)
		}
	}
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
		_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.NewSectionReader(f, p.offset, p.length)}, buf)
	}
	return errors.Join(err, f.Close())
}
