package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/mounts"
	"github.com/gantry-project/gantry/engine/snapshot/shelf"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// Mount implements snapshot.DiskStore.
func (s *Snapshotter) Mount(ctx context.Context, key, target string, ids snapshot.IDs) error {
	if _, err := shelf.KeyName(key); err != nil {
		return err
	}
	if err := s.mounts.Await(ctx, target); err != nil {
		return err
	}
	chain, err := s.store.Chain(key)
	if err != nil {
		return err
	}
	mounted, err := mounts.IsMountPoint(target)
	if err != nil {
		return err
	}
	if mounted {
		return isMountOf(key, target)
	}
	// It is attached only when it is whole: an interrupted Mount leaves nothing.
	fd, err := s.disk(ctx, key, chain, ids)
	if err == nil {
		if err = mounts.Attach(fd, target); err != nil {
			err = fmt.Errorf("mount snapshot %s: %w", key, shelf.Classify(err))
		}
	}
	return err
}

// Root implements snapshot.DiskStore.
func (s *Snapshotter) Root(ctx context.Context, key string, ids snapshot.IDs) (*os.File, error) {
	if _, err := shelf.KeyName(key); err != nil {
		return nil, err
	}
	chain, err := s.store.Chain(key)
	if err != nil {
		return nil, err
	}
	fd, err := s.disk(ctx, key, chain, ids)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), source(key)), nil
}

// disk makes the mount of a disk, attached nowhere.
func (s *Snapshotter) disk(ctx context.Context, key string, chain []string, ids snapshot.IDs) (int, error) {
	own, _, err := s.branchesOf(ctx, key)
	if err != nil {
		return -1, err
	}
	ns, err := linux.OpenFd(ids.UserNS, unix.O_RDONLY)
	if err != nil {
		return -1, fmt.Errorf("mount snapshot %s: user namespace: %w", key, err)
	}
	defer unix.Close(ns)
	fd, err := s.detached(ctx, key, own, chain, ns, ids.Root)
	if err != nil {
		return -1, fmt.Errorf("mount snapshot %s over %d layers: %w", key, len(chain), shelf.Classify(err))
	}
	return fd, nil
}

// View implements snapshot.LayerStore: an overlay without an upper directory.
func (s *Snapshotter) View(ctx context.Context, chain []string, target string) error {
	if err := s.mounts.Await(ctx, target); err != nil {
		return err
	}
	if mounted, err := mounts.IsMountPoint(target); err != nil || mounted {
		return errors.Join(err, fmt.Errorf("view layers: %s is a mount: %w", target, errdefs.ErrConflict))
	}
	dirs, err := s.store.Dirs(ctx, chain)
	if err != nil {
		return fmt.Errorf("view layers: %w", err)
	}
	fd, err := s.view(dirs)
	if err == nil {
		err = mounts.Attach(fd, target)
	}
	if err != nil {
		return fmt.Errorf("view %d layers: %w", len(chain), err)
	}
	return nil
}

// view makes the mount of a View, attached nowhere.
func (s *Snapshotter) view(dirs []string) (int, error) {
	if len(dirs) == 0 {
		return mounts.CloneView(s.store.Path("empty"))
	}
	b := branches{upper: -1, store: -1}
	defer b.close()
	// Overlayfs wants two directories at least when it has no upper one.
	for _, dir := range append(fromTop(dirs), s.store.Path("empty")) {
		fd, err := mounts.CloneView(dir)
		if err != nil {
			return -1, err
		}
		b.lower = append(b.lower, fd)
	}
	return s.assemble("view", b, 0)
}

// fromTop returns the directories of layers topmost first, down to the first
// that hides all below it: overlayfs merges roots whatever they say.
func fromTop(dirs []string) []string {
	out := make([]string, 0, len(dirs)+2)
	for _, dir := range slices.Backward(dirs) {
		out = append(out, dir)
		if isOpaque(dir) {
			break
		}
	}
	return out
}

// detached makes the overlay of a disk, whose own directory is own, as a mount
// that is attached nowhere.
func (s *Snapshotter) detached(ctx context.Context, name, own string, chain []string, userns int, root uint32) (fd int, err error) {
	dirs, err := s.store.Dirs(ctx, chain)
	if err != nil {
		return -1, err
	}
	dirs = append(fromTop(dirs), s.store.Path(skeleton))
	b, err := s.branchesOver(own, dirs, userns)
	if err != nil {
		return -1, err
	}
	defer b.close()
	fd, err = s.assemble(name, b, root)
	if !errors.Is(err, errNoDescriptors) {
		return fd, err
	}
	clones, err := s.branchesOver(own, dirs, userns)
	if err != nil {
		return -1, err
	}
	defer clones.close()
	return s.assemble(name, clones, root)
}

