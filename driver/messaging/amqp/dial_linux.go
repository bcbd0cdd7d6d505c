package amqp

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketOptions ends a connection whose sent bytes nobody acknowledges for the
// heartbeat time, as stock does.
func socketOptions(timeout time.Duration) func(network, address string, c syscall.RawConn) error {
	if timeout <= 0 {
		return nil
	}
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
		}); cerr != nil {
			return cerr
		}
		return err
	}
}
