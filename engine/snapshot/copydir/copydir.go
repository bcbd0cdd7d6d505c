// Package copydir keeps snapshots as whole copies of their layers: it works on
// every file system, and a disk takes as much room and time as its image,
// unless the file system can share data between files (xfs, btrfs).
//
// Ids are mapped by id-mapped mounts where the file system has them, else the
// copy is re-owned when it is mounted first. Beside what engine/snapshot/flat
// keeps, a disk has "shift", a symbolic link whose text says the first id on
// disk ("BASE"), or the change under way ("FROM>BASE"), and "base", what the
// copy took in the beginning ("BYTES INODES"). views/HEX holds the copy that a
// View shows; HEX is a digest of its target.
package copydir

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/flat"
	"github.com/gantry-project/gantry/engine/snapshot/mounts"
	"github.com/gantry-project/gantry/engine/snapshot/quota"
	"github.com/gantry-project/gantry/engine/snapshot/shelf"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Options of a store.
type Options struct {
	// Limit is what bounds new disks: LimitProject, LimitLoop, or LimitNone
	// (also if empty).
	Limit snapshot.LimitKind
	// Shift re-owns copies instead of mapping ids: for a file system without
	// id-mapped mounts.
	Shift bool
}

// What is passed on as it is.
type (
	layers = shelf.Public
	trees  = flat.Public
)

// Snapshotter implements snapshot.Snapshotter.
type Snapshotter struct {
	layers
	trees
	disks *flat.Disks
	store *shelf.Shelf
	quota *quota.Manager
	opts  Options
}

var _ snapshot.Snapshotter = (*Snapshotter)(nil)

