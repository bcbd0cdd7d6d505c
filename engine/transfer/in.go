package transfer

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// In unpacks a tar stream below the directory dir, which has to exist. Files
// and links of the same name are replaced, each in one step; directories that
// exist keep their attributes. Owners, modes and times are the stream's.
//
// An error names the entry; what was unpacked before it stays.
// errdefs.ErrInvalid: the stream is no tar, or an entry is refused (a name that
// leads out, a device, an owner that the container does not have, a directory
// where a file is to be or the reverse); errdefs.ErrNotFound: no such
// directory; errdefs.ErrExhausted: limits, or a full disk.
func In(ctx context.Context, root *os.File, dir string, ids IDs, lim Limits, r io.Reader) (Result, error) {
	rel, err := cleanPath(dir)
	if err != nil {
		return Result{}, err
	}
	n := &inner{root: int(root.Fd()), dir: rel, ids: ids, lim: lim.withDefaults(), buf: make([]byte, 128<<10)}
	// what is made belongs to the container's root until it is given away: the
	// host's own ids do not exist on the mount
	err = linux.WithFSIDs(int(ids.Base), int(ids.Base), func() error { return n.run(ctx, r) })
	if err != nil {
		return n.res, fmt.Errorf("copy in to %q: %w", dir, err)
	}
	return n.res, nil
}

// inner holds one run of In.
type inner struct {
	root int
	dir  string
	ids  IDs
	lim  Limits
	res  Result
	buf  []byte
}

func (n *inner) run(ctx context.Context, r io.Reader) error {
	fd, err := openBelow(n.root, n.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	_ = unix.Close(fd)
	tr := tar.NewReader(r)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return streamError(err)
		}
		if n.res.Entries++; n.res.Entries > n.lim.Entries {
			return fmt.Errorf("more than %d files: %w", n.lim.Entries, errdefs.ErrExhausted)
		}
		if err := n.entry(ctx, hdr, tr); err != nil {
			return fmt.Errorf("entry %.128q: %w", hdr.Name, err)
		}
	}
}

func streamError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("not a whole tar stream: %w: %w", err, errdefs.ErrInvalid)
	}
	return err
}

func (n *inner) entry(ctx context.Context, hdr *tar.Header, r io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanEntry(hdr.Name, n.lim)
	if err != nil {
		return err
	}
	if hdr.Uid < 0 || hdr.Gid < 0 || uint64(hdr.Uid) >= uint64(n.ids.Size) || uint64(hdr.Gid) >= uint64(n.ids.Size) {
		return invalid("owner %d:%d is outside 0 to %d", hdr.Uid, hdr.Gid, n.ids.Size-1)
	}
	if hdr.Size < 0 || hdr.Size > n.lim.Bytes-n.res.Bytes {
		return fmt.Errorf("more than %d bytes: %w", n.lim.Bytes, errdefs.ErrExhausted)
	}
	if name == "." {
		if hdr.Typeflag != tar.TypeDir {
			return invalid("the directory itself as something else")
		}
		return nil
	}
	parent, base, err := n.parent(name)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	switch hdr.Typeflag {
	case tar.TypeDir:
		return n.mkdir(parent, base, hdr)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		if strings.HasSuffix(hdr.Name, "/") {
			return invalid("a file with the name of a directory")
		}
		return n.file(ctx, parent, base, hdr, r)
	case tar.TypeSymlink:
		if hdr.Linkname == "" || len(hdr.Linkname) > maxPath {
			return invalid("target of the link")
		}
		return n.place(parent, base, hdr, func(tmp string) error { return unix.Symlinkat(hdr.Linkname, parent, tmp) })
	case tar.TypeFifo:
		return n.place(parent, base, hdr, func(tmp string) error {
			return unix.Mknodat(parent, tmp, unix.S_IFIFO|uint32(hdr.Mode&0o777), 0)
		})
	case tar.TypeLink:
		return n.link(parent, base, hdr)
	}
	return invalid("type %q cannot be copied into a container", hdr.Typeflag)
}

// parent opens the directory of an entry, making what is missing of it. Links
// on the way are the container's and lead where it sees them lead.
func (n *inner) parent(name string) (fd int, base string, err error) {
	dir, base := path.Split(name)
	fd, err = n.makeAll(path.Clean(dir))
	return fd, base, err
}

