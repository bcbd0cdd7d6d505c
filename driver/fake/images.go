package fake

import (
	"context"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// imageBytes is what each image takes.
const imageBytes = 1 << 20

// image is one that the image service has.
type image struct {
	here     bool
	lastUsed time.Time
}

// Serve makes the image service have an image. Those that a Spawn asks for it
// has anyway.
func (h *Host) Serve(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.images[id] == nil {
		h.images[id] = &image{}
	}
}

// use fetches an image for an instance. It must be called with mu held.
func (h *Host) use(id string) {
	h.images[id] = &image{here: true, lastUsed: time.Now()}
}

// CacheImage implements driver.ImageCacher.
func (d *Driver) CacheImage(_ context.Context, _ driver.Credentials, id string) (bool, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	img := d.host.images[id]
	if img == nil {
		return false, fmt.Errorf("cache image %s: %w", id, errdefs.ErrNotFound)
	}
	if img.here {
		return false, nil
	}
	d.host.use(id)
	return true, nil
}

// PruneImages implements driver.ImageCacher.
func (d *Driver) PruneImages(_ context.Context, limits driver.CacheLimits) (driver.Pruned, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	used := map[string]bool{}
	for _, i := range d.host.instances {
		used[i.request.Image.ID] = true
	}
	var total int64
	for _, img := range d.host.images {
		if img.here {
			total += imageBytes
		}
	}
	var out driver.Pruned
	for id, img := range d.host.images {
		old := time.Since(img.lastUsed) >= limits.KeepFor
		if !img.here || used[id] || !old && (limits.MaxBytes <= 0 || total <= limits.MaxBytes) {
			continue
		}
		img.here = false
		total -= imageBytes
		out.Images, out.Bytes = out.Images+1, out.Bytes+imageBytes
	}
	return out, nil
}
