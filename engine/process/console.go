package process

import (
	"os"

	"golang.org/x/sys/unix"
)

// The console is a terminal with the kernel's default modes: lines, echo,
// signals, and "\n" written as "\r\n". The log undoes that last translation,
// so that it holds what programs wrote; a client of the live console needs it.
//
// The runner keeps the slave open too. So a guest that closes its console for
// a while (systemd does) is no end of it; at the exit of the first process the
// runner closes the slave and reads the master to its end, which loses nothing.
//
// All of it is guarded by Local.watch.mu.
type console struct {
	master, slave int // descriptors, the master not blocking; -1 when closed
	failed        bool
	clients       []*attachment
}

// newConsole takes the master that a child sent.
func newConsole(received *os.File) (*console, error) {
	defer func() { _ = received.Close() }()
	fd, err := unix.FcntlInt(received.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return openConsole(fd)
}

// openConsole makes a console of a master, which it closes on error.
func openConsole(master int) (*console, error) {
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, flags)
	if errno != 0 {
		_ = unix.Close(master)
		return nil, os.NewSyscallError("ioctl TIOCGPTPEER", errno)
	}
	if err := unix.SetNonblock(master, true); err != nil {
		closeFds(master, int(slave))
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &console{master: master, slave: int(slave)}, nil
}

// hangUp lets the master come to its end.
func (c *console) hangUp() {
	closeFds(c.slave)
	c.slave = -1
}

// close ends the console; output that is not read yet is lost.
func (c *console) close(reason error) {
	closeFds(c.master, c.slave)
	c.master, c.slave = -1, -1
	for _, a := range c.clients {
		a.end(reason)
	}
	c.clients = nil
}

// show gives output to all clients, without waiting for any.
func (c *console) show(chunk []byte) {
	kept := c.clients[:0]
	for _, a := range c.clients {
		if a.put(chunk) {
			kept = append(kept, a)
		}
	}
	clear(c.clients[len(kept):])
	c.clients = kept
}
