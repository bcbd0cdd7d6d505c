package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot/mounts"
	"github.com/gantry-project/gantry/internal/linux"
)

// settings keep the upper directory in the plain form that layer.Diff reads:
// no redirects, no metadata-only copies, no index. What a hostile upper
// directory says of these is not followed either.
var settings = [][2]string{{"redirect_dir", "nofollow"}, {"metacopy", "off"}, {"index", "off"}}

// branches of an overlay, as descriptors. upper holds "upper" and "work"; with -1
// the overlay is read-only. lower has the topmost layer first.
//
// Each is a mount of its own that is attached nowhere, or, where the kernel takes
// branches by descriptor, a directory in store, such a mount of the whole store:
// the end of each mount is a wait for all processors.
type branches struct {
	store int // -1 for none
	upper int
	lower []int
}

// inStore opens a directory of the store, whose root is at root. It fails where
// that is not in the one mount: where dir is a mount, a symbolic link leads
// there, or there is no such mount.
func (b *branches) inStore(root, dir string) (int, error) {
	path, err := filepath.Rel(root, dir)
	if err != nil || b.store < 0 {
		return -1, errors.Join(err, unix.EBADF)
	}
	if mounted, err := mounts.IsMountPoint(dir); err != nil || mounted {
		return -1, errors.Join(err, unix.EXDEV)
	}
	return linux.RetryEINTR(func() (int, error) {
		return unix.Openat2(b.store, path, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
	})
}

// attributes of the mount.
func (b *branches) attributes() int {
	if b.upper < 0 {
		return mounts.ViewFlags
	}
	return unix.MOUNT_ATTR_NODEV
}

func (b *branches) close() {
	for _, fd := range append([]int{b.store, b.upper}, b.lower...) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// errNoDescriptors says that this kernel takes the branches of an overlay by
// path only.
var errNoDescriptors = errors.New("overlay: branches by descriptor are not supported")

// overlayOfDescriptors makes the overlay from the descriptors themselves,
// which needs Linux 6.15.
func overlayOfDescriptors(name string, b branches) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	for _, fd := range b.lower {
		if err := unix.FsconfigSetFd(fs, "lowerdir+", fd); err != nil {
			return -1, errNoDescriptors
		}
	}
	for option, dir := range map[string]string{"upperdir": "upper", "workdir": "work"} {
		if b.upper < 0 {
			break
		}
		fd, err := unix.Openat(b.upper, dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: dir, Err: err}
		}
		err = unix.FsconfigSetFd(fs, option, fd)
		_ = unix.Close(fd)
		if err != nil {
			return -1, errNoDescriptors
		}
	}
	if err := unix.FsconfigSetString(fs, "source", source(name)); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	for _, kv := range settings {
		if err := unix.FsconfigSetString(fs, kv[0], kv[1]); err != nil {
			return -1, fmt.Errorf("overlay option %s: %w", kv[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig create overlay", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, b.attributes())
	return fd, os.NewSyscallError("fsmount", err)
}

// overlayOfPaths makes the overlay in a mount namespace of the calling
// thread's own, which must end afterwards. The branches are attached below a
// tmpfs there and named relative to it, so that the options of 200 layers fit
// into the page that mount(2) takes.
func overlayOfPaths(name, root string, b branches) (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return -1, os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, os.NewSyscallError("make mounts private", err)
	}
	if err := errors.Join(unix.Mount("staging", root, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=700"), unix.Chdir(root)); err != nil {
		return -1, fmt.Errorf("staging: %w", err)
	}
	attach := func(fd int, dir string) error {
		if err := unix.Mkdir(dir, 0o700); err != nil {
			return err
		}
		return unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	if err := unix.Mkdir("m", 0o700); err != nil {
		return -1, fmt.Errorf("staging: %w", err)
	}
	var options []string
	if b.upper >= 0 {
		if err := attach(b.upper, "u"); err != nil {
			return -1, fmt.Errorf("attach upper: %w", err)
		}
		options = []string{"upperdir=" + filepath.Join("u", "upper"), "workdir=" + filepath.Join("u", "work")}
	}
	lower := make([]string, len(b.lower))
	for i, fd := range b.lower {
		lower[i] = strconv.Itoa(i)
		if err := attach(fd, lower[i]); err != nil {
			return -1, fmt.Errorf("attach layer: %w", err)
		}
	}
	options = append(options, "lowerdir="+strings.Join(lower, ":"))
	for _, kv := range settings {
		options = append(options, kv[0]+"="+kv[1])
	}
	if err := unix.Mount(source(name), "m", "overlay", unix.MS_NODEV, strings.Join(options, ",")); err != nil {
		return -1, fmt.Errorf("mount overlay: %w", err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, "m", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("open_tree", err)
	}
	attr := unix.MountAttr{Attr_set: uint64(b.attributes())}
	return fd, os.NewSyscallError("mount_setattr", unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr))
}

// tryUpper tries to mount what is in dir, with an index: EBUSY if it is mounted.
func tryUpper(dir, lower string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	for _, kv := range [][2]string{
		{"lowerdir", lower}, {"upperdir", filepath.Join(dir, "upper")}, {"workdir", filepath.Join(dir, "work")}, {"index", "on"},
	} {
		if err := unix.FsconfigSetString(fs, kv[0], kv[1]); err != nil {
			return err
		}
	}
	return unix.FsconfigCreate(fs)
}
