package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// A committed layer is packed: the contents of its files in one file, as they
// were copied, and the headers of its tar stream, compressed, in another
// (layer.Stage). That is all of it, so the commit is done when these two are
// durable. Whoever exports the layer streams them; the directory is made of them
// by the first who needs it (unpacked), and takes their place.

// Files of a packed layer.
const (
	packFile   = "pack"
	recipeFile = "recipe"
)

// packChanges makes the changes a layer of the store under the name that name
// gives them once it is known what they are. The pack is moved there.
func (e *Engine) packChanges(ctx context.Context, c *changes, name func(layer.DiffResult) string) (diff layer.DiffResult, err error) {
	recipe, err := os.CreateTemp(e.tmpDir(), "recipe-")
	if err != nil {
		return diff, err
	}
	defer func() {
		err = errors.Join(err, recipe.Close())
		if rerr := os.Remove(recipe.Name()); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	written := c.writeBack()
	diff, err = c.stage.Pack(ctx, recipe)
	if err = errors.Join(err, written()); err != nil {
		return diff, err
	}
	err = e.opts.Snapshots.Pack(ctx, name(diff), func(dir string) error {
		err := errors.Join(moveFile(c.pack, filepath.Join(dir, packFile)), moveFile(recipe, filepath.Join(dir, recipeFile)))
		return errors.Join(err, failpoint.Hit("engine.commit.packed"))
	})
	if err != nil {
		return diff, fmt.Errorf("layer of changes: %w", err)
	}
	return diff, nil
}

// moveFile gives a file another name, or copies it where that is another file
// system.
func moveFile(f *os.File, to string) (err error) {
	if err := os.Rename(f.Name(), to); !errors.Is(err, unix.EXDEV) {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); ; {
		start, end, err := segmentOf(f, at)
		if errors.Is(err, io.EOF) {
			return out.Truncate(st.Size())
		}
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, start), io.NewSectionReader(f, start, end-start)); err != nil {
			return err
		}
		at = end
	}
}

// unpacked sees to it that all layers of a chain are directories. The caller
// holds them. errdefs.ErrCorrupt: a pack is damaged.
func (e *Engine) unpacked(ctx context.Context, chain []string) error {
	for i, id := range chain {
		stream, err := e.packedStream(ctx, id)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err == nil {
			err = e.opts.Snapshots.Unpack(ctx, id, func(dir string) error { return e.unpackPacked(ctx, stream, dir, chain[:i], id) })
			err = errors.Join(err, stream.Close(), failpoint.Hit("engine.layer.swapped"))
		}
		if err != nil {
			return fmt.Errorf("unpack layer %s: %w", id, err)
		}
	}
	return nil
}

// unpackPacked makes the directory of a packed layer. Its stream was made by this
// engine, so there are no limits on it: what a container could make can be made again.
func (e *Engine) unpackPacked(ctx context.Context, stream io.Reader, dir string, below []string, chain string) error {
	target, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = target.Close() }()
	recipe, err := e.record()
	if err != nil {
		return err
	}
	res, err := layer.Apply(ctx, target, io.TeeReader(stream, recipe), layer.Options{Limits: unlimited(), Holes: true})
	if got := chainID(below, res.DiffID); err == nil && got != chain {
		err = fmt.Errorf("the pack holds layer %s: %w", got, errdefs.ErrCorrupt)
	}
	e.endRecord(recipe, chain, err == nil)
	return errors.Join(err, failpoint.Hit("engine.layer.unpacked"))
}

// unlimited is as much as a file system can hold.
func unlimited() layer.Limits {
	const many = 1 << 40
	return layer.Limits{Bytes: 1 << 62, Entries: many, Depth: many, PathLen: many, NameLen: many, Xattrs: many, MaxID: 1<<32 - 1}
}

// packedStream opens the tar stream of a packed layer, which stays what it is
// when the layer is unpacked or removed meanwhile. errdefs.ErrNotFound: there is no packed
// layer of the name.
func (e *Engine) packedStream(ctx context.Context, chain string) (io.ReadCloser, error) {
	dir, err := e.opts.Snapshots.Packed(ctx, chain)
	if err != nil {
		return nil, err
	}
	return openPacked(ctx, dir)
}

func openPacked(ctx context.Context, dir string) (io.ReadCloser, error) {
	pack, err := os.Open(filepath.Join(dir, packFile))
	var recipe *os.File
	if err == nil {
		if recipe, err = os.Open(filepath.Join(dir, recipeFile)); err != nil {
			err = errors.Join(err, pack.Close())
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		if _, gone := os.Lstat(dir); gone == nil {
			return nil, fmt.Errorf("%w: %w", errdefs.ErrCorrupt, err)
		}
		return nil, fmt.Errorf("%w: %w", errdefs.ErrNotFound, err) // unpacked since
	}
	if err != nil {
		return nil, err
	}
	return streamed(func(w io.Writer) error { return layer.Unpacked(ctx, pack, recipe, w) },
		func() error { return errors.Join(pack.Close(), recipe.Close()) }), nil
}
