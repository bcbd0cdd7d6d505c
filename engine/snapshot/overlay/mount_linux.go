package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Mount implements snapshot.Snapshotter.
func (s *Snapshotter) Mount(ctx context.Context, key, target string, ids snapshot.IDs) error {
	name, err := keyName(key)
	if err != nil {
		return err
	}
	if err := s.awaitUnmount(ctx, target); err != nil {
		return err
	}
	chain, err := s.chain(name)
	if err != nil {
		return err
	}
	mounted, err := isMountPoint(target)
	if err != nil {
		return err
	}
	if mounted {
		return isMountOf(name, target)
	}
	ns, err := os.Open(ids.UserNS)
	if err != nil {
		return fmt.Errorf("mount snapshot %s: user namespace: %w", key, err)
	}
	defer ns.Close()
	if err := s.mount(name, chain, target, int(ns.Fd()), ids.Root); err != nil {
		return fmt.Errorf("mount snapshot %s over %d layers: %w", key, len(chain), classify(err))
	}
	return nil
}

// mount makes the overlay as a mount that is attached nowhere, and attaches it
// at target only when it is whole: an interrupted Mount leaves nothing.
func (s *Snapshotter) mount(name string, chain []string, target string, userns int, root uint32) error {
	fd, err := s.detached(name, chain, userns, root)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// detached makes the overlay as a mount that is attached nowhere.
func (s *Snapshotter) detached(name string, chain []string, userns int, root uint32) (fd int, err error) {
	b := branches{upper: -1}
	defer b.close()
	err = asRoot(root, func() (err error) {
		if err := s.clone(&b, name, chain, userns); err != nil {
			return err
		}
		if s.pathsOnly.Load() {
			return errNoDescriptors
		}
		fd, err = overlayOfDescriptors(name, b)
		return err
	})
	if errors.Is(err, errNoDescriptors) {
		s.pathsOnly.Store(true)
		err = asRoot(root, func() (err error) {
			fd, err = overlayOfPaths(name, s.root, b)
			return err
		})
	}
	return fd, err
}

// Probe tries on this host and file system, without attaching a mount, all
// that Mount needs: id-mapped branches under a writable overlay, and nothing
// is left of it. errdefs.ErrUnsupported names what is missing.
func (s *Snapshotter) Probe(_ context.Context, ids snapshot.IDs) (err error) {
	ns, err := os.Open(ids.UserNS)
	if err != nil {
		return fmt.Errorf("probe snapshots: user namespace: %w", err)
	}
	defer ns.Close()
	dir, err := os.MkdirTemp(s.path("active"), halfMade)
	if err != nil {
		return fmt.Errorf("probe snapshots: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "upper"), 0o755), os.Mkdir(filepath.Join(dir, "work"), 0o755)); err != nil {
		return fmt.Errorf("probe snapshots: %w", err)
	}
	fd, err := s.detached(filepath.Base(dir), nil, int(ns.Fd()), ids.Root)
	if err != nil {
		return fmt.Errorf("probe snapshots: overlay over id-mapped mounts: %w: %w", errdefs.ErrUnsupported, err)
	}
	defer unix.Close(fd)
	// A kernel that cannot write to the upper directory mounts all the same.
	file := -1
	err = asRoot(ids.Root, func() (err error) {
		file, err = unix.Openat(fd, "probe", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		return err
	})
	if errors.Is(err, unix.EOVERFLOW) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("probe snapshots: the overlay cannot be written to: %w: %w", errdefs.ErrUnsupported, err)
	}
	if err != nil {
		return fmt.Errorf("probe snapshots: %w", classify(err))
	}
	return unix.Close(file)
}

// clone fills b with id-mapped clones of the snapshot's own directory and of
// its layers, the topmost first.
func (s *Snapshotter) clone(b *branches, name string, chain []string, userns int) (err error) {
	if b.upper, err = idmapped(s.path("active", name), userns); err != nil {
		return err
	}
	for i := len(chain) - 1; i >= 0; i-- {
		layer, err := layerName(chain[i])
		if err != nil {
			return err
		}
		dir := s.path("layers", layer, "fs")
		fd, err := idmapped(dir, userns)
		if err != nil {
			return fmt.Errorf("layer %s: %w", chain[i], err)
		}
		b.lower = append(b.lower, fd)
		if isOpaque(dir) { // overlayfs merges roots whatever they say
			break
		}
	}
	if len(b.lower) == 0 {
		fd, err := idmapped(s.path("empty"), userns)
		if err != nil {
			return err
		}
		b.lower = append(b.lower, fd)
	}
	return nil
}

func isOpaque(dir string) bool {
	var v [2]byte
	n, err := unix.Lgetxattr(dir, "trusted.overlay.opaque", v[:])
	return err == nil && n == 1 && v[0] == 'y'
}

// idmapped returns a clone of the mount at source, attached nowhere, with its
// ids mapped by the user namespace.
func idmapped(source string, userns int) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, fmt.Errorf("clone mount: %w", err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE, Userns_fd: uint64(userns)}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr)
	if errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("id-mapped mount on this file system: %w: %w", errdefs.ErrUnsupported, err)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// asRoot runs fn with the file system ids of the container's root and all
// capabilities. An overlay works on its layers with the credentials of who
// mounted it, and the host's root has no id in an id-mapped layer: it could
// make no file there, and the overlay would be read-only.
func asRoot(id uint32, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// the thread is not unlocked: it ends with the goroutine, and its
		// credentials and namespaces with it
		runtime.LockOSThread()
		done <- func() error {
			head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var caps [2]unix.CapUserData
			if err := unix.Capget(&head, &caps[0]); err != nil {
				return fmt.Errorf("read capabilities: %w", err)
			}
			if err := errors.Join(unix.Setfsgid(int(id)), unix.Setfsuid(int(id))); err != nil {
				return fmt.Errorf("set file system ids: %w", err)
			}
			// giving up the file system id 0 has dropped capabilities
			if err := unix.Capset(&head, &caps[0]); err != nil {
				return fmt.Errorf("keep capabilities: %w", err)
			}
			return fn()
		}()
	}()
	return <-done
}

// isMountPoint asks the kernel whether the directory is the root of a mount.
func isMountPoint(dir string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
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

// Unmount implements snapshot.Snapshotter.
//
// Taking down an overlay writes its whole upper file system back. The mount is
// detached while a descriptor still holds it, and the descriptor is closed in
// the background: the caller does not wait for the disk, and a later Mount of
// the same target does.
func (s *Snapshotter) Unmount(_ context.Context, target string) error {
	mounted, err := isMountPoint(target)
	if err != nil || !mounted {
		return err
	}
	hold, err := unix.Open(target, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return errors.Join(fmt.Errorf("unmount %s: %w", target, err), unix.Close(hold))
	}
	done := make(chan struct{})
	s.pending.Store(target, done)
	s.closing.Go(func() {
		defer close(done)
		defer s.pending.CompareAndDelete(target, done)
		_ = unix.Close(hold) // the error of an O_PATH descriptor says nothing
	})
	return nil
}

// awaitUnmount waits for the background part of an Unmount.
func (s *Snapshotter) awaitUnmount(ctx context.Context, target string) error {
	v, ok := s.pending.Load(target)
	if !ok {
		return nil
	}
	done, ok := v.(chan struct{})
	if !ok {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the unmount of %s: %w", target, ctx.Err())
	}
}

// Close waits for the unmounts under way. The mounts that exist stay.
func (s *Snapshotter) Close() { s.closing.Wait() }

// syncTree makes what is below dir durable with one call for its file system.
func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}
