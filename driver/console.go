package driver

import (
	"context"
	"io"
)

// ConsoleStreamer opens consoles to type on.
type ConsoleStreamer interface {
	// OpenConsole connects to the console of a running or paused instance. Any
	// number may be connected at once: all see what the instance writes, and what
	// one types goes in as if there were one keyboard. ctx bounds the opening
	// only. errdefs.ErrNotFound if the instance is absent, errdefs.ErrConflict if
	// it does not run, errdefs.ErrUnsupported if it has no console.
	OpenConsole(ctx context.Context, uuid InstanceUUID) (ConsoleStream, error)
}

// ConsoleStream is a connection to a console, a terminal of the kernel. One
// goroutine may read and one write, and Close, which others may call, ends both.
type ConsoleStream interface {
	// Read returns first the end of what the console has said before and then
	// what it says, nothing twice, in a terminal's bytes: a line ends with "\r\n".
	// io.EOF says that the instance has stopped, errdefs.ErrExhausted that this
	// reader was too slow and has lost some, errdefs.ErrUnavailable that the
	// connection is lost and the instance may go on: open again.
	io.Reader
	// Write types. It may wait for the instance to read.
	io.Writer
	// Close disconnects; the instance goes on.
	io.Closer
	// Resize sets the size of the terminal, for all that are connected. A zero is
	// errdefs.ErrInvalid.
	Resize(ctx context.Context, rows, cols uint16) error
}
