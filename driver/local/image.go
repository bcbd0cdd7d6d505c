package local

import (
	"context"
	"errors"
	"fmt"
	"strings"

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

// verify refuses what the operator wants verified. Nova's own refuses an image
// without a signature too (nova/image/glance.py, _get_verifier).
func (d *Driver) verify(img driver.Image) error {
	if !d.opts.RefuseImages {
		return nil
	}
	public := "The image has no signature, which this cloud demands."
	if img.Properties["img_signature"] != "" {
		public = "The image's signature cannot be verified by this host, which this cloud demands."
	}
	return errdefs.WithPublic(fmt.Errorf("image %s: [glance] verify_glance_signatures is set, and signatures are not verified here: %w", img.ID, errdefs.ErrUnsupported), public)
}

// ensureImage returns the imported image, fetching it when it is not here.
// Simultaneous requests share one download.
func (d *Driver) ensureImage(ctx context.Context, cred driver.Credentials, img driver.Image) (engine.ImageInfo, error) {
	return d.ensureBelow(ctx, cred, img, 0)
}

// maxDelta is how many delta snapshots may go one over the other.
const maxDelta = 256

// ensureBelow is ensureImage for an image that others go over, so many of them.
func (d *Driver) ensureBelow(ctx context.Context, cred driver.Credentials, img driver.Image, above int) (engine.ImageInfo, error) {
	ref := imageRef(img)
	info, err := d.opts.Engine.Image(ctx, ref)
	if d.opts.OnImage != nil {
		d.opts.OnImage(err == nil)
	}
	if err == nil || !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrCorrupt) {
		return info, err // a damaged record is written anew
	}
	return d.images.Do(ctx, ref, func(ctx context.Context) (engine.ImageInfo, error) {
		if info, err := d.opts.Engine.Image(ctx, ref); err == nil {
			return info, nil
		}
		info, err := d.fetch(ctx, cred, img, ref)
		if errors.Is(err, errdefs.ErrExhausted) && d.makeRoom(ctx) {
			info, err = d.fetch(ctx, cred, img, ref)
		}
		missing, delta := errors.AsType[*engine.MissingBase](err)
		if !delta {
			return info, err
		}
		if err := d.fetchBase(ctx, cred, missing.Base, above); err != nil {
			return info, fmt.Errorf("image %s: %w", img.ID, err)
		}
		return d.fetch(ctx, cred, img, ref)
	})
}

// makeRoom removes all images that nothing needs, and reports whether there was
// one.
func (d *Driver) makeRoom(ctx context.Context) bool {
	pruned, err := d.PruneImages(ctx, driver.CacheLimits{})
	if err != nil {
		d.opts.Log.Warn().Err(err).Msg("make room for an image")
	}
	return pruned.Images > 0
}

// fetchBase brings the image that a delta snapshot goes over.
func (d *Driver) fetchBase(ctx context.Context, cred driver.Credentials, ref string, above int) error {
	id, hash, _ := strings.Cut(ref, ":")
	if hash == "" || above >= maxDelta {
		return errdefs.WithPublic(fmt.Errorf("base %s, %d images over it: %w", ref, above, errdefs.ErrInvalid),
			"the image is a delta snapshot that cannot be followed to the image it goes over")
	}
	img, err := d.opts.Images.StatImage(ctx, cred, id)
	if err == nil && imageRef(img) != ref {
		err = fmt.Errorf("base %s is %s now: %w", ref, imageRef(img), errdefs.ErrNotFound)
	}
	if err == nil {
		_, err = d.ensureBelow(ctx, cred, img, above+1)
	}
	if errors.Is(err, errdefs.ErrNotFound) && errdefs.PublicText(err, "") == "" {
		return errdefs.WithPublic(fmt.Errorf("base %s: %w", ref, err),
			"the image is a delta snapshot over image "+id+", which is not there any more")
	}
	return err
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
