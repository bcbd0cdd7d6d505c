package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// NamespacePaths returns where CreateNamespaces pins the namespaces of dir,
// whether they exist or not. PinNetwork pins at the second.
func NamespacePaths(dir string) (userPath, netPath string) {
	return filepath.Join(dir, userPin), filepath.Join(dir, netPin)
}

// PinNetwork pins an open network namespace in the directory dir, made with
// mode 0700 if absent, and returns the path. RemoveNamespaces undoes it. One
// that is pinned there already is errdefs.ErrAlreadyExists; what an interrupted
// call has left is replaced. On error nothing is left.
func PinNetwork(dir string, network *os.File) (path string, err error) {
	_, path = NamespacePaths(dir)
	if pinned(path) {
		return "", fmt.Errorf("pin network namespace in %s: %w", dir, errdefs.ErrAlreadyExists)
	}
	if err := RemoveNamespaces(dir); err != nil {
		return "", err
	}
	if err = os.MkdirAll(dir, 0o700); err == nil {
		err = pinNamespace(fmt.Sprintf("/proc/self/fd/%d", network.Fd()), path)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("pin network namespace in %s: %w", dir, err), RemoveNamespaces(dir))
	}
	return path, nil
}

// Pinned reports whether dir holds a network namespace.
func Pinned(dir string) bool {
	_, path := NamespacePaths(dir)
	return pinned(path)
}

// OpenPinned opens the network namespace that dir holds, and the user namespace
// that it belongs to. errdefs.ErrNotFound if there is none.
func OpenPinned(dir string) (user, network *os.File, err error) {
	_, path := NamespacePaths(dir)
	if !Pinned(dir) {
		return nil, nil, fmt.Errorf("network namespace in %s: %w", dir, errdefs.ErrNotFound)
	}
	if network, err = os.Open(path); err != nil {
		return nil, nil, err
	}
	// the kernel opens it close-on-exec (ns_common, ioctl_nsfs(2))
	fd, err := unix.IoctlRetInt(int(network.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("user namespace of %s: %w", path, err), network.Close())
	}
	return os.NewFile(uintptr(fd), path+" owner"), network, nil
}

// Unpin removes the pin of the user namespace that earlier versions had beside
// that of the network namespace, which keeps it alive. Absent is nil.
func Unpin(dir string) error {
	user, _ := NamespacePaths(dir)
	return removePin(user)
}

// NetworkOf opens the network namespace of a running process;
// errdefs.ErrNotFound when that has ended.
func NetworkOf(p Process) (*os.File, error) {
	pidfd, err := reopenFile(p)
	if err != nil {
		return nil, err
	}
	defer func() { _ = pidfd.Close() }()
	network, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", p.Pid, netPin))
	// it still has its number, so that was it
	if gone := linux.PidfdSignal(pidfd, 0); gone != nil {
		linux.CloseAll([]*os.File{network})
		return nil, fmt.Errorf("process %d has ended: %w", p.Pid, errdefs.ErrNotFound)
	}
	return network, err
}

// RootOf opens the root directory of a running process's mount namespace, to
// look at: what is mounted inside is seen. The process may have changed its own
// root; that is not asked for. errdefs.ErrNotFound when it has ended.
func RootOf(p Process) (*os.File, error) {
	return inMounts(p, func() (int, error) {
		return unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
}

// CloneRoot makes a mount of that directory that is attached nowhere and has
// nothing mounted in it. It is gone with the file.
func CloneRoot(p Process) (*os.File, error) {
	return inMounts(p, func() (int, error) {
		return unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	})
}

// inMounts opens something in the mount namespace of a process, by a thread of
// its own that does nothing else there.
func inMounts(p Process, open func() (int, error)) (*os.File, error) {
	pidfd, err := reopenFile(p)
	if err != nil {
		return nil, err
	}
	defer func() { _ = pidfd.Close() }()
	fd := -1
	err = linux.OwnThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		err = unix.Setns(int(pidfd.Fd()), unix.CLONE_NEWNS)
		if errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("process %d has ended: %w", p.Pid, errdefs.ErrNotFound)
		}
		if err != nil {
			return os.NewSyscallError("setns", err)
		}
		fd, err = open()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("root of process %d: %w", p.Pid, err)
	}
	return os.NewFile(uintptr(fd), "/"), nil
}

func reopenFile(p Process) (*os.File, error) {
	fd, err := reopen(p)
	if errors.Is(err, unix.ESRCH) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}
