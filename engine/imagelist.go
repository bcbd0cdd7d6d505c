package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/engine/image"
)

// Images lists the imported images, in the order of their references.
func (e *Engine) Images(ctx context.Context) ([]ImageInfo, error) {
	records, err := e.opts.Store.Images(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	out := make([]ImageInfo, len(records))
	for i, rec := range records {
		out[i] = imageInfo(rec)
	}
	return out, nil
}

// LayerInfo describes one layer of an image.
type LayerInfo struct {
	// DiffID is the digest of the layer's tar stream.
	DiffID string
	// SizeBytes is what it takes unpacked, -1 where nobody knows.
	SizeBytes int64
	// Created and CreatedBy say how it came about; empty where nobody knows.
	Created   time.Time
	CreatedBy string
	// Stored is the layer as the registry has it that it came from.
	Stored image.Stored
}

// History describes the layers of an image, lowest first.
func (e *Engine) History(ctx context.Context, ref string) ([]LayerInfo, error) {
	rec, err := e.opts.Store.Image(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("history of image %s: %w", ref, err)
	}
	steps, stored := stepsOf(rec), storedOf(rec)
	out := make([]LayerInfo, len(rec.Chain))
	for i := range rec.Chain {
		out[i] = LayerInfo{SizeBytes: -1, Created: steps[i].Created, CreatedBy: steps[i].CreatedBy, Stored: stored[i]}
		if len(rec.DiffIDs) == len(rec.Chain) {
			out[i].DiffID = rec.DiffIDs[i]
		}
		if len(rec.LayerBytes) == len(rec.Chain) {
			out[i].SizeBytes = rec.LayerBytes[i]
		}
	}
	return out, nil
}
