package foreign

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// consoleSocket receives a terminal: runc's --console-socket protocol, one
// message with one descriptor on a connection to a unix socket.
type consoleSocket struct {
	path     string
	listener *net.UnixListener
	dir      *os.File
	// received is closed when the others are valid; nil before receive.
	received chan struct{}
	master   *os.File
	err      error
}

// listenConsole makes the socket in dir. Its path is one through /proc, so that
// it never is too long for an address (unix(7): 108 bytes).
func listenConsole(dir string) (*consoleSocket, error) {
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, consoleFile)
	if len(path) > 100 {
		path = fmt.Sprintf("/proc/%d/fd/%d/%s", os.Getpid(), d.Fd(), consoleFile)
	}
	_ = os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("console socket: %w", err)
	}
	return &consoleSocket{path: path, listener: l, dir: d}, nil
}

// close ends what receive waits for; a master that nobody has taken is closed.
func (c *consoleSocket) close() {
	_ = c.listener.Close()
	if c.received != nil {
		<-c.received
		linux.CloseAll([]*os.File{c.master})
	}
	_ = c.dir.Close()
}

// receive begins to wait for the master, while the runtime is at work: it is
// given its size when it comes, as a session's command does not wait for that.
func (c *consoleSocket) receive(ctx context.Context, spec *process.Spec) {
	c.received = make(chan struct{})
	go func() {
		defer close(c.received)
		stop := context.AfterFunc(ctx, func() { _ = c.listener.SetDeadline(time.Now()) })
		defer stop()
		if c.master, c.err = c.accept(); c.err == nil {
			c.err = resize(c.master, spec)
		}
	}()
}

// take returns the master that a runtime which has ended well has sent.
func (c *consoleSocket) take() (*os.File, error) {
	if err := c.listener.SetDeadline(time.Now().Add(consoleLimit)); err != nil {
		return nil, err
	}
	<-c.received
	if c.err != nil {
		return nil, c.err
	}
	master := c.master
	c.master = nil
	return master, nil
}

func (c *consoleSocket) accept() (*os.File, error) {
	conn, err := c.listener.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("receive console: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(consoleLimit)); err != nil {
		return nil, err
	}
	body, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	_, n, _, _, err := conn.ReadMsgUnix(body, oob)
	if err != nil {
		return nil, fmt.Errorf("receive console: %w", err)
	}
	files, err := linux.ParseRights(oob[:n])
	if err != nil || len(files) != 1 {
		linux.CloseAll(files)
		return nil, errors.Join(err, fmt.Errorf("receive console: %d descriptors: %w", len(files), errdefs.ErrCorrupt))
	}
	return files[0], nil
}

// sizeOf is the terminal's first size, as process.Spec says.
func sizeOf(spec *process.Spec) unix.Winsize {
	size := unix.Winsize{Row: spec.ConsoleRows, Col: spec.ConsoleColumns}
	if size.Row == 0 {
		size.Row = 24
	}
	if size.Col == 0 {
		size.Col = 80
	}
	return size
}

// resize sets the size again: not every runtime does what the configuration
// says of it.
func resize(master *os.File, spec *process.Spec) error {
	size := sizeOf(spec)
	raw, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &size)
	}); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("set console size: %w", failed)
	}
	return nil
}
