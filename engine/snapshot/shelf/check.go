package shelf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Checker is one run of Check. A back end's part of it calls Report.
type Checker struct {
	s   *Shelf
	req snapshot.CheckRequest
	h   Hooks
	out []snapshot.Finding
}

// Hooks are the parts of a check that only the back end knows. Each may be nil.
type Hooks struct {
	// Disk looks at one disk that can be read.
	Disk func(ctx context.Context, c *Checker, key, dir string) error
	// Mounted says where a disk is mounted, "" if nowhere.
	Mounted func(ctx context.Context, key string) (at string, err error)
	// Store looks at what is not a disk's: devices, mounts, quotas, caches.
	Store func(ctx context.Context, c *Checker) error
}

// Report adds a finding, and mends it if that was asked for and mend is set.
func (c *Checker) Report(kind snapshot.FindingKind, what, detail string, mend func() error) {
	f := snapshot.Finding{Kind: kind, What: what, Detail: detail}
	if c.req.Repair && mend != nil {
		if err := mend(); err != nil {
			f.Detail += "; not mended: " + err.Error()
		} else {
			f.Mended = true
		}
	}
	c.out = append(c.out, f)
}

// Check implements snapshot.Maintainer with the back end's part.
func (s *Shelf) Check(ctx context.Context, req snapshot.CheckRequest, hooks Hooks) ([]snapshot.Finding, error) {
	c := &Checker{s: s, req: req, h: hooks}
	steps := []func(context.Context) error{
		c.directories, c.leftovers,
		c.disks,
		c.layers,
		func(context.Context) error { return c.chains() },
	}
	if hooks.Store != nil {
		steps = append(steps, func(ctx context.Context) error { return hooks.Store(ctx, c) })
	}
	for _, step := range steps {
		if err := errors.Join(ctx.Err(), step(ctx)); err != nil {
			return c.out, fmt.Errorf("check snapshots: %w", err)
		}
	}
	return c.out, nil
}

// directories of the store: there, and closed to others.
func (c *Checker) directories(context.Context) error {
	for _, dir := range c.s.dirs() {
		path := c.s.Path(dir)
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			c.Report(snapshot.FindingMissingDir, show(dir), "is not there", func() error { return os.MkdirAll(path, 0o700) })
		case err != nil:
			return err
		case !info.IsDir():
			c.Report(snapshot.FindingForeign, show(dir), "is not a directory", nil)
		case info.Mode().Perm() != 0o700:
			c.Report(snapshot.FindingMode, show(dir), fmt.Sprintf("mode is %#o", info.Mode().Perm()), func() error { return os.Chmod(path, 0o700) })
		}
	}
	return nil
}

func show(dir string) string {
	if dir == "" {
		return "."
	}
	return dir
}

