package process

import (
	"errors"
	"io"
	"os"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// The console is a terminal with the kernel's default modes: lines, echo,
// signals, and "\n" written as "\r\n". The log undoes that last translation,
// so that it holds what programs wrote; a client of the live console needs it.
//
// The runner keeps the slave open too. So a guest that closes its console for
// a while (systemd does) is no end of it; at the exit of the first process the
// runner closes the slave and reads the master to its end, which loses nothing.
type console struct {
	master, slave *os.File
	done          chan struct{} // closed when copy has returned
}

// newConsole takes the master that a child sent and gives it its first size.
func newConsole(received *os.File, rows, columns uint16) (*console, error) {
	defer func() { _ = received.Close() }()
	fd, err := unix.FcntlInt(received.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, flags)
	if errno != 0 {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("ioctl TIOCGPTPEER", errno)
	}
	_ = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, firstSize(rows, columns))
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		_ = unix.Close(int(slave))
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &console{
		master: os.NewFile(uintptr(fd), "console"),
		slave:  os.NewFile(slave, "console slave"),
		done:   make(chan struct{}),
	}, nil
}

// buffers are shared by all consoles: an idle one holds none.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

func (b *buffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, bufferSize)
	return &p
}

func (b *buffers) put(p *[]byte) { b.pool.Put(p) }

// copy moves the console's output to w until the console ends. It goes on
// reading when w fails: a full disk must not stop the instance.
func (c *console) copy(w io.Writer, pool *buffers, log zerolog.Logger) {
	defer close(c.done)
	raw, err := c.master.SyscallConn()
	if err != nil {
		return
	}
	out := unixLines{w: w}
	failed := false
	put := func(p []byte) {
		if err := out.write(p); err != nil && !failed {
			failed = true
			log.Warn().Err(err).Msg("console output is lost")
		}
	}
	_ = raw.Read(func(fd uintptr) bool {
		buf := pool.get()
		defer pool.put(buf)
		for {
			n, err := unix.Read(int(fd), *buf)
			switch {
			case n > 0:
				put((*buf)[:n])
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return false
			default: // EIO: the slave has no holder left
				return true
			}
		}
	})
	if out.held {
		_, _ = w.Write([]byte{'\r'})
	}
}

// finish ends the console when its process tree is gone and waits for the rest
// of the output.
func (c *console) finish() {
	_ = c.slave.Close()
	<-c.done
	_ = c.master.Close()
}

// abandon ends copying at once; output that is not read yet is lost.
func (c *console) abandon() {
	_ = c.master.Close()
	<-c.done
	_ = c.slave.Close()
}

// unixLines writes "\r\n" as "\n".
type unixLines struct {
	w    io.Writer
	held bool // the last byte was '\r'; it is not written yet
}

// write may change p.
func (u *unixLines) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if u.held && p[0] != '\n' {
		if _, err := u.w.Write([]byte{'\r'}); err != nil {
			u.held = false
			return err
		}
	}
	u.held = p[len(p)-1] == '\r'
	if u.held {
		p = p[:len(p)-1]
	}
	n := 0
	for i, b := range p {
		if b == '\r' && i+1 < len(p) && p[i+1] == '\n' {
			continue
		}
		p[n] = b
		n++
	}
	if n == 0 {
		return nil
	}
	_, err := u.w.Write(p[:n])
	return err
}
