package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// Committed is an image of a container's disk on its way out.
type Committed struct {
	// Content streams an OCI archive once; Close removes what is temporary.
	Content io.ReadCloser
	// Size of the archive in bytes.
	Size int64
}

func (e *Engine) tmpDir() string { return filepath.Join(e.opts.Root, "tmp") }

// Commit opens an OCI archive of the container's disk: the layers of its image
// and one more with what the container has written. A running container is
// frozen while the changes are copied aside, and runs again when they are; the
// compression comes after that.
func (e *Engine) Commit(ctx context.Context, id ContainerID) (Committed, error) {
	changes, spec, done, err := e.freezeChanges(ctx, id)
	if err != nil {
		return Committed{}, fmt.Errorf("commit container %s: %w", id, err)
	}
	defer done()
	if err := failpoint.Hit("engine.commit.copied"); err != nil {
		return Committed{}, errors.Join(fmt.Errorf("commit container %s: %w", id, err), changes.Close())
	}
	spec.Layers = append(spec.Layers, image.LayerSource{
		CreatedBy: "gantry commit",
		Open: func(context.Context) (io.ReadCloser, error) {
			_, err := changes.Seek(0, io.SeekStart)
			return io.NopCloser(changes), err
		},
	})
	built, err := image.Build(ctx, spec)
	if err := errors.Join(err, changes.Close()); err != nil {
		return Committed{}, fmt.Errorf("commit container %s: %w", id, err)
	}
	return Committed{Content: built, Size: built.Size()}, nil
}

// freezeChanges copies the changes into a file without a name, under a freeze
// if the container runs. The layers below stay until done is called, also when
// the container and its image are removed meanwhile.
func (e *Engine) freezeChanges(ctx context.Context, id ContainerID) (_ *os.File, _ image.BuildSpec, done func(), err error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return nil, image.BuildSpec{}, nil, err
	}
	defer unlock()
	done = e.layers.hold(c.rec.Chain...)
	defer func() {
		if err != nil {
			done()
		}
	}()
	spec, err := e.commitSpec(ctx, c)
	if err != nil {
		return nil, spec, nil, err
	}
	end, err := e.begin(ctx, opCommit, c.rec.ID, commitIntent{Frozen: c.running && !c.paused})
	if err != nil {
		return nil, spec, nil, err
	}
	defer end()
	thaw, err := e.hold(ctx, c)
	if err != nil {
		return nil, spec, nil, err
	}
	defer func() { err = errors.Join(err, thaw()) }()
	if err := failpoint.Hit("engine.commit.frozen"); err != nil {
		return nil, spec, nil, err
	}
	upper, err := e.opts.Snapshots.Changes(ctx, c.rec.ID)
	if err != nil {
		return nil, spec, nil, err
	}
	f, err := nameless(e.tmpDir())
	if err != nil {
		return nil, spec, nil, err
	}
	if err := diffTo(ctx, upper, f); err != nil {
		return nil, spec, nil, errors.Join(err, f.Close())
	}
	return f, spec, done, nil
}

// commitSpec describes the image of a container, without its changes.
func (e *Engine) commitSpec(ctx context.Context, c *container) (image.BuildSpec, error) {
	img, err := e.opts.Store.Image(ctx, c.rec.Image)
	if err != nil {
		return image.BuildSpec{}, err
	}
	spec := image.BuildSpec{Config: img.Config, Created: time.Now(), TempDir: e.tmpDir()}
	if len(spec.Config.Entrypoint)+len(spec.Config.Cmd) == 0 {
		// a bare root file system has no configuration: what ran is its command
		spec.Config.Entrypoint = c.rec.Args
	}
	spec.Layers, err = e.layerSources(ctx, c.rec.Chain)
	return spec, err
}

// layerSources stream committed layers, lowest first.
func (e *Engine) layerSources(ctx context.Context, chain []string) ([]image.LayerSource, error) {
	var out []image.LayerSource
	for _, id := range chain {
		dir, err := e.opts.Snapshots.Layer(ctx, id)
		if err != nil {
			return nil, err
		}
		out = append(out, image.LayerSource{
			Open: func(ctx context.Context) (io.ReadCloser, error) { return diffReader(ctx, dir), nil },
		})
	}
	return out, nil
}

// hold freezes a running container and returns what undoes it.
func (e *Engine) hold(ctx context.Context, c *container) (thaw func() error, err error) {
	if !c.running || c.paused {
		return func() error { return nil }, nil
	}
	group, err := e.opts.Cgroups.Open(ctx, c.rec.ID)
	if err != nil {
		return nil, err
	}
	undo := func() error { return group.Thaw(context.WithoutCancel(ctx)) }
	if err := group.Freeze(ctx); err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// nameless makes a file that is gone when it is closed.
func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "commit-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// diffTo writes a directory in overlay form as a layer.
func diffTo(ctx context.Context, dir string, w io.Writer) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_, err = layer.Diff(ctx, d, w)
	return errors.Join(err, d.Close())
}

// diffReader streams a committed layer.
func diffReader(ctx context.Context, dir string) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(diffTo(ctx, dir, w)) }()
	return r
}

// layerSize is how much a layer takes unpacked.
func (e *Engine) layerSize(ctx context.Context, chain string) (int64, error) {
	dir, err := e.opts.Snapshots.Layer(ctx, chain)
	if err != nil {
		return 0, err
	}
	var size int64
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return err
	})
	return size, err
}
