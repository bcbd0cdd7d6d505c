package process

import (
	"encoding/binary"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// directory returns a descriptor of a directory of the image, made with its
// parents (0755) where absent. clean is cleaned and has no leading slash.
func (c *compiler) directory(clean string) value {
	if clean == "" || clean == "." {
		return c.root
	}
	if fd, ok := c.dirs[clean]; ok {
		return fd
	}
	parent, name := path.Split(clean)
	dir := c.directory(strings.TrimSuffix(parent, "/"))
	// What is there already, a symbolic link included, is found by the open.
	c.call("make directory /"+clean, unix.SYS_MKDIRAT, dir, c.str(name), num(0o755)).ignore(unix.EEXIST)
	s, fd := c.open("open directory /"+clean, c.root, clean, unix.O_PATH|unix.O_DIRECTORY, inImage)
	s.faults(pathFault("/" + clean))
	c.dirs[clean] = fd
	return fd
}

// closeDirs closes what directory has opened.
func (c *compiler) closeDirs() {
	for _, name := range slices.Sorted(maps.Keys(c.dirs)) {
		c.close("close directory", c.dirs[name])
	}
	clear(c.dirs)
}

// pathFault blames the image for a path that cannot be used.
func pathFault(name string) func(unix.Errno) error {
	return func(errno unix.Errno) error {
		switch errno {
		case unix.ELOOP, unix.ENOTDIR, unix.ENOENT, unix.EISDIR, unix.EXDEV, unix.EOVERFLOW:
			return errdefs.WithPublic(fmt.Errorf("%w: %w", errno, errdefs.ErrInvalid),
				fmt.Sprintf("path %q cannot be made in the image", name))
		}
		return nil
	}
}

// writeFile replaces one file of the image. A new file is made, so nothing is
// written through a link, a device or a fifo that stands in its place.
func (c *compiler) writeFile(f File) {
	clean := strings.TrimPrefix(path.Clean(f.Path), "/")
	parent, name := path.Split(clean)
	dir := c.directory(strings.TrimSuffix(parent, "/"))
	what := "write file /" + clean
	fault := pathFault("/" + clean)
	fd := c.slot("file")
	c.call(what, unix.SYS_UNLINKAT, dir, c.str(name), num(0)).ignore(unix.ENOENT).faults(fault)
	c.call(what, unix.SYS_OPENAT, dir, c.str(name),
		num(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC), num(0o600)).to(fd).faults(fault)
	if len(f.Data) > 0 {
		data := c.buf(f.Data, fmt.Sprintf("<%d bytes>", len(f.Data)))
		c.call(what, unix.SYS_WRITE, fd, data, num(len(f.Data))).wants(len(f.Data))
	}
	c.call(what, unix.SYS_FCHOWN, fd, num(f.UID), num(f.GID))
	c.call(what, unix.SYS_FCHMOD, fd, num(f.Mode))
	c.close(what, fd)
}

// sysctls writes through the proc mount of our own, which nothing of the image
// can be mounted over.
func (c *compiler) sysctls() {
	for _, key := range slices.Sorted(maps.Keys(c.spec.Sysctls)) {
		file, _ := sysctlPath(key)
		val := c.spec.Sysctls[key]
		what := "set sysctl " + key
		_, fd := c.open(what, c.proc, "sys/"+file, unix.O_WRONLY, inMount)
		c.call(what, unix.SYS_WRITE, fd, c.str(val), num(len(val))).wants(len(val))
		c.close(what, fd)
	}
	if c.spec.Hostname != "" {
		c.call("set host name", unix.SYS_SETHOSTNAME, c.str(c.spec.Hostname), num(len(c.spec.Hostname)))
	}
}

// maskPaths hides directories behind an empty read-only tmpfs and files behind
// the host's null device. What is absent needs no mask.
func (c *compiler) maskPaths() {
	if len(c.spec.MaskedPaths) == 0 {
		return
	}
	// Only an attached mount can be cloned, so the empty one is parked on the
	// host's /proc, which pivot leaves behind.
	empty := c.filesystem("mask", "tmpfs", nosuidNodevNoexec|unix.MOUNT_ATTR_RDONLY, "mode=555", "size=4k")
	c.attachAt("mount mask", empty, atCwd(), "/proc")
	for _, masked := range c.spec.MaskedPaths {
		what := "mask " + masked
		clone := c.slot("clone")
		cloneFlags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC

		s, fd := c.open(what, c.root, imagePath(masked), unix.O_PATH|unix.O_DIRECTORY, noLinks)
		s.ignore(unix.ENOENT, unix.ENOTDIR)
		noDir := c.jumpIgnored()
		c.call(what, unix.SYS_OPEN_TREE, empty, c.str(""), num(cloneFlags|unix.AT_EMPTY_PATH)).to(clone)
		c.attach(what, clone, fd)
		c.call(what, unix.SYS_CLOSE, clone)
		c.call(what, unix.SYS_CLOSE, fd)
		done := c.jumpZero()
		c.land(noDir)

		s, fd = c.open(what, c.root, imagePath(masked), unix.O_PATH, noLinks)
		s.ignore(unix.ENOENT, unix.ENOTDIR)
		absent := c.jumpIgnored()
		c.call(what, unix.SYS_OPEN_TREE, atCwd(), c.str("/dev/null"), num(cloneFlags|unix.AT_SYMLINK_NOFOLLOW)).to(clone)
		c.attach(what, clone, fd)
		c.call(what, unix.SYS_CLOSE, clone)
		c.call(what, unix.SYS_CLOSE, fd)
		c.land(absent)
		c.land(done)
	}
}

// readonlyPaths puts a read-only clone over each path. Absent ones are left.
func (c *compiler) readonlyPaths() {
	if len(c.spec.ReadonlyPaths) == 0 {
		return
	}
	attr := binary.LittleEndian.AppendUint64(nil, unix.MOUNT_ATTR_RDONLY)
	attrs := c.buf(append(attr, make([]byte, sizeofMountAttr-8)...), "{read-only}")
	for _, p := range c.spec.ReadonlyPaths {
		what := "make read-only " + p
		clone := c.slot("clone")
		s, fd := c.open(what, c.root, imagePath(p), unix.O_PATH, noLinks)
		s.ignore(unix.ENOENT, unix.ENOTDIR)
		absent := c.jumpIgnored()
		c.call(what, unix.SYS_OPEN_TREE, fd, c.str(""),
			num(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)).to(clone)
		c.call(what, unix.SYS_MOUNT_SETATTR, clone, c.str(""), num(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE), attrs, num(sizeofMountAttr))
		c.attach(what, clone, fd)
		c.close(what, clone)
		c.close(what, fd)
		c.land(absent)
	}
}

// workDirectory enters Spec.Cwd, made if absent, with every host descriptor
// but the status socket gone and magic links refused.
func (c *compiler) workDirectory() {
	cwd := imagePath(c.spec.Cwd)
	if cwd == "" {
		return
	}
	c.call("enter working directory", unix.SYS_FCHDIR, c.directory(cwd))
	c.closeDirs()
}

// imagePath is p cleaned and without its leading slash.
func imagePath(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }
