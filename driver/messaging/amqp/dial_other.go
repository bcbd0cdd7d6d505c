//go:build !linux

package amqp

import (
	"syscall"
	"time"
)

// socketOptions has nothing to set here: the heartbeats must do.
func socketOptions(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }
