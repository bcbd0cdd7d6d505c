package layer

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/readahead"
)

// Diff writes what dir, a directory in the form of overlayfs, holds as the tar
// stream of one layer. Names come in sorted order, each directory before what
// is in it, so equal directories give equal streams.
//
// A container may run on dir meanwhile: the stream is then well formed, but
// files that change while they are read are as torn as on a machine that lost
// power; freeze the container for a consistent one. Links are not followed.
// Errors of w are passed on.
func Diff(ctx context.Context, dir *os.File, w io.Writer) (DiffResult, error) {
	return newDiffer().stream(w, func(d *differ) error {
		err := d.root(ctx, int(dir.Fd()))
		runtime.KeepAlive(dir) // its descriptor was in use until here
		return err
	})
}

func newDiffer() *differ {
	return &differ{hash: sha256.New(), links: map[inode]string{}, buf: make([]byte, 256<<10)}
}

// stream writes to w what fill writes.
func (d *differ) stream(w io.Writer, fill func(d *differ) error) (DiffResult, error) {
	r, pw := io.Pipe()
	end := make(chan error, 1)
	go func() { // beside the reading of files
		ahead := readahead.New(r)
		_, err := io.Copy(io.MultiWriter(&d.count, d.hash, w), struct{ io.Reader }{ahead})
		end <- errors.Join(err, r.CloseWithError(err), ahead.Close())
	}()
	out := bufio.NewWriterSize(pw, 1<<20)
	d.tw = tar.NewWriter(out)
	if d.headers != nil {
		d.headers.w = out
		d.tw = tar.NewWriter(d.headers)
	}
	err := fill(d)
	if err == nil {
		err = d.tw.Close()
	}
	if err == nil {
		err = out.Flush()
	}
	if err = cmp.Or(err, pw.CloseWithError(err), <-end); err != nil {
		return DiffResult{}, fmt.Errorf("write layer: %w", err)
	}
	d.res.DiffID = digest.NewDigest(digest.SHA256, d.hash)
	d.res.Size = int64(d.count)
	return d.res, nil
}

type counter int64

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

type inode struct{ dev, ino uint64 }

func inodeOf(st *unix.Stat_t) inode { return inode{uint64(st.Dev), st.Ino} }

// differ holds one run of Diff.
type differ struct {
	tw    *tar.Writer
	hash  hash.Hash
	count counter
	res   DiffResult
	links map[inode]string // first name of a file with several
	buf   []byte
	// headers, if set, takes what is no content.
	headers *headers
}

func (d *differ) root(ctx context.Context, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return wrap("stat", "", err)
	}
	if err := d.directory(fd, "", &st); err != nil {
		return err
	}
	return d.children(ctx, fd, "")
}

// children writes everything in the open directory, whose name in the stream
// is prefix: empty or ending in a slash.
func (d *differ) children(ctx context.Context, dir int, prefix string) error {
	names, err := readNames(dir)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", prefix, err)
	}
	for _, base := range names {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		if strings.HasPrefix(base, whiteoutPrefix) {
			d.res.Skipped++
			continue
		}
		if err := d.entry(ctx, dir, prefix+base, base); err != nil {
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
				d.res.Skipped++ // vanished or replaced since it was listed
				continue
			}
			return fmt.Errorf("entry %q: %w", prefix+base, err)
		}
	}
	return nil
}

// readNames lists an open directory, sorted, from its beginning.
func readNames(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "")
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, errors.Join(err, f.Close())
}

func (d *differ) entry(ctx context.Context, dir int, name, base string) error {
	st, err := lstat(dir, base)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		fd, err := unix.Openat(dir, base, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return wrap("open", base, err)
		}
		err = d.directory(fd, name+"/", st)
		if err == nil {
			err = d.children(ctx, fd, name+"/")
		}
		return errors.Join(err, unix.Close(fd))
	case unix.S_IFREG:
		return d.file(ctx, dir, name, base)
	case unix.S_IFLNK:
		return d.symlink(dir, name, base, st)
	case unix.S_IFIFO:
		return d.write(header(tar.TypeFifo, name, st))
	case unix.S_IFCHR:
		if isWhiteout(st) {
			return d.whiteout(name[:len(name)-len(base)] + whiteoutPrefix + base)
		}
	}
	d.res.Skipped++
	return nil
}

func header(typ byte, name string, st *unix.Stat_t) *tar.Header {
	return &tar.Header{
		Typeflag: typ,
		Name:     name,
		Mode:     int64(st.Mode & 0o7777),
		Uid:      int(st.Uid),
		Gid:      int(st.Gid),
		ModTime:  time.Unix(st.Mtim.Unix()),
		Format:   tar.FormatPAX,
	}
}

