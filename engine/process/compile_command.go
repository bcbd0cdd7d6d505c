package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// finish makes the command of a process that is where it belongs: its files,
// its rights, its filter; then the gate and the last hooks.
func (c *compiler) finish() {
	c.stdio()
	c.affinity("set processors of the command", c.spec.FinalAffinity)
	if c.spec.Personality != nil {
		c.call("set personality", unix.SYS_PERSONALITY, num(*c.spec.Personality)).faults(rightFault)
	}
	if c.spec.Umask != nil {
		c.call("set umask of the command", unix.SYS_UMASK, num(*c.spec.Umask))
	}
	c.credentials()
	c.resetSignals()
	switch {
	case c.spec.Gate != nil:
		c.waitAtGate()
	case len(c.spec.Hooks.StartContainer) > 0:
		c.sync("run startContainer hooks", recordCreated)
	}
	c.command()
}

// credentials drops rights, then loads the filter as late as its kind allows:
// without no_new_privs it takes the capabilities that are dropped behind it.
func (c *compiler) credentials() {
	sets := c.capabilities()
	c.call("clear ambient capabilities", unix.SYS_PRCTL, num(unix.PR_CAP_AMBIENT), num(unix.PR_CAP_AMBIENT_CLEAR_ALL), num(0), num(0), num(0))
	for n := range 64 {
		if sets.bounding>>n&1 == 0 {
			// EINVAL: this kernel does not know so many.
			c.call("drop from bounding set", unix.SYS_PRCTL, num(unix.PR_CAPBSET_DROP), num(n), num(0), num(0), num(0)).ignore(unix.EINVAL)
		}
	}
	if c.spec.NoNewPrivs {
		c.call("set no_new_privs", unix.SYS_PRCTL, num(unix.PR_SET_NO_NEW_PRIVS), num(1), num(0), num(0), num(0))
	} else {
		c.filter()
	}
	// The user may be other than root: keep the rights until capset.
	c.call("keep capabilities", unix.SYS_PRCTL, num(unix.PR_SET_KEEPCAPS), num(1), num(0), num(0), num(0))
	groups := []byte{}
	for _, g := range c.spec.Groups {
		groups = binary.LittleEndian.AppendUint32(groups, g)
	}
	c.call("set groups", unix.SYS_SETGROUPS, num(len(c.spec.Groups)), c.buf(groups, fmt.Sprint(c.spec.Groups))).faults(idFault)
	c.call("set gid", unix.SYS_SETRESGID, num(c.spec.GID), num(c.spec.GID), num(c.spec.GID)).faults(idFault)
	c.call("set uid", unix.SYS_SETRESUID, num(c.spec.UID), num(c.spec.UID), num(c.spec.UID)).faults(idFault)

	// struct __user_cap_header_struct and two of __user_cap_data_struct.
	head := binary.LittleEndian.AppendUint32(nil, unix.LINUX_CAPABILITY_VERSION_3)
	c.call("set capabilities", unix.SYS_CAPSET, c.buf(append(head, 0, 0, 0, 0), "{v3}"), c.buf(sets.encode(), sets.String())).faults(rightFault)
	for n := range 64 {
		if sets.ambient>>n&1 != 0 {
			c.call("raise ambient capability", unix.SYS_PRCTL, num(unix.PR_CAP_AMBIENT), num(unix.PR_CAP_AMBIENT_RAISE), num(n), num(0), num(0)).faults(rightFault)
		}
	}
	if c.spec.NoNewPrivs {
		c.filter()
	}
}

// idFault: the kernel refuses ids that the user namespace does not map.
func idFault(errno unix.Errno) error {
	if errno != unix.EINVAL {
		return nil //nolint:nilerr // nothing to add to another errno
	}
	return errdefs.WithPublic(fmt.Errorf("%w: %w", errno, errdefs.ErrInvalid), "the user or a group is outside of the instance's ids")
}

