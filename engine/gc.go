package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// GCOptions say which unused images go.
type GCOptions struct {
	// KeepFor is how long an image stays after its last use; 0 removes every
	// unused one.
	KeepFor time.Duration
	// MaxBytes is what all images together may take, unpacked and with shared
	// layers counted once; 0 is no bound. Above it unused images go whatever
	// their age, those first that were used least recently.
	MaxBytes int64
	// Only, where it is set, says which images may go at all.
	Only func(ref string) bool
	// DryRun removes nothing and reports what would go.
	DryRun bool
}

// GCReport says what a garbage collection has removed.
type GCReport struct {
	Images []string // references
	Layers []string // chain ids
	Leases []string // ids of those that had expired
	// Bytes that the layers took, as far as the image records tell.
	Bytes int64
}

// Collect removes what nobody needs: leases that have expired, unused images as
// the options say, layers without an image. A
// container's image, what a live lease names and what an operation under way
// needs stay. While a record is damaged nobody knows what it needs, and images
// and layers stay.
//
// Records go before what they name, so an interrupted collection leaves nothing
// but garbage for the next. Collections take turns; everything else may go on.
func (e *Engine) Collect(ctx context.Context, o GCOptions) (GCReport, error) {
	var r GCReport
	e.collecting.Lock()
	defer e.collecting.Unlock()
	if err := e.collect(ctx, o, &r); err != nil {
		return r, fmt.Errorf("collect garbage: %w", err)
	}
	return r, nil
}

func (e *Engine) collect(ctx context.Context, o GCOptions, r *GCReport) error {
	if !o.DryRun {
		end, err := e.begin(ctx, opCollect, "images", nil)
		switch {
		case err == nil:
			defer end()
		case !errors.Is(err, errdefs.ErrExhausted): // it is about to make room
			return err
		}
	}
	if err := failpoint.Hit("engine.collect.begin"); err != nil {
		return err
	}
	if err := e.expireLeases(ctx, o.DryRun, r); err != nil {
		return err
	}
	images, err := e.opts.Store.Images(ctx)
	if err != nil {
		return err
	}
	unused, err := e.unusedImages(ctx, images)
	if err != nil {
		return err
	}
	for _, ref := range chooseImages(images, unused, o, time.Now()) {
		if err := e.forgetImage(ctx, ref, o.DryRun); err != nil {
			if errors.Is(err, errdefs.ErrConflict) {
				continue // somebody has just begun to use it
			}
			return err
		}
		r.Images = append(r.Images, ref)
		if err := failpoint.Hit("engine.collect.image"); err != nil {
			return err
		}
	}
	return e.collectRest(ctx, layerSizes(images), o.DryRun, r)
}

// collectUnused removes layers that nothing refers to.
func (e *Engine) collectUnused(ctx context.Context) (GCReport, error) {
	var r GCReport
	e.collecting.Lock()
	defer e.collecting.Unlock()
	return r, e.collectRest(ctx, nil, false, &r)
}

func (e *Engine) collectRest(ctx context.Context, sizes map[string]int64, dry bool, r *GCReport) error {
	layers, err := e.opts.Snapshots.Layers(ctx)
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	if dry { // else the records are gone, and one of that name is an import that came since
		for _, ref := range r.Images {
			gone[ref] = true
		}
	}
	if r.Layers, err = e.removeLayers(ctx, layers, gone, dry); err != nil {
		return err
	}
	if err := e.sweepRecipes(ctx); err != nil {
		return err
	}
	for _, id := range r.Layers {
		r.Bytes += sizes[id]
	}
	return nil
}

func (e *Engine) expireLeases(ctx context.Context, dry bool, r *GCReport) error {
	leases, err := e.opts.Store.Leases(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, l := range leases {
		if l.Live(now) {
			continue
		}
		if !dry {
			if err := e.opts.Store.DeleteLease(ctx, l.ID); err != nil {
				return err
			}
		}
		r.Leases = append(r.Leases, l.ID)
	}
	return nil
}

// unusedImages are those that no container and no lease names; none while a
// record is damaged.
func (e *Engine) unusedImages(ctx context.Context, images []store.Image) (map[string]bool, error) {
	damaged, err := e.opts.Store.Damaged(ctx)
	if err != nil || len(damaged) > 0 {
		return nil, err
	}
	containers, err := e.opts.Store.Containers(ctx)
	if err != nil {
		return nil, err
	}
	leases, err := e.liveLeases(ctx)
	if err != nil {
		return nil, err
	}
	unused := map[string]bool{}
	for _, img := range images {
		unused[img.Ref] = true
	}
	for _, c := range containers {
		delete(unused, c.Image)
	}
	for _, l := range leases {
		for _, ref := range l.Images {
			delete(unused, ref)
		}
	}
	return unused, nil
}

func (e *Engine) liveLeases(ctx context.Context) ([]store.Lease, error) {
	leases, err := e.opts.Store.Leases(ctx)
	now := time.Now()
	return slices.DeleteFunc(leases, func(l store.Lease) bool { return !l.Live(now) }), err
}

// chooseImages returns the unused images that the options let go, those first
// that were used least recently.
func chooseImages(images []store.Image, unused map[string]bool, o GCOptions, now time.Time) []string {
	byUse := slices.SortedFunc(slices.Values(images), func(a, b store.Image) int {
		return cmp.Or(a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.Ref, b.Ref))
	})
	sizes, users := layerSizes(images), map[string]int{}
	var total int64
	for _, n := range sizes {
		total += n
	}
	for _, img := range images {
		for _, c := range img.Chain {
			users[c]++
		}
	}
	var out []string
	for _, img := range byUse {
		old := now.Sub(img.LastUsed) >= o.KeepFor
		if !unused[img.Ref] || o.Only != nil && !o.Only(img.Ref) || !old && (o.MaxBytes <= 0 || total <= o.MaxBytes) {
			continue
		}
		out = append(out, img.Ref)
		for _, c := range img.Chain {
			if users[c]--; users[c] == 0 {
				total -= sizes[c]
			}
		}
	}
	return out
}

