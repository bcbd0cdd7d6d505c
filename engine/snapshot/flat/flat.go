// Package flat is the common part of the back ends whose disks are whole trees
// and not overlays: what such a disk shows is what it holds, and what was
// written is found by comparing it with its layers.
//
// A disk, active/KEY, holds the tree "fs", itself or in "disk", a directory that
// is bounded (engine/snapshot/quota); "since", a symbolic link whose text is
// the time before which nothing was written; "changes", the last answer of
// Changes.
//
// It is for the back ends below engine/snapshot.
package flat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/mounts"
	"github.com/gantry-project/gantry/engine/snapshot/quota"
	"github.com/gantry-project/gantry/engine/snapshot/shelf"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Backend is what one kind of tree needs.
type Backend struct {
	Store *shelf.Shelf
	// Tree is the directory of a disk's tree, ready for use.
	Tree func(ctx context.Context, disk string) (string, error)
	// IDBase is the first id on disk of a tree that is re-owned, else 0.
	IDBase func(disk string) uint32
	// Clone makes the mount of a disk, attached nowhere.
	Clone func(ctx context.Context, disk, tree string, ids snapshot.IDs, userns int) (int, error)
}

// Disks implements the part of snapshot.DiskStore that is about trees.
type Disks struct {
	b      Backend
	mounts mounts.Unmounter
}

// Public is what a back end passes on as it is.
type Public interface {
	Root(ctx context.Context, key string, ids snapshot.IDs) (*os.File, error)
	Mount(ctx context.Context, key, target string, ids snapshot.IDs) error
	Unmount(ctx context.Context, target string) error
	Changes(ctx context.Context, key string) (string, error)
	Commit(ctx context.Context, key, chainID string) error
	Close()
}

// New returns the disks of a back end.
func New(b Backend) *Disks { return &Disks{b: b} }

// treeOf returns a disk's directory and its tree.
func (d *Disks) treeOf(ctx context.Context, key string) (disk, tree string, err error) {
	if disk, err = d.b.Store.Disk(key); err != nil {
		return "", "", err
	}
	if tree, err = d.b.Tree(ctx, disk); err != nil {
		return "", "", fmt.Errorf("snapshot %s: %w", key, err)
	}
	return disk, tree, nil
}

// Mount implements snapshot.DiskStore.
func (d *Disks) Mount(ctx context.Context, key, target string, ids snapshot.IDs) error {
	if err := d.mounts.Await(ctx, target); err != nil {
		return err
	}
	disk, tree, err := d.treeOf(ctx, key)
	if err != nil {
		return err
	}
	mounted, err := mounts.IsMountPoint(target)
	if err != nil {
		return err
	}
	if mounted {
		return sameDirectory(key, tree, target)
	}
	fd, err := d.clone(ctx, key, disk, tree, ids)
	if err == nil {
		if err = mounts.Attach(fd, target); err != nil {
			err = fmt.Errorf("mount snapshot %s: %w", key, shelf.Classify(err))
		}
	}
	return err
}

// Root implements snapshot.DiskStore.
func (d *Disks) Root(ctx context.Context, key string, ids snapshot.IDs) (*os.File, error) {
	disk, tree, err := d.treeOf(ctx, key)
	if err != nil {
		return nil, err
	}
	fd, err := d.clone(ctx, key, disk, tree, ids)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), tree), nil
}

// clone makes the mount of a disk, attached nowhere.
func (d *Disks) clone(ctx context.Context, key, disk, tree string, ids snapshot.IDs) (int, error) {
	ns, err := os.Open(ids.UserNS)
	if err != nil {
		return -1, fmt.Errorf("mount snapshot %s: user namespace: %w", key, err)
	}
	defer ns.Close()
	fd, err := d.b.Clone(ctx, disk, tree, ids, int(ns.Fd()))
	if err != nil {
		return -1, fmt.Errorf("mount snapshot %s: %w", key, shelf.Classify(err))
	}
	return fd, nil
}

