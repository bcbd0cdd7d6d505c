// Package jail runs work on hostile bytes in a child process that can do nothing
// else: it has user, mount, pid, net, ipc, uts and cgroup namespaces of its own,
// ids that nothing on the host belongs to, no file but those it is given
// (Landlock), the system calls of its Work only, and bounds on memory, files and
// time.
//
// A Work that needs a directory gets one, as its root: it is shown through an
// id-mapped mount, so that ids on disk are the container's own, 0 to 65535,
// while the child's are the host's from Options.IDBase on.
//
// The child is the same program, called with Verb as its first argument; its
// main function hands over to Main. It starts twice: the second start, which
// does the work, inherits what the first has given up, in all its threads.
//
// It imports errdefs and the mounts of ours. docs/unpacking.md has the reasons
// and what it costs.
package jail

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot/mounts"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Verb is the first argument of the child.
const Verb = "unpack"

// The descriptors of the child.
const (
	socketFD = 3 // the directory comes in here, once
	resultFD = 4 // the result goes out here
)

const idCount = 65536

// ErrImpossible says that this host cannot make the child; nothing was read. It
// is of the class errdefs.ErrUnsupported.
var ErrImpossible = fmt.Errorf("no jail: %w", errdefs.ErrUnsupported)

// Options of a Jail.
type Options struct {
	// Program is the child's executable. Default /proc/self/exe.
	Program string
	// IDBase is the first of 65,536 host ids that nobody else has. Default
	// 2,147,352,576, the last but one block below 2^31.
	IDBase uint32
	// MemoryBytes bounds the child's data. Default 1 GiB; negative for none.
	MemoryBytes int64
}

// Jail starts children. Its methods are safe for concurrent use.
type Jail struct{ opts Options }

// New returns a Jail.
func New(opts Options) *Jail {
	if opts.Program == "" {
		opts.Program = "/proc/self/exe"
	}
	if opts.IDBase == 0 {
		opts.IDBase = 1<<31 - 2*idCount
	}
	if opts.MemoryBytes == 0 {
		opts.MemoryBytes = 1 << 30
	}
	return &Jail{opts: opts}
}

// Run is one piece of work.
type Run struct {
	// Work is the name of a Work that the child's Main knows.
	Work string
	// Arg is given to it, as JSON.
	Arg any
	// Dir is the directory that it may change, or nil for none.
	Dir *os.File
	// Stdin and Stdout are its standard input and output, or nil for nothing.
	// They stay the caller's.
	Stdin, Stdout *os.File
	// FileBytes bounds each file that it writes; 0 for no bound.
	FileBytes int64
}

// request is what the child is told, as its argument.
type request struct {
	Work                   string
	Arg                    json.RawMessage
	Rooted                 bool
	MemoryBytes, FileBytes int64
}

// reply is what the child says.
type reply struct {
	Result json.RawMessage
	// Class, Text and Public of an error; Text is empty for none.
	Class        int
	Text, Public string
}

// classes travel as their place in this list, from 1 on.
func classes() []error {
	return []error{errdefs.ErrInvalid, errdefs.ErrCorrupt, errdefs.ErrExhausted, errdefs.ErrUnsupported, errdefs.ErrAborted}
}

// longestReply bounds what a child may say: room for a path for each entry of a
// layer.
const longestReply = 64 << 20

// childError is an error that happened in the child.
type childError struct {
	text  string
	class error
}

// Error implements error.
func (e *childError) Error() string { return e.text }

// Unwrap returns the class.
func (e *childError) Unwrap() error { return e.class }

func (r *reply) err() error {
	if r.Text == "" {
		return nil
	}
	e := &childError{text: r.Text}
	if known := classes(); r.Class > 0 && r.Class <= len(known) {
		e.class = known[r.Class-1]
	}
	if r.Public != "" {
		return errdefs.WithPublic(e, r.Public)
	}
	return e
}

// Child is one run. Its methods are for one goroutine, but for Kill.
type Child struct {
	cmd    *exec.Cmd
	socket *os.File
	result *os.File
	stderr bytes.Buffer
}

