package messaging

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// ClientOptions are the settings of a Client. The zero value is usable.
type ClientOptions struct {
	// ResponseTimeout is rpc_response_timeout: the end of a call whose
	// context has no deadline. 0 means 60 s.
	ResponseTimeout time.Duration
	// CallMonitor is the silence after which a call that may last longer than
	// this is given up; the server is asked for a heartbeat in that time.
	// 0 means 60 s, a negative value asks for none.
	CallMonitor time.Duration
	// Log gets what a caller cannot see, such as late replies.
	Log zerolog.Logger
}

// Client implements Caller over a Transport. It makes its one reply queue at
// the first call. Safe for concurrent use.
type Client struct {
	transport Transport
	opts      ClientOptions
	recall    *recall

	setup chan struct{} // holds one token: the right to make the reply queue
	queue string        // guarded by setup
	sub   Subscription  // guarded by setup

	mu      sync.Mutex
	closed  bool                // +checklocks:mu
	waiting map[string]*pending // +checklocks:mu
}

var _ Caller = (*Client)(nil)

// NewClient returns a client of t. Close ends it and leaves t open.
func NewClient(t Transport, o ClientOptions) *Client {
	if o.ResponseTimeout == 0 {
		o.ResponseTimeout = defaultTimeout
	}
	if o.CallMonitor == 0 {
		o.CallMonitor = defaultTimeout
	}
	c := &Client{
		transport: t, opts: o, recall: newRecall(),
		setup: make(chan struct{}, 1), waiting: make(map[string]*pending),
	}
	c.setup <- struct{}{}
	return c
}

// Call implements Caller. A passed deadline is both ErrTimeout and
// context.DeadlineExceeded. The request carries the rest of the time as its
// expiration, so that a server which comes back later does not run it.
func (c *Client) Call(ctx context.Context, rc RequestContext, t Target, method string, args map[string]any, result any) error {
	err := c.call(ctx, rc, t, method, args, result)
	if err != nil {
		return fmt.Errorf("call %s on %s: %w", method, t.name(), err)
	}
	return nil
}

func (c *Client) call(ctx context.Context, rc RequestContext, t Target, method string, args map[string]any, result any) error {
	if t.Fanout {
		return fmt.Errorf("%w: a fan-out has no answer", errdefs.ErrInvalid)
	}
	if _, ok := ctx.Deadline(); !ok {
		bounded, cancel := context.WithTimeout(ctx, c.opts.ResponseTimeout)
		defer cancel()
		ctx = bounded
	}
	queue, err := c.replyQueue(ctx)
	if err != nil {
		return timeout(ctx, err)
	}
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	if left <= 0 {
		return timeout(ctx, context.DeadlineExceeded)
	}
	req, err := newRequest(rc, t, method, args)
	if err != nil {
		return err
	}
	req.MsgID, req.ReplyQ = newID(), queue
	if c.opts.CallMonitor > 0 && left > c.opts.CallMonitor {
		req.Monitor = c.opts.CallMonitor
	}
	body, err := EncodeEnvelope(req.payload())
	if err != nil {
		return err
	}
	p, err := c.expect(req.MsgID)
	if err != nil {
		return err
	}
	defer c.forget(req.MsgID)
	if err := c.transport.Send(ctx, t, Message{Body: body, Expiration: left}); err != nil {
		return timeout(ctx, err)
	}
	raw, err := p.wait(ctx, req.Monitor)
	if err != nil || result == nil {
		return err
	}
	if isNull(raw) {
		raw = json.RawMessage("null")
	}
	if err := json.Unmarshal(raw, result); err != nil {
		return fmt.Errorf("decode result: %w: %w", errdefs.ErrCorrupt, err)
	}
	return nil
}

// Cast implements Caller.
func (c *Client) Cast(ctx context.Context, rc RequestContext, t Target, method string, args map[string]any) error {
	req, err := newRequest(rc, t, method, args)
	if err != nil {
		return fmt.Errorf("cast %s to %s: %w", method, t.name(), err)
	}
	body, err := EncodeEnvelope(req.payload())
	if err != nil {
		return fmt.Errorf("cast %s to %s: %w", method, t.name(), err)
	}
	if err := c.transport.Send(ctx, t, Message{Body: body}); err != nil {
		return fmt.Errorf("cast %s to %s: %w", method, t.name(), err)
	}
	return nil
}

// Close ends all waiting calls with ErrClosed and stops listening for replies.
// Idempotent.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	for _, p := range c.waiting {
		p.end(nil, ErrClosed)
	}
	c.mu.Unlock()
	select {
	case <-c.setup:
	case <-ctx.Done():
		return fmt.Errorf("close messaging client: %w", ctx.Err())
	}
	defer func() { c.setup <- struct{}{} }()
	if c.sub == nil {
		return nil
	}
	sub := c.sub
	c.sub = nil
	return sub.Close(ctx)
}

// replyQueue makes the reply queue, once.
func (c *Client) replyQueue(ctx context.Context) (string, error) {
	select {
	case <-c.setup:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { c.setup <- struct{}{} }()
	if c.queue != "" {
		return c.queue, nil
	}
	if c.isClosed() {
		return "", ErrClosed
	}
	queue, sub, err := c.transport.ListenReplies(ctx, c.deliver)
	if err != nil {
		return "", fmt.Errorf("make reply queue: %w", err)
	}
	c.queue, c.sub = queue, sub
	return queue, nil
}

// deliver takes one message from the reply queue.
func (c *Client) deliver(d Delivery) {
	if err := d.Ack(); err != nil {
		return // comes again
	}
	r, err := decodeReply(d.Body)
	if err != nil {
		c.opts.Log.Warn().Err(err).Msg("unreadable reply dropped")
		return
	}
	if !c.recall.first(r.UniqueID) {
		return
	}
	c.mu.Lock()
	p := c.waiting[r.MsgID]
	c.mu.Unlock()
	if p == nil {
		c.opts.Log.Debug().Str("msg_id", r.MsgID).Msg("late reply dropped")
		return
	}
	p.take(r)
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *Client) expect(id string) (*pending, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	p := newPending()
	c.waiting[id] = p
	return p, nil
}

func (c *Client) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

const defaultTimeout = 60 * time.Second

// timeout turns the end of ctx by its deadline into ErrTimeout.
func timeout(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrTimeout, context.DeadlineExceeded)
	}
	return err
}

func newRequest(rc RequestContext, t Target, method string, args map[string]any) (wireRequest, error) {
	if t.Topic == "" || method == "" {
		return wireRequest{}, fmt.Errorf("%w: no topic or no method", errdefs.ErrInvalid)
	}
	encoded := make(map[string]json.RawMessage, len(args))
	for k, v := range args {
		raw, err := marshal(v)
		if err != nil {
			return wireRequest{}, fmt.Errorf("encode argument %s: %w: %w", k, errdefs.ErrInvalid, err)
		}
		encoded[k] = raw
	}
	version := t.Version
	if version == "" {
		version = "1.0"
	}
	return wireRequest{
		Method: method, Namespace: t.Namespace, Version: version, Args: encoded,
		UniqueID: newID(), Context: rc,
	}, nil
}

// name is the target as errors and logs call it.
func (t Target) name() string {
	if t.Server != "" {
		return t.Topic + "." + t.Server
	}
	return t.Topic
}
