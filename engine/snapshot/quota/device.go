package quota

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot/mounts"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const loopMajor = 7

// attach returns the loop device over the file: the one that is there, since
// two over one file would destroy it, or a new one. It goes when nothing has it
// open or mounted any more.
func attach(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if dev, err := attached(file); dev != nil || err != nil {
		return dev, err
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop devices: %w: %w", errdefs.ErrUnsupported, err)
	}
	defer control.Close()
	const tries = 100
	for range tries {
		// This makes a new device when all are in use: max_loop is only how
		// many there are from the start.
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, os.NewSyscallError("ioctl LOOP_CTL_GET_FREE", err)
		}
		dev, err := openDevice(n)
		if errors.Is(err, unix.ENXIO) {
			continue // taken away by somebody
		}
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		copy(config.Info.File_name[:len(config.Info.File_name)-1], name)
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) { // else somebody was faster
			return nil, os.NewSyscallError("ioctl LOOP_CONFIGURE", err)
		}
	}
	return nil, fmt.Errorf("no free loop device: %w", errdefs.ErrExhausted)
}

// openDevice opens loop device n, also where nothing makes nodes for new ones.
func openDevice(n int) (*os.File, error) {
	dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return dev, err
	}
	dir, err := os.MkdirTemp("/dev", ".gantry-loop-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	node := filepath.Join(dir, "node")
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n)))); err != nil {
		return nil, &os.PathError{Op: "mknod", Path: node, Err: err}
	}
	return os.OpenFile(node, os.O_RDWR, 0)
}

// attached finds the device over the file; nil if there is none.
func attached(file *os.File) (*os.File, error) {
	var want unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &want); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	devices, err := devices()
	if err != nil {
		return nil, err
	}
	for n, backing := range devices {
		if filepath.Base(backing) != filepath.Base(file.Name()) {
			continue
		}
		dev, err := openDevice(n)
		if err != nil {
			continue // went meanwhile
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		if err == nil && info.Inode == want.Ino && info.Device == uint64(want.Dev) {
			return dev, nil // being open it cannot go any more
		}
		dev.Close()
	}
	return nil, nil
}

// devices lists the loop devices in use and the files they are over, as sysfs
// shows them. A file that was removed ends in " (deleted)".
func devices() (map[int]string, error) {
	found, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	out := map[int]string{}
	for _, name := range found {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(filepath.Dir(name))), "loop"))
		if err != nil {
			continue
		}
		if data, err := os.ReadFile(name); err == nil { // else it went meanwhile
			out[n] = string(bytes.TrimSuffix(data, []byte("\n")))
		}
	}
	return out, nil
}

// OrphanDevices finds loop devices over files below root that are removed or
// are not mounted by anybody, calls report for each and passes what detaches
// it. A device that is in use is detached when it is no more.
func OrphanDevices(root string, report func(what, file string, mend func() error)) error {
	all, err := devices()
	if err != nil {
		return err
	}
	for n, backing := range all {
		name, deleted := strings.CutSuffix(backing, " (deleted)")
		if !strings.HasPrefix(name, strings.TrimSuffix(root, "/")+"/") {
			continue
		}
		if !deleted {
			mounted, err := mounts.IsMountPoint(strings.TrimSuffix(name, ".img"))
			if err != nil || mounted {
				continue
			}
		}
		report("loop"+strconv.Itoa(n), name, func() error { return detach(n) })
	}
	return nil
}

func detach(n int) error {
	dev, err := openDevice(n)
	if err != nil {
		return nil // it went by itself
	}
	defer dev.Close()
	err = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil
	}
	return os.NewSyscallError("ioctl LOOP_CLR_FD", err)
}

// OrphanMounts finds mounts of loop files below root whose file is gone, calls
// report for each and passes what takes it down.
func OrphanMounts(root string, report func(what string, mend func() error)) error {
	found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
	if err != nil {
		return err
	}
	for _, m := range found {
		if m.Major != loopMajor {
			continue
		}
		if _, err := os.Lstat(image(m.Mountpoint)); errors.Is(err, fs.ErrNotExist) {
			report(m.Mountpoint, func() error {
				return os.NewSyscallError("umount", unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
			})
		}
	}
	return nil
}
