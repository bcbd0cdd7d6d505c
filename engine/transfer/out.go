package transfer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Out writes the file or directory at name, with all that is below, as a tar
// stream whose first entry is called by name's last component ("." for the
// root). A symbolic link is written as such, those on the way are followed
// inside the root. Files that change meanwhile are torn, but the stream is
// always well formed.
//
// errdefs.ErrNotFound: there is no such file; errdefs.ErrInvalid: it is
// something that cannot be copied, or name is no path; errdefs.ErrExhausted:
// there is more than the limits allow. Errors of w are passed on.
func Out(ctx context.Context, root *os.File, name string, ids IDs, lim Limits, w io.Writer) (Result, error) {
	rel, err := cleanPath(name)
	if err != nil {
		return Result{}, err
	}
	o := &outer{tw: tar.NewWriter(w), ids: ids, lim: lim.withDefaults(), links: map[inode]string{}, buf: make([]byte, 128<<10)}
	dir, base := path.Split(path.Clean("/" + rel))
	fd, err := openBelow(int(root.Fd()), dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return Result{}, fmt.Errorf("copy out %q: %w", name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if base == "" {
		base = "."
	}
	if _, err = lstat(fd, base); err == nil {
		err = o.entry(ctx, fd, base, base, 0)
	}
	if err == nil && o.res.Entries == 0 {
		err = invalid("it is neither a file, a directory nor a link")
	}
	if err == nil {
		err = o.tw.Close()
	}
	if err != nil {
		return Result{}, fmt.Errorf("copy out %q: %w", name, err)
	}
	return o.res, nil
}

type inode struct{ dev, ino uint64 }

// outer holds one run of Out.
type outer struct {
	tw    *tar.Writer
	ids   IDs
	lim   Limits
	res   Result
	links map[inode]string // first name of a file with several
	buf   []byte
}

// entry writes base of the directory dir as name.
func (o *outer) entry(ctx context.Context, dir int, name, base string, depth int) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if depth > o.lim.Depth {
		return fmt.Errorf("more than %d directories in one another: %w", o.lim.Depth, errdefs.ErrExhausted)
	}
	st, err := lstat(dir, base)
	if err != nil {
		return o.vanished(err, depth)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return o.directory(ctx, dir, name, base, depth)
	case unix.S_IFREG:
		return o.file(ctx, dir, name, base, depth)
	case unix.S_IFLNK:
		n, err := unix.Readlinkat(dir, base, o.buf)
		if err != nil {
			return o.vanished(classify("readlink", base, err), depth)
		}
		hdr := o.header(tar.TypeSymlink, name, st)
		hdr.Linkname = string(o.buf[:n])
		return o.write(hdr)
	case unix.S_IFIFO:
		return o.write(o.header(tar.TypeFifo, name, st))
	}
	o.res.Skipped++
	return nil
}

// vanished forgives a file below the one asked for that is gone or has become
// something else since it was listed.
func (o *outer) vanished(err error, depth int) error {
	if depth > 0 && (errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalid)) {
		o.res.Skipped++
		return nil
	}
	return err
}

func (o *outer) directory(ctx context.Context, dir int, name, base string, depth int) error {
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return o.vanished(classify("open", base, err), depth)
	}
	d := os.NewFile(uintptr(fd), base)
	defer func() { _ = d.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return classify("stat", base, err)
	}
	if err := o.write(o.header(tar.TypeDir, name+"/", &st)); err != nil {
		return err
	}
	// more names than may be written are not even listed: a directory of the
	// container must not fill the memory of the host
	names, err := d.Readdirnames(int(min(o.lim.Entries-o.res.Entries, 1<<20)) + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return classify("list", base, err)
	}
	slices.Sort(names)
	for _, child := range names {
		if err := o.entry(ctx, fd, name+"/"+child, child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (o *outer) file(ctx context.Context, dir int, name, base string, depth int) error {
	// what was a file a moment ago may be a fifo or a device now: neither
	// blocks, and it is looked at again before anything is read
	fd, err := unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return o.vanished(classify("open", base, err), depth)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return classify("stat", base, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		o.res.Skipped++
		return nil
	}
	hdr := o.header(tar.TypeReg, name, &st)
	if st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // 32 bits wide on some architectures
		if first, ok := o.links[id]; ok {
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
			return o.write(hdr)
		}
		o.links[id] = name
	}
	hdr.Size = st.Size
	if o.res.Bytes += st.Size; o.res.Bytes > o.lim.Bytes {
		return fmt.Errorf("more than %d bytes: %w", o.lim.Bytes, errdefs.ErrExhausted)
	}
	if err := o.write(hdr); err != nil {
		return err
	}
	return o.content(ctx, fd, st.Size)
}

// content writes exactly size bytes of the file behind the O_PATH descriptor:
// what it has gained since is left out, what it has lost reads as zeros.
func (o *outer) content(ctx context.Context, handle int, size int64) error {
	if size == 0 {
		return nil
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", handle), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for size > 0 {
		buf := o.buf[:min(size, int64(len(o.buf)))]
		n, err := f.Read(buf)
		if n == 0 && errors.Is(err, io.EOF) {
			clear(buf)
			n, err = len(buf), nil
		}
		if err != nil {
			return err
		}
		if _, err := o.tw.Write(buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (o *outer) header(typ byte, name string, st *unix.Stat_t) *tar.Header {
	return &tar.Header{
		Typeflag: typ, Name: name, Mode: int64(st.Mode & 0o7777), Uid: o.ids.inside(st.Uid), Gid: o.ids.inside(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
}

func (o *outer) write(hdr *tar.Header) error {
	if o.res.Entries++; o.res.Entries > o.lim.Entries {
		return fmt.Errorf("more than %d files: %w", o.lim.Entries, errdefs.ErrExhausted)
	}
	return o.tw.WriteHeader(hdr)
}

// overflow is the id of an owner that the container does not know.
const overflow = 65534

// inside turns an id as the host sees it into the container's own.
func (m IDs) inside(id uint32) int {
	if id < m.Base || id-m.Base >= m.Size {
		return overflow
	}
	return int(id - m.Base)
}
