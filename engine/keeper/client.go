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
)

// Client is the process.Runner whose processes belong to a keeper. Each call
// has a connection of its own, so it survives everything that the keeper does,
// and any number of clients, in any processes, may use one keeper.
//
// While no keeper answers, methods return errdefs.ErrUnavailable; but Start of
// a client from Ensure starts a keeper again.
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

// cancelGrace is how long a keeper may take to undo a start that its client
// has cancelled.
const cancelGrace = 15 * time.Second

// call makes one request. On cancellation it tells the keeper and takes its
// answer, so that the outcome of a start is always known.
func (c *Client) call(ctx context.Context, req request, files []*os.File) (*response, error) {
	req.Version = Version
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	conn, err := c.connect()
	if err != nil && req.Op == opStart && c.ensure != nil {
		if err := c.restart(ctx); err != nil {
			return nil, err
		}
		conn, err = c.connect()
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	onCancel := func() { _ = conn.SetDeadline(time.Now()) }
	if req.Op == opStart {
		onCancel = func() {
			_ = conn.SetReadDeadline(time.Now().Add(cancelGrace))
			_ = send(conn, request{Version: Version, Op: opCancel}, nil)
		}
	}
	if err := send(conn, req, files); err != nil {
		return nil, c.broken(ctx, err)
	}
	stop := context.AfterFunc(ctx, onCancel)
	defer stop()
	var res response
	if _, err := receive(conn, &res); err != nil {
		return nil, c.broken(ctx, err)
	}
	if res.Error != nil {
		if ctx.Err() != nil && req.Op != opStart {
			return nil, context.Cause(ctx)
		}
		return nil, fromWire(res.Error)
	}
	return &res, nil
}

func (c *Client) connect() (*net.UnixConn, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("connect to keeper: %w: %w", err, errdefs.ErrUnavailable)
	}
	return conn, nil
}

// restart starts a keeper in place of one that is gone.
func (c *Client) restart(ctx context.Context) error {
	if err := startKeeper(ctx, *c.ensure); err != nil {
		return fmt.Errorf("start keeper: %w", err)
	}
	return c.attach()
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

// Hello asks the keeper who it is.
func (c *Client) Hello(ctx context.Context) (Hello, error) {
	res, err := c.call(ctx, request{Op: opHello}, nil)
	if err != nil {
		return Hello{}, fmt.Errorf("greet keeper: %w", err)
	}
	if res.Hello == nil {
		return Hello{}, fmt.Errorf("greet keeper: no answer: %w", errdefs.ErrCorrupt)
	}
	return *res.Hello, nil
}

// Start implements process.Runner.
func (c *Client) Start(ctx context.Context, id string, spec process.Spec) (process.Process, error) {
	res, err := c.call(ctx, request{Op: opStart, ID: id, Spec: &spec}, spec.CgroupFiles)
	if err != nil {
		return process.Process{}, wrap("start", id, err)
	}
	if res.Process == nil {
		return process.Process{}, wrap("start", id, errdefs.ErrCorrupt)
	}
	return *res.Process, nil
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
	if _, err := c.call(ctx, request{Op: opSignal, ID: id, Signal: sig}, nil); err != nil {
		return wrap("signal", id, err)
	}
	return nil
}

// Status implements process.Runner.
func (c *Client) Status(ctx context.Context, id string) (process.Status, error) {
	res, err := c.call(ctx, request{Op: opStatus, ID: id}, nil)
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
	res, err := c.call(ctx, request{Op: opList}, nil)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return res.List, nil
}

// Wait implements process.Runner.
func (c *Client) Wait(ctx context.Context, id string) (process.Exit, error) {
	res, err := c.call(ctx, request{Op: opWait, ID: id}, nil)
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
	if _, err := c.call(ctx, request{Op: opForget, ID: id}, nil); err != nil {
		return wrap("forget", id, err)
	}
	return nil
}
