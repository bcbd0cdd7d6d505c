package process

import (
	"errors"
	"fmt"
	"os"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// A target is a running process to join.
type target struct {
	pid   int
	pidfd *os.File
	// flags are the CLONE_NEW* of its namespaces that are not the runner's.
	flags int
}

// namespaceFiles are the names in /proc/PID/ns.
var namespaceFiles = []struct {
	name string
	flag int
}{
	{"user", unix.CLONE_NEWUSER},
	{"mnt", unix.CLONE_NEWNS},
	{"pid", unix.CLONE_NEWPID},
	{"net", unix.CLONE_NEWNET},
	{"uts", unix.CLONE_NEWUTS},
	{"ipc", unix.CLONE_NEWIPC},
	{"cgroup", unix.CLONE_NEWCGROUP},
	{"time", unix.CLONE_NEWTIME},
}

// newTarget looks at a process by its pid and pidfd. The caller closes the
// target's descriptor. errdefs.ErrConflict when the process has ended.
func newTarget(pid int, pidfd *os.File) (*target, error) {
	own, err := dupFile(pidfd)
	if err != nil {
		return nil, err
	}
	t := &target{pid: pid, pidfd: own}
	if err := t.compare(); err != nil {
		_ = own.Close()
		return nil, err
	}
	return t, nil
}

// compare finds out which namespaces differ. An absent file is a kind that
// this kernel does not know.
func (t *target) compare() error {
	for _, ns := range namespaceFiles {
		var theirs, ours unix.Stat_t
		err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", t.pid, ns.name), &theirs)
		if err == nil {
			err = unix.Stat("/proc/self/ns/"+ns.name, &ours)
		}
		switch {
		case errors.Is(err, unix.ENOENT) && t.alive() == nil:
			continue
		case err != nil:
			return fmt.Errorf("look at the namespaces of process %d: %w", t.pid, errors.Join(err, t.alive()))
		case theirs.Ino != ours.Ino || theirs.Dev != ours.Dev:
			t.flags |= ns.flag
		}
	}
	// It still has its pid, so that was it.
	return t.alive()
}

func (t *target) alive() error {
	if err := linux.PidfdSignal(t.pidfd, 0); err != nil {
		return fmt.Errorf("process to join has ended: %w", errdefs.ErrConflict)
	}
	return nil
}

// dupFile returns another descriptor of f that blocks no less than f does.
func dupFile(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var got error
	if err := raw.Control(func(old uintptr) { fd, got = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if got != nil {
		return nil, os.NewSyscallError("fcntl", got)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// compileExec is compile for a Spec with Join.
//
// The child joins all namespaces of the target at once, through its pidfd,
// before it forks: so it never is in some of them only, and nothing of the
// target's file system, its /proc least, is needed for it. From there on it is
// visible inside, but no one inside may trace it: its memory is that of an
// executable of the host's user namespace and it is not dumpable. The working
// directory is opened below the new root without magic links, when nothing of
// the host is open but the socket to the runner.
func (p *Program) compileExec(spec *Spec, facts facts, t *target) error {
	if err := spec.validate(); err != nil {
		return err
	}
	c := &compiler{Program: p, spec: spec, facts: facts, target: t, dirs: map[string]value{}}
	if err := c.checkFacts(); err != nil {
		return err
	}
	c.joinTarget()
	c.workDirectory()
	c.finish()
	return nil
}

// joinTarget ends in a forked child inside the target, with c.root as its root.
func (c *compiler) joinTarget() {
	pidfd := c.placeFile("process to join", c.target.pidfd)
	ownMounts := c.target.flags&unix.CLONE_NEWNS != 0
	if !ownMounts {
		c.rootFD = c.place("root of the process to join", fmt.Sprintf("/proc/%d/root", c.target.pid), unix.O_PATH|unix.O_DIRECTORY)
	}
	c.placeFiles()
	c.call("close on exec", unix.SYS_CLOSE_RANGE, num(statusFD), num(uint64(^uint32(0))), num(unix.CLOSE_RANGE_CLOEXEC))
	c.close("close program", num(selfFD))
	c.call("set umask", unix.SYS_UMASK, num(0o022))
	c.rlimits()
	c.attributes()
	c.call("forbid tracing", unix.SYS_PRCTL, num(unix.PR_SET_DUMPABLE), num(0))
	if c.target.flags != 0 {
		c.call("join namespaces", unix.SYS_SETNS, pidfd, num(c.target.flags)).faults(joinFault)
	}
	c.close("close process to join", pidfd)
	if !ownMounts {
		c.call("enter root", unix.SYS_FCHDIR, c.rootFD)
		c.call("enter root", unix.SYS_CHROOT, c.str("."))
		c.close("close root", c.rootFD)
	}
	if c.ownUsers() {
		c.call("become root: groups", unix.SYS_SETGROUPS, num(0), num(0))
		c.call("become root: gid", unix.SYS_SETRESGID, num(0), num(0), num(0)).faults(idFault)
		c.call("become root: uid", unix.SYS_SETRESUID, num(0), num(0), num(0)).faults(idFault)
		// It is what the kernel does on a change of ids, unless fs.suid_dumpable
		// says otherwise.
		c.call("forbid tracing", unix.SYS_PRCTL, num(unix.PR_SET_DUMPABLE), num(0))
	}
	c.fork()
	for i := range c.steps {
		if c.steps[i].nr == unix.SYS_CLONE {
			c.steps[i].fault = joinFault
		}
	}
	c.prepared()
	c.root = c.slot("root")
	c.call("open root", unix.SYS_OPENAT, atCwd(), c.str("/"), num(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)).to(c.root)
	c.call("enter root", unix.SYS_FCHDIR, c.root)
	if c.spec.Terminal {
		c.openTerminal(c.root, "dev/pts/ptmx", noLinks)
	}
}

// joinFault: the first process of the namespaces has ended.
func joinFault(errno unix.Errno) error {
	if errno == unix.ESRCH || errno == unix.ENOMEM {
		return fmt.Errorf("process to join has ended: %w", wrapErrno(errno, errdefs.ErrConflict))
	}
	return nil
}
