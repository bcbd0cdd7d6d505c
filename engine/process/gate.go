package process

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// OpenGate makes a gate at path, an absolute one, for Spec.Gate: a listening
// unix socket of mode 0600, whose directory should be open to root only. An
// existing file is errdefs.ErrAlreadyExists. The caller closes the file as soon
// as Start has returned, whatever it returned: a gate whose only holder is the
// child tells that the child is gone. The caller removes path.
func OpenGate(path string) (*os.File, error) {
	addr, done, err := shortPath(path)
	if err != nil {
		return nil, fmt.Errorf("open gate: %w", err)
	}
	defer done()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open gate %s: %w", path, os.NewSyscallError("socket", err))
	}
	f := os.NewFile(uintptr(fd), path)
	// The mode of the file is that of the socket.
	err = unix.Fchmod(fd, 0o600)
	if err == nil {
		err = unix.Bind(fd, addr)
	}
	if errors.Is(err, unix.EADDRINUSE) {
		err = errdefs.ErrAlreadyExists
	} else if err == nil {
		if err = unix.Listen(fd, 16); err != nil {
			_ = os.Remove(path)
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open gate %s: %w", path, err)
	}
	return f, nil
}

// shortPath is an address that does not depend on the length of path. done
// ends its validity.
func shortPath(path string) (addr *unix.SockaddrUnix, done func(), err error) {
	if !filepath.IsAbs(path) || hasNUL(path) {
		return nil, nil, fmt.Errorf("path %q is not absolute: %w", path, errdefs.ErrInvalid)
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
		}
		return nil, nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	name := fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))
	return &unix.SockaddrUnix{Name: name}, func() { _ = unix.Close(dir) }, nil
}

// ReleaseGate lets the process that waits at the gate of path execute its
// command. Any process of the host's root may call it, whether it has started
// the child or not. It runs the startContainer hooks first, with the rights of
// the command, and returns when the command has been executed. Errors:
//
//   - errdefs.ErrNotFound: there is no gate at path;
//   - errdefs.ErrConflict: nobody waits there any more: the child has ended, or
//     somebody else has released it;
//   - what Start says of a command that cannot be executed; the child has ended
//     then;
//   - a hook's error; the child has been killed then;
//   - the context's, with errdefs.ErrAborted; the child goes on waiting, but is
//     killed when a hook was interrupted.
func ReleaseGate(ctx context.Context, path string) error {
	conn, err := dialGate(path)
	if err != nil {
		return fmt.Errorf("release gate %s: %w", path, err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	err = releaseGate(ctx, conn)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), errdefs.ErrAborted)
	}
	if err != nil {
		return fmt.Errorf("release gate %s: %w", path, err)
	}
	return nil
}

func dialGate(path string) (*net.UnixConn, error) {
	addr, done, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer done()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "gate")
	defer func() { _ = f.Close() }()
	// So the kernel says who answers.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt SO_PASSCRED", err)
	}
	_, err = linux.RetryEINTR(func() (struct{}, error) { return struct{}{}, unix.Connect(fd, addr) })
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	case errors.Is(err, unix.ECONNREFUSED):
		return nil, errNobodyWaits()
	case err != nil:
		return nil, os.NewSyscallError("connect", err)
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("no unix socket: %w", errdefs.ErrInvalid)
	}
	return conn, nil
}

func errNobodyWaits() error { return fmt.Errorf("no process waits: %w", errdefs.ErrConflict) }

func releaseGate(ctx context.Context, conn *net.UnixConn) error {
	note, pid, cgroups, err := readGateNote(conn)
	defer linux.CloseAll(cgroups)
	if err != nil {
		return err
	}
	if len(note.Hooks) > 0 {
		if err := runGateHooks(ctx, conn, note, pid, cgroups); err != nil {
			return err
		}
	}
	if _, err := conn.Write([]byte{1}); err != nil {
		return errNobodyWaits()
	}
	return gateOutcome(conn, note.Command)
}

// readGateNote reads what the child says, who it is, and what it passes.
func readGateNote(conn *net.UnixConn) (note gateNote, pid int, files []*os.File, err error) {
	size := make([]byte, 4)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*64))
	n, oobn, flags, _, err := conn.ReadMsgUnix(size, oob)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return note, 0, nil, errNobodyWaits()
	}
	if err != nil {
		return note, 0, nil, err
	}
	if files, err = linux.ParseRights(oob[:oobn]); err != nil {
		return note, 0, nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || flags&unix.MSG_CTRUNC != 0 {
		return note, 0, files, errors.Join(errors.New("bad control message"), err)
	}
	for i := range msgs {
		if cred, err := unix.ParseUnixCredentials(&msgs[i]); err == nil {
			pid = int(cred.Pid)
		}
	}
	if _, err := io.ReadFull(conn, size[n:]); err != nil {
		return note, 0, files, errNobodyWaits()
	}
	length := binary.LittleEndian.Uint32(size)
	if length > maxGateNote || pid <= 0 {
		return note, 0, files, fmt.Errorf("note of %d bytes from process %d: %w", length, pid, errdefs.ErrCorrupt)
	}
	text, err := io.ReadAll(io.LimitReader(conn, int64(length)))
	if err != nil || len(text) < int(length) {
		return note, 0, files, errNobodyWaits()
	}
	if err := json.Unmarshal(text, &note); err != nil {
		return note, 0, files, fmt.Errorf("decode note: %w: %w", err, errdefs.ErrCorrupt)
	}
	return note, pid, files, nil
}

// runGateHooks runs the startContainer hooks inside; the child is killed when
// one fails.
func runGateHooks(ctx context.Context, conn *net.UnixConn, note gateNote, pid int, cgroups []*os.File) error {
	pidfd, err := linux.PidfdOpen(pid)
	if err != nil {
		return errNobodyWaits()
	}
	defer func() { _ = pidfd.Close() }()
	// The child holds its end until it dies: so the pid was its own.
	if !stillOpen(conn) {
		return errNobodyWaits()
	}
	state, err := stateFunc(note.State)
	if err != nil {
		return err
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	spec := &Spec{CgroupFiles: cgroups}
	spec.Hooks.State = state
	m := midwife{spec: spec, null: null, facts: facts{hardLimits: hardLimits(), attrFacts: readAttrFacts()}}
	err = m.inside(ctx, &birth{pid: pid, pidfd: pidfd}, "startContainer", note.Hooks, note.Rights)
	if err != nil {
		_ = linux.PidfdSignal(pidfd, int(unix.SIGKILL))
	}
	return err
}

// stillOpen reports whether the peer has not closed its end.
func stillOpen(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	open := false
	_ = raw.Control(func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		open = errors.Is(err, unix.EAGAIN)
	})
	return open
}

// gateOutcome waits until the child has replaced itself by the command.
func gateOutcome(conn *net.UnixConn, command string) error {
	ready := false
	record := make([]byte, recordSize)
	for {
		_, err := io.ReadFull(conn, record)
		switch {
		case errors.Is(err, io.EOF) && ready:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case err != nil:
			return fmt.Errorf("process was killed: %w", errdefs.ErrConflict)
		}
		le := binary.LittleEndian
		switch kind, errno := le.Uint32(record), unix.Errno(le.Uint64(record[8:])); kind {
		case recordReady:
			ready = true
		case recordFailed:
			if err := commandFault(command)(errno); err != nil {
				return fmt.Errorf("execute command: %w", err)
			}
			return fmt.Errorf("execute command: %w", errno)
		default:
			return fmt.Errorf("unknown message %d: %w", kind, errdefs.ErrCorrupt)
		}
	}
}