func (d *differ) write(hdr *tar.Header) error {
	d.res.Entries++
	return d.tw.WriteHeader(hdr)
}

// whiteout writes a marker. It has no attributes: those of the device on disk
// depend on who unpacked it, and when.
func (d *differ) whiteout(name string) error {
	return d.write(&tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

// directory writes the entry of an open directory; the root's is "./".
func (d *differ) directory(fd int, name string, st *unix.Stat_t) error {
	hdr := header(tar.TypeDir, name, st)
	if name == "" {
		hdr.Name = "./"
	}
	records, opaque, err := readXattrs(fd, d.buf)
	if err != nil {
		return err
	}
	hdr.PAXRecords = records
	if err := d.write(hdr); err != nil || !opaque {
		return err
	}
	return d.whiteout(name + opaqueMarker)
}

func (d *differ) symlink(dir int, name, base string, st *unix.Stat_t) error {
	n, err := readlink(dir, base, d.buf)
	if err != nil {
		return wrap("readlink", base, err)
	}
	hdr := header(tar.TypeSymlink, name, st)
	hdr.Linkname = string(d.buf[:n])
	return d.write(hdr)
}

// file writes a regular file, or a hard link to the first name of its inode.
func (d *differ) file(ctx context.Context, dir int, name, base string) error {
	fd, err := openFile(dir, base)
	if err != nil {
		return wrap("open", base, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return wrap("stat", base, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		d.res.Skipped++ // replaced since it was listed
		return nil
	}
	hdr := header(tar.TypeReg, name, &st)
	d.res.Bytes += st.Size
	if st.Nlink > 1 {
		id := inodeOf(&st)
		if first, ok := d.links[id]; ok {
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
			return d.write(hdr)
		}
		d.links[id] = name
	}
	hdr.Size = st.Size
	if hdr.PAXRecords, _, err = readXattrs(fd, d.buf); err != nil {
		return err
	}
	if err := d.write(hdr); err != nil {
		return err
	}
	return d.content(ctx, fd, st.Size)
}

// openFile opens a file to read it, if it is none that would block. Its time of
// access stays, where this is allowed: it is the container's, and a write less.
func openFile(dir int, base string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, base, flags|unix.O_NOATIME, 0)
	if err == unix.EPERM {
		return unix.Openat(dir, base, flags, 0)
	}
	return fd, err
}

// content writes exactly size bytes: what a file has gained since is left
// out, and what it has lost reads as zeros.
func (d *differ) content(ctx context.Context, fd int, size int64) error {
	for size > 0 {
		buf := d.buf[:min(size, int64(len(d.buf)))]
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return wrap("read", "", err)
		}
		if n == 0 {
			clear(buf)
			n = len(buf)
		}
		if _, err := d.tw.Write(buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
	}
	return nil
}

// readXattrs reads the extended attributes that belong into a layer, as records
// of pax, and whether a directory is opaque. buf has 64 KiB or more.
func readXattrs(fd int, buf []byte) (records map[string]string, opaque bool, err error) {
	names, err := listXattrs(fd)
	if err != nil {
		return nil, false, wrap("list attributes", "", err)
	}
	for _, name := range names {
		keep := judgeXattr(name) == xattrKeep
		if !keep && name != OpaqueXattr {
			continue
		}
		n, err := unix.Fgetxattr(fd, name, buf[:65536])
		if err == unix.ENODATA || err == unix.EOVERFLOW {
			continue // removed meanwhile, or capabilities of another root
		}
		if err != nil {
			return nil, false, wrap("get attribute", name, err)
		}
		value := buf[:n]
		if !keep {
			opaque = string(value) == "y"
			continue
		}
		ok := true
		if name == capabilityXattr {
			value, ok = plainCapability(value)
		}
		if ok {
			if records == nil {
				records = map[string]string{}
			}
			records[paxXattr+name] = string(value)
		}
	}
	return records, opaque, nil
}

func listXattrs(fd int) ([]string, error) {
	var small [1024]byte
	buf := small[:]
	for {
		n, err := unix.Flistxattr(fd, buf)
		switch {
		case err == unix.ERANGE:
			buf = make([]byte, 64<<10)
			continue
		case err == unix.EOPNOTSUPP, err == nil && n == 0:
			return nil, nil
		case err != nil:
			return nil, err
		}
		return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
	}
}
