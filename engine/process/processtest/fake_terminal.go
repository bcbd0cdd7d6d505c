package processtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// attachLimit is by how much a client of the fake may be behind.
const attachLimit = 256 << 10

// A fakeTerminal echoes what is typed, "\n" as "\r\n", to all its clients.
type fakeTerminal struct {
	mu      sync.Mutex
	said    []byte        // guarded by mu: the log, as terminals want it
	clients []*fakeClient // guarded by mu
	ended   bool          // guarded by mu
}

type fakeClient struct {
	terminal *fakeTerminal
	more     *sync.Cond // of terminal.mu
	buf      []byte     // guarded by terminal.mu
	err      error      // guarded by terminal.mu
}

// Attach implements process.Runner. A terminal of the fake echoes.
func (f *Fake) Attach(ctx context.Context, id string, history int) (io.ReadWriteCloser, error) {
	t, err := f.terminal(id)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("attach to process %s: %w", id, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &fakeClient{terminal: t, more: sync.NewCond(&t.mu)}
	if t.ended {
		c.err = io.EOF
	}
	if cut := len(t.said) - min(history, process.MaxHistory, len(t.said)); history > 0 && cut == 0 {
		c.buf = slices.Clone(t.said)
	} else if history > 0 {
		_, rest, _ := bytes.Cut(t.said[cut:], []byte("\n"))
		c.buf = slices.Clone(rest)
	}
	t.clients = append(t.clients, c)
	return c, nil
}

// Resize implements process.Runner.
func (f *Fake) Resize(_ context.Context, id string, rows, cols uint16) error {
	_, err := f.terminal(id)
	if err == nil && (rows == 0 || cols == 0) {
		err = fmt.Errorf("%d by %d: %w", rows, cols, errdefs.ErrInvalid)
	}
	if err != nil {
		return fmt.Errorf("resize terminal of process %s: %w", id, err)
	}
	return nil
}

func (f *Fake) terminal(id string) (*fakeTerminal, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := f.find(id)
	if err != nil {
		return nil, err
	}
	if !p.status.Running {
		return nil, errdefs.ErrNotFound
	}
	if p.terminal == nil {
		return nil, fmt.Errorf("it has no terminal here: %w", errdefs.ErrUnsupported)
	}
	return p.terminal, nil
}

func (t *fakeTerminal) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for _, c := range t.clients {
		c.fail(io.EOF)
	}
}

// fail needs terminal.mu.
func (c *fakeClient) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.more.Broadcast()
}

// Read implements io.Reader.
func (c *fakeClient) Read(p []byte) (int, error) {
	c.terminal.mu.Lock()
	defer c.terminal.mu.Unlock()
	for len(c.buf) == 0 && c.err == nil {
		c.more.Wait()
	}
	if len(c.buf) == 0 {
		return 0, c.err
	}
	n := copy(p, c.buf)
	c.buf = c.buf[n:]
	return n, nil
}

// Write implements io.Writer.
func (c *fakeClient) Write(p []byte) (int, error) {
	t := c.terminal
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.err != nil {
		return 0, fmt.Errorf("console: %w", os.ErrClosed)
	}
	echo := strings.ReplaceAll(string(p), "\n", "\r\n")
	t.said = append(t.said, echo...)
	for _, one := range t.clients {
		if one.err == nil && len(one.buf)+len(echo) > attachLimit {
			one.fail(fmt.Errorf("console: dropped for being behind: %w", errdefs.ErrExhausted))
		}
		if one.err == nil {
			one.buf = append(one.buf, echo...)
			one.more.Broadcast()
		}
	}
	return len(p), nil
}

// Close implements io.Closer.
func (c *fakeClient) Close() error {
	t := c.terminal
	t.mu.Lock()
	defer t.mu.Unlock()
	c.fail(os.ErrClosed)
	t.clients = slices.DeleteFunc(t.clients, func(x *fakeClient) bool { return x == c })
	return nil
}
