package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// A Guard is what a command that StartGuard's guard runs has of it. Given to
// New, it makes the runner's processes, their consoles and their exits outlive
// the runner's own process: the next runner with the same guard goes on where
// this one was stopped, kill -9 at any instruction included.
//
// Who holds what: the guard and its command hold the same files. One of them
// may die at any time; only if both die before one has been made again (about
// 50 ms) consoles end, and with them what does not ignore SIGHUP.
//
// Methods are safe for concurrent use.
type Guard struct {
	state  *os.File
	mem    []byte // state, up to exitsBase
	queue  *queue
	pipe   [2]int   // reading and writing end, not blocking
	lock   int      // held, never used
	parent *os.File // pidfd of the guard
	pid    int
	trial  bool

	mu    sync.Mutex
	taken bool // guarded by mu: a runner uses it
}

// InheritGuard returns the guard that has started this process, nil if none
// has. Call it once, early. errdefs.ErrCorrupt when what should be there is
// not.
func InheritGuard() (*Guard, error) {
	value := os.Getenv(guardName)
	if value == "" {
		return nil, nil
	}
	if err := os.Unsetenv(guardName); err != nil {
		return nil, err
	}
	g, err := inheritGuard()
	if err != nil {
		return nil, fmt.Errorf("inherit guard: %w", err)
	}
	g.trial = guardName+"="+value == trialVariable
	return g, nil
}

func inheritGuard() (*Guard, error) {
	for fd := guardState; fd < guardFileEnd; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("descriptor %d: %w: %w", fd, err, errdefs.ErrCorrupt)
		}
	}
	mem, err := unix.Mmap(guardState, 0, exitsBase, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	if !bytes.Equal(mem[:len(stateMagic)], []byte(stateMagic)) {
		return nil, fmt.Errorf("state begins with %q: %w", mem[:len(stateMagic)], errdefs.ErrCorrupt)
	}
	for _, fd := range []int{guardQueueIn, guardQueueOut, guardPipeOut, guardPipeIn} {
		if err := unix.SetNonblock(fd, true); err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
	}
	g := &Guard{
		state: os.NewFile(guardState, "guard state"), mem: mem, queue: newQueue(guardQueueIn, guardQueueOut),
		pipe: [2]int{guardPipeOut, guardPipeIn}, lock: guardLock, pid: os.Getppid(),
	}
	if g.parent, err = linux.PidfdOpen(g.pid); err != nil && !errors.Is(err, unix.ESRCH) {
		return nil, err
	}
	if g.parent != nil && (g.Pid() != g.pid || os.Getppid() != g.pid) {
		_ = g.parent.Close() // the guard is gone, and this is somebody else
		g.parent = nil
	}
	return g, nil
}

// Pid returns the guard's pid.
func (g *Guard) Pid() int { return int(binary.LittleEndian.Uint64(g.mem[offGuardPid:])) }

// Await returns nil when the guard has ended, os.ErrClosed after Release.
func (g *Guard) Await() error {
	if g.parent == nil {
		return nil
	}
	return linux.AwaitPidfd(g.parent)
}

// Release ends Await. Everything else stays usable.
func (g *Guard) Release() error {
	if g.parent == nil {
		return nil
	}
	return g.parent.SetReadDeadline(longAgo())
}

// End kills the guard, for a command that ends on purpose and leaves nothing
// that needs it.
func (g *Guard) End() error {
	if g.parent == nil {
		return nil
	}
	if err := linux.PidfdSignal(g.parent, int(unix.SIGKILL)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end guard: %w", err)
	}
	return nil
}

// Scratch is memory that is shared with the guard's commands after this one,
// zero at first, for a command that is no runner: one would use it itself.
func (g *Guard) Scratch() []byte { return g.mem[offChunk:offCommands] }

// Lock is GuardOptions.Lock, which stays open as long as guard or command lives.
func (g *Guard) Lock() int { return g.lock }

// Command returns what the guard runs. The environment is not all of that of
// this process.
func (g *Guard) Command() (argv, env []string, err error) { return commandAt(g.mem, offCommand) }

// Prepare says what Exec is to execute: argv[0] is an absolute path.
// errdefs.ErrInvalid when it takes more than 64 KiB.
func (g *Guard) Prepare(argv, env []string) error { return tryCommand(g.mem, argv, env) }

// Exec replaces this process, threads and all, by what Prepare was told. That
// is on trial until it calls Confirm; should it end before, the guard starts
// the command that it had before. The runner must be suspended
// (Local.Suspend). It returns on errors only.
func (g *Guard) Exec() error {
	argv, env, err := commandAt(g.mem, offTrial)
	if err != nil {
		return err
	}
	for i, s := range env {
		if s == guardVariable {
			env[i] = trialVariable
		}
	}
	if err := g.keepFiles(); err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", argv[0], syscall.Exec(argv[0], argv, env))
}

// Confirm makes the command of this process the one that the guard starts from
// now on. It does nothing in a process that is not on trial.
func (g *Guard) Confirm() {
	if g.trial {
		confirmCommand(g.mem)
	}
}

// Renew turns this process into a guard, in the place of one that has ended,
// which starts the command anew: its children stay its children. The runner
// must be suspended. It returns on errors only.
func (g *Guard) Renew() error {
	self, err := renewProgram().executable()
	if err != nil {
		return fmt.Errorf("become guard: %w", err)
	}
	defer func() { _ = self.Close() }()
	if err := g.keepFiles(); err != nil {
		return err
	}
	path := fmt.Sprintf("/proc/self/fd/%d", self.Fd())
	return fmt.Errorf("become guard: %w", syscall.Exec(path, []string{"gantry-guard"}, nil))
}

// keepFiles lets the guard's files survive an execve.
func (g *Guard) keepFiles() error {
	for fd := guardState; fd < guardFileEnd; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	return nil
}

// exits returns where the guard's next record will be.
func (g *Guard) exits() int64 {
	info, err := g.state.Stat()
	if err != nil {
		return exitsBase
	}
	return info.Size()
}

// dropExits frees the memory of records in front of offset end.
func (g *Guard) dropExits(end int64) {
	const page = 64 << 10 // the largest in use
	if n := (end - exitsBase) / page * page; n > 0 {
		_ = unix.Fallocate(guardState, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, exitsBase, n)
	}
}

// take makes sure that one runner at a time uses the guard.
func (g *Guard) take() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.taken {
		return fmt.Errorf("guard: another runner uses it: %w", errdefs.ErrConflict)
	}
	g.taken = true
	return nil
}
