package quota

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/mounts"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// smallestLoop holds ext4's own tables and journal, and a little more.
const smallestLoop = 16 << 20

// growFileSystem is EXT4_IOC_RESIZE_FS of fs/ext4/ext4.h: the new size in
// blocks, as 64 bits.
const growFileSystem = 0x40086610

// image is the file that the file system at dir is in.
func image(dir string) string { return dir + ".img" }

// loop gives a directory a file system of its own: ext4 in a sparse file.
type loop struct{}

// probe makes one, and removes it.
func (l loop) probe(ctx context.Context, root string) error {
	tmp, err := os.MkdirTemp(root, ".new-probe-")
	if err != nil {
		return err
	}
	dir := filepath.Join(tmp, "trial")
	err = l.make(ctx, dir, snapshot.Limit{Bytes: smallestLoop})
	err = errors.Join(err, l.remove(dir), os.RemoveAll(tmp))
	if err != nil && !errors.Is(err, errdefs.ErrExhausted) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", errdefs.ErrUnsupported, err)
	}
	return err
}

func (l loop) make(ctx context.Context, dir string, limit snapshot.Limit) error {
	if limit.Bytes < smallestLoop {
		return fmt.Errorf("a disk of %d bytes: the smallest is %d: %w", limit.Bytes, smallestLoop, errdefs.ErrInvalid)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := format(ctx, image(dir), limit); err != nil {
		return err
	}
	if err := l.open(ctx, dir); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, "lost+found")); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// format makes the file and the file system in it, durably.
func format(ctx context.Context, name string, limit snapshot.Limit) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(limit.Bytes &^ 4095); err != nil {
		return err
	}
	// -m 0: no blocks are kept for root. resize_inode: it can grow while it is
	// mounted.
	args := []string{"-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-O", "resize_inode", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"}
	if limit.Inodes > 0 {
		args = append(args, "-N", strconv.FormatInt(limit.Inodes+reservedInodes, 10))
	}
	cmd := exec.CommandContext(ctx, "mkfs.ext4", append(args, name)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, bytes.TrimSpace(out[:min(len(out), 300)]))
	}
	return f.Sync()
}

// reservedInodes of ext4 are not for files: 10, and lost+found.
const reservedInodes = 11

// open mounts the file system at dir unless it is mounted there.
func (l loop) open(_ context.Context, dir string) error {
	if mounted, err := mounts.IsMountPoint(dir); err != nil || mounted {
		return err
	}
	dev, err := attach(image(dir))
	if err != nil {
		return err
	}
	defer dev.Close() // the mount holds the device
	fd, err := fileSystem("ext4", dev)
	if err != nil {
		return fmt.Errorf("mount %s: %w", image(dir), err)
	}
	defer unix.Close(fd)
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return os.NewSyscallError("mount_setattr", err)
	}
	return os.NewSyscallError("move_mount", unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// fileSystem mounts what is on the device, nowhere.
func fileSystem(kind string, dev *os.File) (int, error) {
	fsfd, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fsfd)
	// a name in /dev may be missing; the descriptor's is always there
	source := "/proc/self/fd/" + strconv.Itoa(int(dev.Fd()))
	if err := errors.Join(unix.FsconfigSetString(fsfd, "source", source), unix.FsconfigCreate(fsfd)); err != nil {
		return -1, os.NewSyscallError("fsconfig "+kind, err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV)
	return fd, os.NewSyscallError("fsmount", err)
}

// set grows the file, the device and the file system.
func (l loop) set(ctx context.Context, dir string, limit snapshot.Limit) error {
	info, err := os.Stat(image(dir))
	if err != nil {
		return err
	}
	size := limit.Bytes &^ 4095
	if size < info.Size() {
		return fmt.Errorf("from %d bytes to %d: a loop file cannot shrink: %w", info.Size(), limit.Bytes, errdefs.ErrUnsupported)
	}
	if size > info.Size() && !mayGrow() {
		return fmt.Errorf("from %d bytes to %d: to grow ext4 needs the capability SYS_RESOURCE: %w", info.Size(), limit.Bytes, errdefs.ErrUnsupported)
	}
	if err := l.open(ctx, dir); err != nil {
		return err
	}
	if size > info.Size() {
		if err := grow(dir, size); err != nil {
			return err
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if int64(st.Files) < limit.Inodes {
		return fmt.Errorf("%d inodes: the file system has %d: %w", limit.Inodes, st.Files, errdefs.ErrUnsupported)
	}
	return nil
}

// mayGrow reports whether this process may grow an ext4 that is mounted
// (fs/ext4/resize.c, ext4_resize_begin).
func mayGrow() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	return unix.Capget(&head, &caps[0]) == nil && caps[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

func grow(dir string, size int64) error {
	if err := os.Truncate(image(dir), size); err != nil {
		return err
	}
	dev, err := attach(image(dir))
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return os.NewSyscallError("ioctl LOOP_SET_CAPACITY", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	blocks := uint64(size / 4096)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), growFileSystem, uintptr(unsafe.Pointer(&blocks))); errno != 0 {
		return os.NewSyscallError("ioctl EXT4_IOC_RESIZE_FS", errno)
	}
	return d.Sync()
}

func (l loop) usage(ctx context.Context, dir string) (snapshot.Usage, error) {
	if err := l.open(ctx, dir); err != nil {
		return snapshot.Usage{}, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return snapshot.Usage{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return snapshot.Usage{
		Bytes: int64(st.Blocks-st.Bfree) * st.Bsize, Inodes: int64(st.Files-st.Ffree) - (reservedInodes - 1),
	}, nil
}

// remove takes the mount down; the device goes with the last that uses it.
func (l loop) remove(dir string) error {
	mounted, err := mounts.IsMountPoint(dir)
	if err != nil {
		return err
	}
	if mounted {
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	if err := os.Remove(image(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(dir)
}
