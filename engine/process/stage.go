package process

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A stage is a mount namespace for the set-up of containers, made once for a
// runner. A new mount namespace begins as a copy of another, and to copy and
// take down that of a host with thousands of mounts costs as many allocations:
// a child enters the stage before it makes its own.
//
// The stage belongs to the host's root and never changes. It holds
//
//	/      a tmpfs: empty directories, for the mounts below, for masks and for
//	       control groups of v1
//	/dev   the default devices, of that tmpfs: chmod inside reaches no node of the host
//	/proc  the host's, because the kernel lets a user namespace mount proc and
//	/sys   sysfs only where it sees a whole one already (mount_too_revealing, fs/namespace.c)
//
// The super block of the tmpfs is read-only and nobody in a container has a
// right to change that, so what containers share of it is no place to write to.
const (
	stageMask   = "mask" // the empty directory
	stageDev    = "dev"
	stageGroups = "cgroup"
)

// stageDirs are the directories of the stage.
var stageDirs = [...]string{stageDev, "proc", "sys", stageMask, stageGroups}

// newStage makes a stage that lives as long as the file.
func newStage(null *os.File, cgroups []hierarchy) (*os.File, error) {
	prog := stageProgram(cgroups)
	child, status, err := launch(prog, null, nil)
	if err != nil {
		return nil, fmt.Errorf("make stage: %w", err)
	}
	h := &namespaceHolder{child, status}
	defer h.release()
	if err := awaitReady(prog, status); err != nil {
		return nil, fmt.Errorf("make stage: %w", err)
	}
	// A child that nobody has waited for keeps its number.
	stage, err := os.Open(filepath.Join(h.proc(), "ns", MountNamespace.info().file))
	if err != nil {
		return nil, fmt.Errorf("make stage: %w", err)
	}
	return stage, nil
}

// stageProgram makes a stage in a mount namespace of its own and waits in it.
func stageProgram(cgroups []hierarchy) *Program {
	p := newProgram()
	c := &compiler{Program: p}
	p.call("close on exec", unix.SYS_CLOSE_RANGE, num(statusFD), num(uint64(^uint32(0))), num(unix.CLOSE_RANGE_CLOEXEC))
	p.call("make mount namespace", unix.SYS_UNSHARE, num(unix.CLONE_NEWNS))
	p.call("make mounts private", unix.SYS_MOUNT, num(0), p.str("/"), num(0), num(unix.MS_REC|unix.MS_PRIVATE), num(0))
	root := c.filesystem("stage", "tmpfs", nosuidNodevNoexec, "mode=555", "size=4k")
	c.attachAt("mount stage", root, atCwd(), "/")
	p.call("set umask", unix.SYS_UMASK, num(0))
	for _, name := range stageDirs {
		p.call("make directory /"+name, unix.SYS_MKDIRAT, root, p.str(name), num(0o555))
	}
	c.makeGroupDirs("make directories of control groups", root, stageGroups+"/", stagedGroups(cgroups))
	for _, d := range defaultDevices {
		p.call("device "+d.name, unix.SYS_MKNODAT, root, p.str(stageDev+"/"+d.name), num(unix.S_IFCHR|0o666), num(unix.Mkdev(d.major, d.minor)))
	}
	_, dev := c.cloneTree("mount dev", root, stageDev, 0)
	c.setattr("mount dev", dev, false, unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NODEV, 0)
	c.attachAt("mount dev", dev, root, stageDev)
	for _, name := range []string{"proc", "sys"} {
		_, mnt := c.cloneTree("mount "+name, atCwd(), "/"+name, 0)
		c.attachAt("mount "+name, mnt, root, name)
	}
	c.protectSuper("make stage read-only", root)
	c.setattr("make stage read-only", root, false, unix.MOUNT_ATTR_RDONLY, 0, 0)
	p.call("enter stage", unix.SYS_FCHDIR, root)
	p.call("enter stage", unix.SYS_PIVOT_ROOT, p.str("."), p.str("."))
	p.call("leave host", unix.SYS_UMOUNT2, p.str("."), num(unix.MNT_DETACH))
	c.waitForRunner()
	return p
}

// protectSuper makes the super block of a mount read-only.
func (c *compiler) protectSuper(name string, mnt value) {
	ctx := c.slot("context")
	c.call(name, unix.SYS_FSPICK, mnt, c.str(""), num(unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)).to(ctx)
	c.call(name, unix.SYS_FSCONFIG, ctx, num(unix.FSCONFIG_SET_FLAG), c.str("ro"), num(0), num(0))
	c.call(name, unix.SYS_FSCONFIG, ctx, num(unix.FSCONFIG_CMD_RECONFIGURE), num(0), num(0), num(0))
	c.close(name, ctx)
}

// stageable reports whether the set-up of s needs nothing of the host once its
// bind mounts are cloned: hooks of createContainer run among the host's mounts,
// and a file system with a source or with layers looks for them there.
func (s *Spec) stageable() bool {
	if !s.has(MountNamespace) || s.joins(MountNamespace) || len(s.Hooks.CreateContainer) > 0 {
		return false
	}
	return !slices.ContainsFunc(s.Mounts, func(m Mount) bool {
		o, err := m.options()
		return err != nil || !o.bind && !sourceless(m.Type)
	})
}

// sourceless reports whether a file system is made of nothing on the host.
func sourceless(kind string) bool {
	switch kind {
	case "proc", "sysfs", "tmpfs", "devpts", "mqueue":
		return true
	}
	return strings.HasPrefix(kind, "cgroup")
}

// enterStage goes to where the new mount namespace is copied from.
func (c *compiler) enterStage() {
	if !c.staged {
		return
	}
	c.call("enter stage", unix.SYS_SETNS, c.stage, num(unix.CLONE_NEWNS))
	c.close("enter stage", c.stage)
}

// emptyMounts returns what makes clones of an empty read-only directory, for
// masks.
func (c *compiler) emptyMounts() func(what string) value {
	if c.staged {
		return func(what string) value {
			_, clone := c.cloneTree(what, atCwd(), "/"+stageMask, 0)
			return clone
		}
	}
	// Only an attached mount can be cloned, so one is parked on the host's /proc,
	// which pivot leaves behind.
	empty := c.filesystem("mask", "tmpfs", nosuidNodevNoexec|unix.MOUNT_ATTR_RDONLY, "mode=555", "size=4k")
	c.attachAt("mount mask", empty, atCwd(), "/proc")
	return func(what string) value {
		_, clone := c.cloneTree(what, empty, "", unix.AT_EMPTY_PATH)
		return clone
	}
}
