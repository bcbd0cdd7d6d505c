package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// options keep the upper directory in the plain form that layer.Diff reads: no
// redirects, no metadata-only copies, no index.
const options = "redirect_dir=off,metacopy=off,index=off"

// Mount implements snapshot.Snapshotter.
//
// Each layer, and the directory with upper and work, is cloned into an id-mapped
// mount at a staging directory; the overlay is mounted over those and keeps
// private clones, so that the staging mounts go at once.
func (s *Snapshotter) Mount(ctx context.Context, key, target string, ids snapshot.IDs) error {
	name, err := keyName(key)
	if err != nil {
		return err
	}
	if err := s.awaitUnmount(ctx, target); err != nil {
		return err
	}
	if mounted, err := isMountPoint(target); err != nil || mounted {
		return err
	}
	chain, err := s.chain(name)
	if err != nil {
		return err
	}
	ns, err := os.Open(ids.UserNS)
	if err != nil {
		return fmt.Errorf("mount snapshot %s: user namespace: %w", key, err)
	}
	defer ns.Close()
	if err := s.mount(name, chain, target, int(ns.Fd()), ids.Root); err != nil {
		return fmt.Errorf("mount snapshot %s: %w", key, err)
	}
	return nil
}

func (s *Snapshotter) mount(name string, chain []string, target string, userns int, root uint32) (err error) {
	staging, err := os.MkdirTemp(s.root, halfMounted)
	if err != nil {
		return err
	}
	var attached []string
	defer func() {
		for _, dir := range attached {
			err = errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW), os.Remove(dir))
		}
		err = errors.Join(err, os.Remove(staging))
	}()
	attach := func(source, as string) error {
		dir := filepath.Join(staging, as)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := idmapped(source, dir, userns); err != nil {
			return errors.Join(err, os.Remove(dir))
		}
		attached = append(attached, dir)
		return nil
	}
	// the staging directory by descriptor keeps the option string short
	at, err := os.Open(staging)
	if err != nil {
		return err
	}
	defer at.Close()
	base := "/proc/self/fd/" + strconv.Itoa(int(at.Fd())) + "/"

	if err := attach(s.path("active", name), "u"); err != nil {
		return err
	}
	lower := make([]string, 0, len(chain))
	for i := len(chain) - 1; i >= 0; i-- { // the option wants the topmost first
		layer, err := layerName(chain[i])
		if err != nil {
			return err
		}
		as := strconv.Itoa(i)
		if err := attach(s.path("layers", layer, "fs"), as); err != nil {
			return err
		}
		lower = append(lower, base+as)
	}
	if len(lower) == 0 {
		return fmt.Errorf("no layer: %w", errdefs.ErrInvalid)
	}
	data := options + ",upperdir=" + base + "u/upper,workdir=" + base + "u/work,lowerdir=" + strings.Join(lower, ":")
	err = asRoot(root, func() error { return unix.Mount("overlay", target, "overlay", unix.MS_NODEV, data) })
	if err != nil {
		return fmt.Errorf("overlay of %d layers: %w", len(lower), classify(err))
	}
	return nil
}

// asRoot runs fn with the file system ids of the container's root and all
// capabilities. An overlay works on its layers with the credentials of who
// mounted it, and the host's root has no id in an id-mapped layer: it could
// make no file there, and the overlay would be read-only.
func asRoot(id uint32, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// the thread is not unlocked: it ends with the goroutine, and its
		// credentials with it
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

// idmapped clones the mount at source, maps its ids and attaches it at target.
func idmapped(source, target string, userns int) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("clone mount: %w", err)
	}
	defer unix.Close(fd)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE, Userns_fd: uint64(userns)}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("id-mapped mount on this file system: %w: %w", errdefs.ErrUnsupported, err)
		}
		return fmt.Errorf("map ids: %w", err)
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

// unstage removes a staging directory that an interrupted Mount left.
func unstage(staging string) error {
	entries, err := os.ReadDir(staging)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(staging, e.Name())
		if mounted, err := isMountPoint(dir); err != nil {
			return err
		} else if mounted {
			if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return fmt.Errorf("unmount %s: %w", dir, err)
			}
		}
		if err := os.Remove(dir); err != nil { // never RemoveAll: a layer may still be below
			return err
		}
	}
	return os.Remove(staging)
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