// layerSizes are the sizes of all layers of the images, by chain id. Of an image
// whose record has none the top layer stands for all.
func layerSizes(images []store.Image) map[string]int64 {
	sizes := map[string]int64{}
	for _, img := range images {
		for i, c := range img.Chain {
			switch {
			case len(img.LayerBytes) == len(img.Chain):
				sizes[c] = img.LayerBytes[i]
			case i == len(img.Chain)-1:
				sizes[c] = max(sizes[c], img.SizeBytes)
			}
		}
	}
	return sizes
}

// RemoveImage forgets an image and removes the layers that nobody else has.
// An absent one is success, one that a container is made of or a lease names is
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
	err = e.forgetImage(ctx, ref, false)
	if err == nil {
		err = e.dropLayers(ctx, rec.Chain)
	}
	if err != nil {
		return fmt.Errorf("remove image %s: %w", ref, err)
	}
	return nil
}

// forgetImage removes the record, unless a create under way needs it.
func (e *Engine) forgetImage(ctx context.Context, ref string, dry bool) error {
	ran, err := e.images.unless(ref, func() error {
		if dry {
			return nil
		}
		return e.opts.Store.DeleteImage(ctx, ref)
	})
	if !ran {
		return fmt.Errorf("image %s: a container is being made of it: %w", ref, errdefs.ErrConflict)
	}
	return err
}

// dropLayers removes those of the layers that nothing needs.
func (e *Engine) dropLayers(ctx context.Context, chains []string) error {
	_, err := e.removeLayers(ctx, chains, nil, false)
	return err
}

// removeLayers removes those of the layers that no image, no lease, no operation
// under way and no disk has, and returns them; none while a record is damaged.
// Images in gone do not count: a dry run has not removed their records.
func (e *Engine) removeLayers(ctx context.Context, layers []string, gone map[string]bool, dry bool) (removed []string, err error) {
	damaged, err := e.opts.Store.Damaged(ctx)
	if err != nil || len(damaged) > 0 {
		return nil, err
	}
	needed, err := e.neededLayers(ctx, gone)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, id := range slices.Backward(layers) {
		if needed[id] {
			continue
		}
		ran, err := e.layers.unless(id, func() error { return e.removeLayer(ctx, id, gone, dry) })
		switch {
		case errors.Is(err, errdefs.ErrConflict):
		case err != nil:
			errs = append(errs, err)
		case ran:
			removed = append(removed, id)
		}
	}
	return removed, errors.Join(errs...)
}

// removeLayer looks once more, now that no operation can begin to need the
// layer, and removes it. One that is needed is errdefs.ErrConflict.
func (e *Engine) removeLayer(ctx context.Context, id string, gone map[string]bool, dry bool) error {
	needed, err := e.neededLayers(ctx, gone)
	if err != nil {
		return err
	}
	if needed[id] {
		return errdefs.ErrConflict
	}
	if err := failpoint.Hit("engine.collect.layer"); err != nil {
		return err
	}
	if dry {
		return nil
	}
	if err := e.opts.Snapshots.RemoveLayer(ctx, id); err != nil {
		return err
	}
	return e.dropRecipe(id)
}

// neededLayers are those of images, containers and leases.
func (e *Engine) neededLayers(ctx context.Context, gone map[string]bool) (map[string]bool, error) {
	images, err := e.opts.Store.Images(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := e.opts.Store.Containers(ctx)
	if err != nil {
		return nil, err
	}
	leases, err := e.liveLeases(ctx)
	if err != nil {
		return nil, err
	}
	needed := map[string]bool{}
	add := func(chains []string) {
		for _, c := range chains {
			needed[c] = true
		}
	}
	for _, img := range images {
		if !gone[img.Ref] {
			add(img.Chain)
		}
	}
	for _, c := range containers {
		add(c.Chain)
	}
	for _, l := range leases {
		add(l.Layers)
	}
	return needed, nil
}