func (n *inner) makeAll(dir string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	fd, err := openBelow(n.root, n.dir+"/"+dir, flags, 0)
	if dir == "." || !errors.Is(err, errdefs.ErrNotFound) {
		return fd, err
	}
	up, base := path.Split(dir)
	parent, err := n.makeAll(path.Clean(up))
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(parent) }()
	if err := unix.Mkdirat(parent, base, 0o755); err != nil && err != unix.EEXIST {
		return -1, classify("mkdir", dir, err)
	}
	return openBelow(n.root, n.dir+"/"+dir, flags, 0)
}

func (n *inner) mkdir(parent int, base string, hdr *tar.Header) error {
	err := unix.Mkdirat(parent, base, 0o700)
	made := err == nil
	if err != nil && err != unix.EEXIST {
		return classify("mkdir", base, err)
	}
	if !made {
		// a link to a directory is as good; anything else is refused
		fd, err := openBelow(n.root, n.dir+"/"+path.Clean(hdr.Name), unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return classify("open", base, err)
	}
	return errors.Join(n.attributes(fd, hdr), unix.Close(fd))
}

func (n *inner) file(ctx context.Context, parent int, base string, hdr *tar.Header, r io.Reader) error {
	return n.place(parent, base, nil, func(tmp string) error {
		fd, err := unix.Openat(parent, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return classify("create", base, err)
		}
		f := os.NewFile(uintptr(fd), base)
		err = n.fill(ctx, f, r)
		if err == nil {
			err = n.attributes(fd, hdr)
		}
		return errors.Join(err, f.Close())
	})
}

func (n *inner) fill(ctx context.Context, f *os.File, r io.Reader) error {
	for {
		got, err := r.Read(n.buf)
		if got > 0 {
			if _, err := f.Write(n.buf[:got]); err != nil {
				return classify("write", f.Name(), err)
			}
			n.res.Bytes += int64(got)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return streamError(err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// attributes go by descriptor, owner first: it clears the set-id bits.
func (n *inner) attributes(fd int, hdr *tar.Header) error {
	if err := unix.Fchown(fd, int(n.ids.Base)+hdr.Uid, int(n.ids.Base)+hdr.Gid); err != nil {
		return classify("change owner", hdr.Name, err)
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode&0o7777)); err != nil {
		return classify("change mode", hdr.Name, err)
	}
	ts := times(hdr.ModTime)
	return classify("set time", hdr.Name, unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH))
}

func times(t time.Time) []unix.Timespec {
	const most = 1<<34 - 1<<31 - 1 // the last second of ext4
	ts := unix.Timespec{}
	if sec := t.Unix(); !t.IsZero() && sec > 0 {
		ts = unix.NsecToTimespec(int64(t.Nanosecond()))
		ts.Sec = min(sec, most)
	}
	return []unix.Timespec{ts, ts}
}

// place makes something under a name of its own and moves it to base. A
// directory in its place stays. hdr gives owner and time of what has no
// descriptor, nil for none.
func (n *inner) place(parent int, base string, hdr *tar.Header, make func(tmp string) error) error {
	tmp := ".gantry-" + rand.Text()
	// after success too: two names of one file are not moved over each other
	defer func() { _ = unix.Unlinkat(parent, tmp, 0) }()
	if err := make(tmp); err != nil {
		return classified(base, err)
	}
	if hdr != nil {
		if err := unix.Fchownat(parent, tmp, int(n.ids.Base)+hdr.Uid, int(n.ids.Base)+hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return classify("change owner", base, err)
		}
		if err := unix.UtimesNanoAt(parent, tmp, times(hdr.ModTime), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return classify("set time", base, err)
		}
	}
	return classify("replace", base, unix.Renameat(parent, tmp, parent, base))
}

func classified(base string, err error) error {
	if errno, ok := errors.AsType[unix.Errno](err); ok && errno == err { //nolint:errorlint // bare ones only
		return classify("make", base, err)
	}
	return err
}

// link makes a hard link to a file of the same container.
func (n *inner) link(parent int, base string, hdr *tar.Header) error {
	target, err := cleanEntry(hdr.Linkname, n.lim)
	if err != nil {
		return fmt.Errorf("target of the link: %w", err)
	}
	fd, err := openBelow(n.root, n.dir+"/"+target, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return invalid("the target of the link is not a file")
	}
	return n.place(parent, base, nil, func(tmp string) error {
		return unix.Linkat(fd, "", parent, tmp, unix.AT_EMPTY_PATH)
	})
}
