package process

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// The guard is a loop of a few system calls that restarts its command, the
// keeper, whenever that has ended, and writes down how processes end that the
// keeper has left behind. It runs in the interpreter, as set-up programs do:
// it has no runtime, allocates nothing and can hardly fail. It also holds what
// must outlive a keeper, without ever looking at it (guardFiles).
//
// A guard ends when it is killed; see Guard.Lost for what follows.

// Descriptors of the guard and of its command, in the order of guardFiles.
const (
	guardOutput   = firstFD + iota // only until it is stdout and stderr
	guardState                     // a memfd: see the layout in guard_state.go
	guardQueueIn                   // a seqpacket socket: messages are parked in it
	guardQueueOut                  // its peer
	guardPipeOut                   // the reading end of the pipe that chunks of consoles pass through
	guardPipeIn                    // its writing end
	guardLock                      // the caller's: it is open as long as guard or command lives
	guardFileEnd
)

// guardVariable is in the environment of a guard's command, trialVariable in
// that of one on trial (Guard.Exec).
const (
	guardName     = "GANTRY_GUARD"
	guardVariable = guardName + "=1"
	trialVariable = guardName + "=trial"
)

// guardPause is how long the guard waits before it starts its command again.
const guardPause = 50 * time.Millisecond

// GuardOptions of StartGuard.
type GuardOptions struct {
	// Command is kept running; Command[0] is an absolute path. It finds what
	// the guard keeps by InheritGuard.
	Command, Env []string
	// Output is stdout and stderr of guard and command, Lock any file that both
	// hold open.
	Output, Lock *os.File
}

// A StartedGuard is a guard that the caller has started. It is no child.
type StartedGuard struct {
	Pid   int
	pidfd *os.File
	state *os.File
}

// StartGuard starts a guard and its command, detached from the caller as
// Detach does it. It returns when the command is executed. Close the guard
// when done with it; it runs on.
func StartGuard(ctx context.Context, o GuardOptions) (*StartedGuard, error) {
	if len(o.Command) == 0 || !filepath.IsAbs(o.Command[0]) {
		return nil, invalid("command %q is not an absolute path", o.Command)
	}
	files, err := guardFiles(o)
	if err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	defer linux.CloseAll(files[1 : len(files)-1])
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	prog := guardProgram(files, o.Command[0])
	child, status, err := launch(prog, null, nil)
	if err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	defer func() { _ = status.Close() }()
	b := &birth{prog: prog, child: child, status: status}
	if err := b.await(ctx); err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	g := &StartedGuard{Pid: b.pid, pidfd: b.pidfd}
	fd, err := unix.FcntlInt(files[1].Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(g.Kill(), fmt.Errorf("start guard: %w", err))
	}
	g.state = os.NewFile(uintptr(fd), "guard state")
	return g, nil
}

// CommandEnded reports whether the command has ended since the guard began.
func (g *StartedGuard) CommandEnded() (bool, error) {
	info, err := g.state.Stat()
	return err == nil && info.Size() > exitsBase, err
}

// Kill ends the guard, but not its command.
func (g *StartedGuard) Kill() error {
	err := linux.PidfdSignal(g.pidfd, int(unix.SIGKILL))
	if err == nil {
		err = linux.AwaitPidfd(g.pidfd)
	}
	return err
}

// Close releases what the caller has of the guard.
func (g *StartedGuard) Close() error { return errors.Join(g.pidfd.Close(), g.state.Close()) }

// guardFiles makes what a guard holds, from guardOutput on. All but the first
// and the last are the caller's to close.
func guardFiles(o GuardOptions) (files []*os.File, err error) {
	defer func() {
		if err != nil && len(files) > 0 {
			linux.CloseAll(files[1:])
		}
	}()
	files = []*os.File{o.Output}
	state, err := newGuardState(o.Command, o.Env)
	if err != nil {
		return files, err
	}
	files = append(files, state)
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return files, os.NewSyscallError("socketpair", err)
	}
	files = append(files, os.NewFile(uintptr(ends[0]), "queue"), os.NewFile(uintptr(ends[1]), "queue"))
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return files, os.NewSyscallError("pipe2", err)
	}
	files = append(files, os.NewFile(uintptr(ends[0]), "pipe"), os.NewFile(uintptr(ends[1]), "pipe"))
	return append(files, o.Lock), nil
}

// guardProgram detaches itself from the caller, as detachProgram does, and
// becomes the guard.
func guardProgram(files []*os.File, command string) *Program {
	c := &compiler{Program: newProgram(), spec: &Spec{}}
	for _, f := range files {
		c.placeFile("guard file", f)
	}
	for fd := 1; fd < 3; fd++ {
		c.call("connect output", unix.SYS_DUP3, num(guardOutput), num(fd), num(0))
	}
	c.call("close on exec", unix.SYS_CLOSE_RANGE, num(statusFD), num(guardOutput), num(unix.CLOSE_RANGE_CLOEXEC))
	msg, pid := c.record(recordPid, "pid")
	c.call("fork", unix.SYS_CLONE, num(int(unix.SIGCHLD)), num(0), num(0), num(0), num(0)).to(pid)
	child := c.jumpZero()
	c.call("report pid", unix.SYS_WRITE, num(statusFD), msg, num(recordSize))
	c.call("end of parent", unix.SYS_EXIT_GROUP, num(0))
	c.land(child)
	c.call("new session", unix.SYS_SETSID)
	c.call("set umask", unix.SYS_UMASK, num(0o077))
	c.call("enter /", unix.SYS_CHDIR, c.str("/"))
	action := c.buf(make([]byte, 32), "{default}")
	for sig := 1; sig <= 64; sig++ {
		if sig != int(unix.SIGKILL) && sig != int(unix.SIGSTOP) {
			c.call("reset signals", unix.SYS_RT_SIGACTION, num(sig), action, num(0), num(8))
		}
	}
	for fd := selfFD; fd <= guardOutput; fd++ {
		c.call("close file", unix.SYS_CLOSE, num(fd))
	}
	c.guardLoop(command)
	return c.Program
}

