package process

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// A Nursery is a small process that bears children for the calling one. A fork
// copies the table of open files and the execve that follows closes them all: a
// service with thousands pays milliseconds for each child. A nursery has four
// files and a few pages, and what it bears has the caller as parent
// (CLONE_PARENT): the caller waits for it as for any child.
//
// It is a program of the interpreter, as a guard is; it begins with the first
// child and ends with the calling process at the latest. Should it be killed
// another takes its place; a child that it was about to bear is an error then,
// and ends as nobody reads its status socket.
//
// A nil Nursery is none: children are the caller's own forks. Methods are safe
// for concurrent use.
type Nursery struct {
	mu     sync.Mutex
	closed bool     // guarded by mu
	self   *forked  // guarded by mu: nil while there is none
	conn   int      // guarded by mu: the end of its control socket, with self
	prog   *Program // guarded by mu: what self runs

	spare spare
}

// NewNursery returns a nursery without a process yet. Close it.
func NewNursery() *Nursery { return &Nursery{} }

// Close ends the process. What it has borne lives on; what is asked for later
// are the caller's own forks.
func (n *Nursery) Close() {
	if n == nil {
		return
	}
	n.spare.close()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	n.end()
}

// end needs mu.
func (n *Nursery) end() {
	if n.self == nil {
		return
	}
	closeFds(n.conn)
	n.self.kill()
	n.self.wait()
	n.self = nil
}

const (
	// nurseryFD is the control socket of a nursery, out of the way of the files
	// of a child, which come with a request and lie from statusFD on.
	nurseryFD = 63
	// maxBorn is how many files that can be.
	maxBorn = nurseryFD - statusFD
)

// Layout of struct clone_args (clone(2)), which is a request.
const (
	cloneArgsSize   = 88
	offCloneExit    = 32
	offCloneCgroup  = 80
	cloneIntoCgroup = 1 << 33
)

// bear makes a child with these files from statusFD on, which executes the
// second of them, in the group birthplace if that is not nil. It reports false
// when it cannot: the caller forks by itself.
func (n *Nursery) bear(files []*os.File, birthplace *os.File) (*forked, bool, error) {
	return n.clone(unix.CLONE_VM|unix.CLONE_VFORK, files, birthplace)
}

// hold makes a child in new namespaces, those of the flags of clone(2), that
// only waits for the other end of the socket to be closed, and ends. Else as
// bear.
func (n *Nursery) hold(flags int, socket *os.File) (*forked, bool, error) {
	return n.clone(uint64(flags), []*os.File{socket}, nil)
}

// clone has a child made with these flags of clone(2) and files.
func (n *Nursery) clone(flags uint64, files []*os.File, birthplace *os.File) (*forked, bool, error) {
	if n == nil || len(files)+1 > maxBorn {
		return nil, false, nil
	}
	request := make([]byte, cloneArgsSize)
	le := binary.LittleEndian
	// exit_signal has to be 0: the child has the nursery's.
	flags |= unix.CLONE_PARENT
	if birthplace != nil {
		flags |= cloneIntoCgroup
		le.PutUint64(request[offCloneCgroup:], uint64(statusFD+len(files)))
		files = append(files[:len(files):len(files)], birthplace)
	}
	le.PutUint64(request, flags)
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, false, nil
	}
	err := n.ask(request, fds)
	if err != nil { // it was killed, and has not seen it
		n.end()
		err = n.ask(request, fds)
	}
	if err != nil {
		return nil, true, err
	}
	child, err := n.answer()
	return child, true, err
}

// ask sends a request, to a new process if there is none. It needs mu.
func (n *Nursery) ask(request []byte, fds []int) error {
	if n.self == nil {
		if err := n.begin(); err != nil {
			return err
		}
	}
	_, err := linux.RetryEINTR(func() (int, error) {
		return unix.SendmsgN(n.conn, request, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
	})
	return os.NewSyscallError("sendmsg", err)
}

// begin needs mu.
func (n *Nursery) begin() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	prog := nurseryProgram()
	self, control, err := launch(prog, null, nil)
	if err != nil {
		return fmt.Errorf("make nursery: %w", err)
	}
	defer func() { _ = control.Close() }()
	// Answers come within a millisecond: a thread waits for them, not the poller.
	conn, err := unix.FcntlInt(control.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(conn, false)
	}
	if err != nil {
		self.kill()
		self.wait()
		return fmt.Errorf("make nursery: %w", err)
	}
	n.self, n.conn, n.prog = self, conn, prog
	return nil
}

// answer reads what became of a request. It needs mu.
func (n *Nursery) answer() (*forked, error) {
	kind, index, val, err := n.read()
	switch {
	case err != nil:
	case kind == recordPid:
		return &forked{pid: int(val)}, nil
	default:
		err = n.prog.failure(int(index), unix.Errno(val))
		if n.prog.steps[index].nr != unix.SYS_EXECVEAT {
			break // the nursery has ended
		}
		if kind, _, val, gone := n.read(); gone == nil && kind == recordPid {
			(&forked{pid: int(val)}).wait()
			return nil, err
		}
	}
	n.end()
	return nil, err
}