func (c *compiler) filter() {
	if len(c.spec.Seccomp) == 0 {
		return
	}
	text := c.buf(c.spec.Seccomp.bytes(), "")
	prog := binary.LittleEndian.AppendUint64(nil, uint64(len(c.spec.Seccomp))) // struct sock_fprog
	fprog := c.buf(append(prog, make([]byte, 8)...), fmt.Sprintf("{%d instructions}", len(c.spec.Seccomp)))
	c.relocs = append(c.relocs, reloc{fprog.off + 8, text.off})
	load := func() *step {
		return c.call("load system call filter", unix.SYS_SECCOMP, num(unix.SECCOMP_SET_MODE_FILTER), num(c.spec.SeccompFlags), fprog).faults(rightFault)
	}
	if c.spec.SeccompFlags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
		load()
		return
	}
	// The runner takes the listener out of the child, which needs no other call
	// than this write, as long as nobody answers notifications.
	msg, listener := c.record(recordListener, "listener")
	load().to(listener)
	c.call("hand over the filter's listener", unix.SYS_WRITE, c.status(), msg, num(recordSize))
	c.call("hand over the filter's listener", unix.SYS_READ, c.status(), c.buf(make([]byte, 8), "answer"), num(1)).wants(1)
	c.close("close the filter's listener", listener)
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (c *compiler) resetSignals() {
	// A runner that ignores a signal must not make the command ignore it.
	action := c.buf(make([]byte, 32), "{default}")
	for sig := 1; sig <= 64; sig++ {
		if sig != int(unix.SIGKILL) && sig != int(unix.SIGSTOP) {
			c.call("reset signals", unix.SYS_RT_SIGACTION, num(sig), action, num(0), num(8))
		}
	}
	c.call("unblock signals", unix.SYS_RT_SIGPROCMASK, num(2), c.buf(make([]byte, 8), "{}"), num(0), num(8)) // SIG_SETMASK
}

// command replaces the child by the command.
func (c *compiler) command() { c.execute(searchPath(c.spec.Args[0], c.spec.Env)) }

// execute tries each candidate inside the new root; a second round tells "not
// found" from "found, but may not be executed".
func (c *compiler) execute(candidates []string) {
	argv, envp := c.pointers(c.spec.Args, "argv"), c.pointers(c.spec.Env, "envp")
	ready, _ := c.record(recordReady, "ready")
	c.call("report ready", unix.SYS_WRITE, c.status(), ready, num(recordSize))
	fault := commandFault(c.spec.Args[0])
	for _, file := range candidates {
		c.call("execute command", unix.SYS_EXECVE, c.str(file), argv, envp).
			ignore(unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ELOOP).faults(fault)
	}
	for _, file := range candidates {
		c.call("execute command", unix.SYS_EXECVE, c.str(file), argv, envp).
			ignore(unix.ENOENT, unix.ENOTDIR, unix.ELOOP).faults(fault)
	}
	c.call("execute command", nrFail, num(int(unix.ENOENT))).faults(fault)
}

// searchPath lists the files that a command without a slash may mean.
// Elements of PATH that are not absolute are left out.
func searchPath(command string, env []string) []string {
	if strings.Contains(command, "/") {
		return []string{command}
	}
	list := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			list = v
		}
	}
	var files []string
	for dir := range strings.SplitSeq(list, ":") {
		if path.IsAbs(dir) {
			files = append(files, path.Join(dir, command))
		}
	}
	return files
}

func commandFault(command string) func(unix.Errno) error {
	const shown = 128
	if len(command) > shown {
		command = command[:shown] + "…"
	}
	return func(errno unix.Errno) error {
		text := fmt.Sprintf("command %q cannot be executed", command)
		switch {
		case errors.Is(errno, unix.ENOMEM):
			return nil
		case errors.Is(errno, unix.ENOENT), errors.Is(errno, unix.ENOTDIR), errors.Is(errno, unix.ELOOP):
			text = fmt.Sprintf("command %q not found in the image", command)
		case errors.Is(errno, unix.EACCES), errors.Is(errno, unix.EPERM):
			text = fmt.Sprintf("command %q of the image may not be executed", command)
		case errors.Is(errno, unix.ENOEXEC):
			text = fmt.Sprintf("command %q of the image has no executable format of this host", command)
		case errors.Is(errno, unix.E2BIG):
			text = fmt.Sprintf("arguments and environment of command %q are too long", command)
		}
		return errdefs.WithPublic(fmt.Errorf("%w: %w", errno, errdefs.ErrInvalid), text)
	}
}