// renewProgram is the guard that a keeper turns into. All files are in place.
func renewProgram() *Program {
	c := &compiler{Program: newProgram(), spec: &Spec{}}
	c.guardLoop("")
	return c.Program
}

// guardLoop never ends.
func (c *compiler) guardLoop(command string) {
	c.call("adopt orphans", unix.SYS_PRCTL, num(unix.PR_SET_CHILD_SUBREAPER), num(1), num(0), num(0), num(0))
	c.call("set name", unix.SYS_PRCTL, num(unix.PR_SET_NAME), c.str("gantry-guard"), num(0), num(0), num(0))
	// A signal to a group of processes is the keeper's.
	c.call("block signals", unix.SYS_RT_SIGPROCMASK, num(2), c.buf([]byte{255, 255, 255, 255, 255, 255, 255, 255}, "{all}"), num(0), num(8))
	c.call("map state", unix.SYS_MMAP, num(uint64(sharedAddress)), num(exitsBase), num(unix.PROT_READ),
		num(unix.MAP_SHARED|unix.MAP_FIXED), num(guardState), num(0))
	self := c.slot("guard")
	c.call("own pid", unix.SYS_GETPID).to(self)
	c.call("tell own pid", unix.SYS_PWRITE64, num(guardState), c.at(self), num(8), num(offGuardPid))

	keeper := c.slot("keeper")
	spawn := c.here()
	c.call("start keeper", unix.SYS_CLONE, num(unix.CLONE_PIDFD|int(unix.SIGCHLD)), num(0), c.at(keeper), num(0), num(0)).
		ignore(unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE)
	forked := jump{step: len(c.steps) - 1, onZero: true}
	failed := c.jumpIgnored()
	if command != "" {
		// From here on nobody but the keeper has it, until it is executed. (The
		// number may be the keeper's pidfd the next time: it is closed once.)
		c.call("close status", unix.SYS_DUP3, num(0), num(statusFD), num(unix.O_CLOEXEC))
	}
	c.reapLoop(keeper)
	c.call("forget keeper", unix.SYS_CLOSE, keeper)
	c.land(failed)
	pause := binary.LittleEndian.AppendUint64(make([]byte, 8), uint64(guardPause))
	c.call("pause", unix.SYS_NANOSLEEP, c.buf(pause, guardPause.String()), num(0)).ignore(unix.EINTR)
	c.backZero(spawn)

	c.land(forked)
	c.call("unblock signals", unix.SYS_RT_SIGPROCMASK, num(2), c.buf(make([]byte, 8), "{}"), num(0), num(8))
	words := c.buf(make([]byte, 24), "&{path argv envp}")
	c.call("look up command", unix.SYS_PREAD64, num(guardState), words, num(24), num(offCommand)).wants(24)
	if command != "" {
		ready, _ := c.record(recordReady, "ready")
		c.call("report ready", unix.SYS_WRITE, num(statusFD), ready, num(recordSize)).ignore(unix.EBADF)
	}
	path, argv, envp := c.slotAt(words.off, "path"), c.slotAt(words.off+8, "argv"), c.slotAt(words.off+16, "envp")
	execute := c.call("execute command", unix.SYS_EXECVE, path, argv, envp)
	if command != "" {
		execute.faults(commandFault(command))
	}
	c.call("end", unix.SYS_EXIT_GROUP, num(1))
}

// reapLoop takes children until the keeper is one that was taken.
func (c *compiler) reapLoop(keeper value) {
	record := c.buf(make([]byte, exitSize), "exit record")
	loop := c.here()
	c.call("wait", unix.SYS_WAIT4, num(-1), c.atOffset(record, 8), num(unix.WALL), num(0)).
		to(c.slotAt(record.off, "pid")).ignore(unix.ECHILD, unix.EINTR)
	gone := c.jumpIgnored()
	c.call("look at clock", unix.SYS_CLOCK_GETTIME, num(unix.CLOCK_REALTIME), c.atOffset(record, 16))
	c.call("record exit", unix.SYS_WRITE, num(guardState), record, num(exitSize)).
		ignore(unix.ENOSPC, unix.ENOMEM, unix.EIO, unix.EINTR)
	c.land(gone)
	c.call("look after keeper", unix.SYS_PIDFD_SEND_SIGNAL, keeper, num(0), num(0), num(0)).
		ignore(unix.ESRCH)
	c.backZero(loop)
}

// at is the address of a slot.
func (p *Program) at(slot value) value { return p.atOffset(slot, 0) }

func (p *Program) atOffset(v value, offset int) value {
	return value{kind: kindAddress, off: v.off + offset, text: fmt.Sprintf("&%s+%d", v.text, offset)}
}