func sameDirectory(key, tree, target string) error {
	a, err := os.Stat(tree)
	if err != nil {
		return fmt.Errorf("mount snapshot %s: %w", key, err)
	}
	b, err := os.Stat(target)
	if err != nil {
		return fmt.Errorf("mount snapshot %s: %w", key, err)
	}
	if !os.SameFile(a, b) {
		return fmt.Errorf("mount snapshot %s: something else is mounted at %s: %w", key, target, errdefs.ErrConflict)
	}
	return nil
}

// Unmount implements snapshot.DiskStore.
func (d *Disks) Unmount(_ context.Context, target string) error { return d.mounts.Unmount(target) }

// View shows the tree read-only with the ids as they are on disk.
func (d *Disks) View(ctx context.Context, tree, target string) error {
	if err := d.mounts.Await(ctx, target); err != nil {
		return err
	}
	if mounted, err := mounts.IsMountPoint(target); err != nil || mounted {
		return errors.Join(err, fmt.Errorf("view layers: %s is a mount: %w", target, errdefs.ErrConflict))
	}
	fd, err := mounts.CloneView(tree)
	if err == nil {
		err = mounts.Attach(fd, target)
	}
	if err != nil {
		return fmt.Errorf("view layers: %w", err)
	}
	return nil
}

// Close waits for what goes on in the background.
func (d *Disks) Close() {
	d.mounts.Close()
	d.b.Store.Close()
}

// Changes implements snapshot.DiskStore by a copy in the form of overlayfs.
func (d *Disks) Changes(ctx context.Context, key string) (string, error) {
	disk, tree, err := d.treeOf(ctx, key)
	if err != nil {
		return "", err
	}
	chain, err := d.b.Store.Chain(key)
	if err != nil {
		return "", err
	}
	out := filepath.Join(disk, "changes")
	if err := errors.Join(os.RemoveAll(out), os.Mkdir(out, 0o700)); err != nil {
		return "", fmt.Errorf("changes of snapshot %s: %w", key, shelf.Classify(err))
	}
	dirs, err := d.b.Store.Dirs(ctx, chain)
	if err == nil {
		err = d.compare(ctx, disk, tree, dirs, out)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("changes of snapshot %s: %w", key, err), os.RemoveAll(out))
	}
	return out, nil
}

func (d *Disks) compare(ctx context.Context, disk, tree string, layers []string, out string) error {
	return WithDirs(append([]string{tree, out}, layers...), func(open []*os.File) error {
		opts := layer.ChangesOptions{Since: since(disk)}
		if d.b.IDBase != nil {
			opts.IDBase = d.b.IDBase(disk)
		}
		return layer.Changes(ctx, open[2:], open[0], open[1], opts)
	})
}

// Commit implements snapshot.DiskStore: the copy that Changes makes is moved.
func (d *Disks) Commit(ctx context.Context, key, chainID string) error {
	at, err := d.MountedAt(ctx, key)
	if err == nil && at != "" {
		err = fmt.Errorf("it is mounted at %s: %w", at, errdefs.ErrConflict)
	}
	if err != nil {
		return fmt.Errorf("commit snapshot %s: %w", key, err)
	}
	changes, err := d.Changes(ctx, key)
	if err != nil {
		return err
	}
	if err := d.b.Store.TakeLayer(ctx, chainID, changes); err != nil {
		return fmt.Errorf("commit snapshot %s: %w", key, err)
	}
	return d.b.Store.Remove(ctx, key)
}

// MountedAt says where a disk is mounted, "" if nowhere.
func (d *Disks) MountedAt(ctx context.Context, key string) (string, error) {
	_, tree, err := d.treeOf(ctx, key)
	if err != nil {
		return "", err
	}
	own, err := os.Stat(tree)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	found, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		if !strings.HasSuffix(m.Root, "/fs") { // all trees are called so
			return true, false
		}
		info, err := os.Stat(m.Mountpoint)
		return err != nil || !os.SameFile(own, info), false
	})
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[0].Mountpoint, nil
}

