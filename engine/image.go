package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/content"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// ImageInfo is what the engine knows of an imported image.
type ImageInfo struct {
	Ref    string
	Config image.Config
	// RootFS is true for a bare root file system, which has no configuration.
	RootFS bool
	// SizeBytes is the unpacked size.
	SizeBytes int64
}

// ImportRequest brings an image into the engine.
type ImportRequest struct {
	// Ref is the name to import it under.
	Ref string
	// Content streams the archive. Its last error (a hash that differs) ends
	// the import.
	Content io.Reader
	// DiskFormat and ContainerFormat are what the image service declares.
	DiskFormat, ContainerFormat string
}

// Image returns an imported image, errdefs.ErrNotFound if it is not here.
func (e *Engine) Image(ctx context.Context, ref string) (ImageInfo, error) {
	rec, err := e.opts.Store.Image(ctx, ref)
	if err != nil {
		return ImageInfo{}, err
	}
	return imageInfo(rec), nil
}

func imageInfo(rec store.Image) ImageInfo {
	return ImageInfo{Ref: rec.Ref, Config: rec.Config, RootFS: rec.RootFS, SizeBytes: rec.SizeBytes}
}

// Import reads an archive, unpacks the layers that are not here yet and
// records the image. On error nothing of it is left but layers that other
// images have. A present reference is success and reads nothing.
//
// errdefs.ErrInvalid says that the archive is no image, or a hostile one,
// errdefs.ErrUnsupported that its format is not supported, errdefs.ErrCorrupt
// that it is damaged, errdefs.ErrExhausted that the disk is full.
func (e *Engine) Import(ctx context.Context, req ImportRequest) (ImageInfo, error) {
	if rec, err := e.opts.Store.Image(ctx, req.Ref); err == nil {
		return imageInfo(rec), nil
	}
	d, blob, err := e.download(ctx, req.Content)
	if err != nil {
		return ImageInfo{}, fmt.Errorf("import %s: %w", req.Ref, err)
	}
	rec, err := e.unpack(ctx, req, d, blob)
	// the layers are on disk, or never will be: the archive has served
	if err := errors.Join(err, blob.Close(), e.opts.Content.Delete(context.WithoutCancel(ctx), d)); err != nil {
		return ImageInfo{}, fmt.Errorf("import %s: %w", req.Ref, err)
	}
	return imageInfo(rec), nil
}

// download puts the stream into a blob.
func (e *Engine) download(ctx context.Context, r io.Reader) (digest.Digest, content.Blob, error) {
	w, err := e.opts.Content.Writer(ctx)
	if err != nil {
		return "", nil, err
	}
	defer w.Close()
	if _, err := io.Copy(w, r); err != nil {
		return "", nil, err
	}
	info, err := w.Commit(ctx, "")
	if err != nil {
		return "", nil, err
	}
	blob, err := e.opts.Content.Open(ctx, info.Digest)
	return info.Digest, blob, err
}

// unpack reads the archive's layers and records the image.
func (e *Engine) unpack(ctx context.Context, req ImportRequest, archive digest.Digest, blob content.Blob) (store.Image, error) {
	a, err := image.Open(ctx, blob, blob.Size(), image.OpenOptions{
		ContainerFormat: req.ContainerFormat, DiskFormat: req.DiskFormat, SpoolDir: e.tmpDir(), Limits: e.opts.ImageLimits,
	})
	if err != nil {
		return store.Image{}, err
	}
	defer a.Close()
	rec := store.Image{
		Ref: req.Ref, Config: a.Config(), RootFS: a.Kind() == image.Rootfs, Imported: time.Now(), LastUsed: time.Now(),
	}
	var made []string
	for i, l := range a.Layers() {
		diffID := l.DiffID()
		if diffID == "" {
			// a bare tarball states no digest of its contents: the archive's
			// own identifies it as well
			diffID = archive
		}
		chain := chainID(rec.Chain, diffID)
		there, err := e.opts.Snapshots.HasLayer(ctx, chain)
		if err == nil && !there {
			made = append(made, chain)
			err = e.opts.Snapshots.Unpack(ctx, chain, func(dir string) error { return e.apply(ctx, dir, l, rec.Chain) })
		}
		if err != nil {
			return rec, errors.Join(fmt.Errorf("layer %d: %w", i, err), e.dropLayers(ctx, made))
		}
		rec.Chain, rec.DiffIDs = append(rec.Chain, chain), append(rec.DiffIDs, diffID.String())
		size, err := e.layerSize(ctx, chain)
		if err != nil {
			return rec, errors.Join(err, e.dropLayers(ctx, made))
		}
		rec.SizeBytes += size
	}
	err = failpoint.Hit("engine.import.record")
	if err == nil {
		err = e.opts.Store.PutImage(ctx, rec)
	}
	if err != nil {
		return rec, errors.Join(err, e.dropLayers(ctx, made))
	}
	return rec, nil
}

// apply unpacks one layer into dir. Directories that the layer only implies
// take after those of the layers below.
func (e *Engine) apply(ctx context.Context, dir string, l image.Layer, below []string) error {
	r, err := l.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	target, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer target.Close()
	res, err := layer.Apply(ctx, target, r, layer.Options{Limits: e.opts.LayerLimits, Verified: l.DiffID()})
	if err != nil || len(res.ImplicitDirs) == 0 || len(below) == 0 {
		return err
	}
	var lower []*os.File
	defer func() {
		for _, f := range lower {
			f.Close()
		}
	}()
	for i := len(below) - 1; i >= 0; i-- { // topmost first
		name, err := e.opts.Snapshots.Layer(ctx, below[i])
		if err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		lower = append(lower, f)
	}
	return layer.Inherit(target, res.ImplicitDirs, lower)
}

// dropLayers removes the layers that a failed import has made. One that
// another import uses meanwhile stays.
func (e *Engine) dropLayers(ctx context.Context, chains []string) error {
	ctx = context.WithoutCancel(ctx)
	used := map[string]bool{}
	images, err := e.opts.Store.Images(ctx)
	if err != nil {
		return err
	}
	for _, img := range images {
		for _, c := range img.Chain {
			used[c] = true
		}
	}
	var errs []error
	for _, c := range chains {
		if !used[c] {
			errs = append(errs, e.opts.Snapshots.RemoveLayer(ctx, c))
		}
	}
	return errors.Join(errs...)
}

// chainID names a layer by all that is below it (OCI image-spec config.md,
// Layer ChainID).
func chainID(below []string, diffID digest.Digest) string {
	if len(below) == 0 {
		return diffID.String()
	}
	return digest.FromString(below[len(below)-1] + " " + diffID.String()).String()
}
