// Package btrfs keeps snapshots as subvolumes: the layers of a chain are
// merged once into a subvolume, and each disk is a snapshot of it.
//
// Beside what engine/snapshot/flat keeps, merged/RECORD holds the merged tree
// of the chain that chains/RECORD names: "fs", a subvolume, its
// "since" and its "chain" with the chain ids, one a line. It is a cache and goes
// with the first of its layers. A disk's "fs" is a subvolume, and "qgroup" names
// its quota group.
//
// All work is done by ioctl. It needs Linux 5.15 (id-mapped mounts of btrfs);
// limits that hold against subvolumes that a container makes itself need simple
// quotas, Linux 6.8.
package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/flat"
	"github.com/gantry-project/gantry/engine/snapshot/mounts"
	"github.com/gantry-project/gantry/engine/snapshot/shelf"
	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/keylock"
)

// Options of a store.
type Options struct {
	// Limit is LimitQgroup, which turns quotas on for the whole file system, or
	// LimitNone (also if empty).
	Limit snapshot.LimitKind
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
	disks  *flat.Disks
	store  *shelf.Shelf
	groups groups
	// merging keeps two from merging one chain.
	merging keylock.Map[string]
}

var _ snapshot.Snapshotter = (*Snapshotter)(nil)

// Open opens or makes the store of snapshots at root, and removes what an
// interrupted call left there. errdefs.ErrUnsupported if root is not on a btrfs
// or the limit that was asked for cannot be had.
func Open(_ context.Context, root string, opts Options) (*Snapshotter, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	if kind := mounts.FileSystem(root); kind != "btrfs" {
		return nil, fmt.Errorf("open snapshots: the file system is %s, not btrfs: %w", kind, errdefs.ErrUnsupported)
	}
	s := &Snapshotter{groups: groups{root: root}}
	switch opts.Limit {
	case "", snapshot.LimitNone:
	case snapshot.LimitQgroup:
		if err := s.groups.open(); err != nil {
			return nil, fmt.Errorf("open snapshots: quotas of btrfs: %w", err)
		}
	case snapshot.LimitProject, snapshot.LimitLoop:
		return nil, fmt.Errorf("open snapshots: a subvolume cannot be limited by %s: %w", opts.Limit, errdefs.ErrUnsupported)
	}
	var err error
	s.store, err = shelf.Open(root, shelf.Options{RemoveDisk: s.removeDisk, Dirs: map[string]func(string) error{"merged": removeTree}})
	if err != nil {
		return nil, err
	}
	tree := func(_ context.Context, disk string) (string, error) { return filepath.Join(disk, "fs"), nil }
	s.disks = flat.New(flat.Backend{
		Store: s.store, Tree: tree,
		Clone: func(_ context.Context, _, tree string, _ snapshot.IDs, userns int) (int, error) {
			return mounts.Clone(tree, userns)
		},
	})
	s.layers, s.trees = s.store, s.disks
	return s, nil
}

// Describe implements snapshot.Maintainer.
func (s *Snapshotter) Describe() snapshot.Description {
	d := snapshot.Description{
		Name: "btrfs", Root: s.store.Root(), FileSystem: "btrfs", IDs: snapshot.IDsMapped,
		Limit: snapshot.LimitNone, ChangesCopied: true, SharesLayers: true,
	}
	if !s.groups.on {
		d.Notes = append(d.Notes, "limits: quotas of btrfs are not used")
		return d
	}
	d.Limit, d.LimitBytes, d.LimitGrows, d.LimitShrinks = snapshot.LimitQgroup, true, true, true
	d.Notes = append(d.Notes, "limits: of bytes only; btrfs has none of inodes")
	if !s.groups.simple {
		d.Notes = append(d.Notes, "limits: do not hold for subvolumes that a container makes; simple quotas (Linux 6.8) would")
	}
	return d
}