// Start starts a child, which has to be waited for. It is killed when ctx ends.
// ErrImpossible if the host cannot make such a child, errdefs.ErrUnsupported if
// the file system of the directory has no id-mapped mounts.
func (j *Jail) Start(ctx context.Context, run Run) (_ *Child, err error) {
	arg, err := json.Marshal(run.Arg)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(request{
		Work: run.Work, Arg: arg, Rooted: run.Dir != nil, MemoryBytes: j.opts.MemoryBytes, FileBytes: run.FileBytes,
	})
	if err != nil {
		return nil, err
	}
	c := &Child{cmd: exec.CommandContext(ctx, j.opts.Program, Verb, string(data))}
	theirs := make([]*os.File, resultFD-2)
	defer func() {
		for _, f := range theirs {
			_ = f.Close() // nil is no harm
		}
		if err != nil {
			c.close()
		}
	}()
	if run.Dir != nil {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("socketpair", err)
		}
		c.socket, theirs[0] = os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(pair[1]), "socket")
	}
	if c.result, theirs[1], err = os.Pipe(); err != nil {
		return nil, err
	}
	c.cmd.ExtraFiles = theirs
	c.cmd.Stderr = &limited{w: &c.stderr, left: 4096}
	if run.Stdin != nil {
		c.cmd.Stdin = run.Stdin
	}
	if run.Stdout != nil {
		c.cmd.Stdout = run.Stdout
	}
	c.cmd.Env = []string{"GOMAXPROCS=2", "GOTRACEBACK=none"}
	c.cmd.Dir = "/"
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(j.opts.IDBase), Size: idCount}}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC |
			unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{Uid: 0, Gid: 0}, Pdeathsig: syscall.SIGKILL, Setsid: true,
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a jailed process: %w: %w", ErrImpossible, err)
	}
	if run.Dir == nil {
		return c, nil
	}
	if err := c.hand(run.Dir); err != nil {
		c.Kill()
		return nil, errors.Join(err, c.end(ctx))
	}
	return c, nil
}

// limited drops what is too much.
type limited struct {
	w    io.Writer
	left int
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	_, err := l.w.Write(p[:n])
	return len(p), err
}

// hand gives the child the directory: a clone of its mount, attached nowhere,
// with the ids mapped to the child's.
func (c *Child) hand(dir *os.File) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", c.cmd.Process.Pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	fd, err := mounts.Clone(fmt.Sprintf("/proc/self/fd/%d/.", dir.Fd()), int(ns.Fd()))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return os.NewSyscallError("sendmsg", unix.Sendmsg(int(c.socket.Fd()), []byte{0}, unix.UnixRights(fd), nil, 0))
}

// Wait waits for the end of the child and takes its result, which is JSON. The
// errors of the work come back with their class and text for tenants;
// errdefs.ErrAborted if ctx ended.
func (c *Child) Wait(ctx context.Context, result any) error {
	rep, rerr := c.reply()
	werr := c.end(ctx)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", errdefs.ErrAborted, ctx.Err())
	case rerr != nil || werr != nil:
		return fmt.Errorf("the jailed process has failed: %w", errors.Join(rerr, werr))
	case rep.Text != "":
		return rep.err()
	}
	if err := json.Unmarshal(rep.Result, result); err != nil {
		return fmt.Errorf("result of the jailed process: %w", err)
	}
	return nil
}

func (c *Child) reply() (reply, error) {
	var rep reply
	data, err := io.ReadAll(io.LimitReader(c.result, longestReply+1))
	switch {
	case err != nil:
		return rep, err
	case len(data) > longestReply:
		c.Kill()
		return rep, fmt.Errorf("its reply is too long: %w", errdefs.ErrInvalid)
	case len(data) == 0:
		return rep, errors.New("no reply")
	}
	return rep, json.Unmarshal(data, &rep)
}

// Kill ends the child, which still has to be waited for.
func (c *Child) Kill() { _ = c.cmd.Process.Kill() } // it may have ended

// end reaps the child and lets go of what belongs to it.
func (c *Child) end(ctx context.Context) error {
	defer c.close()
	err := c.cmd.Wait()
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %s", err, strings.TrimSpace(c.stderr.String()))
}

func (c *Child) close() {
	for _, f := range []*os.File{c.socket, c.result} {
		_ = f.Close() // nil is no harm
	}
}