func (c *Checker) leftovers(context.Context) error {
	for dir, remove := range c.s.removers() {
		left, err := c.s.halves(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, name := range left {
			c.Report(snapshot.FindingHalfMade, filepath.Join(dir, name), "left by an interrupted call",
				func() error { return remove(c.s.Path(dir, name)) })
		}
	}
	return nil
}

// disks: each readable, over layers that are there, and wanted.
func (c *Checker) disks(ctx context.Context) error {
	keys, err := c.s.List(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		if refs := c.req.References; refs != nil && !slices.Contains(refs.Disks, key) {
			c.Report(snapshot.FindingOrphanDisk, key, "no container has it", func() error { return c.removeDisk(ctx, key) })
			continue
		}
		chain, err := c.s.Chain(key)
		if err != nil {
			c.Report(snapshot.FindingDamagedDisk, key, err.Error(), nil)
			continue
		}
		c.missingLayers(ctx, key, chain)
		if c.h.Disk == nil {
			continue
		}
		if err := c.h.Disk(ctx, c, key, c.s.Path("active", key)); err != nil {
			return fmt.Errorf("disk %s: %w", key, err)
		}
	}
	if refs := c.req.References; refs != nil {
		for _, key := range refs.Disks {
			if !slices.Contains(keys, key) {
				c.Report(snapshot.FindingMissingDisk, key, "a container has it, and it is not here", nil)
			}
		}
	}
	return nil
}

// removeDisk removes a disk that nothing refers to, unless it is mounted.
func (c *Checker) removeDisk(ctx context.Context, key string) error {
	if c.h.Mounted != nil {
		at, err := c.h.Mounted(ctx, key)
		if err != nil {
			return err
		}
		if at != "" {
			return fmt.Errorf("it is mounted at %s: %w", at, errdefs.ErrConflict)
		}
	}
	return c.s.Remove(ctx, key)
}

func (c *Checker) missingLayers(ctx context.Context, who string, chain []string) {
	for _, id := range chain {
		if there, err := c.s.HasLayer(ctx, id); err == nil && !there {
			c.Report(snapshot.FindingMissingLayer, id, who+" needs it, and it is not here", nil)
		} else if err != nil {
			c.Report(snapshot.FindingMissingLayer, id, who+": "+err.Error(), nil)
		}
	}
}

// layers: each whole, and wanted.
func (c *Checker) layers(ctx context.Context) error {
	if err := c.foreign(); err != nil {
		return err
	}
	ids, err := c.s.Layers(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if c.req.References != nil && !slices.Contains(c.req.References.Layers, id) {
			user, err := c.s.userOf(ctx, id)
			if err == nil && user == "" {
				c.Report(snapshot.FindingOrphanLayer, id, "no image and no disk has it", func() error { return c.s.RemoveLayer(ctx, id) })
				continue
			}
		}
		if err := c.layer(ctx, id); err != nil {
			return fmt.Errorf("layer %s: %w", id, err)
		}
	}
	if refs := c.req.References; refs != nil {
		c.missingLayers(ctx, "an image", refs.Layers)
	}
	return nil
}

func (c *Checker) layer(ctx context.Context, id string) error {
	name, err := LayerName(id)
	if err != nil {
		return err
	}
	dir := c.s.Path("layers", name)
	err = verifyManifest(ctx, dir)
	_, content := os.Lstat(filepath.Join(dir, "fs"))
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist) && content == nil:
		c.Report(snapshot.FindingUnrecorded, id, "made by an earlier version", func() error {
			if err := writeManifest(ctx, dir, "fs"); err != nil {
				return err
			}
			return SyncTree(dir)
		})
	case errors.Is(err, errdefs.ErrCorrupt), errors.Is(err, fs.ErrNotExist):
		var mend func() error
		if refs := c.req.References; refs != nil && !slices.Contains(refs.Layers, id) {
			mend = func() error { return c.s.RemoveLayer(ctx, id) } // refuses while a disk has it
		}
		c.Report(snapshot.FindingDamagedLayer, id, err.Error(), mend)
	default:
		return err
	}
	return nil
}

// foreign names what is among the layers and is none.
func (c *Checker) foreign() error {
	found, err := names(c.s.Path("layers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range found {
		if !isLayerName(name) {
			c.Report(snapshot.FindingForeign, filepath.Join("layers", name), "is not a layer", nil)
		}
	}
	return err
}

// chains: whether there is something that is no record. A record that no disk
// has any more is not worth a word: it goes at the next start.
func (c *Checker) chains() error {
	entries, err := os.ReadDir(c.s.Path("chains"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		path := c.s.Path("chains", e.Name())
		switch {
		case strings.HasPrefix(e.Name(), ".tmp-"):
			c.Report(snapshot.FindingHalfMade, filepath.Join("chains", e.Name()), "left by an interrupted call", func() error { return os.Remove(path) })
		case len(e.Name()) != recordLength || !e.Type().IsRegular():
			c.Report(snapshot.FindingForeign, filepath.Join("chains", e.Name()), "is not a record", nil)
		}
	}
	return err
}