// Prepare implements snapshot.DiskStore.
func (s *Snapshotter) Prepare(ctx context.Context, key string, chain []string, limit snapshot.Limit) error {
	if err := s.offers(key, limit); err != nil {
		return err
	}
	return s.store.Prepare(ctx, key, chain, func(disk string) error {
		base, err := s.merged(ctx, chain)
		if err != nil {
			return err
		}
		group, err := s.groups.make(disk, limit)
		if err != nil {
			return err
		}
		if err := makeVolume(disk, "fs", filepath.Join(base, "fs"), group); err != nil {
			return err
		}
		return flat.SetSince(disk, flat.Since(base))
	})
}

// PrepareWith implements snapshot.DiskStore. The disk shares data with its layers
// and no metadata.
func (s *Snapshotter) PrepareWith(ctx context.Context, key string, chain []string, limit snapshot.Limit, fill func(dir string) error) error {
	if err := s.offers(key, limit); err != nil {
		return err
	}
	return s.store.PrepareSlowly(key, chain, func(disk string) error {
		return s.disks.With(ctx, disk, chain, fill, func(layers []string) error {
			group, err := s.groups.make(disk, limit)
			if err == nil {
				err = makeVolume(disk, "fs", "", group)
			}
			if err != nil {
				return err
			}
			return flat.Flatten(ctx, layers, filepath.Join(disk, "fs"))
		})
	})
}

func (s *Snapshotter) offers(key string, limit snapshot.Limit) error {
	if limit.Bytes < 0 || limit.Inodes < 0 {
		return fmt.Errorf("prepare snapshot %s: limit of %d bytes and %d inodes: %w", key, limit.Bytes, limit.Inodes, errdefs.ErrInvalid)
	}
	if !s.Describe().Offers(limit) {
		return fmt.Errorf("prepare snapshot %s: limit of %d bytes and %d inodes: %w", key, limit.Bytes, limit.Inodes, errdefs.ErrUnsupported)
	}
	return nil
}

// merged returns the directory of a chain's merged tree, which it makes when
// there is none.
func (s *Snapshotter) merged(ctx context.Context, chain []string) (string, error) {
	record := shelf.ChainRecord(chain)
	unlock, err := s.merging.Lock(ctx, record)
	if err != nil {
		return "", err
	}
	defer unlock()
	final := s.store.Path("merged", record)
	if there, err := shelf.Exists(final); err != nil || there {
		return final, err
	}
	dirs, err := s.store.Dirs(ctx, chain)
	if err != nil {
		return "", err
	}
	tmp, drop, err := s.store.Temp("merged", removeTree)
	if err != nil {
		return "", err
	}
	defer drop()
	if err := fill(ctx, tmp, dirs); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(tmp, "chain"), []byte(strings.Join(chain, "\n")), 0o600); err != nil {
		return "", err
	}
	if err := errors.Join(syncFS(tmp), os.Rename(tmp, final)); err != nil {
		return "", err
	}
	return final, atomicfile.SyncDir(filepath.Dir(final))
}

func fill(ctx context.Context, dir string, layers []string) error {
	tree := filepath.Join(dir, "fs")
	if err := makeVolume(dir, "fs", "", 0); err != nil {
		return err
	}
	if err := flat.Flatten(ctx, layers, tree); err != nil {
		return err
	}
	t, err := flat.Stamp(ctx, dir)
	if err != nil {
		return err
	}
	return flat.SetSince(dir, t)
}

// removeDisk removes a disk with its subvolumes and its quota group.
func (s *Snapshotter) removeDisk(disk string) error {
	tree := filepath.Join(disk, "fs")
	id, err := volumeID(tree)
	if errors.Is(err, fs.ErrNotExist) {
		id, err = 0, nil
	}
	if err != nil {
		return err
	}
	// A full disk has no room for its own removal.
	if err := s.groups.lift(disk); err != nil {
		return err
	}
	if err := removeVolume(disk, "fs"); err != nil {
		return err
	}
	s.groups.drop(disk, id)
	return os.RemoveAll(disk)
}

