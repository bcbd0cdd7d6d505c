package process

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// how is a struct open_how (openat2(2)).
func (c *compiler) how(flags, resolve uint64) value {
	var b []byte
	for _, v := range []uint64{flags | unix.O_CLOEXEC, 0, resolve} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return c.buf(b, fmt.Sprintf("{%#x %#x}", flags, resolve))
}

const (
	sizeofHow       = 24
	sizeofMountAttr = 32

	// inImage: a path of the image; symbolic links stay inside.
	inImage = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	// noLinks: a path where no symbolic link is legitimate.
	noLinks = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS
	// inMount: a path inside one mount of our own.
	inMount = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV
)

// open appends an openat2 of path below dir.
func (c *compiler) open(name string, dir value, path string, flags, resolve uint64) (*step, value) {
	fd := c.slot(slotName(name))
	s := c.call(name, unix.SYS_OPENAT2, dir, c.str(path), c.how(flags, resolve), num(sizeofHow)).to(fd)
	return s, fd
}

func slotName(name string) string {
	if _, last, ok := strings.Cut(name, " "); ok {
		return last
	}
	return name
}

// filesystem makes a detached mount of a new file system.
func (c *compiler) filesystem(name, kind string, attrs int, options ...string) value {
	ctx, mnt := c.slot(name+" context"), c.slot(name)
	name = "mount " + name
	c.call(name, unix.SYS_FSOPEN, c.str(kind), num(unix.FSOPEN_CLOEXEC)).to(ctx)
	for _, o := range options {
		key, val, _ := strings.Cut(o, "=")
		c.call(name, unix.SYS_FSCONFIG, ctx, num(unix.FSCONFIG_SET_STRING), c.str(key), c.str(val), num(0))
	}
	c.call(name, unix.SYS_FSCONFIG, ctx, num(unix.FSCONFIG_CMD_CREATE), num(0), num(0), num(0))
	c.call(name, unix.SYS_FSMOUNT, ctx, num(unix.FSMOUNT_CLOEXEC), num(attrs)).to(mnt)
	c.close(name, ctx)
	return mnt
}

// attach puts a detached mount onto the open directory or file target.
func (c *compiler) attach(name string, mnt, target value) *step {
	return c.call(name, unix.SYS_MOVE_MOUNT, mnt, c.str(""), target, c.str(""),
		num(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// attachAt puts a detached mount onto the name below a mount of our own.
func (c *compiler) attachAt(name string, mnt, dir value, entry string) *step {
	return c.call(name, unix.SYS_MOVE_MOUNT, mnt, c.str(""), dir, c.str(entry), num(unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// takeRoot makes a mount of the root directory that is ours to move.
func (c *compiler) takeRoot() {
	c.call("make mounts private", unix.SYS_MOUNT, num(0), c.str("/"), num(0), num(unix.MS_REC|unix.MS_PRIVATE), num(0))
	c.root = c.slot("root")
	c.call("clone root", unix.SYS_OPEN_TREE, atCwd(), c.str(""),
		num(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)).to(c.root)
	c.call("mount root", unix.SYS_MOVE_MOUNT, c.root, c.str(""), atCwd(), c.str(""),
		num(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// mountPoint opens a top directory of the image, making it if absent. A
// symbolic link or a file there is refused.
func (c *compiler) mountPoint(name string) value {
	c.call("make mount point /"+name, unix.SYS_MKDIRAT, c.root, c.str(name), num(0o755)).ignore(unix.EEXIST)
	s, fd := c.open("open mount point /"+name, c.root, name, unix.O_PATH|unix.O_DIRECTORY, noLinks)
	s.faults(func(errno unix.Errno) error {
		if errno != unix.ELOOP && errno != unix.ENOTDIR {
			return nil //nolint:nilerr // nothing to add to another errno
		}
		return errdefs.WithPublic(fmt.Errorf("%w: %w", errno, errdefs.ErrInvalid), "/"+name+" of the image is not a directory")
	})
	return fd
}

const nosuidNodevNoexec = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

func (c *compiler) mounts() {
	c.proc = c.filesystem("proc", "proc", nosuidNodevNoexec)
	target := c.mountPoint("proc")
	c.attach("mount proc", c.proc, target)
	c.close("mount proc", target)

	attrs := nosuidNodevNoexec
	if !c.spec.SysWritable {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	c.sys = c.filesystem("sysfs", "sysfs", attrs)
	target = c.mountPoint("sys")
	c.attach("mount sysfs", c.sys, target)
	c.close("mount sysfs", target)
	if c.facts.unifiedCgroups {
		cg := c.filesystem("cgroup2", "cgroup2", attrs)
		_, target = c.open("open /sys/fs/cgroup", c.sys, "fs/cgroup", unix.O_PATH|unix.O_DIRECTORY, inMount)
		c.attach("mount cgroup2", cg, target)
		c.close("mount cgroup2", target)
		c.close("mount cgroup2", cg)
	}
	c.devices()
}

// devices makes /dev: a tmpfs with the host's harmless nodes, which the engine
// opened itself, and the instance's own terminals.
func (c *compiler) devices() {
	c.dev = c.filesystem("dev", "tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "mode=755", "size=65536k")
	target := c.mountPoint("dev")
	c.attach("mount dev", c.dev, target)
	c.close("mount dev", target)

	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		c.fileMount("device "+name, atCwd(), "/dev/"+name, name)
	}
	for _, l := range [][2]string{
		{"/proc/self/fd", "fd"},
		{"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"},
		{"pts/ptmx", "ptmx"},
	} {
		c.call("link /dev/"+l[1], unix.SYS_SYMLINKAT, c.str(l[0]), c.dev, c.str(l[1]))
	}
	pts := c.below("pts", "devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "ptmxmode=0666", "mode=620", "gid=5", "max=1024")
	c.close("mount shm", c.below("shm", "tmpfs", nosuidNodevNoexec, "mode=1777", "size=65536k"))
	c.close("mount mqueue", c.below("mqueue", "mqueue", nosuidNodevNoexec))
	if c.spec.Terminal {
		c.console(pts)
	} else {
		c.close("close pts", pts)
	}
}

// below mounts a new file system on a new directory of /dev.
func (c *compiler) below(name, kind string, attrs int, options ...string) value {
	c.call("mount "+name, unix.SYS_MKDIRAT, c.dev, c.str(name), num(0o755))
	mnt := c.filesystem(name, kind, attrs, options...)
	c.attachAt("mount "+name, mnt, c.dev, name)
	return mnt
}

// fileMount binds the file dir/path onto a new file of /dev.
func (c *compiler) fileMount(name string, dir value, path, entry string) {
	fd := c.slot(entry)
	c.call(name, unix.SYS_MKNODAT, c.dev, c.str(entry), num(unix.S_IFREG|0o666), num(0))
	c.call(name, unix.SYS_OPEN_TREE, dir, c.str(path),
		num(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)).to(fd)
	c.attachAt(name, fd, c.dev, entry)
	c.close(name, fd)
}

// pivot makes root the only mount tree that the process can see.
func (c *compiler) pivot() {
	c.call("enter new root", unix.SYS_FCHDIR, c.root)
	c.call("pivot root", unix.SYS_PIVOT_ROOT, c.str("."), c.str("."))
	c.call("detach old root", unix.SYS_UMOUNT2, c.str("."), num(unix.MNT_DETACH))
	c.call("enter new root", unix.SYS_FCHDIR, c.root)
}
