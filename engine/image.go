package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/content"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
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
	if err := errors.Join(err, blob.Close(), e.dropArchive(context.WithoutCancel(ctx), d)); err != nil {
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
	e.commits.RLock()
	defer e.commits.RUnlock()
	info, err := w.Commit(ctx, "")
	if err != nil {
		return "", nil, err
	}
	blob, err := e.opts.Content.Open(ctx, info.Digest)
	return info.Digest, blob, err
}

func (e *Engine) dropArchive(ctx context.Context, d digest.Digest) error {
	e.commits.Lock()
	defer e.commits.Unlock()
	return e.opts.Content.Delete(ctx, d)
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
	chains, ids := chainOf(a.Layers(), archive)
	rec.Chain, rec.DiffIDs = chains, ids
	e.layers.hold(chains)
	if rec.SizeBytes, err = e.unpackLayers(ctx, a.Layers(), chains); err == nil {
		if err = failpoint.Hit("engine.import.record"); err == nil {
			err = e.opts.Store.PutImage(ctx, rec)
		}
	}
	e.layers.release(chains)
	if err != nil {
		return rec, errors.Join(err, e.dropLayers(context.WithoutCancel(ctx), chains))
	}
	return rec, nil
}

// chainOf names the layers, lowest first.
func chainOf(layers []image.Layer, archive digest.Digest) (chains, diffIDs []string) {
	for _, l := range layers {
		diffID := l.DiffID()
		if diffID == "" {
			// a bare tarball states no digest of its contents: the archive's
			// own identifies it as well
			diffID = archive
		}
		chains, diffIDs = append(chains, chainID(chains, diffID)), append(diffIDs, diffID.String())
	}
	return chains, diffIDs
}

// unpackLayers makes the layers that are not here yet and returns the size of all.
func (e *Engine) unpackLayers(ctx context.Context, layers []image.Layer, chains []string) (int64, error) {
	var sum int64
	for i, l := range layers {
		there, err := e.opts.Snapshots.HasLayer(ctx, chains[i])
		if err == nil && !there {
			err = e.opts.Snapshots.Unpack(ctx, chains[i], func(dir string) error { return e.apply(ctx, dir, l, chains[:i]) })
		}
		if err != nil {
			return 0, fmt.Errorf("layer %d: %w", i, err)
		}
		size, err := e.layerSize(ctx, chains[i])
		if err != nil {
			return 0, fmt.Errorf("layer %d: %w", i, err)
		}
		sum += size
	}
	return sum, nil
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

// RemoveImage forgets an image and removes the layers that nobody else has.
// An absent one is success, one that a container is made of is
// errdefs.ErrConflict.
func (e *Engine) RemoveImage(ctx context.Context, ref string) error {
	rec, err := e.opts.Store.Image(ctx, ref)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return nil
	case err != nil && !errors.Is(err, errdefs.ErrCorrupt):
		return fmt.Errorf("remove image %s: %w", ref, err)
	}
	// the record goes first: an image never lacks a layer
	if err := e.opts.Store.DeleteImage(ctx, ref); err != nil {
		return fmt.Errorf("remove image %s: %w", ref, err)
	}
	if err := e.dropLayers(ctx, rec.Chain); err != nil {
		return fmt.Errorf("remove image %s: %w", ref, err)
	}
	return nil
}

// dropLayers removes those of the layers that no image, no import under way and
// no disk has. While a record is damaged nobody knows what it needs, and all
// stay.
func (e *Engine) dropLayers(ctx context.Context, chains []string) error {
	e.layers.mu.Lock()
	defer e.layers.mu.Unlock()
	damaged, err := e.opts.Store.Damaged(ctx)
	if err != nil || len(damaged) > 0 {
		return err
	}
	images, err := e.opts.Store.Images(ctx)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, img := range images {
		for _, c := range img.Chain {
			used[c] = true
		}
	}
	var errs []error
	for _, c := range slices.Backward(chains) {
		if used[c] || e.layers.held[c] > 0 {
			continue
		}
		if err := e.opts.Snapshots.RemoveLayer(ctx, c); err != nil && !errors.Is(err, errdefs.ErrConflict) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sweepImages removes what an import that was cut off has left: layers that no
// image has, and archives, which are needed only while they are read.
func (e *Engine) sweepImages(ctx context.Context) error {
	layers, err := e.opts.Snapshots.Layers(ctx)
	if err != nil {
		return err
	}
	if err := e.dropLayers(ctx, layers); err != nil {
		return err
	}
	blobs, err := e.opts.Content.List(ctx)
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if err := e.opts.Content.Delete(ctx, b.Digest); err != nil {
			return err
		}
	}
	return nil
}

// layerUse counts the imports under way that need a layer, so that another
// import that fails, or the removal of an image, leaves it to them.
type layerUse struct {
	mu   sync.Mutex
	held map[string]int // by chain id; guarded by mu
}

func (u *layerUse) hold(chains []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.held == nil {
		u.held = map[string]int{}
	}
	for _, c := range chains {
		u.held[c]++
	}
}

func (u *layerUse) release(chains []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range chains {
		if u.held[c]--; u.held[c] == 0 {
			delete(u.held, c)
		}
	}
}

// chainID names a layer by all that is below it (OCI image-spec config.md,
// Layer ChainID).
func chainID(below []string, diffID digest.Digest) string {
	if len(below) == 0 {
		return diffID.String()
	}
	return digest.FromString(below[len(below)-1] + " " + diffID.String()).String()
}