// removeTree removes a directory that may hold the subvolume "fs".
func removeTree(dir string) error {
	if err := removeVolume(dir, "fs"); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// removeVolume removes the subvolume name in dir, and those that a container
// has made in it. Absent is nil.
func removeVolume(dir, name string) error {
	err := destroyVolume(dir, name)
	if errors.Is(err, unix.ENOTEMPTY) {
		if err = removeNested(filepath.Join(dir, name)); err == nil {
			err = destroyVolume(dir, name)
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil // ENOTDIR: there is a plain directory, or dir is none
	}
	return err
}

// removeNested removes the subvolumes below tree, which nobody uses any more.
func removeNested(tree string) error {
	var nested []string
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || path == tree {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if st.Ino == firstInode {
			nested = append(nested, path)
			return fs.SkipDir
		}
		return nil
	})
	for _, path := range nested {
		// one that is read-only cannot lose what is in it
		err = errors.Join(err, setWritable(path), removeVolume(filepath.Dir(path), filepath.Base(path)))
	}
	return err
}

// RemoveLayer implements snapshot.LayerStore; merged trees over the layer go.
func (s *Snapshotter) RemoveLayer(ctx context.Context, chainID string) error {
	if err := s.store.RemoveLayer(ctx, chainID); err != nil {
		return err
	}
	return s.stale(ctx, removeTree)
}

// stale calls drop for the merged trees whose layers are not all here.
func (s *Snapshotter) stale(ctx context.Context, drop func(dir string) error) error {
	entries, err := os.ReadDir(s.store.Path("merged"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		dir := s.store.Path("merged", e.Name())
		data, err := os.ReadFile(filepath.Join(dir, "chain"))
		if err == nil && len(data) > 0 {
			_, err = s.store.Dirs(ctx, strings.Split(string(data), "\n"))
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalid) {
			err = drop(dir)
		}
		if err != nil {
			return fmt.Errorf("merged layers %s: %w", e.Name(), err)
		}
	}
	return nil
}

// View implements snapshot.LayerStore.
func (s *Snapshotter) View(ctx context.Context, chain []string, target string) error {
	if _, err := s.store.Dirs(ctx, chain); err != nil {
		return fmt.Errorf("view layers: %w", err)
	}
	dir, err := s.merged(ctx, chain)
	if err != nil {
		return fmt.Errorf("view layers: %w", shelf.Classify(err))
	}
	return s.disks.View(ctx, filepath.Join(dir, "fs"), target)
}

// Usage implements snapshot.Limiter. Without quotas all that differs from the
// layers is counted by looking at it.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshot.Usage, error) {
	disk, err := s.store.Disk(key)
	if err != nil {
		return snapshot.Usage{}, err
	}
	var u snapshot.Usage
	if s.groups.of(disk) != 0 {
		u, err = s.groups.usage(disk)
	} else {
		u, err = s.disks.Written(ctx, disk)
	}
	if err != nil {
		return u, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	return u, nil
}

// SetLimit implements snapshot.Limiter.
func (s *Snapshotter) SetLimit(_ context.Context, key string, limit snapshot.Limit) error {
	disk, err := s.store.Disk(key)
	if err != nil {
		return err
	}
	group := s.groups.of(disk)
	switch {
	case limit.Bytes < 0 || limit.Inodes < 0:
		err = errdefs.ErrInvalid
	case limit.Inodes > 0, limit.Bytes > 0 && group == 0:
		err = errdefs.ErrUnsupported
	case group != 0:
		err = limitGroup(s.groups.root, group, limit.Bytes)
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: limit of %d bytes and %d inodes: %w", key, limit.Bytes, limit.Inodes, err)
	}
	return nil
}

// Check implements snapshot.Maintainer.
func (s *Snapshotter) Check(ctx context.Context, req snapshot.CheckRequest) ([]snapshot.Finding, error) {
	return s.store.Check(ctx, req, shelf.Hooks{
		Disk: s.disks.CheckDisk, Mounted: s.disks.MountedAt,
		Store: func(ctx context.Context, c *shelf.Checker) error {
			return errors.Join(s.groups.orphans(ctx, c, s.store.Path("active")), s.stale(ctx, func(dir string) error {
				c.Report(snapshot.FindingOrphanRecord, filepath.Join("merged", filepath.Base(dir)), "a layer of it is gone",
					func() error { return removeTree(dir) })
				return nil
			}))
		},
	})
}
