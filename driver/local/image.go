package local

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// imageRef addresses an image by what it is: Glance's id and hash. An image
// whose data changed under one id is another image.
func imageRef(img driver.Image) string {
	hash := img.HashValue
	if hash == "" {
		hash = img.Checksum
	}
	return img.ID + ":" + hash
}

// ensureImage returns the imported image, fetching it when it is not here.
// Simultaneous requests share one download.
func (d *Driver) ensureImage(ctx context.Context, cred driver.Credentials, img driver.Image) (engine.ImageInfo, error) {
	ref := imageRef(img)
	info, err := d.opts.Engine.Image(ctx, ref)
	if err == nil || !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrCorrupt) {
		return info, err // a damaged record is written anew
	}
	return d.images.Do(ctx, ref, func(ctx context.Context) (engine.ImageInfo, error) {
		if info, err := d.opts.Engine.Image(ctx, ref); err == nil {
			return info, nil
		}
		return d.fetch(ctx, cred, img, ref)
	})
}

// fetch streams the image into the engine.
func (d *Driver) fetch(ctx context.Context, cred driver.Credentials, img driver.Image, ref string) (engine.ImageInfo, error) {
	body, err := d.opts.Images.OpenImage(ctx, cred, img)
	if err != nil {
		return engine.ImageInfo{}, fmt.Errorf("open image %s: %w", img.ID, err)
	}
	defer body.Close()
	info, err := d.opts.Engine.Import(ctx, engine.ImportRequest{
		Ref: ref, Content: body, DiskFormat: img.DiskFormat, ContainerFormat: img.ContainerFormat,
	})
	if err != nil {
		return info, fmt.Errorf("import image %s: %w", img.ID, err)
	}
	d.opts.Log.Info().Str(logging.Image, img.ID).Int64("bytes", info.SizeBytes).Msg("image imported")
	return info, nil
}
