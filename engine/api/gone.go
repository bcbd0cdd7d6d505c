package api

import (
	"context"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// errGone is why work for a client that is gone ends.
var errGone = fmt.Errorf("the client is gone: %w", errdefs.ErrAborted)

// whileThere returns a context that ends when the client closes the connection
// or says something. end stops looking; nothing may be read afterwards.
func (c *channel) whileThere(parent context.Context) (ctx context.Context, end context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		var cmd command
		_ = c.hear(&cmd) // returns at the latest when the channel is closed
		cancel(errGone)
	}()
	return ctx, func() { cancel(nil) }
}

// interruptible ends reading between two reads when ctx has ended. A read of a
// pipe that never ends is left by its deadline where it has one.
type interruptible struct {
	ctx context.Context //nolint:containedctx // io.Reader has no other way to be told
	r   io.Reader
}

// Read implements io.Reader.
func (i *interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.r.Read(p)
}
