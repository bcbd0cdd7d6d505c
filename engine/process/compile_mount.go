package process

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// freshMount is a file system of our own: nothing of the image is in it. With
// an empty kind it is a bind mount, which ends such a place.
type freshMount struct {
	root value
	kind string
	// protect: it becomes read-only when all is mounted in it.
	protect bool
}

// mounts makes those of the Spec in their order, but puts /proc and /sys and
// what lies in them in their places last: until then a symbolic link of the
// image to a file of the kernel leads to nothing. (File systems are listed in
// the order in which they were made, mountinfo's since Linux 6.8.)
func (c *compiler) mounts() {
	early := map[int]value{}
	for _, last := range []bool{false, true} {
		for i, m := range c.spec.Mounts {
			clean := imagePath(m.Destination)
			if ofKernel(clean) == last {
				c.mount(i, m, early)
			} else if o, _ := m.options(); !last && plain(m, o) {
				early[i] = c.makeMount(clean, m.Type, o, m.Source)
			}
		}
		if !last {
			c.devices()
		}
	}
}

// ofKernel reports whether a path is /proc, /sys or below.
func ofKernel(clean string) bool {
	top, _, _ := strings.Cut(clean, "/")
	return top == "proc" || top == "sys"
}

// plain mounts are one new file system.
func plain(m Mount, o mountOptions) bool {
	return !o.bind && !o.copyUp && m.Type != "cgroup" && m.Type != "cgroup2" && m.Type != "tmpfs"
}

func (c *compiler) mount(i int, m Mount, early map[int]value) {
	o, _ := m.options()
	clean := imagePath(m.Destination)
	switch {
	case o.bind:
		c.bind(clean, c.sources[i])
	case m.Type == "cgroup" || m.Type == "cgroup2":
		c.mountCgroups(i, m, o)
	case o.copyUp:
		c.copyUp(clean, o)
	case m.Part && c.isPart(clean):
		c.mountPart(clean, o)
	default:
		mnt, ok := early[i]
		if !ok {
			mnt = c.makeMount(clean, m.Type, o, m.Source)
		}
		c.placeMount(clean, m.Type, o, mnt)
		c.fill(clean, mnt, m)
	}
}

// isPart reports whether clean is an entry of a tmpfs on /dev.
func (c *compiler) isPart(clean string) bool {
	return path.Dir(clean) == "dev" && c.fresh["dev"].kind == "tmpfs"
}

// mountPart mounts a directory of the tmpfs on /dev over itself.
func (c *compiler) mountPart(clean string, o mountOptions) {
	what, dev, name := "mount "+clean, c.fresh["dev"].root, path.Base(clean)
	mode := uint64(0o1777)
	for _, option := range o.data {
		if text, ok := strings.CutPrefix(option, "mode="); ok {
			mode, _ = strconv.ParseUint(text, 8, 12)
		}
	}
	c.call(what, unix.SYS_MKDIRAT, dev, c.str(name), num(0o755)).faults(placeFault(clean))
	c.call(what, unix.SYS_FCHMODAT, dev, c.str(name), num(mode))
	_, mnt := c.cloneTree(what, dev, name, 0)
	c.setattr(what, mnt, false, o.set, o.clear, 0)
	c.attachAt(what, mnt, dev, name)
	c.fresh[clean] = freshMount{mnt, "tmpfs", false}
}

// newMount makes a file system and mounts it, as a place for other mounts too.
func (c *compiler) newMount(clean, kind string, o mountOptions, source string) value {
	mnt := c.makeMount(clean, kind, o, source)
	c.placeMount(clean, kind, o, mnt)
	return mnt
}

// protectLate: mount points are made in a tmpfs before it becomes read-only.
func protectLate(kind string, o mountOptions) bool {
	return kind == "tmpfs" && o.set&unix.MOUNT_ATTR_RDONLY != 0
}

// makeMount makes a file system, mounted nowhere.
func (c *compiler) makeMount(clean, kind string, o mountOptions, source string) value {
	attrs := o.set
	if protectLate(kind, o) {
		attrs &^= unix.MOUNT_ATTR_RDONLY
	}
	options := append(append([]string{}, o.flags...), o.data...)
	if path.IsAbs(source) && attrs&unix.MOUNT_ATTR_RDONLY != 0 {
		options = append(options, "ro") // its block device may be
	}
	if source != "" && source != "none" { // what mountinfo shows when there is none
		options = append(options, "source="+source)
	}
	mnt := c.filesystem(clean, kind, attrs, options...)
	if p := o.propagation; p == unix.MS_SHARED || p == unix.MS_UNBINDABLE {
		c.setattr("mount "+clean, mnt, false, 0, 0, p)
	}
	return mnt
}

