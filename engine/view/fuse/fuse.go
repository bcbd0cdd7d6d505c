// Package fuse serves a small tree of read-only files to the kernel over
// /dev/fuse, such that the serving process can be killed and replaced while
// files are being read.
//
// The mount lives as long as somebody holds the file that Mount returns. Who
// serves it holds nothing else that matters:
//
//   - numbers of nodes and what they are do not depend on who serves;
//   - a request is read into memory that outlives the process (Conn, shared
//     memory), and answered before the next one is read there. The next server
//     answers what it finds there first; the kernel refuses a second answer. So
//     no reader waits for ever: a request is pending in the kernel or in that
//     memory. One that has ended eight servers is refused (EIO);
//   - reads say what the file says now. The kernel's cache is used by sendfile(2),
//     splice(2) and mappings only, and dropped by each open.
//
// A general library was not taken: none takes over a mount that another process
// has begun to serve. What is spoken is the part of protocol 7.31 that read-only
// files need (Linux include/uapi/linux/fuse.h).
package fuse

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Device is where the kernel offers file systems of processes.
const Device = "/dev/fuse"

// Type is the type of mounts of this package, as in mountinfo.
const Type = "fuse.gantry"

// Supported reports whether file systems can be mounted: nil, or an
// errdefs.ErrUnsupported that says what is missing.
func Supported() error {
	f, err := os.OpenFile(Device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrUnsupported)
	}
	return f.Close()
}

// Mount mounts a file system that nobody serves yet on the directory dir, on the
// host and in no other mount namespace. It ends when all copies of the file are
// closed, or with Unmount. errdefs.ErrUnsupported: the host has no FUSE, or does
// not let this process use it.
func Mount(dir string) (_ *os.File, err error) {
	fd, err := unix.Open(Device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w: %w", dir, &os.PathError{Op: "open", Path: Device, Err: err}, errdefs.ErrUnsupported)
	}
	f := os.NewFile(uintptr(fd), Device)
	options := fmt.Sprintf("fd=%d,rootmode=40555,user_id=0,group_id=0,allow_other,default_permissions", fd)
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME
	err = unix.Mount("gantry", dir, Type, flags, options)
	if err == nil {
		if err = unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
			err = errors.Join(err, Unmount(dir))
		}
	}
	if err != nil {
		class := error(errdefs.ErrUnavailable)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) {
			class = errdefs.ErrUnsupported
		}
		return nil, errors.Join(fmt.Errorf("mount %s: %w: %w", dir, err, class), f.Close())
	}
	return f, nil
}

// Unmount takes the mount off dir, whether somebody serves it or not; where it
// is mounted elsewhere it stays. No mount is nil.
func Unmount(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "unmount", Path: dir, Err: err}
	}
	return nil
}

// Entry is a file or a directory.
type Entry struct {
	// Node is its number, not 0. The same number is the same thing for ever.
	Node uint64
	Name string
	Dir  bool
	// May says that it may cease to be there, so that the kernel asks each time.
	May bool
}

// Tree is what is served. pid is the calling process in the terms of who has
// mounted it, 0 for one that has no number there. Methods are called from
// several goroutines; the error is unix.ENOENT and the like.
type Tree interface {
	// Lookup finds a name in a directory.
	Lookup(dir uint64, name string) (Entry, error)
	// Stat returns what a node is.
	Stat(node uint64) (Entry, error)
	// List returns the entries of a directory, always in one order.
	List(dir uint64) ([]Entry, error)
	// Read returns what a file says to the caller now. What it says to one caller
	// may be shown to another one that reads the same file soon.
	Read(pid int, node uint64) ([]byte, error)
}

// errno is the number of an error for the kernel.
func errno(err error) unix.Errno {
	if number, ok := errors.AsType[unix.Errno](err); ok && number != 0 {
		return number
	}
	return unix.EIO
}

// validName is one that a directory can hold.
func validName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}
