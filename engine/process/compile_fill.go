package process

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// fill writes the files of a new tmpfs. It holds nothing but what is made here,
// so a path cannot lead out of it.
func (c *compiler) fill(clean string, mnt value, m Mount) {
	made := map[string]bool{}
	for _, f := range m.Files {
		c.parents(clean, mnt, f.Path, made)
		what := "write file /" + path.Join(clean, f.Path)
		fd := c.slot("file")
		c.call(what, unix.SYS_OPENAT, mnt, c.str(f.Path),
			num(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC), num(0o600)).to(fd).faults(fillFault(clean))
		if len(f.Data) > 0 {
			data := c.buf(f.Data, fmt.Sprintf("<%d bytes>", len(f.Data)))
			c.call(what, unix.SYS_WRITE, fd, data, num(len(f.Data))).wants(len(f.Data)).faults(fillFault(clean))
		}
		c.call(what, unix.SYS_FCHOWN, fd, num(f.UID), num(f.GID))
		c.call(what, unix.SYS_FCHMOD, fd, num(f.Mode))
		c.close(what, fd)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Links)) {
		c.parents(clean, mnt, name, made)
		c.call("make link /"+path.Join(clean, name), unix.SYS_SYMLINKAT, c.str(m.Links[name]), mnt, c.str(name)).faults(fillFault(clean))
	}
}

// parents makes the directories above name that are not made yet.
func (c *compiler) parents(clean string, mnt value, name string, made map[string]bool) {
	dir := path.Dir(name)
	if dir == "." || made[dir] {
		return
	}
	c.parents(clean, mnt, dir, made)
	made[dir] = true
	c.call("make directory /"+path.Join(clean, dir), unix.SYS_MKDIRAT, mnt, c.str(dir), num(0o755)).ignore(unix.EEXIST).faults(fillFault(clean))
}

func fillFault(clean string) func(unix.Errno) error {
	return func(errno unix.Errno) error {
		switch errno {
		case unix.ENOSPC:
			return errdefs.WithPublic(fmt.Errorf("%w: %w", errno, errdefs.ErrInvalid), "the files of /"+clean+" do not fit into it")
		case unix.EEXIST, unix.ENOTDIR, unix.ENAMETOOLONG:
			return fmt.Errorf("%w: %w", errno, errdefs.ErrInvalid)
		}
		return nil
	}
}

// checkContents checks what a mount is to hold.
func (m *Mount) checkContents() error {
	if len(m.Files)+len(m.Links) > 0 && (m.Type != "tmpfs" || m.Part) {
		return invalid("files for %s at %q", m.Type, m.Destination)
	}
	for _, f := range m.Files {
		if !fs.ValidPath(f.Path) || f.Path == "." || hasNUL(f.Path) || f.Mode&^0o7777 != 0 || f.UID > maxID || f.GID > maxID {
			return invalid("file %q of mount %q", f.Path, m.Destination)
		}
	}
	for name, to := range m.Links {
		if !fs.ValidPath(name) || name == "." || hasNUL(name) || hasNUL(to) || to == "" {
			return invalid("link %q of mount %q", name, m.Destination)
		}
	}
	return nil
}
