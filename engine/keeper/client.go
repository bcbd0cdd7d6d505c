package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// Client is the process.Runner whose processes belong to a keeper. Each call
// has a connection of its own, so it survives everything that the keeper does,
// and any number of clients, in any processes, may use one keeper.
//
// While a keeper that has a guard is restarted, methods wait for the next one,
// up to retryLimit, and ask it; so a Wait lasts across restarts. A Signal that
// was cut off may be sent twice. A Start that was cut off is looked for; when it
// is not to be found the error is errdefs.ErrUnavailable, and something of the
// process may be left: its owner finds it by its control group.
//
// While no keeper is to be expected, methods return errdefs.ErrUnavailable at
// once; but Start of a client from Ensure starts a keeper again.
type Client struct {
	socket string
	ensure *Options // nil for a client from Dial

	mu       sync.Mutex
	attached *net.UnixConn // guarded by mu: shows an idle keeper that it is needed
}

var _ process.Runner = (*Client)(nil)

// Dial returns a client of the keeper that serves socket, after it has
// answered. errdefs.ErrUnavailable when none does, errdefs.ErrUnsupported when
// it speaks another version of the protocol.
func Dial(ctx context.Context, socket string) (*Client, error) {
	c := &Client{socket: socket}
	if _, err := c.Hello(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

const (
	// cancelGrace is how long a keeper may take to undo a start that its client
	// has cancelled.
	cancelGrace = 15 * time.Second
	// retryLimit is how long a client waits for a keeper that is being
	// restarted, which takes about 0.1 s, and seconds where many more want the
	// processor.
	retryLimit = 15 * time.Second
	// alive is how long a request was under way that a keeper had taken: any
	// number of keepers may die while a client waits for a process.
	alive = 100 * time.Millisecond
)

// call makes one request, of the next keeper if this one cannot finish it.
func (c *Client) call(ctx context.Context, req *request, files []*os.File) (*response, error) {
	return c.retry(ctx, func() (*response, error) { return c.once(ctx, req, files) })
}

// retry repeats try while a guard brings back the keeper.
func (c *Client) retry(ctx context.Context, try func() (*response, error)) (*response, error) {
	since, again := time.Now(), false
	for {
		began := time.Now()
		res, err := try()
		var cut *cutStart
		if err == nil || !errors.Is(err, errdefs.ErrUnavailable) || errors.As(err, &cut) {
			if again {
				c.reattach()
			}
			return res, err
		}
		again = true
		if time.Since(began) > alive {
			since = time.Now() // there was a keeper just now
		}
		if time.Since(since) > retryLimit || !guarded(c.socket) {
			return res, err
		}
		timer := time.NewTimer(pollInterval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// once makes one request of one keeper.
func (c *Client) once(ctx context.Context, req *request, files []*os.File) (*response, error) {
	res, conn, err := c.open(ctx, req, files)
	if conn != nil {
		_ = conn.Close()
	}
	return res, err
}

// open makes one request and leaves the connection open if it has succeeded.
// On cancellation it tells the keeper and takes its answer, so that the outcome
// of a start is always known.
func (c *Client) open(ctx context.Context, req *request, files []*os.File) (_ *response, _ *net.UnixConn, err error) {
	req.Version = Version
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	var conn *net.UnixConn
	begin := func() { conn, err = c.begin(ctx, req, files) }
	if req.Op == opWait {
		aside(begin)
	} else {
		begin()
	}
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	onCancel := func() { _ = conn.SetDeadline(time.Now()) }
	if req.Op == opStart {
		onCancel = func() {
			_ = conn.SetReadDeadline(time.Now().Add(cancelGrace))
			_ = send(conn, request{Version: Version, Op: opCancel}, nil)
		}
	}
	stop := context.AfterFunc(ctx, onCancel)
	defer stop()
	if req.Op == opWait {
		if err := awaitMessage(conn); err != nil {
			return nil, nil, c.broken(ctx, err)
		}
	}
	var res response
	if _, err := receive(conn, &res); err != nil {
		err = c.broken(ctx, err)
		if req.Op == opStart && errors.Is(err, errdefs.ErrUnavailable) {
			err = &cutStart{err}
		}
		return nil, nil, err
	}
	if res.Error != nil {
		if ctx.Err() != nil && req.Op != opStart {
			return nil, nil, context.Cause(ctx)
		}
		return nil, nil, fromWire(res.Error)
	}
	return &res, conn, nil
}

// begin sends a request, by a connection of its own.
func (c *Client) begin(ctx context.Context, req *request, files []*os.File) (*net.UnixConn, error) {
	conn, err := c.connect()
	if err != nil && req.Op == opStart && c.ensure != nil && !guarded(c.socket) {
		if err := c.restart(ctx); err != nil {
			return nil, err
		}
		conn, err = c.connect()
	}
	if err != nil {
		return nil, err
	}
	if err := send(conn, req, files); err != nil {
		_ = conn.Close()
		return nil, c.broken(ctx, err)
	}
	return conn, nil
}

// cutStart is the error of a start whose keeper has ended before it answered.
type cutStart struct{ error }

func (e *cutStart) Unwrap() error { return e.error }

func (c *Client) connect() (*net.UnixConn, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("connect to keeper: %w: %w", err, errdefs.ErrUnavailable)
	}
	return conn, nil
}

// restart starts a keeper in place of one that is gone, and attaches to it. On a
// busy host it may have been idle for long enough before: then there is another.
func (c *Client) restart(ctx context.Context) (err error) {
	const tries = 5
	for range tries {
		if err := startKeeper(ctx, *c.ensure); err != nil {
			return fmt.Errorf("start keeper: %w", err)
		}
		if err = c.attach(); !errors.Is(err, errdefs.ErrUnavailable) {
			break
		}
	}
	return err
}

// attach opens the connection that keeps an idle keeper alive.
func (c *Client) attach() error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	if err := send(conn, request{Version: Version, Op: opAttach}, nil); err != nil {
		_ = conn.Close()
		return fmt.Errorf("attach to keeper: %w: %w", err, errdefs.ErrUnavailable)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attached != nil {
		_ = c.attached.Close()
	}
	c.attached = conn
	return nil
}

// reattach shows a new keeper that it is needed, as the one before it was
// shown. A failure costs no more than a start of a keeper later on.
func (c *Client) reattach() {
	c.mu.Lock()
	was := c.attached != nil
	c.mu.Unlock()
	if was {
		_ = c.attach()
	}
}

// Close lets an idle keeper end. The client may be used further.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attached == nil {
		return nil
	}
	err := c.attached.Close()
	c.attached = nil
	return err
}

// broken classifies a failure of the connection.
func (c *Client) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errdefs.ErrInvalid) {
		return err
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("connection closed")
	}
	return fmt.Errorf("talk to keeper: %w: %w", err, errdefs.ErrUnavailable)
}

