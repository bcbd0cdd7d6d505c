package engine

import (
	"context"
	"errors"
	"slices"

	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// How layers are stored in the registries that they came from. What is recorded
// has been verified: such a layer was read to its end here, and both of its
// digests held. So who sends it there again can name it and need not send it.

// storedOf says how each layer of an image is stored, empty where nobody knows.
func storedOf(img store.Image) []image.Stored {
	if len(img.Stored) == len(img.Chain) {
		return slices.Clone(img.Stored)
	}
	return make([]image.Stored, len(img.Chain))
}

// storedAs is what an archive from a repository says of its layers.
func storedAs(a *image.Archive, from string) []image.Stored {
	out := a.Stored()
	if len(out) != len(a.Layers()) {
		return make([]image.Stored, len(a.Layers()))
	}
	for i := range out {
		out[i].From = from
	}
	return out
}

// findStored asks the other images about layers that were here already.
func (e *Engine) findStored(ctx context.Context, rec *store.Image) error {
	if !slices.Contains(rec.Stored, image.Stored{}) {
		return nil
	}
	images, err := e.opts.Store.Images(ctx)
	if err != nil && !errors.Is(err, errdefs.ErrCorrupt) {
		return err
	}
	known := map[string]image.Stored{}
	for _, img := range images {
		for i, s := range storedOf(img) {
			if s.Digest != "" {
				known[img.Chain[i]] = s
			}
		}
	}
	for i, s := range rec.Stored {
		if s.Digest == "" {
			rec.Stored[i] = known[rec.Chain[i]]
		}
	}
	return nil
}