// Open opens or makes the store of snapshots at root, and removes what an
// interrupted call left there. errdefs.ErrUnsupported if the limit that was
// asked for cannot be had.
func Open(ctx context.Context, root string, opts Options) (*Snapshotter, error) {
	if opts.Limit == "" {
		opts.Limit = snapshot.LimitNone
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	s := &Snapshotter{opts: opts}
	var err error
	if s.quota, err = quota.New(ctx, root, opts.Limit); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	s.store, err = shelf.Open(root, shelf.Options{
		RemoveDisk: s.removeDisk, Dirs: map[string]func(string) error{"views": os.RemoveAll},
	})
	if err != nil {
		return nil, err
	}
	s.disks = flat.New(flat.Backend{Store: s.store, Tree: s.tree, IDBase: idBase, Clone: s.clone})
	s.layers, s.trees = s.store, s.disks
	return s, nil
}

func bounded(disk string) string { return filepath.Join(disk, "disk") }

func (s *Snapshotter) removeDisk(dir string) error {
	if err := s.quota.Remove(bounded(dir)); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// Describe implements snapshot.Maintainer.
func (s *Snapshotter) Describe() snapshot.Description {
	d := snapshot.Description{
		Name: "copy", Root: s.store.Root(), FileSystem: mounts.FileSystem(s.store.Root()),
		IDs: snapshot.IDsMapped, ChangesCopied: true,
		Notes: []string{"copy: each disk is a copy of its image"},
	}
	if s.opts.Shift {
		d.IDs = snapshot.IDsShifted
		d.Notes = append(d.Notes, "ids: each disk is re-owned when it is mounted first")
	}
	s.quota.Describe(&d)
	return d
}

// Prepare implements snapshot.DiskStore.
func (s *Snapshotter) Prepare(ctx context.Context, key string, chain []string, limit snapshot.Limit) error {
	return s.store.Prepare(ctx, key, chain, func(disk string) error {
		layers, err := s.store.Dirs(ctx, chain)
		if err != nil {
			return err
		}
		home, err := s.copy(ctx, disk, layers, layers, limit)
		if err != nil {
			return err
		}
		use, err := s.uses(ctx, disk, home)
		if err == nil {
			err = s.finish(ctx, disk, home, use, limit)
		}
		if err != nil {
			return err
		}
		return stamp(ctx, disk, home)
	})
}

// PrepareWith implements snapshot.DiskStore. Nothing tells what of the disk is
// its layers': Changes looks at all of it.
func (s *Snapshotter) PrepareWith(ctx context.Context, key string, chain []string, limit snapshot.Limit, fill func(dir string) error) error {
	return s.store.PrepareSlowly(key, chain, func(disk string) error {
		return s.disks.With(ctx, disk, chain, fill, func(layers []string) error {
			below := layers[:len(chain)]
			home, err := s.copy(ctx, disk, below, layers, limit)
			if err != nil {
				return err
			}
			use, err := walkAll(ctx, below)
			if err == nil {
				err = s.finish(ctx, disk, home, use, limit)
			}
			return err
		})
	})
}

// copy makes the tree of a disk that shows all, and is bounded by limit over
// what below takes. It returns the directory of the tree.
func (s *Snapshotter) copy(ctx context.Context, disk string, below, all []string, limit snapshot.Limit) (home string, err error) {
	home = disk
	if limit != (snapshot.Limit{}) || s.opts.Limit == snapshot.LimitProject {
		home = bounded(disk)
		if err := s.makeBounded(ctx, home, below, limit); err != nil {
			return "", err
		}
	}
	tree := filepath.Join(home, "fs")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", err
	}
	return home, flat.Flatten(ctx, all, tree)
}

// makeBounded makes the bounded directory of a disk with room for the copy. A
// project's limit is set when it is known what the copy takes.
func (s *Snapshotter) makeBounded(ctx context.Context, home string, layers []string, limit snapshot.Limit) error {
	d := s.Describe()
	if !d.Offers(limit) {
		return fmt.Errorf("a limit of %d bytes and %d inodes: %w", limit.Bytes, limit.Inodes, errdefs.ErrUnsupported)
	}
	if s.opts.Limit == snapshot.LimitProject {
		return s.quota.Make(ctx, home, snapshot.Limit{})
	}
	sum, err := walkAll(ctx, layers)
	if err != nil {
		return err
	}
	return s.quota.Make(ctx, home, plus(limit, sum))
}

// walkAll is what directories take together.
func walkAll(ctx context.Context, dirs []string) (sum snapshot.Usage, err error) {
	for _, dir := range dirs {
		u, err := quota.Walk(ctx, dir)
		if err != nil {
			return sum, err
		}
		sum.Bytes, sum.Inodes = sum.Bytes+u.Bytes, sum.Inodes+u.Inodes
	}
	return sum, nil
}

// plus is a limit on top of what is there; what is unlimited stays so.
func plus(l snapshot.Limit, u snapshot.Usage) snapshot.Limit {
	if l.Bytes > 0 {
		l.Bytes += u.Bytes
	}
	if l.Inodes > 0 {
		l.Inodes += u.Inodes
	}
	return l
}

// uses is what a tree takes.
func (s *Snapshotter) uses(ctx context.Context, disk, home string) (snapshot.Usage, error) {
	if home == disk {
		return quota.Walk(ctx, filepath.Join(home, "fs"))
	}
	return s.quota.Usage(ctx, home)
}

// finish records what the layers take in the copy, and sets the limit.
func (s *Snapshotter) finish(ctx context.Context, disk, home string, use snapshot.Usage, limit snapshot.Limit) error {
	if err := flat.SetText(disk, "base", fmt.Sprint(use.Bytes, " ", use.Inodes)); err != nil {
		return err
	}
	if home != disk && s.opts.Limit == snapshot.LimitProject {
		return s.quota.Set(ctx, home, plus(limit, use))
	}
	return nil
}

func stamp(ctx context.Context, disk, home string) error {
	t, err := flat.Stamp(ctx, home)
	if err != nil {
		return err
	}
	return flat.SetSince(disk, t)
}

// home is the directory that holds a disk's tree, ready for use.
func (s *Snapshotter) home(ctx context.Context, disk string) (dir string, limited bool, err error) {
	there, err := shelf.Exists(bounded(disk))
	if err != nil || !there {
		return disk, false, err
	}
	return bounded(disk), true, s.quota.Open(ctx, bounded(disk))
}

func (s *Snapshotter) tree(ctx context.Context, disk string) (string, error) {
	home, _, err := s.home(ctx, disk)
	return filepath.Join(home, "fs"), err
}

// base is what the copy took in the beginning.
func base(disk string) snapshot.Usage {
	bytes, inodes, _ := strings.Cut(flat.Text(disk, "base"), " ")
	var u snapshot.Usage
	u.Bytes, _ = strconv.ParseInt(bytes, 10, 64) // unknown is 0: more is counted
	u.Inodes, _ = strconv.ParseInt(inodes, 10, 64)
	return u
}

// Usage implements snapshot.Limiter: what there is more than in the beginning.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshot.Usage, error) {
	disk, err := s.store.Disk(key)
	if err != nil {
		return snapshot.Usage{}, err
	}
	home, limited, err := s.home(ctx, disk)
	var u snapshot.Usage
	switch {
	case err != nil:
	case limited:
		u, err = s.quota.Usage(ctx, home)
	default:
		u, err = quota.Walk(ctx, filepath.Join(home, "fs"))
	}
	if err != nil {
		return u, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	b := base(disk)
	return snapshot.Usage{Bytes: max(0, u.Bytes-b.Bytes), Inodes: max(0, u.Inodes-b.Inodes)}, nil
}

// SetLimit implements snapshot.Limiter.
func (s *Snapshotter) SetLimit(ctx context.Context, key string, limit snapshot.Limit) error {
	disk, err := s.store.Disk(key)
	if err != nil {
		return err
	}
	home, limited, err := s.home(ctx, disk)
	switch {
	case err != nil:
	case limited:
		err = s.quota.Set(ctx, home, plus(limit, base(disk)))
	case limit != (snapshot.Limit{}):
		err = fmt.Errorf("the disk was made without a limit: %w", errdefs.ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", key, err)
	}
	return nil
}

// clone makes the mount of a disk; re-owned ids need no mapping.
func (s *Snapshotter) clone(ctx context.Context, disk, tree string, ids snapshot.IDs, userns int) (int, error) {
	if !s.opts.Shift && idBase(disk) == 0 {
		return mounts.Clone(tree, userns)
	}
	if err := s.shift(ctx, disk, tree, ids.Root); err != nil {
		return -1, err
	}
	return mounts.ClonePlain(tree)
}

// idBase is the first id on disk, 0 if ids are the container's own.
func idBase(disk string) uint32 {
	_, to, moving := strings.Cut(flat.Text(disk, "shift"), ">")
	if !moving {
		to = flat.Text(disk, "shift")
	}
	id, err := strconv.ParseUint(to, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(id)
}

// shift re-owns a disk for ids that begin at root. A first mount has changed
// nothing yet; after another one, or if the disk came with changes, nobody knows
// any more what was written.
func (s *Snapshotter) shift(ctx context.Context, disk, tree string, root uint32) error {
	record := flat.Text(disk, "shift")
	if record == strconv.FormatUint(uint64(root), 10) {
		return nil
	}
	from, to, moving := strings.Cut(record, ">")
	if moving && to != strconv.FormatUint(uint64(root), 10) {
		// finish what was begun for other ids first
		id, err := strconv.ParseUint(to, 10, 32)
		if err == nil {
			err = s.shift(ctx, disk, tree, uint32(id))
		}
		if err != nil {
			return err
		}
		from = to
	}
	if from == "" {
		from = "0"
	}
	old, err := strconv.ParseUint(from, 10, 32)
	if err != nil {
		return fmt.Errorf("record of ids %q: %w", record, errdefs.ErrCorrupt)
	}
	if err := flat.SetText(disk, "shift", fmt.Sprint(old, ">", root)); err != nil {
		return err
	}
	err = flat.WithDirs([]string{tree}, func(open []*os.File) error { return layer.Shift(ctx, open[0], uint32(old), root) })
	if err != nil {
		return err
	}
	if old == 0 && flat.Since(disk).After(time.Unix(0, 0)) {
		err = stamp(ctx, disk, filepath.Dir(tree))
	} else {
		err = flat.SetSince(disk, time.Unix(0, 0))
	}
	return errors.Join(err, flat.SetText(disk, "shift", strconv.FormatUint(uint64(root), 10)))
}

// View implements snapshot.LayerStore by a copy that lasts until Unmount.
func (s *Snapshotter) View(ctx context.Context, chain []string, target string) error {
	layers, err := s.store.Dirs(ctx, chain)
	if err != nil {
		return fmt.Errorf("view layers: %w", err)
	}
	if mounted, err := mounts.IsMountPoint(target); err != nil || mounted {
		return errors.Join(err, fmt.Errorf("view layers: %s is a mount: %w", target, errdefs.ErrConflict))
	}
	tmp, drop, err := s.store.Temp("views", os.RemoveAll)
	if err != nil {
		return fmt.Errorf("view layers: %w", err)
	}
	defer drop()
	final := s.viewOf(target)
	err = errors.Join(os.RemoveAll(final), os.Mkdir(filepath.Join(tmp, "fs"), 0o755), os.Symlink(target, filepath.Join(tmp, "target")))
	if err == nil {
		err = flat.Flatten(ctx, layers, filepath.Join(tmp, "fs"))
	}
	if err == nil {
		err = os.Rename(tmp, final)
	}
	if err != nil {
		return fmt.Errorf("view layers: %w", shelf.Classify(err))
	}
	if err := s.disks.View(ctx, filepath.Join(final, "fs"), target); err != nil {
		return errors.Join(err, os.RemoveAll(final))
	}
	return nil
}

func (s *Snapshotter) viewOf(target string) string {
	return s.store.Path("views", fmt.Sprintf("%x", sha256.Sum256([]byte(filepath.Clean(target))))[:40])
}

// Unmount implements snapshot.DiskStore.
func (s *Snapshotter) Unmount(ctx context.Context, target string) error {
	if err := s.disks.Unmount(ctx, target); err != nil {
		return err
	}
	return os.RemoveAll(s.viewOf(target))
}

// Check implements snapshot.Maintainer.
func (s *Snapshotter) Check(ctx context.Context, req snapshot.CheckRequest) ([]snapshot.Finding, error) {
	return s.store.Check(ctx, req, shelf.Hooks{
		Disk: s.disks.CheckDisk, Mounted: s.disks.MountedAt,
		Store: func(ctx context.Context, c *shelf.Checker) error {
			return errors.Join(s.checkViews(c), quota.Check(ctx, c, s.store.Path("active"), s.quota))
		},
	})
}

// checkViews finds copies that nobody looks at any more.
func (s *Snapshotter) checkViews(c *shelf.Checker) error {
	entries, err := os.ReadDir(s.store.Path("views"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := s.store.Path("views", e.Name())
		target := flat.Text(dir, "target")
		if strings.HasPrefix(e.Name(), ".") || target == "" {
			continue
		}
		if mounted, err := mounts.IsMountPoint(target); err != nil || mounted {
			continue
		}
		c.Report(snapshot.FindingOrphanRecord, filepath.Join("views", e.Name()), "a view that is not shown", func() error { return os.RemoveAll(dir) })
	}
	return nil
}
