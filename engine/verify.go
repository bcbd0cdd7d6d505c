package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// layerHolds reads a layer and compares it with the digest that it came with:
// errdefs.ErrCorrupt if it is another, errdefs.ErrNotFound if there is none. A layer
// without a recipe, or whose recipe is damaged, cannot be compared and holds.
func layerHolds(ctx context.Context, root string, layers snapshot.LayerStore, chain, diffID string) error {
	packed, err := layers.Packed(ctx, chain)
	if err == nil {
		stream, err := openPacked(ctx, packed)
		if err == nil {
			return errors.Join(streamHolds(stream, diffID), stream.Close())
		}
		if !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	dir, err := layers.Layer(ctx, chain)
	if err != nil {
		return err
	}
	recipe, err := os.Open(recipePath(root, chain))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = recipe.Close() }()
	if layer.CheckRecipe(recipe) != nil {
		return nil
	}
	if _, err := recipe.Seek(0, 0); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return streamHolds(piped(func(w io.Writer) error { return layer.Rebuild(ctx, d, recipe, w) }), diffID)
}

// streamHolds compares a stream with its digest.
func streamHolds(r io.Reader, diffID string) error {
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return err
	}
	if got := digest.NewDigest(digest.SHA256, sum).String(); got != diffID {
		return fmt.Errorf("layer is %s, not %s: %w", got, diffID, errdefs.ErrCorrupt)
	}
	return nil
}

// boots is the file that names the boot of the host in which an engine ran last
// and was not closed.
func (e *Engine) boots() string { return filepath.Join(e.opts.Root, "running") }

// noteRunning notes that this engine runs, and reports whether the host went down
// under an earlier one: what was in its memory then may not be on the disk.
func (e *Engine) noteRunning() (hostWentDown bool, err error) {
	before, err := os.ReadFile(e.boots())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	return err == nil && string(before) != e.boot, os.WriteFile(e.boots(), []byte(e.boot), 0o600)
}

// verifyImages compares all layers with their digests. An image with a damaged
// one is forgotten, so that it is fetched again; one that containers are made of
// stays, and the log says so.
func (e *Engine) verifyImages(ctx context.Context) {
	images, err := e.opts.Store.Images(ctx)
	if err != nil {
		e.opts.Log.Warn().Err(err).Msg("images are not verified")
	}
	e.opts.Log.Info().Int("images", len(images)).Msg("the host went down under the engine: images are verified")
	verdicts := map[string]error{}
	for _, img := range images {
		if ctx.Err() != nil {
			return
		}
		if err := e.verifyImage(ctx, img, verdicts); err != nil {
			err = errors.Join(err, e.forgetUnused(ctx, img))
			e.opts.Log.Error().Err(err).Str(logging.Image, img.Ref).Msg("image is damaged")
		}
	}
}

// verifyImage looks at each layer once.
func (e *Engine) verifyImage(ctx context.Context, img store.Image, verdicts map[string]error) error {
	if len(img.DiffIDs) != len(img.Chain) {
		return nil
	}
	for i, chain := range img.Chain {
		verdict, seen := verdicts[chain]
		if !seen {
			err := layerHolds(ctx, e.opts.Root, e.opts.Snapshots, chain, img.DiffIDs[i])
			if err != nil && !errors.Is(err, errdefs.ErrCorrupt) && !errors.Is(err, errdefs.ErrNotFound) {
				return nil // it cannot be told: the context has ended, or the disk does not read
			}
			verdict = err
			verdicts[chain] = verdict
		}
		if verdict != nil {
			return fmt.Errorf("layer %s: %w", chain, verdict)
		}
	}
	return nil
}

// forgetUnused forgets an image unless a container is made of it.
func (e *Engine) forgetUnused(ctx context.Context, img store.Image) error {
	containers, err := e.opts.Store.Containers(ctx)
	if err != nil {
		return err
	}
	for _, c := range containers {
		if c.Image == img.Ref {
			return fmt.Errorf("container %s is made of it: %w", c.ID, errdefs.ErrConflict)
		}
	}
	if err := e.forgetImage(ctx, img.Ref, false); err != nil {
		return err
	}
	return e.dropLayers(ctx, img.Chain)
}

// checkLayers compares layers with their digests.
func (d *StorageDoctor) checkLayers(ctx context.Context, o CheckOptions, f *facts) (out []Finding, _ error) {
	if !o.Deep {
		return nil, nil
	}
	used := map[string]bool{}
	for _, c := range f.containers {
		used[c.Image] = true
	}
	seen := map[string]bool{}
	for _, img := range f.images {
		for i, chain := range img.Chain {
			if seen[chain] || len(img.DiffIDs) != len(img.Chain) {
				continue
			}
			seen[chain] = true
			err := layerHolds(ctx, d.Root, d.Snapshots, chain, img.DiffIDs[i])
			switch {
			case errors.Is(err, errdefs.ErrNotFound): // checkImages tells of it
			case errors.Is(err, errdefs.ErrCorrupt):
				finding := Finding{Kind: FindingDamagedLayer, What: chain, Detail: fmt.Sprintf("of image %s: %v", img.Ref, err)}
				if o.Repair && !used[img.Ref] {
					finding.mend(d.Writer.DeleteImage(ctx, img.Ref))
				}
				out = append(out, finding)
			case err != nil:
				return out, err
			}
		}
	}
	return out, nil
}
