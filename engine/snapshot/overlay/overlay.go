// Package overlay keeps snapshots as overlay mounts over id-mapped layers.
//
// Layers and names are on a shelf (engine/snapshot/shelf). A disk,
// active/KEY, holds "upper" and "work", either itself or in "disk", a directory
// that is bounded (engine/snapshot/quota). Below all layers lies one directory
// with the mount points of every container (skeleton.go).
//
// It needs Linux 5.19: overlay over id-mapped mounts. It imports errdefs and
// engine/snapshot of ours.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/snapshot"
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
}

// Snapshotter implements snapshot.Snapshotter.
type Snapshotter struct {
	shelf.Public
	store  *shelf.Shelf
	quota  *quota.Manager
	mounts mounts.Unmounter
	limit  snapshot.LimitKind
	// pathsOnly is set once the kernel has refused branches by descriptor.
	pathsOnly atomic.Bool
}

var (
	_ snapshot.Snapshotter = (*Snapshotter)(nil)
	_ snapshot.Stager      = (*Snapshotter)(nil)
)

// New is Open without limits.
func New(root string) (*Snapshotter, error) {
	return open(root, Options{}, func() (*quota.Manager, error) { return quota.Unlimited(root), nil })
}

// Open opens or makes the store of snapshots at root, and removes what an
// interrupted call left there. errdefs.ErrUnsupported if the limit that was
// asked for cannot be had.
func Open(ctx context.Context, root string, opts Options) (*Snapshotter, error) {
	if opts.Limit == "" {
		opts.Limit = snapshot.LimitNone
	}
	return open(root, opts, func() (*quota.Manager, error) { return quota.New(ctx, root, opts.Limit) })
}

func open(root string, opts Options, limits func() (*quota.Manager, error)) (*Snapshotter, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	s := &Snapshotter{limit: opts.Limit}
	var err error
	if s.quota, err = limits(); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	s.store, err = shelf.Open(root, shelf.Options{
		RemoveDisk: s.removeDisk, Dirs: map[string]func(string) error{skeleton: os.RemoveAll},
	})
	if err != nil {
		return nil, err
	}
	if err := makeSkeleton(s.store); err != nil {
		return nil, err
	}
	s.Public = s.store
	return s, nil
}

// removeDisk removes the directory of a disk with what bounds it.
func (s *Snapshotter) removeDisk(dir string) error {
	if err := s.quota.Remove(bounded(dir)); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// bounded is the directory of a disk that has a limit.
func bounded(disk string) string { return filepath.Join(disk, "disk") }

// Describe implements snapshot.Maintainer.
func (s *Snapshotter) Describe() snapshot.Description {
	d := snapshot.Description{
		Name: "overlay", Root: s.store.Root(), FileSystem: mounts.FileSystem(s.store.Root()),
		IDs: snapshot.IDsMapped, SharesLayers: true,
	}
	s.quota.Describe(&d)
	return d
}

// Prepare implements snapshot.DiskStore.
func (s *Snapshotter) Prepare(ctx context.Context, key string, chain []string, limit snapshot.Limit) error {
	return s.store.Prepare(ctx, key, chain, s.fill(ctx, chain, limit))
}

// PrepareWith implements snapshot.DiskStore.
func (s *Snapshotter) PrepareWith(ctx context.Context, key string, chain []string, limit snapshot.Limit, fill func(dir string) error) error {
	make := s.fill(ctx, chain, limit)
	return s.store.PrepareSlowly(key, chain, func(dir string) error {
		if err := make(dir); err != nil {
			return err
		}
		branches := dir
		if there, err := shelf.Exists(bounded(dir)); err != nil {
			return err
		} else if there {
			branches = bounded(dir)
		}
		return fill(filepath.Join(branches, "upper"))
	})
}

// Stage implements snapshot.Stager.
func (s *Snapshotter) Stage(ctx context.Context, chain []string, limit snapshot.Limit) (snapshot.Staged, error) {
	staged, err := s.store.Stage(chain, s.fill(ctx, chain, limit))
	if err != nil {
		return nil, fmt.Errorf("prepare snapshot: %w", err)
	}
	return staged, nil
}

// fill makes what is in the directory of a disk.
func (s *Snapshotter) fill(ctx context.Context, chain []string, limit snapshot.Limit) func(dir string) error {
	return func(dir string) error {
		branches := dir
		if limit != (snapshot.Limit{}) || s.limit == snapshot.LimitProject {
			branches = bounded(dir)
			if err := s.quota.Make(ctx, branches, limit); err != nil {
				return err
			}
		}
		upper := filepath.Join(branches, "upper")
		for _, dir := range []string{upper, filepath.Join(branches, "work")} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
		}
		return s.store.LikeTop(ctx, upper, chain)
	}
}

// branchesOf returns the directory of upper and work, ready for use.
func (s *Snapshotter) branchesOf(ctx context.Context, key string) (dir string, limited bool, err error) {
	disk, err := s.store.Disk(key)
	if err != nil {
		return "", false, err
	}
	there, err := shelf.Exists(bounded(disk))
	if err != nil || !there {
		return disk, false, err
	}
	if err := s.quota.Open(ctx, bounded(disk)); err != nil {
		return "", true, fmt.Errorf("snapshot %s: %w", key, err)
	}
	return bounded(disk), true, nil
}

