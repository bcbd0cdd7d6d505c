package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// place calls make, and if the name is taken removes what is there and calls
// it once more: a later entry replaces an earlier one.
func (a *applier) place(parent int, base string, make func() error) error {
	err := make()
	if err != unix.EEXIST {
		return err
	}
	if err := a.remove(parent, base); err != nil {
		return err
	}
	return make()
}

// remove deletes base with everything below it.
func (a *applier) remove(parent int, base string) error {
	err := unix.Unlinkat(parent, base, 0)
	if err != unix.EISDIR {
		return wrap("remove", base, err)
	}
	// The tree may hold the cached directory. parent itself may be cached too
	// and must stay open until this entry is done, so only drop what is below.
	if err := removeTree(parent, base); err != nil {
		return err
	}
	if a.last != "" && a.lastFD != parent {
		a.forget()
	}
	return nil
}

// removeTree deletes the directory base with everything below it, by
// descriptors, without following links.
func removeTree(parent int, base string) error {
	fd, err := unix.Openat(parent, base, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open", base, err)
	}
	d := os.NewFile(uintptr(fd), base)
	names, err := d.Readdirnames(-1)
	for _, name := range names {
		if err != nil {
			break
		}
		if err = unix.Unlinkat(fd, name, 0); err == unix.EISDIR {
			err = removeTree(fd, name)
		}
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return err
	}
	return wrap("remove", base, unix.Unlinkat(parent, base, unix.AT_REMOVEDIR))
}

// file makes a regular file.
func (a *applier) file(ctx context.Context, parent int, base string, hdr *tar.Header, r io.Reader) error {
	fd := -1
	err := a.place(parent, base, func() (err error) {
		fd, err = unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return wrap("create", base, err)
	}
	err = a.fill(ctx, fd, hdr, r)
	if err == nil {
		err = a.attributes(fd, hdr)
	}
	if err == nil {
		err = setTime(fd, hdr.ModTime)
	}
	return errors.Join(err, unix.Close(fd))
}

// fill writes the content. Blocks of zeros of a sparse file become holes.
func (a *applier) fill(ctx context.Context, fd int, hdr *tar.Header, r io.Reader) error {
	sparse := isSparse(hdr) || a.holes
	var size int64
	for {
		n, rerr := io.ReadFull(r, a.buf)
		data := a.buf[:n]
		size += int64(n)
		write := writeAll
		if sparse {
			write = writeSparse
		}
		if err := write(fd, data); err != nil {
			return err
		}
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF && size == hdr.Size {
			break
		}
		if rerr != nil {
			return &streamError{rerr}
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(errdefs.ErrAborted, err)
		}
	}
	a.res.Bytes += size
	if sparse {
		return wrap("truncate", "", unix.Ftruncate(fd, size))
	}
	return nil
}

var zeros [4096]byte

// allZero says so of at most one block.
func allZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// writeSparse writes p, which begins at a whole block of the file, and leaves
// blocks of zeros out.
func writeSparse(fd int, p []byte) error {
	for len(p) > 0 {
		n := 0
		for n < len(p) && allZero(p[n:min(n+len(zeros), len(p))]) {
			n = min(n+len(zeros), len(p))
		}
		if n > 0 {
			if _, err := unix.Seek(fd, int64(n), io.SeekCurrent); err != nil {
				return wrap("seek", "", err)
			}
			p, n = p[n:], 0
		}
		for n < len(p) && !allZero(p[n:min(n+len(zeros), len(p))]) {
			n = min(n+len(zeros), len(p))
		}
		if err := writeAll(fd, p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return wrap("write", "", err)
		}
		p = p[n:]
	}
	return nil
}

// attributes sets owner, mode and extended attributes of an open file or
// directory, in the order in which they do not undo each other.
func (a *applier) attributes(fd int, hdr *tar.Header) error {
	if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
		return wrap("change owner", "", err)
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode&0o7777)); err != nil {
		return wrap("change mode", "", err)
	}
	return a.xattrs(fd, hdr)
}