func (c *compiler) placeMount(clean, kind string, o mountOptions, mnt value) {
	c.mountOn(clean, mnt, nil)
	c.fresh[clean] = freshMount{mnt, kind, protectLate(kind, o)}
	if clean == "dev" && kind == "tmpfs" {
		c.defaultDevices()
	}
}

// bind mounts a clone of the host's: on a directory, made if absent, or if it
// is no directory on a file.
func (c *compiler) bind(clean string, mnt value) {
	what, fault := "mount "+clean, placeFault(clean)
	c.mountOn(clean, mnt, func(dir value, name string) {
		s, fd := c.open(what, mnt, ".", unix.O_PATH|unix.O_DIRECTORY, inMount)
		s.ignore(unix.ENOTDIR)
		isFile := c.jumpIgnored()
		c.call(what, unix.SYS_MKDIRAT, dir, c.str(name), num(0o755)).ignore(unix.EEXIST).faults(fault)
		c.close(what, fd)
		made := c.jumpZero()
		c.land(isFile)
		c.call(what, unix.SYS_MKNODAT, dir, c.str(name), num(unix.S_IFREG|0o644), num(0)).ignore(unix.EEXIST).faults(fault)
		c.land(made)
	})
	c.close(what, mnt)
	c.fresh[clean] = freshMount{}
}

// mountOn mounts mnt at clean. prepare makes what it is mounted on, if absent;
// nil for a directory.
func (c *compiler) mountOn(clean string, mnt value, prepare func(dir value, name string)) {
	what := "mount " + clean
	if prepare == nil {
		prepare = func(dir value, name string) {
			c.call(what, unix.SYS_MKDIRAT, dir, c.str(name), num(0o755)).ignore(unix.EEXIST).faults(placeFault(clean))
		}
	}
	base, rest, resolve, exists := c.root, clean, uint64(inImage), false
	if m, r, ok := c.below(clean); ok {
		base, rest, resolve = m.root, r, inMount
		exists = m.kind != "tmpfs" // a file system of the kernel: nothing is made there
	} else if ofKernel(clean) || clean == "dev" {
		resolve = noLinks
	}
	fault := placeFault(clean)
	parent, name := path.Split(rest)
	parent = strings.TrimSuffix(parent, "/")
	dir, temporary := base, false
	if !exists {
		dir, temporary = c.makeDirectories(base, parent, resolve, clean)
		prepare(dir, name)
	}
	if resolve == inMount && !exists {
		c.attachAt(what, mnt, dir, name).faults(fault)
	} else {
		s, target := c.open("open mount point /"+clean, base, rest, unix.O_PATH, resolve)
		s.faults(fault)
		c.attach(what, mnt, target).faults(fault)
		c.close(what, target)
	}
	if temporary {
		c.close(what, dir)
	}
}

// makeDirectories makes parent below base, one component after the other, and
// opens it.
func (c *compiler) makeDirectories(base value, parent string, resolve uint64, clean string) (dir value, opened bool) {
	dir = base
	at := ""
	for name := range strings.SplitSeq(parent, "/") {
		if name == "" {
			continue
		}
		at = path.Join(at, name)
		what := "make mount point /" + clean
		c.call(what, unix.SYS_MKDIRAT, dir, c.str(name), num(0o755)).ignore(unix.EEXIST).faults(placeFault(clean))
		s, fd := c.open(what, base, at, unix.O_PATH|unix.O_DIRECTORY, resolve)
		s.faults(placeFault(clean))
		if opened {
			c.close(what, dir)
		}
		dir, opened = fd, true
	}
	return dir, opened
}

// placeFault blames the image, or the Spec, for a mount point.
func placeFault(clean string) func(unix.Errno) error {
	return func(errno unix.Errno) error {
		text := "cannot be mounted on"
		switch errno {
		case unix.ELOOP, unix.ENOTDIR:
			if !strings.Contains(clean, "/") {
				text = "is not a directory"
			}
		case unix.ENOENT, unix.EXDEV, unix.EROFS, unix.EEXIST, unix.EACCES, unix.EINVAL:
		default:
			return nil
		}
		return errdefs.WithPublic(fmt.Errorf("%w: %w", errno, errdefs.ErrInvalid), "/"+clean+" of the image "+text)
	}
}

// protectMounts makes read-only what had to be written before.
func (c *compiler) protectMounts() {
	for _, m := range c.spec.Mounts {
		clean := imagePath(m.Destination)
		if f := c.fresh[clean]; f.protect {
			c.setattr("make /"+clean+" read-only", f.root, false, unix.MOUNT_ATTR_RDONLY, 0, 0)
			f.protect = false
			c.fresh[clean] = f
		}
	}
}
