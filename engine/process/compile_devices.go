package process

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// defaultDevice is a device of config-linux.md, Default Devices; all are
// character devices that everybody may use.
type defaultDevice struct {
	name         string
	major, minor uint32
}

var defaultDevices = [...]defaultDevice{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

// defaultLinks are those of /dev; the Default Devices of config-linux.md and
// runtime-linux.md, Dev symbolic links.
var defaultLinks = [...][2]string{
	{"/proc/self/fd", "fd"},
	{"/proc/self/fd/0", "stdin"},
	{"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"},
	{"pts/ptmx", "ptmx"},
}

// defaultDevices fills a fresh /dev.
func (c *compiler) defaultDevices() {
	dev := c.fresh["dev"].root
	given := func(name string) bool {
		at := "/dev/" + name
		return slices.ContainsFunc(c.spec.Devices, func(d Device) bool { return path.Clean(d.Path) == at })
	}
	makes := c.makesNodes()
	if makes {
		c.call("clear umask", unix.SYS_UMASK, num(0))
	}
	for _, d := range defaultDevices {
		switch {
		case given(d.name):
		case makes:
			c.call("device "+d.name, unix.SYS_MKNODAT, dev, c.str(d.name), num(unix.S_IFCHR|0o666), num(unix.Mkdev(d.major, d.minor)))
		default:
			c.fileMount("device "+d.name, atCwd(), "/dev/"+d.name, d.name)
		}
	}
	if makes {
		c.call("set umask", unix.SYS_UMASK, num(0o022))
	}
	for _, l := range defaultLinks {
		if !given(l[1]) {
			c.call("link /dev/"+l[1], unix.SYS_SYMLINKAT, c.str(l[0]), dev, c.str(l[1]))
		}
	}
}

// makesNodes reports whether the container may make device nodes: never in a
// user namespace.
func (c *compiler) makesNodes() bool { return !c.spec.has(UserNamespace) }

// devices makes Spec.Devices. What is there already is replaced.
func (c *compiler) devices() {
	if len(c.spec.Devices) == 0 {
		return
	}
	c.call("clear umask", unix.SYS_UMASK, num(0))
	for i, d := range c.spec.Devices {
		c.device(i, d)
	}
	c.call("set umask", unix.SYS_UMASK, num(0o022))
}

func (c *compiler) device(i int, d Device) {
	clean := imagePath(d.Path)
	what, fault := "device "+clean, deviceFault(d)
	base, rest, resolve := c.root, clean, uint64(inImage)
	if m, r, ok := c.below(clean); ok {
		base, rest, resolve = m.root, r, inMount
	} else if strings.HasPrefix(clean, "dev/") {
		resolve = noLinks
	}
	parent, name := path.Split(rest)
	dir, temporary := c.makeDirectories(base, parent, resolve, clean)
	c.call(what, unix.SYS_UNLINKAT, dir, c.str(name), num(0)).ignore(unix.ENOENT).faults(fault)
	if node, bound := c.nodes[i]; bound {
		c.call(what, unix.SYS_MKNODAT, dir, c.str(name), num(unix.S_IFREG|0o666), num(0)).faults(fault)
		c.attachAt(what, node, dir, name).faults(fault)
		c.close(what, node)
	} else {
		kinds := map[byte]int{'c': unix.S_IFCHR, 'b': unix.S_IFBLK, 'p': unix.S_IFIFO}
		c.call(what, unix.SYS_MKNODAT, dir, c.str(name), num(uint64(kinds[d.Type])|uint64(d.Mode&0o7777)),
			num(unix.Mkdev(uint32(d.Major), uint32(d.Minor)))).faults(fault)
		c.call(what, unix.SYS_FCHOWNAT, dir, c.str(name), num(d.UID), num(d.GID), num(unix.AT_SYMLINK_NOFOLLOW)).faults(idFault)
	}
	if temporary {
		c.close(what, dir)
	}
}

// cloneDevices clones the host's nodes that a user namespace forbids to make.
func (c *compiler) cloneDevices() {
	for i, d := range c.spec.Devices {
		if d.Type == 'p' || c.makesNodes() {
			continue
		}
		what := "open device " + d.Path
		fd := c.addPlace(place{what: "device", path: path.Clean(d.Path), flags: unix.O_PATH | unix.O_NOFOLLOW, device: &d})
		s, clone := c.cloneTree(what, fd, "", unix.AT_EMPTY_PATH)
		s.faults(deviceFault(d))
		c.close(what, fd)
		c.setattr(what, clone, false, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, unix.MOUNT_ATTR_NODEV, unix.MS_PRIVATE)
		c.nodes[i] = clone
	}
}

// is reports whether the open file f is the device.
func (d *Device) is(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	kind := map[byte]uint32{'c': unix.S_IFCHR, 'b': unix.S_IFBLK}[d.Type]
	if st.Mode&unix.S_IFMT != kind || st.Rdev != unix.Mkdev(uint32(d.Major), uint32(d.Minor)) {
		return errdefs.WithPublic(invalid("%s is not device %c %d:%d", d.Path, d.Type, d.Major, d.Minor),
			fmt.Sprintf("device %q does not exist", d.Path))
	}
	return nil
}

func deviceFault(d Device) func(unix.Errno) error {
	return func(errno unix.Errno) error {
		switch errno {
		case unix.EPERM, unix.EINVAL, unix.ENXIO, unix.EISDIR, unix.EBUSY, unix.EROFS, unix.ENOTDIR, unix.ELOOP, unix.EXDEV:
			return errdefs.WithPublic(fmt.Errorf("%w: %w", errno, errdefs.ErrInvalid), fmt.Sprintf("device %q cannot be made", d.Path))
		}
		return nil
	}
}

// fileMount binds the file dir/path onto a new file of /dev.
func (c *compiler) fileMount(name string, dir value, path, entry string) {
	// A mount of the Spec may be there already.
	c.call(name, unix.SYS_MKNODAT, c.fresh["dev"].root, c.str(entry), num(unix.S_IFREG|0o666), num(0)).ignore(unix.EEXIST)
	fd := c.hostNode(name, dir, path)
	c.attachAt(name, fd, c.fresh["dev"].root, entry)
	c.close(name, fd)
}

// hostNode clones the node dir/path, or returns the clone that cloneNodes made
// for the same purpose.
func (c *compiler) hostNode(purpose string, dir value, path string) value {
	if fd, ok := c.hostNodes[purpose]; ok {
		return fd
	}
	_, fd := c.cloneTree(purpose, dir, path, unix.AT_SYMLINK_NOFOLLOW)
	return fd
}

// cloneNodes clones the host's harmless nodes while they can still be reached:
// a mount namespace to join has its own.
func (c *compiler) cloneNodes() {
	for _, p := range c.spec.MaskedPaths {
		c.hostNodes["mask "+p] = c.hostNode("mask "+p, atCwd(), "/dev/null")
	}
	if c.makesNodes() {
		return
	}
	for _, d := range defaultDevices {
		c.hostNodes["device "+d.name] = c.hostNode("device "+d.name, atCwd(), "/dev/"+d.name)
	}
}
