package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// ChangesOptions of Changes.
type ChangesOptions struct {
	// Since is later than the change times of all files that disk had in the
	// beginning, by the clock of the file system. A file is unchanged if its
	// change time is before it: nobody inside can set that time.
	Since time.Time
	// IDBase is the first id on disk, 0 if ids there are the container's own.
	IDBase uint32
}

// Changes writes into out, an empty private directory, what disk has over the
// layers, lowest first, that Flatten has once filled it from: in the form of
// overlayfs, as the upper directory would hold it. Data is shared where the
// file system can do that. A container may run on disk meanwhile, with the
// effect that Diff describes. errdefs.ErrExhausted: no room on the disk.
func Changes(ctx context.Context, layers []*os.File, disk, out *os.File, opts ChangesOptions) error {
	c := &changer{copier: newCopier(out, true), since: opts.Since}
	c.unshift = opts.IDBase
	root := &outDir{fd: int(out.Fd()), path: "."}
	err := c.compare(ctx, rootStack(layers), int(disk.Fd()), root)
	if err == nil {
		err = c.finishDir(int(disk.Fd()), root.fd)
	}
	runtime.KeepAlive(layers)
	runtime.KeepAlive(disk)
	runtime.KeepAlive(out)
	return copyError("find changes", err)
}

// changer holds one run of Changes.
type changer struct {
	*copier
	since time.Time
}

// outDir is a directory of the result that is made when there is something to
// put into it.
type outDir struct {
	fd     int // -1 while it is not made
	path   string
	name   string
	parent *outDir
}

func (d *outDir) open() (int, error) {
	if d.fd >= 0 {
		return d.fd, nil
	}
	parent, err := d.parent.open()
	if err != nil {
		return -1, err
	}
	d.fd, err = makeDir(parent, d.name)
	return d.fd, wrap("mkdir", d.path, err)
}

// changed reports whether an inode was touched since the beginning.
func (c *changer) changed(st *unix.Stat_t) bool {
	return !time.Unix(st.Ctim.Unix()).Before(c.since)
}

// compare writes what the open directory disk has over the merged directory
// base into out.
func (c *changer) compare(ctx context.Context, base stack, disk int, out *outDir) error {
	have, err := readNames(disk)
	if err != nil {
		return wrap("read directory", out.path, err)
	}
	had, err := base.names()
	if err != nil {
		return wrap("read layers", out.path, err)
	}
	all := slices.Concat(have, had)
	slices.Sort(all)
	for _, name := range slices.Compact(all) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		if err := c.entry(ctx, base, disk, name, out); err != nil {
			return err
		}
	}
	return nil
}

// entry compares one name.
func (c *changer) entry(ctx context.Context, base stack, disk int, name string, out *outDir) error {
	_, was, err := base.lookup(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	is, err := lstat(disk, name)
	switch {
	case errors.Is(err, unix.ENOENT) && was == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		fd, err := out.open()
		if err != nil {
			return err
		}
		return wrap("whiteout", join(out.path, name), unix.Mknodat(fd, name, unix.S_IFCHR, 0))
	case err != nil:
		return err
	case is.Mode&unix.S_IFMT == unix.S_IFDIR && was != nil && was.Mode&unix.S_IFMT == unix.S_IFDIR:
		return c.subdirectory(ctx, base, disk, name, is, out)
	case was != nil && !c.changed(is):
		return nil
	}
	fd, err := out.open()
	if err != nil {
		return err
	}
	if err := c.node(ctx, disk, name, fd, join(out.path, name)); err != nil && !vanished(err) {
		return err
	}
	return nil
}

// subdirectory compares a directory that both have. It is part of the result
// if it or something in it has changed.
func (c *changer) subdirectory(ctx context.Context, base stack, disk int, name string, is *unix.Stat_t, out *outDir) error {
	fd, err := unix.Openat(disk, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return wrap("open", join(out.path, name), err)
	}
	defer unix.Close(fd)
	if !isOrigin(fd, join(out.path, name)) {
		return c.replaced(ctx, disk, name, out)
	}
	below, err := base.sub(name)
	if err != nil {
		return err
	}
	defer below.close()
	sub := &outDir{fd: -1, path: join(out.path, name), name: name, parent: out}
	defer func() {
		if sub.fd >= 0 {
			_ = unix.Close(sub.fd)
		}
	}()
	if c.changed(is) {
		if _, err := sub.open(); err != nil {
			return err
		}
	}
	if err := c.compare(ctx, below, fd, sub); err != nil || sub.fd < 0 {
		return err
	}
	return c.finishDir(fd, sub.fd)
}

// replaced writes a directory that is not the one that Flatten made, so that
// what is in it says nothing of what the layers have there.
func (c *changer) replaced(ctx context.Context, disk int, name string, out *outDir) error {
	parent, err := out.open()
	if err != nil {
		return err
	}
	if err := c.node(ctx, disk, name, parent, join(out.path, name)); err != nil {
		if vanished(err) {
			return nil
		}
		return err
	}
	fd, err := unix.Openat(parent, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open", name, err)
	}
	return errors.Join(setOpaque(fd), unix.Close(fd))
}

// originXattr marks a directory that Flatten made with a digest of its path:
// one that was moved, or made since, is told from it. Nobody inside a container
// can see or set attributes of this kind.
const originXattr = "trusted.gantry.origin"

func originMark(path string) []byte {
	sum := sha256.Sum256([]byte(path))
	return sum[:16]
}

// markOrigin is best effort: without the mark Changes takes the directory for a
// new one, which is right but holds more than needed.
func markOrigin(fd int, path string) { _ = unix.Fsetxattr(fd, originXattr, originMark(path), 0) }

func isOrigin(fd int, path string) bool {
	var v [16]byte
	n, err := unix.Fgetxattr(fd, originXattr, v[:])
	return err == nil && bytes.Equal(v[:n], originMark(path))
}

// finishDir gives a directory of the result the attributes of the disk's, when
// everything in it is made.
func (c *changer) finishDir(disk, out int) error {
	var st unix.Stat_t
	if err := unix.Fstat(disk, &st); err != nil {
		return wrap("stat", "", err)
	}
	return c.attributes(disk, out, &st)
}
