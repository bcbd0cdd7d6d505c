package jail

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// locked is the second argument of the second start.
const locked = "locked"

// targetFD is the target at the second start.
const targetFD = 5

// Work is what a child is for. The parent names it, the child knows it.
type Work struct {
	// Name of the work.
	Name string
	// Capabilities that stay, as bits, over the child's own ids only. A work with
	// a directory needs CAP_SYS_CHROOT for the directory to become its root.
	Capabilities uint64
	// Calls are the system calls that it may use besides those of Go's runtime
	// and reading and writing of what is open.
	Calls []uintptr
	// Do does it. arg is Run.Arg, dir Run.Dir as the root of the process. What it
	// returns goes to the parent: errors as their text, class and text for
	// tenants.
	Do func(ctx context.Context, arg json.RawMessage, dir *os.File) (any, error)
}

// Main is the child. args are its arguments behind Verb; it returns what to
// exit with. It is for a process that Jail has started and refuses others.
func Main(ctx context.Context, args []string, works ...Work) int {
	err := errors.New("is called by gantry only")
	switch {
	case len(args) == 1:
		err = lockIn(args[0], works)
	case len(args) == 2 && args[0] == locked:
		err = serve(ctx, args[1], works)
	}
	if err != nil {
		_, _ = io.WriteString(os.Stderr, Verb+": "+err.Error()+"\n")
		return 1
	}
	return 0
}

// parse reads the request and finds its work.
func parse(arg string, works []Work) (request, Work, error) {
	var req request
	if err := json.Unmarshal([]byte(arg), &req); err != nil {
		return req, Work{}, fmt.Errorf("request: %w", err)
	}
	for _, w := range works {
		if w.Name == req.Work {
			return req, w, nil
		}
	}
	return req, Work{}, fmt.Errorf("request: no work is called %q", req.Work)
}

// lockIn is the first start: it gives everything up and starts again.
func lockIn(arg string, works []Work) error {
	req, work, err := parse(arg, works)
	if err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return errors.New("not the first process of its namespace")
	}
	target := -1
	if req.Rooted {
		fd, err := takeTarget()
		if err != nil {
			return err
		}
		if err := keepAs(fd, targetFD); err != nil {
			return err
		}
		target = targetFD
	}
	self, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own program: %w", err)
	}
	libraries, err := needs("/proc/self/exe")
	if err != nil {
		return err
	}
	runtime.LockOSThread() // what follows is this thread's, and execve's
	if err := limits(req); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl no_new_privs", err)
	}
	if err := landlock(target, append([]int{self}, libraries...)); err != nil {
		return err
	}
	if err := dropCapabilities(work.Capabilities); err != nil {
		return err
	}
	if err := unix.CloseRange(targetFD+1, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return os.NewSyscallError("close_range", err)
	}
	return execSelf(self, []string{"gantry", Verb, locked, arg})
}

// keepAs makes a descriptor one with a number that stays open over an execve.
func keepAs(fd, number int) error {
	if fd == number { // which dup3 refuses
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
		return os.NewSyscallError("fcntl", err)
	}
	return os.NewSyscallError("dup3", unix.Dup3(fd, number, 0))
}

// takeTarget receives the descriptor of the target.
func takeTarget() (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	var b [1]byte
	_, n, _, _, err := unix.Recvmsg(socketFD, b[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return -1, errors.Join(err, errors.New("no target was sent"))
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(err, errors.New("no target was sent"))
	}
	return fds[0], unix.Close(socketFD)
}

// needs opens what a program has to read before it runs: nothing for a static
// one, as gantry is; the system's libraries for others, as tests may be.
func needs(program string) ([]int, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("own program: %w", err)
	}
	static := true
	for _, p := range f.Progs {
		static = static && p.Type != elf.PT_INTERP
	}
	if err := f.Close(); err != nil || static {
		return nil, err
	}
	var out []int
	for _, name := range []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64"} {
		if fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
			out = append(out, fd)
		}
	}
	return out, nil
}

// limits bounds what the process may take.
func limits(req request) error {
	set := map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: 64, unix.RLIMIT_CPU: 3600, unix.RLIMIT_MEMLOCK: 0, unix.RLIMIT_MSGQUEUE: 0}
	if req.MemoryBytes > 0 {
		set[unix.RLIMIT_DATA] = uint64(req.MemoryBytes)
	}
	if req.FileBytes > 0 {
		set[unix.RLIMIT_FSIZE] = uint64(req.FileBytes)
	}
	for what, n := range set {
		var old unix.Rlimit
		if err := unix.Getrlimit(what, &old); err != nil {
			return os.NewSyscallError("getrlimit", err)
		}
		n = min(n, old.Max)
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	return nil
}

func dropCapabilities(but uint64) error {
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if but&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return os.NewSyscallError("prctl capbset_drop", err)
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	low, high := uint32(but), uint32(but>>32)
	data := [2]unix.CapUserData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
	return os.NewSyscallError("capset", unix.Capset(&head, &data[0]))
}

// execSelf starts the program fd anew, with an empty environment but for what
// keeps the runtime small.
func execSelf(fd int, args []string) error {
	argv, err := pointers(args)
	if err != nil {
		return err
	}
	env, err := pointers([]string{"GOMAXPROCS=2", "GOTRACEBACK=none", "GOMEMLIMIT=512MiB"})
	if err != nil {
		return err
	}
	empty, err := unix.BytePtrFromString("")
	if err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])), unix.AT_EMPTY_PATH, 0)
	return os.NewSyscallError("execveat", errno)
}

func pointers(list []string) ([]*byte, error) {
	out := make([]*byte, 0, len(list)+1)
	for _, s := range list {
		p, err := unix.BytePtrFromString(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return append(out, nil), nil
}

// serve is the second start: it gives up the system calls that it does not
// need, and works.
func serve(ctx context.Context, arg string, works []Work) error {
	req, work, err := parse(arg, works)
	if err != nil {
		return err
	}
	var dir *os.File
	if req.Rooted {
		// Threads share their root. The filter forbids another change of it.
		if err := errors.Join(unix.Fchdir(targetFD), unix.Chroot(".")); err != nil {
			return fmt.Errorf("change root: %w", err)
		}
		if err := reopenTarget(); err != nil {
			return err
		}
		dir = os.NewFile(targetFD, "target")
	}
	if err := filter(work.Calls); err != nil {
		return err
	}
	out := os.NewFile(resultFD, "result")
	rep, err := do(ctx, work, req.Arg, dir)
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(out).Encode(rep), out.Close())
}

// do does the work and puts its result, or its error, into words.
func do(ctx context.Context, work Work, arg json.RawMessage, dir *os.File) (rep reply, err error) {
	res, err := work.Do(ctx, arg, dir)
	if err == nil {
		rep.Result, err = json.Marshal(res)
		return rep, err
	}
	rep.Text, rep.Public = err.Error(), errdefs.PublicText(err, "")
	for i, class := range classes() {
		if errors.Is(err, class) {
			rep.Class = i + 1
		}
	}
	return rep, nil
}

// reopenTarget makes targetFD, now the root, a descriptor that attributes can be
// changed through: what came is one for paths only (open_tree(2), O_PATH).
func reopenTarget() error {
	fd, err := unix.Open(".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open target: %w", err)
	}
	if err := unix.Dup3(fd, targetFD, unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	return unix.Close(fd)
}
