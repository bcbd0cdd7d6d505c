// Package linux wraps the few system calls that gantry's packages share and
// that golang.org/x/sys/unix leaves raw: each is retried on EINTR and returns
// an error that names the call.
//
// A function belongs here when two packages need it, when it takes plain
// values, and when it decides nothing. It imports only the standard library
// and golang.org/x/sys/unix; any package may import it.
package linux

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// RetryEINTR calls fn until it returns something else than EINTR.
func RetryEINTR[T any](fn func() (T, error)) (T, error) {
	for {
		v, err := fn()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// OpenInRoot opens path below the directory root as a process whose "/" is
// root would see it: no ".." and no symbolic link leads out, and links of the
// kind of /proc/PID/fd are refused. flags are those of open(2); O_CLOEXEC is
// added. The error is an *os.PathError.
func OpenInRoot(root *os.File, path string, flags int) (*os.File, error) {
	return openInRoot(root, path, flags, 0)
}

func openInRoot(root *os.File, path string, flags int, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve,
	}
	fd, err := RetryEINTR(func() (int, error) { return unix.Openat2(int(root.Fd()), path, &how) })
	if err != nil {
		return nil, &os.PathError{Op: "openat2", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// ErrTooLarge is returned by ReadRegularInRoot for a file over its limit.
var ErrTooLarge = errors.New("file too large")

// ErrNotRegular is returned by ReadRegularInRoot for anything but a file.
var ErrNotRegular = errors.New("not a regular file")

// ReadRegularInRoot reads a regular file below root, opened as OpenInRoot
// does but on the mount of root only, of at most limit bytes. It never blocks on
// a fifo or device.
func ReadRegularInRoot(root *os.File, path string, limit int64) ([]byte, error) {
	// Look first through a handle that has no side effect on a device.
	handle, err := openInRoot(root, path, unix.O_PATH, unix.RESOLVE_NO_XDEV)
	if err != nil {
		return nil, err
	}
	info, err := handle.Stat()
	_ = handle.Close()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &os.PathError{Op: "read", Path: path, Err: ErrNotRegular}
	}
	f, err := openInRoot(root, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, unix.RESOLVE_NO_XDEV)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &os.PathError{Op: "read", Path: path, Err: ErrNotRegular}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &os.PathError{Op: "read", Path: path, Err: ErrTooLarge}
	}
	return data, nil
}

// GrowFiles makes room for so many descriptors at once, where the limits allow:
// the kernel waits about 10 ms for each growth of the table of a process with
// threads.
func GrowFiles(n int) {
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, n); err == nil {
		_ = unix.Close(fd)
	}
}

// Memfd returns an anonymous file in memory that may be executed and sealed.
func Memfd(name string) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	// MFD_EXEC is known since Linux 6.3; before, every memfd is executable.
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), "memfd:"+name), nil
}

// Seal forbids every further change of a memfd, its seals included.
func Seal(f *os.File) error {
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	return os.NewSyscallError("fcntl F_ADD_SEALS", err)
}

// PidfdOpen returns a descriptor of a process that the runtime's poller can
// wait on: it becomes readable when the process ends. The caller must know
// that pid cannot have been reused (an unreaped child, for example).
func PidfdOpen(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// PidfdSignal sends sig through f, a descriptor from PidfdOpen.
func PidfdSignal(f *os.File, sig int) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) {
		sent = unix.PidfdSendSignal(int(fd), unix.Signal(sig), nil, 0)
	}); err != nil {
		return err
	}
	return os.NewSyscallError("pidfd_send_signal", sent)
}

// AwaitPidfd returns when the process of f, a descriptor from PidfdOpen, has
// ended, or with an error when f is closed or its read deadline passes.
func AwaitPidfd(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := RetryEINTR(func() (int, error) { return unix.Poll(p, 0) })
		return err != nil || n > 0
	})
}

// SeqpacketPair returns two connected sockets that keep message boundaries.
// The first is for the runtime's poller, the second blocks and is for a child.
func SeqpacketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

// RecvFiles reads one message of a local socket into buf and the descriptors
// that came with it. n is 0 at the end of the stream. It waits as f's Read
// does: f's read deadline and Close end it.
func RecvFiles(f *os.File, buf []byte, maxFiles int) (n int, files []*os.File, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	var oobn, flags int
	var got error
	if err := raw.Read(func(fd uintptr) bool {
		n, oobn, flags, _, got = unix.Recvmsg(int(fd), buf, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		return !errors.Is(got, unix.EAGAIN) && !errors.Is(got, unix.EINTR)
	}); err != nil {
		return 0, nil, err
	}
	if got != nil {
		return 0, nil, os.NewSyscallError("recvmsg", got)
	}
	if files, err = ParseRights(oob[:oobn]); err != nil {
		return 0, nil, err
	}
	if flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		CloseAll(files)
		return 0, nil, fmt.Errorf("recvmsg: message truncated")
	}
	return n, files, nil
}

// ParseRights returns the descriptors in the control data of a message.
func ParseRights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg control", err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // another kind of control message
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

// CloseAll closes files, ignoring nil ones and errors.
func CloseAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
