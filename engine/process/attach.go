package process

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"sync"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// attachBuffer is by how much a client may be behind.
const attachBuffer = 256 << 10

// MaxHistory bounds the history that Runner.Attach begins with (bytes of the
// log): half of what a client may be behind, since it may be all line ends.
const MaxHistory = attachBuffer / 4

// An attachment is one client of a console.
type attachment struct {
	leave func()
	input *os.File // a duplicate of the master

	mu   sync.Mutex
	buf  []byte        // guarded by mu: not read yet
	err  error         // guarded by mu: what Read returns after that
	wake chan struct{} // of one: buf or err has changed
}

// Attach implements Runner.
func (l *Local) Attach(ctx context.Context, id string, history int) (io.ReadWriteCloser, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("attach to process %s: %w", id, context.Cause(ctx))
	}
	w := l.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	p, err := l.terminal(id)
	if err != nil {
		return nil, fmt.Errorf("attach to process %s: %w", id, err)
	}
	fd, err := unix.FcntlInt(uintptr(p.console.master), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("attach to process %s: %w", id, os.NewSyscallError("fcntl", err))
	}
	a := &attachment{input: os.NewFile(uintptr(fd), "console"), wake: make(chan struct{}, 1)}
	a.leave = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		p.console.clients = slices.DeleteFunc(p.console.clients, func(x *attachment) bool { return x == a })
	}
	if history > 0 && p.logPath != "" {
		// The log and the clients get each chunk under the lock that is held.
		told, err := conlog.Last(p.logPath, int64(min(history, MaxHistory)))
		if err != nil {
			_ = a.input.Close()
			return nil, fmt.Errorf("attach to process %s: %w", id, err)
		}
		a.buf = terminalLines(told)
	}
	p.console.clients = append(p.console.clients, a)
	return a, nil
}

// questions are what a program asks its terminal for: kind, state, position,
// size, modes, colours (ECMA-48, xterm's ctlseqs). A terminal that gets them late
// would type its answers into whatever reads then.
var questions = regexp.MustCompile(`\x1b\[[0-9;?>=]*[cn]|\x1bZ|\x05|\x1b\[(1[1-9]|2[01])t|\x1b\[\??[0-9;]*\$p|` +
	`\x1b\][0-9;]*\?(\x07|\x1b\\)|\x1bP[+$]q[^\x1b]*\x1b\\`)

// terminalLines is the opposite of unixLines: lines as a terminal wants them. What
// asks a terminal for an answer is left out.
func terminalLines(log []byte) []byte {
	log = questions.ReplaceAll(log, nil)
	out := make([]byte, 0, len(log)+bytes.Count(log, []byte{'\n'}))
	for i, c := range log {
		if c == '\n' && (i == 0 || log[i-1] != '\r') {
			out = append(out, '\r')
		}
		out = append(out, c)
	}
	return out
}

// terminal returns a running process with a console. It needs l.watch.mu.
func (l *Local) terminal(id string) (*proc, error) {
	p, err := l.find(id)
	if err != nil {
		return nil, err
	}
	if !p.status().Running || p.console != nil && p.console.master < 0 {
		return nil, errdefs.ErrNotFound
	}
	if p.console == nil {
		return nil, fmt.Errorf("it has no terminal here: %w", errdefs.ErrUnsupported)
	}
	return p, nil
}

// Resize implements Runner.
func (l *Local) Resize(_ context.Context, id string, rows, cols uint16) error {
	w := l.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	p, err := l.terminal(id)
	if err != nil {
		return fmt.Errorf("resize terminal of process %s: %w", id, err)
	}
	if rows == 0 || cols == 0 {
		return fmt.Errorf("resize terminal of process %s: %d by %d: %w", id, rows, cols, errdefs.ErrInvalid)
	}
	if err := unix.IoctlSetWinsize(p.console.master, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		return fmt.Errorf("resize terminal of process %s: %w", id, os.NewSyscallError("ioctl TIOCSWINSZ", err))
	}
	return nil
}

// put takes output, and reports whether the client stays. It never waits.
func (a *attachment) put(chunk []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return false
	}
	if len(a.buf)+len(chunk) > attachBuffer {
		a.fail(fmt.Errorf("console: dropped for being %d bytes behind: %w", len(a.buf)+len(chunk), errdefs.ErrExhausted))
		return false
	}
	a.buf = append(a.buf, chunk...)
	a.poke()
	return true
}

// end lets Read return reason after what is there.
func (a *attachment) end(reason error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail(reason)
}

// fail needs mu.
func (a *attachment) fail(reason error) {
	if a.err == nil {
		a.err = reason
		_ = a.input.Close()
	}
	a.poke()
}

func (a *attachment) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Read implements io.Reader.
func (a *attachment) Read(p []byte) (int, error) {
	for {
		a.mu.Lock()
		n, err := copy(p, a.buf), a.err
		a.buf = a.buf[n:]
		if len(a.buf) == 0 {
			a.buf = nil
		}
		a.mu.Unlock()
		if n > 0 || len(p) == 0 {
			return n, nil
		}
		if err != nil {
			a.poke() // for the next one
			return 0, err
		}
		<-a.wake
	}
}

// Write implements io.Writer. It waits while the command does not read.
func (a *attachment) Write(p []byte) (int, error) {
	n, err := a.input.Write(p)
	if err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.err != nil && a.err != io.EOF { //nolint:errorlint // set here
			return n, a.err
		}
		return n, fmt.Errorf("console: %w", err)
	}
	return n, nil
}

// Close implements io.Closer.
func (a *attachment) Close() error {
	a.leave()
	a.end(os.ErrClosed)
	return nil
}
