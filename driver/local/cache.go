package local

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
)

// CacheImage implements driver.ImageCacher.
func (d *Driver) CacheImage(ctx context.Context, cred driver.Credentials, imageID string) (fetched bool, err error) {
	img, err := d.opts.Images.StatImage(ctx, cred, imageID)
	if err != nil {
		return false, fmt.Errorf("cache image %s: %w", imageID, err)
	}
	if _, err := d.opts.Engine.Image(ctx, imageRef(img)); err == nil {
		return false, nil
	}
	if _, err := d.ensureImage(ctx, cred, img); err != nil {
		return false, fmt.Errorf("cache image %s: %w", imageID, err)
	}
	return true, nil
}

// PruneImages implements driver.ImageCacher. Images that an operator has
// imported under names of his own stay.
func (d *Driver) PruneImages(ctx context.Context, limits driver.CacheLimits) (driver.Pruned, error) {
	r, err := d.opts.Engine.Collect(ctx, engine.GCOptions{KeepFor: limits.KeepFor, MaxBytes: limits.MaxBytes, Only: fromGlance})
	out := driver.Pruned{Images: len(r.Images), Bytes: r.Bytes}
	if out.Images > 0 {
		d.opts.Log.Info().Strs("images", r.Images).Int64("bytes", r.Bytes).Msg("unused images removed")
	}
	if err != nil {
		return out, fmt.Errorf("prune images: %w", err)
	}
	return out, nil
}

// fromGlance reports whether a reference is one of imageRef.
func fromGlance(ref string) bool {
	id, _, ok := strings.Cut(ref, ":")
	return ok && uuid.Validate(id) == nil
}