// Changes implements snapshot.DiskStore: the live upper directory.
func (s *Snapshotter) Changes(ctx context.Context, key string) (string, error) {
	dir, _, err := s.branchesOf(ctx, key)
	if err != nil {
		return "", err
	}
	if _, err := s.store.Chain(key); err != nil {
		return "", err
	}
	return filepath.Join(dir, "upper"), nil
}

// Usage implements snapshot.Limiter.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshot.Usage, error) {
	dir, limited, err := s.branchesOf(ctx, key)
	if err != nil {
		return snapshot.Usage{}, err
	}
	var u snapshot.Usage
	if limited {
		u, err = s.quota.Usage(ctx, dir)
	} else {
		u, err = quota.Walk(ctx, filepath.Join(dir, "upper"))
	}
	if err != nil {
		return u, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	return u, nil
}

// SetLimit implements snapshot.Limiter.
func (s *Snapshotter) SetLimit(ctx context.Context, key string, limit snapshot.Limit) error {
	dir, limited, err := s.branchesOf(ctx, key)
	switch {
	case err != nil:
	case limited:
		err = s.quota.Set(ctx, dir, limit)
	case limit != (snapshot.Limit{}):
		err = fmt.Errorf("the disk was made without a limit: %w", errdefs.ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", key, err)
	}
	return nil
}

// Check implements snapshot.Maintainer.
func (s *Snapshotter) Check(ctx context.Context, req snapshot.CheckRequest) ([]snapshot.Finding, error) {
	return s.store.Check(ctx, req, shelf.Hooks{Disk: s.checkDisk, Mounted: s.usedAt, Store: func(ctx context.Context, c *shelf.Checker) error {
		return errors.Join(s.checkSkeleton(ctx, c), quota.Check(ctx, c, s.store.Path("active"), s.quota))
	}})
}

// checkDisk looks for the directories that a mount needs. A missing upper
// directory is lost data and stays missing.
func (s *Snapshotter) checkDisk(ctx context.Context, c *shelf.Checker, key, _ string) error {
	dir, _, err := s.branchesOf(ctx, key)
	if err != nil {
		c.Report(snapshot.FindingDamagedDisk, key, err.Error(), nil)
		return nil
	}
	if there, err := shelf.Exists(filepath.Join(dir, "upper")); err != nil {
		return err
	} else if !there {
		c.Report(snapshot.FindingDamagedDisk, key, "what it has written is gone", nil)
		return nil
	}
	work := filepath.Join(dir, "work")
	if there, err := shelf.Exists(work); err != nil {
		return err
	} else if !there {
		c.Report(snapshot.FindingMissingDir, key, "its work directory is gone", func() error { return os.Mkdir(work, 0o755) })
	}
	return nil
}

// mountedAt says where the overlay of a disk is mounted.
func mountedAt(key string) (string, error) {
	found, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Source != source(key), false })
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[0].Mountpoint, nil
}

// usedAt says where a disk is mounted, "" if nowhere. The source of a mount does
// not say of which store it is, and a container's mount namespace is not ours:
// overlayfs is asked, which refuses an upper directory that is in use if the
// new mount is to have an index. That mount is never attached.
func (s *Snapshotter) usedAt(ctx context.Context, key string) (string, error) {
	if err := s.mounts.AwaitAll(ctx); err != nil {
		return "", err
	}
	dir, _, err := s.branchesOf(ctx, key)
	if err != nil {
		return "", err
	}
	err = tryUpper(dir, s.store.Path("empty"))
	if err == nil {
		return "", nil
	}
	at, merr := mountedAt(key)
	if merr != nil || at != "" || !errors.Is(err, unix.EBUSY) {
		return at, merr
	}
	return "another mount namespace", nil
}

// Commit implements snapshot.DiskStore. The upper directory is moved when it is
// on the store's own file system and not counted against a quota.
func (s *Snapshotter) Commit(ctx context.Context, key, chainID string) error {
	upper, err := s.Changes(ctx, key)
	if err != nil {
		return err
	}
	if at, err := s.usedAt(ctx, key); err != nil || at != "" {
		return errors.Join(err, fmt.Errorf("commit snapshot %s: it is mounted at %s: %w", key, at, errdefs.ErrConflict))
	}
	_, limited, err := s.branchesOf(ctx, key)
	if err != nil {
		return err
	}
	if limited {
		err = s.store.PutLayer(ctx, chainID, func(dir string) error { return copyUpper(ctx, upper, dir) })
	} else {
		err = s.store.TakeLayer(ctx, chainID, upper)
	}
	if err != nil {
		return fmt.Errorf("commit snapshot %s: %w", key, err)
	}
	return s.Remove(ctx, key)
}

// Unmount implements snapshot.DiskStore.
func (s *Snapshotter) Unmount(_ context.Context, target string) error {
	return s.mounts.Unmount(target)
}

// Close implements snapshot.Maintainer.
func (s *Snapshotter) Close() {
	s.mounts.Close()
	s.store.Close()
}

// copyUpper copies an upper directory in its form.
func copyUpper(ctx context.Context, from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Open(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	return layer.Copy(ctx, src, dst)
}