// Hello asks the keeper who it is. errdefs.ErrUnsupported when it speaks another
// version of the protocol.
func (c *Client) Hello(ctx context.Context) (Hello, error) {
	res, err := c.call(ctx, &request{Op: opHello}, nil)
	return hello(res, err)
}

// helloOnce does not wait for a keeper that is being restarted.
func (c *Client) helloOnce(ctx context.Context) (Hello, error) {
	res, err := c.once(ctx, &request{Op: opHello}, nil)
	return hello(res, err)
}

func hello(res *response, err error) (Hello, error) {
	switch {
	case err != nil:
	case res.Hello == nil:
		err = fmt.Errorf("no answer: %w", errdefs.ErrCorrupt)
	case res.Hello.Version != Version:
		err = fmt.Errorf("keeper speaks version %d, client %d: %w", res.Hello.Version, Version, errdefs.ErrUnsupported)
	default:
		return *res.Hello, nil
	}
	return Hello{}, fmt.Errorf("greet keeper: %w", err)
}

// Start implements process.Runner.
func (c *Client) Start(ctx context.Context, id string, spec process.Spec) (process.Process, error) {
	files := spec.TakeFiles()
	before := bootTicks()
	res, err := c.call(ctx, &request{Op: opStart, ID: id, Spec: &spec}, files)
	var cut *cutStart
	if errors.As(err, &cut) && ctx.Err() == nil {
		// The keeper had started it if the next one knows it, and then it is
		// ours: a start of another caller would have been here before.
		if st, lookErr := c.Status(ctx, id); lookErr == nil && st.Process.StartTime >= before {
			return st.Process, nil
		}
	}
	if err != nil {
		return process.Process{}, wrap("start", id, err)
	}
	if res.Process == nil {
		return process.Process{}, wrap("start", id, errdefs.ErrCorrupt)
	}
	return *res.Process, nil
}

// bootTicks is the time in the unit of process.Process.StartTime.
func bootTicks() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return ^uint64(0) // nothing is younger
	}
	return uint64(now.Nano()) / uint64(10*time.Millisecond)
}

// wrap adds what failed to errors of the connection; the keeper's own say it.
func wrap(op, id string, err error) error {
	var remote *remoteError
	if errors.As(err, &remote) {
		return err
	}
	return fmt.Errorf("%s process %s: %w", op, id, err)
}

// Signal implements process.Runner.
func (c *Client) Signal(ctx context.Context, id string, sig int) error {
	if _, err := c.call(ctx, &request{Op: opSignal, ID: id, Signal: sig}, nil); err != nil {
		return wrap("signal", id, err)
	}
	return nil
}

// Status implements process.Runner.
func (c *Client) Status(ctx context.Context, id string) (process.Status, error) {
	res, err := c.call(ctx, &request{Op: opStatus, ID: id}, nil)
	if err != nil {
		return process.Status{}, wrap("look at", id, err)
	}
	if res.Status == nil {
		return process.Status{}, wrap("look at", id, errdefs.ErrCorrupt)
	}
	return *res.Status, nil
}

// List implements process.Runner.
func (c *Client) List(ctx context.Context) ([]process.Status, error) {
	res, err := c.call(ctx, &request{Op: opList}, nil)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return res.List, nil
}

// Wait implements process.Runner.
func (c *Client) Wait(ctx context.Context, id string) (process.Exit, error) {
	res, err := c.call(ctx, &request{Op: opWait, ID: id}, nil)
	if err != nil {
		return process.Exit{}, wrap("wait for", id, err)
	}
	if res.Exit == nil {
		return process.Exit{}, wrap("wait for", id, errdefs.ErrCorrupt)
	}
	return *res.Exit, nil
}

// Forget implements process.Runner.
func (c *Client) Forget(ctx context.Context, id string) error {
	if _, err := c.call(ctx, &request{Op: opForget, ID: id}, nil); err != nil {
		return wrap("forget", id, err)
	}
	return nil
}
