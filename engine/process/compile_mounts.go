package process

import (
	"fmt"
	"path"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// how is a struct open_how (openat2(2)).
func (c *compiler) how(flags, resolve uint64) value {
	text := func() string { return fmt.Sprintf("{%#x %#x}", flags, resolve) }
	return c.constant(text, flags|unix.O_CLOEXEC, 0, resolve)
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

// filesystem makes a detached mount of a new file system. Options without a
// value are flags.
func (c *compiler) filesystem(name, kind string, attrs uint64, options ...string) value {
	ctx, mnt := c.slot(name+" context"), c.slot(name)
	name = "mount " + name
	c.call(name, unix.SYS_FSOPEN, c.str(kind), num(unix.FSOPEN_CLOEXEC)).to(ctx).faults(kindFault(kind))
	for _, o := range options {
		fault := optionFault(o)
		if key, val, ok := strings.Cut(o, "="); ok {
			c.call(name, unix.SYS_FSCONFIG, ctx, num(unix.FSCONFIG_SET_STRING), c.str(key), c.str(val), num(0)).faults(fault)
		} else {
			c.call(name, unix.SYS_FSCONFIG, ctx, num(unix.FSCONFIG_SET_FLAG), c.str(key), num(0), num(0)).faults(fault)
		}
	}
	c.call(name, unix.SYS_FSCONFIG, ctx, num(unix.FSCONFIG_CMD_CREATE), num(0), num(0), num(0)).faults(optionFault(""))
	c.call(name, unix.SYS_FSMOUNT, ctx, num(unix.FSMOUNT_CLOEXEC), num(attrs)).to(mnt)
	c.close(name, ctx)
	return mnt
}

func kindFault(kind string) func(unix.Errno) error {
	return func(errno unix.Errno) error {
		if errno != unix.ENODEV {
			return nil //nolint:nilerr // nothing to add to another errno
		}
		return fmt.Errorf("no file system type %q: %w: %w", kind, errno, errdefs.ErrInvalid)
	}
}

// optionFault blames the Spec for what a file system does not take.
func optionFault(option string) func(unix.Errno) error {
	return func(errno unix.Errno) error {
		switch errno {
		case unix.EINVAL, unix.ENOENT, unix.ENOTBLK, unix.ENOTDIR:
			return fmt.Errorf("option %q: %w: %w", option, errno, errdefs.ErrInvalid)
		}
		return nil
	}
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

// cloneTree makes a detached copy of the mount at path below dir.
func (c *compiler) cloneTree(name string, dir value, path string, flags int) (*step, value) {
	fd := c.slot("clone")
	return c.call(name, unix.SYS_OPEN_TREE, dir, c.str(path), num(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)).to(fd), fd
}

// setattr changes a detached or attached mount (mount_setattr(2)).
func (c *compiler) setattr(name string, mnt value, recursive bool, set, clear, propagation uint64) *step {
	return c.setattrMap(name, mnt, recursive, set, clear, propagation, value{})
}

// setattrMap is setattr with a user namespace to id-map by, if it is not the
// zero value.
func (c *compiler) setattrMap(name string, mnt value, recursive bool, set, clear, propagation uint64, users value) *step {
	flags := unix.AT_EMPTY_PATH
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	var userns uint64
	if users != (value{}) {
		set |= unix.MOUNT_ATTR_IDMAP
		userns = users.num
	}
	text := func() string { return fmt.Sprintf("{%#x %#x %#x}", set, clear, propagation) }
	attr := c.constant(text, set, clear, propagation, userns)
	return c.call(name, unix.SYS_MOUNT_SETATTR, mnt, c.str(""), num(flags), attr, num(sizeofMountAttr))
}

// hostTrees clones on the host what the new root shows: the sources of bind
// mounts and, for a stage or a mount namespace that exists, the root itself.
func (c *compiler) hostTrees() {
	c.openHostProc()
	for i, m := range c.spec.Mounts {
		o, _ := m.options()
		switch {
		case o.bind:
			c.sources[i] = c.cloneSource(m, o)
		case strings.HasPrefix(m.Type, "cgroup"):
			c.cloneCgroups(i, m, o)
		}
	}
	c.cloneDevices()
	switch {
	case c.spec.Root != nil: // a mount already
	case c.staged:
		c.cloneRoot("separate root from the host", c.rootPropagation())
	case c.spec.joins(MountNamespace):
		c.cloneRoot("make root private", unix.MS_PRIVATE)
		c.cloneNodes()
	}
}

// cloneRoot makes the mount of the root directory on the host.
func (c *compiler) cloneRoot(what string, propagation uint64) {
	var s *step
	s, c.root = c.cloneTree("clone root", c.rootFD, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	s.faults(sourceFault("/"))
	c.setattr(what, c.root, true, 0, 0, propagation)
}

// rootPropagation is how mounts below the root on the host concern the clone
// of it: not at all, or they appear in it too.
func (c *compiler) rootPropagation() uint64 {
	if p := c.spec.RootPropagation; p == "slave" || p == "shared" {
		return unix.MS_SLAVE
	}
	return unix.MS_PRIVATE
}

// cloneSource makes the mount of a bind mount, with everything about it that
// is the host's to grant.
func (c *compiler) cloneSource(m Mount, o mountOptions) value {
	what := "open source of " + m.Destination
	flags := 0
	if o.all {
		flags = unix.AT_RECURSIVE
	}
	s, mnt := c.cloneTree(what, atCwd(), m.Source, flags)
	s.faults(sourceFault(m.Destination))
	c.propagate(what, mnt, o)
	what = "set options of " + m.Destination
	fault := optionFault(strings.Join(m.Options, ","))
	var users value
	if o.idmap {
		users = c.idmap(m)
	}
	if o.setAll|o.clearAll != 0 || o.idmapAll {
		var all value
		if o.idmapAll {
			all, users = users, value{}
		}
		c.setattrMap(what, mnt, true, o.setAll, o.clearAll, 0, all).faults(fault)
	}
	if o.set|o.clear != 0 || users != (value{}) {
		c.setattrMap(what, mnt, false, o.set, o.clear, 0, users).faults(fault)
	}
	return mnt
}

// propagate makes a clone of the host's mounts private, or what o says. A
// container with a user namespace never sends to the host: "shared" is then a
// group of its own that receives from the host.
func (c *compiler) propagate(what string, mnt value, o mountOptions) {
	base := uint64(unix.MS_PRIVATE)
	switch {
	case o.propagation == unix.MS_SHARED && !c.spec.has(UserNamespace):
		base = 0
	case o.propagation == unix.MS_SHARED, o.propagation == unix.MS_SLAVE:
		base = unix.MS_SLAVE
	}
	if base != 0 {
		c.setattr(what, mnt, o.all, 0, 0, base)
	}
	if o.propagation != 0 && o.propagation != base {
		c.setattr(what, mnt, o.propagateAll, 0, 0, o.propagation)
	}
}

// idmap is the user namespace to id-map m by: the container's, or one that is
// made for it.
func (c *compiler) idmap(m Mount) value {
	if len(m.UIDMap) == 0 {
		return c.namespaces[UserNamespace]
	}
	return c.placeUsers("ids of mount "+m.Destination, &idMaps{m.UIDMap, m.GIDMap})
}

func sourceFault(destination string) func(unix.Errno) error {
	return func(errno unix.Errno) error {
		switch errno {
		case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EACCES, unix.EINVAL:
			return errdefs.WithPublic(fmt.Errorf("%w: %w", errno, errdefs.ErrInvalid),
				fmt.Sprintf("the source of mount %q cannot be used", destination))
		}
		return nil
	}
}

// takeRoot makes a mount of the root directory that is ours to move.
func (c *compiler) takeRoot() {
	if !c.spec.has(MountNamespace) {
		c.root = c.rootFD
		return
	}
	if !c.staged { // nothing is propagated in a stage
		c.call("make mounts private", unix.SYS_MOUNT, num(0), c.str("/"), num(0), num(unix.MS_REC|c.rootPropagation()), num(0))
	}
	if c.root == (value{}) {
		c.root = c.slot("root")
		c.call("clone root", unix.SYS_OPEN_TREE, atCwd(), c.str(""),
			num(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)).to(c.root)
	}
	c.call("mount root", unix.SYS_MOVE_MOUNT, c.root, c.str(""), atCwd(), c.str(""),
		num(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// pivot makes root the only mount tree that the process can see. Without a
// mount namespace it can only change the root directory.
func (c *compiler) pivot() {
	c.call("enter new root", unix.SYS_FCHDIR, c.root)
	if !c.spec.has(MountNamespace) {
		c.call("change root", unix.SYS_CHROOT, c.str("."))
		return
	}
	c.call("pivot root", unix.SYS_PIVOT_ROOT, c.str("."), c.str("."))
	c.call("detach old root", unix.SYS_UMOUNT2, c.str("."), num(unix.MNT_DETACH))
	c.call("enter new root", unix.SYS_FCHDIR, c.root)
}

// protectRoot does what would hinder the set-up earlier.
func (c *compiler) protectRoot() {
	if c.spec.RootReadonly {
		c.setattr("make root read-only", c.root, false, unix.MOUNT_ATTR_RDONLY, 0, 0)
	}
	if p := propagations[c.spec.RootPropagation]; p != 0 && p != unix.MS_PRIVATE && p != unix.MS_SLAVE {
		c.setattr("set propagation of root", c.root, false, 0, 0, p)
	}
}

// below splits clean into the fresh mount that it lies in and the rest; not ok
// when it lies in the image or in something of the host.
func (c *compiler) below(clean string) (m freshMount, rest string, ok bool) {
	for at := path.Dir(clean); at != "."; at = path.Dir(at) {
		if m, known := c.fresh[at]; known {
			return m, strings.TrimPrefix(clean, at+"/"), m.kind != ""
		}
	}
	return freshMount{}, clean, false
}
