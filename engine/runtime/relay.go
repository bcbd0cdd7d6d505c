package runtime

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/linux"
)

// relay connects a container's terminal with the caller's, which is put into
// raw mode meanwhile. A nil relay does nothing.
type relay struct {
	theirs *os.File      // the socket that the master comes through
	ours   *net.UnixConn // its other end
	own    *os.File      // the caller's terminal, nil for none
	saved  *unix.Termios // its mode before
	master *os.File
	output sync.WaitGroup
}

func newRelay(own *os.File) (*relay, error) {
	ours, theirs, err := linux.SeqpacketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = ours.Close() }()
	c, err := net.FileConn(ours)
	if err != nil {
		_ = theirs.Close()
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("relay: socket is a %T", c)
	}
	return &relay{theirs: theirs, ours: conn, own: own}, nil
}

// start takes the master and copies until finish.
func (r *relay) start() error {
	if r == nil {
		return nil
	}
	_ = r.theirs.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := r.ours.ReadMsgUnix(make([]byte, 256), oob)
	if err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	files, err := linux.ParseRights(oob[:n])
	if err != nil || len(files) != 1 {
		linux.CloseAll(files)
		return fmt.Errorf("receive terminal: %d files: %w", len(files), err)
	}
	// A file of its own, so that the runtime's poller serves it.
	fd, err := unix.FcntlInt(files[0].Fd(), unix.F_DUPFD_CLOEXEC, 0)
	linux.CloseAll(files)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	r.master = os.NewFile(uintptr(fd), "console")
	if r.own == nil {
		r.output.Go(func() { _, _ = io.Copy(io.Discard, r.master) })
		return nil
	}
	r.resize()
	if err := r.raw(); err != nil {
		return err
	}
	r.output.Go(func() { _, _ = io.Copy(r.own, r.master) })
	go func() { _, _ = io.Copy(r.master, r.own) }() // ends with the process, which ends soon
	return nil
}

// raw puts the caller's terminal into raw mode (cfmakeraw(3)).
func (r *relay) raw() error {
	mode, err := unix.IoctlGetTermios(int(r.own.Fd()), unix.TCGETS)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	saved := *mode
	mode.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	mode.Oflag &^= unix.OPOST
	mode.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	mode.Cflag = mode.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	if err := unix.IoctlSetTermios(int(r.own.Fd()), unix.TCSETS, mode); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	r.saved = &saved
	return nil
}

// resize gives the container's terminal the size of the caller's.
func (r *relay) resize() {
	if r == nil || r.own == nil || r.master == nil {
		return
	}
	size, err := unix.IoctlGetWinsize(int(r.own.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return
	}
	raw, err := r.master.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
}

// finish waits for the rest of the output when the process has ended.
func (r *relay) finish() {
	if r != nil && r.master != nil {
		r.output.Wait()
	}
}

// close gives the caller's terminal back.
func (r *relay) close() {
	if r == nil {
		return
	}
	if r.saved != nil {
		_ = unix.IoctlSetTermios(int(r.own.Fd()), unix.TCSETS, r.saved)
	}
	_ = r.theirs.Close()
	_ = r.ours.Close()
	if r.master != nil {
		_ = r.master.Close()
	}
}