// branchesOver opens the branches of a disk, whose own directory is own, over
// dirs. On error it leaves none open.
func (s *Snapshotter) branchesOver(own string, dirs []string, userns int) (b branches, err error) {
	b = branches{upper: -1, store: -1}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if !s.pathsOnly.Load() {
		if b.store, err = mounts.Clone(s.store.Root(), userns); err != nil {
			return b, err
		}
	}
	open := func(dir string) (int, error) {
		if fd, err := b.inStore(s.store.Root(), dir); err == nil {
			return fd, nil
		}
		return mounts.Clone(dir, userns)
	}
	if b.upper, err = open(own); err != nil {
		return b, err
	}
	for _, dir := range dirs {
		fd, err := open(dir)
		if err != nil {
			return b, fmt.Errorf("layer %s: %w", filepath.Base(filepath.Dir(dir)), err)
		}
		b.lower = append(b.lower, fd)
	}
	return b, nil
}

// assemble makes an overlay of branches, as a mount that is attached nowhere.
// errNoDescriptors if the kernel has just turned out to take them by path only,
// and they are no mounts of their own.
func (s *Snapshotter) assemble(name string, b branches, root uint32) (fd int, err error) {
	err = errNoDescriptors
	if !s.pathsOnly.Load() {
		err = mounts.AsRoot(root, func() (err error) {
			fd, err = overlayOfDescriptors(name, b)
			return err
		})
	}
	if errors.Is(err, errNoDescriptors) {
		s.pathsOnly.Store(true)
		if b.store >= 0 {
			return -1, err
		}
		err = mounts.AsRoot(root, func() (err error) {
			fd, err = overlayOfPaths(name, s.store.Root(), b)
			return err
		})
	}
	return fd, err
}

// Probe tries on this host and file system, without attaching a mount, all
// that Mount needs: id-mapped branches under a writable overlay, and nothing
// is left of it. errdefs.ErrUnsupported names what is missing.
func (s *Snapshotter) Probe(ctx context.Context, ids snapshot.IDs) (err error) {
	ns, err := os.Open(ids.UserNS)
	if err != nil {
		return fmt.Errorf("probe snapshots: user namespace: %w", err)
	}
	defer ns.Close()
	dir, drop, err := s.store.Temp("active", os.RemoveAll)
	if err != nil {
		return fmt.Errorf("probe snapshots: %w", err)
	}
	defer drop()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "upper"), 0o755), os.Mkdir(filepath.Join(dir, "work"), 0o755)); err != nil {
		return fmt.Errorf("probe snapshots: %w", err)
	}
	fd, err := s.detached(ctx, filepath.Base(dir), dir, nil, int(ns.Fd()), ids.Root)
	if err != nil {
		return fmt.Errorf("probe snapshots: overlay over id-mapped mounts: %w: %w", errdefs.ErrUnsupported, err)
	}
	defer unix.Close(fd)
	// A kernel that cannot write to the upper directory mounts all the same.
	file := -1
	err = mounts.AsRoot(ids.Root, func() (err error) {
		file, err = unix.Openat(fd, "probe", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		return err
	})
	if errors.Is(err, unix.EOVERFLOW) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("probe snapshots: the overlay cannot be written to: %w: %w", errdefs.ErrUnsupported, err)
	}
	if err != nil {
		return fmt.Errorf("probe snapshots: %w", shelf.Classify(err))
	}
	return unix.Close(file)
}

func isOpaque(dir string) bool {
	var v [2]byte
	n, err := unix.Lgetxattr(dir, "trusted.overlay.opaque", v[:])
	return err == nil && n == 1 && v[0] == 'y'
}

// isMountOf is nil if the snapshot name is what is mounted at target.
func isMountOf(name, target string) error {
	real, err := filepath.EvalSymlinks(target)
	if err != nil {
		return fmt.Errorf("mount snapshot %s: %w", name, err)
	}
	infos, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(real))
	if err != nil {
		return fmt.Errorf("mount snapshot %s: %w", name, err)
	}
	if len(infos) == 0 || infos[0].Source != source(name) {
		return fmt.Errorf("mount snapshot %s: something else is mounted at %s: %w", name, target, errdefs.ErrConflict)
	}
	return nil
}

// source is the name of the mount in /proc/self/mountinfo.
func source(name string) string { return "gantry:" + name }
