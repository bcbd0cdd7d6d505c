package process

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Names in the tmpfs of a copyUp: what is below, what is written, and what
// overlayfs needs for itself.
const (
	lowerName, upperName, workName = "lower", "upper", "work"
)

// copyUp mounts a tmpfs that shows what the directory below it holds. A list
// of system calls cannot copy a tree of unknown shape, so it is an overlay of
// the directory, a clone of which is mounted in the tmpfs, that writes to the
// tmpfs. Its paths are relative to the tmpfs, the working directory: nothing of
// the image takes part in finding them.
func (c *compiler) copyUp(clean string, o mountOptions) {
	what := "mount " + clean
	base, rest, resolve := c.root, clean, uint64(inImage)
	if m, r, ok := c.below(clean); ok {
		base, rest, resolve = m.root, r, inMount
	}
	below, opened := c.makeDirectories(base, rest, resolve, clean)
	mode, uid, gid := c.status3(what, below)

	const inner = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	tmpfs := c.filesystem(clean+" writes", "tmpfs", inner, append(append([]string{}, o.flags...), o.data...)...)
	s, lower := c.cloneTree(what, below, "", unix.AT_EMPTY_PATH)
	s.faults(placeFault(clean))
	c.attach(what, tmpfs, below).faults(placeFault(clean))
	for _, name := range []string{lowerName, upperName, workName} {
		c.call(what, unix.SYS_MKDIRAT, tmpfs, c.str(name), num(0o755))
	}
	c.attachAt(what, lower, tmpfs, lowerName)
	c.call(what, unix.SYS_FCHOWNAT, tmpfs, c.str(upperName), uid, gid, num(0)).ignore(unix.EINVAL)
	c.call(what, unix.SYS_FCHMODAT, tmpfs, c.str(upperName), mode)
	c.call(what, unix.SYS_FCHDIR, tmpfs)
	options := []string{"lowerdir=" + lowerName, "upperdir=" + upperName, "workdir=" + workName}
	if c.spec.has(UserNamespace) {
		options = append(options, "userxattr")
	}
	both := c.filesystem(clean, "overlay", o.set, options...)
	c.attach(what, both, tmpfs)
	for _, fd := range []value{lower, both, tmpfs} {
		c.close(what, fd)
	}
	if opened {
		c.close(what, below)
	}
	c.fresh[clean] = freshMount{}
}

// status3 are slots with the mode and the owners of an open file. They are
// wider than what they hold; system calls look at their lower half only.
func (c *compiler) status3(what string, fd value) (mode, uid, gid value) {
	var st unix.Stat_t
	at := c.buf(make([]byte, unsafe.Sizeof(st)+8), "status")
	c.call(what, unix.SYS_FSTAT, fd, at)
	place := func(offset uintptr, name string) value {
		return value{kind: kindResult, off: at.off + int(offset), text: name}
	}
	return place(unsafe.Offsetof(st.Mode), "mode"), place(unsafe.Offsetof(st.Uid), "uid"), place(unsafe.Offsetof(st.Gid), "gid")
}
