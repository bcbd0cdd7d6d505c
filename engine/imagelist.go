package engine

import (
	"context"
	"fmt"
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
