// Package jail unpacks layers in a child process that can do nothing else: it
// has user, mount, pid, net, ipc, uts and cgroup namespaces of its own, ids
// that nothing on the host belongs to, six capabilities over its own ids, the
// target directory as its root, no way to a file outside it (Landlock), about
// seventy system calls, and bounds on memory, files and time.
//
// The target is shown to the child through an id-mapped mount, so that ids on
// disk are the container's own, 0 to 65535, while the child's are the host's
// from Options.IDBase on. What the child cannot do, the attributes of opaque
// directories, it names, and the parent does it.
//
// The child is the same program, called with Verb as its first argument; its
// main function hands over to Main. It starts twice: the second start, which
// reads the stream, inherits what the first has given up, in all its threads.
//
// It imports engine/layer and errdefs of ours. docs/unpacking.md has the
// reasons and what it costs.
package jail

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/snapshot/mounts"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Verb is the first argument of the child.
const Verb = "unpack"

// The descriptors of the child.
const (
	socketFD = 3 // the target comes in here, once
	resultFD = 4 // the result goes out here
)

const idCount = 65536

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

// Jail unpacks layers. Its methods are safe for concurrent use.
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

// request is what the child is told, as its argument.
type request struct {
	Limits      layer.Limits
	MemoryBytes int64
}

// reply is what the child says.
type reply struct {
	Result layer.Result
	// Opaque directories, which the parent has to mark.
	Opaque []string
	// Class, Text and Public of an error; Text is empty for none.
	Class        int
	Text, Public string
}

// classes travel as their place in this list, from 1 on.
func classes() []error {
	return []error{errdefs.ErrInvalid, errdefs.ErrCorrupt, errdefs.ErrExhausted, errdefs.ErrUnsupported, errdefs.ErrAborted}
}

// longestReply bounds what a child may say: room for a path for each entry.
const longestReply = 64 << 20

// Apply is layer.Apply in a child. Its errors are the same, and
// errdefs.ErrUnsupported if the host cannot make such a child or the file
// system has no id-mapped mounts.
func (j *Jail) Apply(ctx context.Context, dir *os.File, r io.Reader, opts layer.Options) (layer.Result, error) {
	rep, id, err := j.run(ctx, dir, r, request{Limits: opts.Limits, MemoryBytes: j.opts.MemoryBytes}, opts.Verified == "")
	if err != nil {
		return layer.Result{}, fmt.Errorf("unpack layer: %w", err)
	}
	if err := rep.err(); err != nil {
		return layer.Result{}, err
	}
	if err := layer.MarkOpaque(dir, rep.Opaque); err != nil {
		return layer.Result{}, fmt.Errorf("unpack layer: %w", err)
	}
	rep.Result.DiffID = opts.Verified
	if opts.Verified == "" {
		rep.Result.DiffID = id
	}
	return rep.Result, nil
}

// childError is an error that happened in the child.
type childError struct {
	text  string
	class error
}

func (e *childError) Error() string { return e.text }
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

// run starts the child, feeds it the stream and takes its reply. An error of
// the stream comes before what the child made of it.
func (j *Jail) run(ctx context.Context, dir *os.File, r io.Reader, req request, sum bool) (reply, digest.Digest, error) {
	c, err := j.start(ctx, req)
	if err != nil {
		return reply{}, "", err
	}
	defer c.close()
	if err := c.hand(dir); err != nil {
		c.kill()
		return reply{}, "", errors.Join(err, c.wait(ctx))
	}
	fed := make(chan error, 1)
	h := sha256.New()
	go func() {
		if sum {
			r = io.TeeReader(r, h)
		}
		_, err := io.CopyBuffer(struct{ io.Writer }{c.stdin}, struct{ io.Reader }{r}, make([]byte, 256<<10))
		fed <- errors.Join(err, c.stdin.Close())
	}()
	rep, rerr := c.reply()
	_ = c.stdinReader.Close() // a child that is gone reads no more: the feeder ends
	werr := c.wait(ctx)
	ferr := <-fed
	switch {
	case ctx.Err() != nil:
		return reply{}, "", fmt.Errorf("%w: %w", errdefs.ErrAborted, ctx.Err())
	case ferr != nil && !errors.Is(ferr, unix.EPIPE):
		return reply{}, "", ferr
	case rerr != nil || werr != nil:
		return reply{}, "", fmt.Errorf("the process that unpacks has failed: %w", errors.Join(rerr, werr))
	case ferr != nil && rep.Text == "":
		return reply{}, "", fmt.Errorf("the process that unpacks did not read to the end: %w", errdefs.ErrCorrupt)
	}
	return rep, digest.NewDigest(digest.SHA256, h), nil
}

// child is one run.
type child struct {
	cmd         *exec.Cmd
	socket      *os.File
	result      *os.File
	stdin       *os.File
	stdinReader *os.File
	stderr      bytes.Buffer
}

func (j *Jail) start(ctx context.Context, req request) (_ *child, err error) {
	data, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(ctx, j.opts.Program, Verb, string(data))}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
		if err != nil {
			c.close()
		}
	}()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	c.socket = os.NewFile(uintptr(pair[0]), "socket")
	theirs = append(theirs, os.NewFile(uintptr(pair[1]), "socket"))
	result, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.result, theirs = result, append(theirs, w)
	if c.stdinReader, c.stdin, err = os.Pipe(); err != nil {
		return nil, err
	}
	c.cmd.ExtraFiles = theirs
	c.cmd.Stdin, c.cmd.Stderr = c.stdinReader, &limited{w: &c.stderr, left: 4096}
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
		return nil, fmt.Errorf("start the process that unpacks: %w: %w", errdefs.ErrUnsupported, err)
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

// hand gives the child the target: a clone of its mount, attached nowhere, with
// the ids mapped to the child's.
func (c *child) hand(dir *os.File) error {
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

func (c *child) reply() (reply, error) {
	var rep reply
	data, err := io.ReadAll(io.LimitReader(c.result, longestReply+1))
	switch {
	case err != nil:
		return rep, err
	case len(data) > longestReply:
		c.kill()
		return rep, fmt.Errorf("its reply is too long: %w", errdefs.ErrInvalid)
	case len(data) == 0:
		return rep, errors.New("no reply")
	}
	return rep, json.Unmarshal(data, &rep)
}

func (c *child) kill() { _ = c.cmd.Process.Kill() } // it may have ended

func (c *child) wait(ctx context.Context) error {
	err := c.cmd.Wait()
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %s", err, strings.TrimSpace(c.stderr.String()))
}

func (c *child) close() {
	for _, f := range []*os.File{c.socket, c.result, c.stdin, c.stdinReader} {
		if f != nil {
			_ = f.Close()
		}
	}
}
