package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
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

// Commit opens an OCI archive of the container's disk: the layers of its image,
// as they came where that is known, and one more with what the container has
// written. A running container is held still only while what it has just written
// is copied aside.
func (e *Engine) Commit(ctx context.Context, id ContainerID) (Committed, error) {
	return e.commit(ctx, id, false)
}

// CommitDelta is Commit without the layers of the image: an archive as large as
// what was written, which can be imported where the image is, under the same
// reference.
func (e *Engine) CommitDelta(ctx context.Context, id ContainerID) (Committed, error) {
	return e.commit(ctx, id, true)
}

func (e *Engine) commit(ctx context.Context, id ContainerID, delta bool) (_ Committed, err error) {
	c, err := e.stageChanges(ctx, id)
	if err != nil {
		return Committed{}, fmt.Errorf("commit container %s: %w", id, err)
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	if err := failpoint.Hit("engine.commit.copied"); err != nil {
		return Committed{}, fmt.Errorf("commit container %s: %w", id, err)
	}
	spec := c.spec(e.tmpDir())
	switch {
	case delta && c.replaced:
		return Committed{}, fmt.Errorf("commit container %s: its image is not what is called %s any more: %w", id, c.rec.Image, errdefs.ErrConflict)
	case delta:
		spec.Base = c.img.Ref
	default:
		if spec.Layers, err = e.layerSources(ctx, c.img); err != nil {
			return Committed{}, fmt.Errorf("commit container %s: %w", id, err)
		}
	}
	spec.Layers = append(spec.Layers, image.LayerSource{Step: committed(), Open: c.open})
	built, err := image.Build(ctx, spec)
	if err != nil {
		return Committed{}, fmt.Errorf("commit container %s: %w", id, err)
	}
	return Committed{Content: built, Size: built.Size()}, nil
}

// committed is the step of a layer of changes.
func committed() image.Step { return image.Step{Created: time.Now(), CreatedBy: "gantry commit"} }

// diffTo writes a directory in overlay form as a layer.
func diffTo(ctx context.Context, dir string, w io.Writer) error {
	_, err := digestDir(ctx, dir, w)
	return err
}

// diffReader streams a committed layer.
func diffReader(ctx context.Context, dir string) io.ReadCloser {
	return piped(func(w io.Writer) error { return diffTo(ctx, dir, w) })
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

// CommitImage makes an image of the container's disk that stays here, under the
// name ref: the layers of its image and one more with what the container has
// written, which is not compressed, and becomes a directory when a container is
// made of the image. An image that has the name loses it. A running container
// is held still as by Commit.
func (e *Engine) CommitImage(ctx context.Context, id ContainerID, ref string) (_ ImageInfo, err error) {
	if ref == "" {
		return ImageInfo{}, fmt.Errorf("commit container %s: an image without a name: %w", id, errdefs.ErrInvalid)
	}
	c, err := e.stageChanges(ctx, id)
	if err != nil {
		return ImageInfo{}, fmt.Errorf("commit container %s: %w", id, err)
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	rec, err := e.commitRecord(ctx, c, ref)
	if err != nil {
		return ImageInfo{}, fmt.Errorf("commit container %s: %w", id, err)
	}
	return imageInfo(rec), nil
}

func (e *Engine) commitRecord(ctx context.Context, c *changes, ref string) (store.Image, error) {
	rec, top, letGo := c.img, "", func() {}
	defer func() { letGo() }()
	diff, err := e.packChanges(ctx, c, func(diff layer.DiffResult) string {
		top = chainID(rec.Chain, diff.DiffID)
		letGo = e.layers.hold(top)
		return top
	})
	if err != nil {
		return rec, err
	}
	rec.Ref, rec.ID, rec.Config, rec.RootFS, rec.Imported, rec.LastUsed = ref, "", c.spec("").Config, false, time.Now(), time.Now()
	rec.History, rec.Stored = append(stepsOf(rec), committed()), append(storedOf(rec), image.Stored{})
	rec.Chain, rec.DiffIDs = append(slices.Clone(rec.Chain), top), append(slices.Clone(rec.DiffIDs), diff.DiffID.String())
	rec.LayerBytes, rec.SizeBytes = append(slices.Clone(rec.LayerBytes), diff.Bytes), rec.SizeBytes+diff.Bytes
	err = failpoint.Hit("engine.commit.record")
	old, oerr := e.opts.Store.Image(ctx, ref)
	if err == nil {
		err = e.opts.Store.PutImage(ctx, rec)
	}
	letGo()
	if err != nil {
		return rec, errors.Join(err, e.dropLayers(context.WithoutCancel(ctx), []string{top}))
	}
	if oerr == nil {
		return rec, e.dropLayers(ctx, old.Chain)
	}
	return rec, nil
}

// digestDir writes a directory in overlay form as a layer, and says what it is.
func digestDir(ctx context.Context, dir string, w io.Writer) (layer.DiffResult, error) {
	d, err := os.Open(dir)
	if err != nil {
		return layer.DiffResult{}, err
	}
	res, err := layer.Diff(ctx, d, w)
	return res, errors.Join(err, d.Close())
}
