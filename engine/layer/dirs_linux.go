package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// resolve keeps every path below the root of the layer. Symbolic links that
// the layer itself made are followed as if its directory were the root.
const resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// openBelow opens path under root, never outside of it.
func openBelow(root int, path string, flags int, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	for {
		fd, err := unix.Openat2(root, path, &how)
		if err == nil {
			return fd, nil
		}
		// EAGAIN: a rename elsewhere on the host made the kernel unsure.
		if err != unix.EINTR && err != unix.EAGAIN {
			return -1, &os.PathError{Op: "openat2", Path: path, Err: err}
		}
	}
}

// openDir returns a descriptor of the directory at the clean path, which
// belongs to the applier and is valid until the next call. Missing directories
// are made.
func (a *applier) openDir(path string) (int, error) {
	if path == "." {
		return a.root, nil
	}
	if a.last == path {
		return a.lastFD, nil
	}
	fd, err := openBelow(a.root, path, unix.O_DIRECTORY, resolve)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		fd, err = a.makeParents(path)
	}
	if errors.Is(err, unix.ELOOP) {
		return -1, invalid("too many symbolic links on the way")
	}
	if err != nil {
		return -1, err
	}
	a.forget()
	a.last, a.lastFD = path, fd
	return fd, nil
}

// makeParents makes the directory path, which has no entry of its own so far.
func (a *applier) makeParents(path string) (int, error) {
	dir, base := splitName(path)
	parent, err := a.openDir(dir)
	if err != nil {
		return -1, err
	}
	opaque, err := a.mkdir(parent, base, false)
	if err != nil {
		return -1, err
	}
	a.implicit[path] = true
	fd, err := unix.Openat(parent, base, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "openat", Path: path, Err: err}
	}
	if err := unix.Fchmod(fd, 0o755); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	if opaque {
		if err := a.setOpaque(fd); err != nil {
			return -1, errors.Join(err, unix.Close(fd))
		}
	}
	return fd, nil
}

// forget closes the directory that was used last.
func (a *applier) forget() {
	if a.last != "" {
		_ = unix.Close(a.lastFD)
		a.last = ""
	}
}

// mkdir makes base, taking the place of a whiteout, in which case the new
// directory has to be opaque. What else is there is replaced if replace is
// set and refused if not; a directory stays in either case.
func (a *applier) mkdir(parent int, base string, replace bool) (opaque bool, err error) {
	err = unix.Mkdirat(parent, base, 0o755)
	if err != unix.EEXIST {
		return false, wrap("mkdir", base, err)
	}
	st, err := lstat(parent, base)
	switch {
	case err != nil:
		return false, err
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return false, nil
	case isWhiteout(st):
		opaque = true
	case !replace:
		return false, invalid("%q on the way is not a directory", base)
	}
	if err := a.remove(parent, base); err != nil {
		return false, err
	}
	return opaque, wrap("mkdir", base, unix.Mkdirat(parent, base, 0o755))
}

// dir makes an entry that is a directory.
func (a *applier) dir(parent int, name, base string, hdr *tar.Header) error {
	opaque, err := a.mkdir(parent, base, true)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open", base, err)
	}
	if opaque {
		err = a.setOpaque(fd)
	}
	if err == nil {
		err = a.finishDir(fd, name, hdr)
	}
	return errors.Join(err, unix.Close(fd))
}

// finishDir gives the open directory the attributes of its entry.
func (a *applier) finishDir(fd int, name string, hdr *tar.Header) error {
	delete(a.implicit, name)
	a.dirs = append(a.dirs, dirTime{name, hdr.ModTime})
	return a.attributes(fd, hdr)
}

// setDirTimes runs last, children before parents. A path that became
// something else since is left alone.
func (a *applier) setDirTimes() error {
	for i := len(a.dirs) - 1; i >= 0; i-- {
		d := a.dirs[i]
		fd, err := openBelow(a.root, d.path, unix.O_DIRECTORY, resolve|unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			continue
		}
		err = setTime(fd, d.mtime)
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return refuse(d.path, err)
		}
	}
	return nil
}

