package process

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Detach starts an ordinary program of the host that outlives the caller and
// is no child of it: it has a session of its own, the working directory "/",
// /dev/null as input, output as stdout and stderr, no other open file, default
// signal handling, and the host's init (or subreaper) as parent. argv[0] is an
// absolute path. It stays in the caller's control group.
//
// Detach returns when the program is executed, with its pid and a descriptor
// that becomes readable at its end (see linux.AwaitPidfd); the caller closes
// the descriptor.
func Detach(ctx context.Context, argv, env []string, output *os.File) (int, *os.File, error) {
	if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
		return 0, nil, invalid("command %q is not an absolute path", argv)
	}
	for _, s := range append(append([]string{}, argv...), env...) {
		if hasNUL(s) {
			return 0, nil, invalid("argument or environment with a NUL")
		}
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = null.Close() }()
	prog := detachProgram(argv, env, output)
	child, status, err := launch(prog, null, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("detach %s: %w", argv[0], err)
	}
	defer func() { _ = status.Close() }()
	b := &birth{prog: prog, child: child, status: status}
	if err := b.await(ctx); err != nil {
		return 0, nil, fmt.Errorf("detach %s: %w", argv[0], err)
	}
	return b.pid, b.pidfd, nil
}

func detachProgram(argv, env []string, output *os.File) *Program {
	c := &compiler{Program: newProgram(), spec: &Spec{Args: argv, Env: env}}
	out := c.placeFile("output", output)
	c.call("close on exec", unix.SYS_CLOSE_RANGE, num(statusFD), num(uint64(^uint32(0))), num(unix.CLOSE_RANGE_CLOEXEC))
	for fd := 1; fd < 3; fd++ {
		c.call("connect output", unix.SYS_DUP3, out, num(fd), num(0))
	}
	msg, pid := c.record(recordPid, "pid")
	c.call("fork", unix.SYS_CLONE, num(int(unix.SIGCHLD)), num(0), num(0), num(0), num(0)).to(pid)
	child := c.jumpZero()
	c.call("report pid", unix.SYS_WRITE, num(statusFD), msg, num(recordSize))
	c.call("end of parent", unix.SYS_EXIT_GROUP, num(0))
	c.land(child)
	c.call("new session", unix.SYS_SETSID)
	c.call("set umask", unix.SYS_UMASK, num(0o077))
	c.call("enter /", unix.SYS_CHDIR, c.str("/"))
	c.resetSignals()
	c.command()
	return c.Program
}