func (n *Nursery) read() (kind, index uint32, val uint64, err error) {
	buf := make([]byte, recordSize)
	got, err := linux.RetryEINTR(func() (int, error) { return unix.Read(n.conn, buf) })
	if err == nil && got != recordSize {
		err = fmt.Errorf("nursery was killed: %w", errdefs.ErrAborted)
	}
	le := binary.LittleEndian
	return le.Uint32(buf), le.Uint32(buf[4:]), le.Uint64(buf[8:]), err
}

// nurseryProgram bears a child for each message on its control socket, until
// there is nobody at the other end. A failure of its own ends it: the caller
// makes another.
func nurseryProgram() *Program {
	c := &compiler{Program: newProgram(), spec: &Spec{}}
	c.call("move control socket", unix.SYS_DUP3, num(statusFD), num(nurseryFD), num(unix.O_CLOEXEC)).to(c.slotAt(c.report, "control"))
	c.call("set name", unix.SYS_PRCTL, num(unix.PR_SET_NAME), c.str("gantry-nursery"), num(0), num(0), num(0))
	c.call("close program", unix.SYS_CLOSE_RANGE, num(statusFD), num(nurseryFD-1), num(0))

	request, size := c.buf(make([]byte, cloneArgsSize), "request"), unix.CmsgSpace(4*maxBorn)
	header, controlLen := c.messageHeader(request, cloneArgsSize, size)
	answer, pid := c.record(recordPid, "pid")
	empty := c.pointers(nil, "{}")
	loop := c.here()
	// The kernel has put the length of the last message there. What /dev/null
	// takes is as long as it was.
	c.call("make room", unix.SYS_WRITE, num(1), header, num(size)).to(controlLen)
	c.call("take request", unix.SYS_RECVMSG, num(nurseryFD), header, num(0)).wants(cloneArgsSize)
	c.call("bear", unix.SYS_CLONE3, request, num(cloneArgsSize)).to(pid)
	child := c.jumpZero()
	c.call("answer", unix.SYS_WRITE, num(nurseryFD), answer, num(recordSize))
	c.call("let go of files", unix.SYS_CLOSE_RANGE, num(statusFD), num(nurseryFD-1), num(0))
	c.backZero(loop)
	c.land(child)
	c.call("execute", unix.SYS_EXECVEAT, num(selfFD), c.str(""), c.pointers([]string{childName}, "argv"), empty, num(unix.AT_EMPTY_PATH)).ignore(unix.EBADF)
	// Nothing to execute: a copy of the nursery, which holds its namespaces.
	c.call("let go of nursery", unix.SYS_CLOSE_RANGE, num(statusFD+1), num(uint64(^uint32(0))), num(0))
	c.call("hold namespaces", unix.SYS_READ, num(statusFD), request, num(cloneArgsSize))
	c.call("end", unix.SYS_EXIT_GROUP, num(0))
	return c.Program
}

// messageHeader is a struct msghdr (recvmsg(2)) for a body of n bytes and
// control data of size bytes, and the slot of their length.
func (p *Program) messageHeader(body value, n, size int) (header, controlLen value) {
	le := binary.LittleEndian
	iov := p.buf(le.AppendUint64(make([]byte, 8), uint64(n)), "iovec")
	control := p.buf(make([]byte, size), "control")
	b := make([]byte, 56)
	le.PutUint64(b[24:], 1)
	header = p.buf(b, fmt.Sprintf("{%s, files}", body.text))
	p.relocs = append(p.relocs, reloc{iov.off, body.off}, reloc{header.off + 16, iov.off}, reloc{header.off + 32, control.off})
	return header, p.slotAt(header.off+40, "control length")
}

// A forked is a child of this process that nobody else waits for.
type forked struct {
	pid  int
	gone bool // reaped: the number may be another's
}

func (f *forked) kill() {
	if !f.gone {
		_ = unix.Kill(f.pid, unix.SIGKILL)
	}
}

// wait reaps it, once, and says how it has ended.
func (f *forked) wait() (ws unix.WaitStatus) {
	if f.gone {
		return 0
	}
	f.gone = true
	_, _ = linux.RetryEINTR(func() (int, error) { return unix.Wait4(f.pid, &ws, unix.WALL, nil) })
	return ws
}

// fork is how a child begins without a nursery.
func fork(files []*os.File, birthplace *os.File) (*forked, error) {
	attr := &os.ProcAttr{Env: []string{}, Files: files}
	if birthplace != nil {
		attr.Sys = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(birthplace.Fd())}
	}
	child, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", selfFD), []string{childName}, attr)
	if err != nil {
		return nil, err
	}
	pid := child.Pid
	return &forked{pid: pid}, child.Release()
}
