package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Copy copies the directory from, in the form of overlayfs, into to, an empty
// private directory, whiteouts and opaque directories included. Data is shared
// where the file system can do that. Sockets, devices and attributes that
// cannot be part of a layer are left out; what vanishes meanwhile is too.
// errdefs.ErrExhausted: no room on the disk. On error to holds a part.
func Copy(ctx context.Context, from, to *os.File) error {
	c := newCopier(to, true)
	err := c.tree(ctx, int(from.Fd()), int(to.Fd()), ".")
	runtime.KeepAlive(from)
	runtime.KeepAlive(to)
	return copyError("copy layer", err)
}

func copyError(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%s: %w: %w", op, errdefs.ErrExhausted, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// copier copies into one directory.
type copier struct {
	root int
	// form keeps what only means something to overlayfs.
	form bool
	// unshift is subtracted from ids, where it is not 0.
	unshift uint32
	// links holds the first copy of a file with several names.
	links map[inode]string
	buf   []byte
	// noClone and noRange are set once the kernel has refused.
	noClone, noRange bool
}

func newCopier(to *os.File, form bool) *copier {
	return &copier{root: int(to.Fd()), form: form, links: map[inode]string{}, buf: make([]byte, 128<<10)}
}

// tree copies what is in the open directory from into to, whose path below the
// root is path, and its attributes.
func (c *copier) tree(ctx context.Context, from, to int, path string) error {
	names, err := readNames(from)
	if err != nil {
		return wrap("read directory", path, err)
	}
	for _, name := range names {
		if err := c.node(ctx, from, name, to, join(path, name)); err != nil && !vanished(err) {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return wrap("stat", path, err)
	}
	return c.attributes(from, to, &st)
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// vanished is true of the errors of a name that went, or became something
// else, since it was listed.
func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR)
}

// node copies the entry name of from, with what is below it, to the place path,
// whose directory is to.
func (c *copier) node(ctx context.Context, from int, name string, to int, path string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
	}
	st, err := lstat(from, name)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.directory(ctx, from, name, to, path)
	case unix.S_IFREG:
		return c.file(ctx, from, name, to, path)
	case unix.S_IFLNK:
		n, err := readlink(from, name, c.buf)
		if err != nil {
			return wrap("readlink", path, err)
		}
		if err := unix.Symlinkat(string(c.buf[:n]), to, name); err != nil {
			return wrap("symlink", path, err)
		}
		return c.finish(to, name, st)
	case unix.S_IFIFO:
		if err := unix.Mknodat(to, name, unix.S_IFIFO|0o600, 0); err != nil {
			return wrap("mkfifo", path, err)
		}
		if err := c.finish(to, name, st); err != nil {
			return err
		}
		return wrap("change mode", path, unix.Fchmodat(to, name, st.Mode&0o7777, 0))
	case unix.S_IFCHR:
		if c.form && isWhiteout(st) {
			return wrap("whiteout", path, unix.Mknodat(to, name, unix.S_IFCHR, 0))
		}
	}
	return nil // a socket, or a device that nobody could have made
}

func (c *copier) directory(ctx context.Context, from int, name string, to int, path string) error {
	src, err := unix.Openat(from, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open", path, err)
	}
	defer unix.Close(src)
	dst, err := makeDir(to, name)
	if err != nil {
		return wrap("mkdir", path, err)
	}
	defer unix.Close(dst)
	return c.tree(ctx, src, dst, path)
}