// opaque marks the directory as hiding those of the layers below.
func (a *applier) opaque(dir string) error {
	fd, err := a.openDir(dir)
	if err != nil {
		return err
	}
	return a.setOpaque(fd)
}

// whiteout removes the name base of the layers below. What this layer itself
// has under the name stays; if it is a directory it hides those below.
func (a *applier) whiteout(dir, base string) error {
	parent, err := a.openDir(dir)
	if err != nil {
		return err
	}
	err = unix.Mknodat(parent, base, unix.S_IFCHR, 0)
	if err != unix.EEXIST {
		return wrap("mknod", base, err)
	}
	st, err := lstat(parent, base)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open", base, err)
	}
	return errors.Join(a.setOpaque(fd), unix.Close(fd))
}

// setOpaque marks the open directory, now or, when somebody else has to do it,
// so that it can be found again.
func (a *applier) setOpaque(fd int) error {
	if a.mark == nil {
		return setOpaque(fd)
	}
	if err := unix.Fsetxattr(fd, pendingXattr, []byte("y"), 0); err != nil {
		return wrap("mark opaque", "", err)
	}
	// The way here may have led over links; this asks for the path itself.
	if err := unix.Fchdir(fd); err != nil {
		return wrap("mark opaque", "", err)
	}
	path, err := unix.Getcwd(a.buf)
	if err != nil {
		return wrap("mark opaque", "", err)
	}
	a.mark(string(a.buf[:path-1]))
	return nil
}

// pendingXattr marks a directory that is to become opaque. An entry of a layer
// cannot bring it.
const pendingXattr = ownXattrs + "opaque"

// MarkOpaque makes opaque those directories below dir that Apply has named
// (Options.Opaque), as far as a later entry of the layer did not take their
// place. Nobody else uses dir meanwhile; no link is followed.
func MarkOpaque(dir *os.File, paths []string) error {
	defer runtime.KeepAlive(dir)
	for _, path := range paths {
		fd, err := openBelow(int(dir.Fd()), path, unix.O_DIRECTORY, resolve|unix.RESOLVE_NO_SYMLINKS)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return fmt.Errorf("mark opaque %q: %w", path, err)
		}
		err = unix.Fremovexattr(fd, pendingXattr)
		if err == nil {
			err = setOpaque(fd)
		}
		if err == unix.ENODATA { // marked before, or another directory
			err = nil
		}
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return fmt.Errorf("mark opaque %q: %w", path, err)
		}
	}
	return nil
}

// OpaqueXattr marks, with the value "y", a directory that hides those of the
// layers below (Linux fs/overlayfs, OVL_XATTR_OPAQUE).
const OpaqueXattr = "trusted.overlay.opaque"

func setOpaque(fd int) error {
	return wrap("mark opaque", "", unix.Fsetxattr(fd, OpaqueXattr, []byte("y"), 0))
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func lstat(dir int, base string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return &st, wrap("stat", base, err)
}

// readlink reads a link that somebody may replace meanwhile: what is none any
// more is not there.
func readlink(dir int, base string, buf []byte) (int, error) {
	n, err := unix.Readlinkat(dir, base, buf)
	if err == unix.EINVAL {
		err = unix.ENOENT
	}
	return n, err
}

// setTime sets the modification time of an open file. Times that a file
// system cannot hold are moved to the nearest that it can.
func setTime(fd int, t time.Time) error {
	ts := []unix.Timespec{timespec(t), timespec(t)}
	return wrap("set time", "", unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH))
}

// maxTime is the last second that ext4 with large inodes can store.
const maxTime = 1<<34 - 1<<31 - 1

func timespec(t time.Time) unix.Timespec {
	sec := t.Unix()
	switch {
	case t.IsZero() || sec < 0:
		return unix.Timespec{}
	case sec > maxTime:
		return unix.Timespec{Sec: maxTime}
	}
	return unix.Timespec{Sec: sec, Nsec: int64(t.Nanosecond())}
}

// wrap names the operation; nil stays nil.
func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	if name == "" {
		return fmt.Errorf("%s: %w", op, err)
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}