// Written counts what a disk has beyond its layers by looking at all of it.
func (d *Disks) Written(ctx context.Context, disk string) (snapshot.Usage, error) {
	tree, err := d.b.Tree(ctx, disk)
	if err != nil {
		return snapshot.Usage{}, err
	}
	start := since(disk)
	return quota.Count(ctx, tree, func(st *syscall.Stat_t) bool { return !time.Unix(st.Ctim.Unix()).Before(start) })
}

// CheckDisk is the part of a check that is about trees.
func (d *Disks) CheckDisk(ctx context.Context, c *shelf.Checker, key, disk string) error {
	tree, err := d.b.Tree(ctx, disk)
	if err == nil {
		var there bool
		if there, err = shelf.Exists(tree); err == nil && !there {
			err = errors.New("its tree is gone")
		}
	}
	if err != nil {
		c.Report(snapshot.FindingDamagedDisk, key, err.Error(), nil)
	}
	return ctx.Err()
}

// WithDirs opens directories for fn, in their order.
func WithDirs(names []string, fn func([]*os.File) error) (err error) {
	open := make([]*os.File, 0, len(names))
	defer func() {
		for _, f := range open {
			err = errors.Join(err, f.Close())
		}
	}()
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		open = append(open, f)
	}
	return fn(open)
}

// Flatten fills the empty directory tree from layers, lowest first.
func Flatten(ctx context.Context, layers []string, tree string) error {
	if len(layers) == 0 {
		return os.Chmod(tree, 0o755)
	}
	return WithDirs(append([]string{tree}, layers...), func(open []*os.File) error {
		return layer.Flatten(ctx, open[1:], open[0])
	})
}

// With is the common part of PrepareWith: fill writes changes, and make a tree
// from the layers of the chain and, topmost, those. Of that tree nothing is known
// to be as its layers have it.
func (d *Disks) With(ctx context.Context, disk string, chain []string, fill func(dir string) error, make func(layers []string) error) error {
	written := filepath.Join(disk, "changes")
	if err := os.Mkdir(written, 0o755); err != nil {
		return err
	}
	if err := fill(written); err != nil {
		return err
	}
	layers, err := d.b.Store.Dirs(ctx, chain)
	if err == nil {
		err = make(append(slices.Clip(layers), written))
	}
	if err == nil {
		err = SetSince(disk, time.Unix(0, 0))
	}
	return errors.Join(err, os.RemoveAll(written))
}

// Stamp returns a time that is later than the change times of everything on
// the file system of dir, by its own clock, and not later than those to come.
func Stamp(ctx context.Context, dir string) (time.Time, error) {
	f, err := os.CreateTemp(dir, ".stamp-")
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	defer func() { _ = os.Remove(f.Name()) }()
	first, err := touch(f)
	tick := time.NewTicker(time.Millisecond) // the clock has steps of 1 to 10 ms
	defer tick.Stop()
	for err == nil {
		var now time.Time
		if now, err = touch(f); now.After(first) {
			return now, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return time.Time{}, err
}

// touch changes f and returns its change time.
func touch(f *os.File) (time.Time, error) {
	var st unix.Stat_t
	err := errors.Join(f.Chmod(0o600), unix.Fstat(int(f.Fd()), &st))
	return time.Unix(st.Ctim.Unix()), err
}

// SetSince records the time before which nothing was written to a disk.
func SetSince(disk string, t time.Time) error {
	return SetText(disk, "since", strconv.FormatInt(t.UnixNano(), 10))
}

// since is zero where it is not known: then everything counts as written.
func since(disk string) time.Time {
	ns, err := strconv.ParseInt(Text(disk, "since"), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// Since is the record of SetSince, zero where there is none.
func Since(disk string) time.Time { return since(disk) }

// SetText records a few bytes as a symbolic link in dir, which is a part of its
// inode and appears whole.
func SetText(dir, name, text string) error {
	tmp := filepath.Join(dir, ".new-"+name)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(text, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, name))
}

// Text is what SetText recorded, "" for nothing.
func Text(dir, name string) string {
	text, err := os.Readlink(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return text
}