// makeDir makes a directory that may be there, and opens it.
func makeDir(parent int, name string) (int, error) {
	if err := unix.Mkdirat(parent, name, 0o700); err != nil && err != unix.EEXIST {
		return -1, err
	}
	return unix.Openat(parent, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// file copies a regular file, or makes a link to its copy.
func (c *copier) file(ctx context.Context, from int, name string, to int, path string) error {
	src, err := openFile(from, name)
	if err != nil {
		return wrap("open", path, err)
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return wrap("stat", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil // replaced since it was listed
	}
	id := inodeOf(&st)
	if st.Nlink > 1 {
		if first, ok := c.links[id]; ok {
			return wrap("link", path, unix.Linkat(c.root, first, to, name, 0))
		}
		c.links[id] = path
	}
	dst, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, st.Mode&0o777)
	if err != nil {
		return wrap("create", path, err)
	}
	whole := false
	if st.Size <= int64(len(c.buf)) && st.Blocks*512 >= st.Size { // most files: no hole, and one read
		whole, err = c.small(src, dst, st.Size)
	}
	if err == nil && !whole {
		err = c.content(ctx, src, dst, st.Size)
	}
	if err == nil {
		err = c.attributes(src, dst, &st)
	}
	return errors.Join(wrap("copy", path, err), unix.Close(dst))
}

// small copies a file that fits into the buffer. whole is false if it was not of
// this size any more.
func (c *copier) small(src, dst int, size int64) (whole bool, err error) {
	n, err := unix.Pread(src, c.buf[:size], 0)
	if err != nil || int64(n) != size {
		return false, err
	}
	n, err = unix.Pwrite(dst, c.buf[:size], 0)
	return int64(n) == size, err
}

// content copies size bytes: by sharing them, by the kernel, or by hand. Holes
// stay holes.
func (c *copier) content(ctx context.Context, src, dst int, size int64) error {
	if size == 0 {
		return nil
	}
	if !c.noClone {
		err := unix.IoctlFileClone(dst, src)
		if err == nil {
			return unix.Ftruncate(dst, size) // it may have grown meanwhile
		}
		if err == unix.ENOSPC || err == unix.EDQUOT {
			return err
		}
		c.noClone = true
	}
	for pos := int64(0); pos < size; {
		data, err := unix.Seek(src, pos, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(src, data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := c.stretch(ctx, src, dst, data, min(hole, size), 0); err != nil {
			return err
		}
		pos = hole
	}
	return unix.Ftruncate(dst, size)
}

// contentAt copies size bytes to the place at of dst, which has nothing there.
// Holes stay holes, what is missing of src is one.
func (c *copier) contentAt(ctx context.Context, src, dst int, at, size int64) error {
	for pos := int64(0); pos < size; {
		data, err := unix.Seek(src, pos, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(src, data, unix.SEEK_HOLE)
		if err == unix.ENXIO {
			return nil // it has shrunk
		}
		if err != nil {
			return err
		}
		if err := c.stretch(ctx, src, dst, data, min(hole, size), at); err != nil {
			return err
		}
		pos = hole
	}
	return nil
}

// stretch copies the bytes from pos to end, to as many bytes behind them as shift
// says.
func (c *copier) stretch(ctx context.Context, src, dst int, pos, end, shift int64) error {
	const most = 16 << 20
	for pos < end {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		var n int
		var err error
		if !c.noRange {
			in, out := pos, pos+shift
			n, err = unix.CopyFileRange(src, &in, dst, &out, int(min(end-pos, most)), 0)
			if err == unix.EXDEV || err == unix.EINVAL || err == unix.ENOSYS || err == unix.EOPNOTSUPP {
				c.noRange = true
				continue
			}
		} else {
			n, err = unix.Pread(src, c.buf[:min(end-pos, int64(len(c.buf)))], pos)
			if err == nil && n > 0 {
				n, err = unix.Pwrite(dst, c.buf[:n], pos+shift)
			}
		}
		if err != nil && err != unix.EINTR {
			return err
		}
		if n == 0 && err == nil {
			return nil // it has shrunk
		}
		pos += int64(max(n, 0))
	}
	return nil
}

// owner of a copy.
func (c *copier) owner(st *unix.Stat_t) (uid, gid int) {
	return int(unshifted(st.Uid, c.unshift)), int(unshifted(st.Gid, c.unshift))
}

// permissions gives the open copy the owner and mode of the original, if it has
// others.
func (c *copier) permissions(to int, st *unix.Stat_t) error {
	var is unix.Stat_t
	if err := unix.Fstat(to, &is); err != nil {
		return wrap("stat", "", err)
	}
	uid, gid := c.owner(st)
	owned := int(is.Uid) == uid && int(is.Gid) == gid
	if !owned {
		if err := unix.Fchown(to, uid, gid); err != nil {
			return wrap("change owner", "", err)
		}
	}
	if owned && is.Mode&0o7777 == st.Mode&0o7777 {
		return nil
	}
	return wrap("change mode", "", unix.Fchmod(to, st.Mode&0o7777))
}

// attributes gives the open copy the owner, mode, attributes and times of the
// open original.
func (c *copier) attributes(from, to int, st *unix.Stat_t) error {
	if err := c.permissions(to, st); err != nil {
		return err
	}
	names, err := listXattrs(from)
	if err != nil {
		return wrap("list attributes", "", err)
	}
	var buf []byte
	for _, name := range names {
		if judgeXattr(name) != xattrKeep && (!c.form || name != OpaqueXattr) {
			continue
		}
		if buf == nil {
			buf = make([]byte, 65536)
		}
		n, err := unix.Fgetxattr(from, name, buf)
		if err == unix.ENODATA || err == unix.EOVERFLOW {
			continue // removed meanwhile, or capabilities of another root
		}
		if err != nil {
			return wrap("get attribute", name, err)
		}
		value, ok := shiftXattr(name, buf[:n], func(id uint32) uint32 { return unshifted(id, c.unshift) })
		if !ok {
			continue
		}
		if err := unix.Fsetxattr(to, name, value, 0); err != nil && err != unix.EOPNOTSUPP {
			return wrap("set attribute", name, err)
		}
	}
	return setTime(to, time.Unix(st.Mtim.Unix()))
}

// finish gives a copy that is not opened its owner and times.
func (c *copier) finish(dir int, name string, st *unix.Stat_t) error {
	uid, gid := c.owner(st)
	if err := unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return wrap("change owner", name, err)
	}
	ts := []unix.Timespec{timespec(time.Unix(st.Mtim.Unix())), timespec(time.Unix(st.Mtim.Unix()))}
	return wrap("set time", name, unix.UtimesNanoAt(dir, name, ts, unix.AT_SYMLINK_NOFOLLOW))
}
