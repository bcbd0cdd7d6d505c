// Package mounts shows directories of a store of snapshots: clones of mounts
// with mapped ids, attached when they are whole, and taken down without waiting
// for the disk.
//
// It is for the back ends below engine/snapshot and imports internal packages only.
package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// Clone returns a clone of the mount at source, attached nowhere: nodev, not
// nosuid, and with its ids mapped by the user namespace. errdefs.ErrUnsupported
// if the file system has no id-mapped mounts.
func Clone(source string, userns int) (int, error) {
	return clone(source, unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_NODEV, Attr_clr: unix.MOUNT_ATTR_NOSUID,
		Propagation: unix.MS_PRIVATE, Userns_fd: uint64(userns),
	})
}

// ClonePlain is Clone with the ids as they are on disk.
func ClonePlain(source string) (int, error) {
	return clone(source, unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_NODEV, Attr_clr: unix.MOUNT_ATTR_NOSUID, Propagation: unix.MS_PRIVATE,
	})
}

// ViewFlags are the attributes of a mount that is only to be looked at.
const ViewFlags = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC

// CloneView is a read-only clone with the ids as they are on disk.
func CloneView(source string) (int, error) {
	return clone(source, unix.MountAttr{Attr_set: ViewFlags, Propagation: unix.MS_PRIVATE})
}

func clone(source string, attr unix.MountAttr) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, fmt.Errorf("clone mount: %w", err)
	}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr)
	if attr.Attr_set&unix.MOUNT_ATTR_IDMAP != 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)) {
		err = fmt.Errorf("id-mapped mount on this file system: %w: %w", errdefs.ErrUnsupported, err)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// Attach attaches the mount fd, and closes fd.
func Attach(fd int, target string) error {
	err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return errors.Join(os.NewSyscallError("move_mount", err), unix.Close(fd))
}

// IsMountPoint asks the kernel whether the directory is the root of a mount. A
// link, or nothing, is none.
func IsMountPoint(dir string) (bool, error) {
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

// FileSystem names the file system that dir is on.
func FileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs",
	}
	if name, ok := names[int64(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("%#x", uint32(st.Type))
}

// AsRoot runs fn in a thread of its own with the file system ids of a
// container's root and the capabilities of the process, but for the one that
// disk limits do not hold for. An overlay works on its layers with the
// credentials of who mounted it, and the host's root has no id in an id-mapped
// layer: it could make no file there, and the overlay would be read-only.
func AsRoot(id uint32, fn func() error) error {
	return linux.WithFSIDs(int(id), int(id), fn, unix.CAP_SYS_RESOURCE)
}

// Unmounter takes mounts down in the background. Its zero value is ready.
type Unmounter struct {
	// pending maps a target to the end (chan struct{}) of its unmount.
	pending sync.Map
	closing sync.WaitGroup
}

// Unmount takes down the mount at target. Not mounted is nil.
//
// Taking down an overlay writes its whole upper file system back. The mount is
// detached while a descriptor still holds it, and the descriptor is closed in
// the background: the caller does not wait for the disk, and Await does.
func (u *Unmounter) Unmount(target string) error {
	mounted, err := IsMountPoint(target)
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
	u.pending.Store(target, done)
	u.closing.Go(func() {
		defer close(done)
		defer u.pending.CompareAndDelete(target, done)
		_ = unix.Close(hold) // the error of an O_PATH descriptor says nothing
	})
	return nil
}

// Await waits for the background part of an Unmount.
func (u *Unmounter) Await(ctx context.Context, target string) error {
	v, ok := u.pending.Load(target)
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

// AwaitAll waits for the background part of every Unmount so far.
func (u *Unmounter) AwaitAll(ctx context.Context) error {
	var err error
	u.pending.Range(func(target, _ any) bool {
		if name, ok := target.(string); ok {
			err = u.Await(ctx, name)
		}
		return err == nil
	})
	return err
}

// Close waits for all unmounts under way.
func (u *Unmounter) Close() { u.closing.Wait() }
