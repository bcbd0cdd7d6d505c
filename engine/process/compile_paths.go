package process

import (
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
// can be mounted over, or through the runner's.
func (c *compiler) sysctls() {
	proc := c.hostProc
	if p := c.fresh["proc"]; p.kind == "proc" {
		proc = p.root
	}
	for _, key := range slices.Sorted(maps.Keys(c.spec.Sysctls)) {
		sysctl, _ := findSysctl(key)
		val := c.spec.Sysctls[key]
		what := "set sysctl " + key
		if sysctl.kind == UTSNamespace { // its file is for the host's root only
			c.call(what, unix.SYS_SETDOMAINNAME, c.str(val), num(len(val))).faults(sysctlFault(key, val))
			continue
		}
		s, fd := c.open(what, proc, "sys/"+sysctl.file, unix.O_WRONLY, inMount)
		s.faults(sysctlFault(key, val))
		c.call(what, unix.SYS_WRITE, fd, c.str(val), num(len(val))).wants(len(val)).faults(sysctlFault(key, val))
		c.close(what, fd)
	}
}

// openHostProc keeps the runner's /proc for sysctls of a Spec without one.
func (c *compiler) openHostProc() {
	own := slices.ContainsFunc(c.spec.Mounts, func(m Mount) bool { return imagePath(m.Destination) == "proc" && m.Type == "proc" })
	if len(c.spec.Sysctls) > 0 && !own {
		c.hostProc = c.slot("/proc")
		c.call("open /proc", unix.SYS_OPENAT, atCwd(), c.str("/proc"), num(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)).to(c.hostProc)
	}
}

func sysctlFault(key, val string) func(unix.Errno) error {
	return func(errno unix.Errno) error {
		switch errno {
		case unix.ENOENT, unix.EINVAL, unix.ERANGE:
			return errdefs.WithPublic(fmt.Errorf("%w: %w", errno, errdefs.ErrInvalid), fmt.Sprintf("sysctl %q cannot be %.64q", key, val))
		}
		return nil
	}
}

// maskPaths hides directories behind an empty read-only tmpfs and files behind
// the host's null device. What is absent needs no mask.
func (c *compiler) maskPaths() {
	if len(c.spec.MaskedPaths) == 0 {
		return
	}
	empty := c.emptyMounts()
	for _, masked := range c.spec.MaskedPaths {
		what, resolve := "mask "+masked, resolveOf(masked)

		s, fd := c.open(what, c.root, imagePath(masked), unix.O_PATH|unix.O_DIRECTORY, resolve)
		s.ignore(unix.ENOENT, unix.ENOTDIR).faults(placeFault(imagePath(masked)))
		noDir := c.jumpIgnored()
		clone := empty(what)
		c.attach(what, clone, fd)
		c.call(what, unix.SYS_CLOSE, clone)
		c.call(what, unix.SYS_CLOSE, fd)
		done := c.jumpZero()
		c.land(noDir)

		s, fd = c.open(what, c.root, imagePath(masked), unix.O_PATH, resolve)
		s.ignore(unix.ENOENT, unix.ENOTDIR).faults(placeFault(imagePath(masked)))
		absent := c.jumpIgnored()
		clone = c.hostNode(what, atCwd(), "/dev/null")
		c.attach(what, clone, fd)
		c.call(what, unix.SYS_CLOSE, clone)
		c.call(what, unix.SYS_CLOSE, fd)
		c.land(absent)
		c.land(done)
	}
}

// resolveOf: no link of the kernel's file systems is a thing to protect.
func resolveOf(p string) uint64 {
	if ofKernel(imagePath(p)) {
		return noLinks
	}
	return inImage
}

const nosuidNodevNoexec = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// readonlyPaths puts a read-only clone over each path. Absent ones are left.
func (c *compiler) readonlyPaths() {
	for _, p := range c.spec.ReadonlyPaths {
		what := "make read-only " + p
		s, fd := c.open(what, c.root, imagePath(p), unix.O_PATH, resolveOf(p))
		s.ignore(unix.ENOENT, unix.ENOTDIR).faults(placeFault(imagePath(p)))
		absent := c.jumpIgnored()
		_, clone := c.cloneTree(what, fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
		c.setattr(what, clone, true, unix.MOUNT_ATTR_RDONLY, 0, 0)
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