func (a *applier) xattrs(fd int, hdr *tar.Header) error {
	count, total := 0, 0
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		if count++; count > a.lim.Xattrs || len(value) > a.lim.XattrLen {
			return invalid("too many or too long extended attributes")
		}
		data := []byte(value)
		switch judgeXattr(name) {
		case xattrRefuse:
			return invalid("extended attribute %q is not allowed", name)
		case xattrDrop:
			a.res.Skipped++
			continue
		case xattrKeep:
		}
		if name == capabilityXattr {
			if data, ok = plainCapability(data); !ok {
				a.res.Skipped++
				continue
			}
		}
		total += len(name) + len(data)
		err := unix.Fsetxattr(fd, name, data, 0)
		switch err {
		case nil:
		case unix.EINVAL, unix.ERANGE, unix.E2BIG:
			return invalid("extended attribute %q cannot be stored", name)
		case unix.EOPNOTSUPP:
			a.res.Skipped++
		case unix.ENOSPC:
			// ext4 keeps all attributes of a file in one block and says so
			// with the error of a full disk.
			if total > 2048 {
				return invalid("the extended attributes are too long for the file system")
			}
			return wrap("set attribute", name, err)
		default:
			return wrap("set attribute", name, err)
		}
	}
	return nil
}

// symlink stores the target as text; nobody follows it here except below the
// root of the layer.
func (a *applier) symlink(parent int, base string, hdr *tar.Header) error {
	if hdr.Linkname == "" || len(hdr.Linkname) > a.lim.PathLen {
		return invalid("the symbolic link has no target or too long a one")
	}
	err := a.place(parent, base, func() error { return unix.Symlinkat(hdr.Linkname, parent, base) })
	if err != nil {
		return wrap("symlink", base, err)
	}
	return finishNode(parent, base, hdr)
}

// fifo makes a named pipe.
func (a *applier) fifo(parent int, base string, hdr *tar.Header) error {
	err := a.place(parent, base, func() error { return unix.Mknodat(parent, base, unix.S_IFIFO|0o600, 0) })
	if err != nil {
		return wrap("mkfifo", base, err)
	}
	if err := finishNode(parent, base, hdr); err != nil {
		return err
	}
	// The directory is private, so base is still the pipe made above.
	return wrap("change mode", base, unix.Fchmodat(parent, base, uint32(hdr.Mode&0o7777), 0))
}

// finishNode sets owner and time of something that is not opened.
func finishNode(parent int, base string, hdr *tar.Header) error {
	if err := unix.Fchownat(parent, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return wrap("change owner", base, err)
	}
	ts := []unix.Timespec{timespec(hdr.ModTime), timespec(hdr.ModTime)}
	return wrap("set time", base, unix.UtimesNanoAt(parent, base, ts, unix.AT_SYMLINK_NOFOLLOW))
}

// link makes a hard link to a regular file of the same layer. A link to a
// symbolic link becomes a second symbolic link.
func (a *applier) link(parent int, name, base string, hdr *tar.Header) error {
	target, err := cleanName(hdr.Linkname, a.lim)
	if err != nil {
		return wrap("link target", "", err)
	}
	if k, _, err := classifyName(target); err != nil || k != kindPlain {
		return invalid("the hard link leads to a whiteout")
	}
	if a.skipped[target] {
		a.skipped[name] = true
		a.res.Devices++
		return nil
	}
	if target == name {
		return invalid("the hard link leads to itself")
	}
	dir, tbase := splitName(target)
	tdir, err := openBelow(a.root, dir, unix.O_DIRECTORY, resolve)
	if err != nil {
		return invalid("the target of the hard link is not in the layer")
	}
	defer unix.Close(tdir)
	st, err := lstat(tdir, tbase)
	if err != nil {
		return invalid("the target of the hard link is not in the layer")
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFLNK:
		return a.copySymlink(tdir, tbase, parent, base, hdr)
	default:
		return invalid("the target of the hard link is not a file")
	}
	err = a.place(parent, base, func() error { return unix.Linkat(tdir, tbase, parent, base, 0) })
	switch err {
	case unix.ENOENT:
		return invalid("the hard link replaces its own target")
	case unix.EMLINK:
		return invalid("the file has too many hard links")
	}
	return wrap("link", base, err)
}

func (a *applier) copySymlink(tdir int, tbase string, parent int, base string, hdr *tar.Header) error {
	n, err := unix.Readlinkat(tdir, tbase, a.buf)
	if err != nil {
		return wrap("readlink", tbase, err)
	}
	c := *hdr
	c.Linkname = string(a.buf[:n])
	return a.symlink(parent, base, &c)
}
