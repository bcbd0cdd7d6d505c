package messaging

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// ServerOptions are the settings of a Server.
type ServerOptions struct {
	// Topics to serve, for a compute host "compute" and "compute-alt".
	Topics []string
	// Host is this server's name in Target.Server.
	Host string
	// Endpoints are tried in this order; the first that fits is used.
	Endpoints []Endpoint
	// Log gets one line for each failed request.
	Log zerolog.Logger
	// RemoteErrorOf translates a handler's error for the caller; it never
	// returns nil. Nil means the package's RemoteErrorOf.
	RemoteErrorOf func(error) *RemoteError
	// ReplyRetry is kombu_missing_consumer_retry_timeout: how long a reply
	// waits for its missing queue. 0 means 60 s.
	ReplyRetry time.Duration
	// Observe is told of each request that was run, by its method ("unknown" for
	// one that no endpoint has), and how it ended. It must not block; nil for
	// nobody.
	Observe func(method string, err error)
	// Grace is the time that running handlers get at the end before their
	// context ends.
	Grace time.Duration
}

// Server receives requests, runs their handlers and replies.
//
// A request is acknowledged when it is received, before it is run: each is run
// at most once, and a crash loses it. Handlers run concurrently, without a
// limit and without order; who needs either takes locks in the handler.
type Server struct {
	transport Transport
	opts      ServerOptions
	recall    *recall
	replies   *replier
	ready     chan struct{}
	closing   chan struct{}
	closeOnce sync.Once
	running   sync.WaitGroup
}

// NewServer returns a server on t; it does nothing before Serve.
func NewServer(t Transport, o ServerOptions) (*Server, error) {
	if len(o.Topics) == 0 || o.Host == "" {
		return nil, fmt.Errorf("messaging server: %w: no topic or no host", errdefs.ErrInvalid)
	}
	if o.RemoteErrorOf == nil {
		o.RemoteErrorOf = RemoteErrorOf
	}
	if o.ReplyRetry == 0 {
		o.ReplyRetry = defaultTimeout
	}
	return &Server{
		transport: t, opts: o, recall: newRecall(), replies: newReplier(t, o.ReplyRetry),
		ready: make(chan struct{}), closing: make(chan struct{}),
	}, nil
}

// Ready is closed when the server's queues exist and are consumed.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Serve listens until ctx or Close ends it and returns after the last handler
// has; nil then. It waits for a broker that is away at the start, and may be
// called once. Handlers see the values of ctx; their own context ends Grace
// after the end of the service.
func (s *Server) Serve(ctx context.Context) error {
	setup, stopSetup := context.WithCancel(ctx)
	defer stopSetup()
	go func() {
		select {
		case <-s.closing:
			stopSetup()
		case <-setup.Done():
		}
	}()
	handlers, endHandlers := context.WithCancel(context.WithoutCancel(ctx))
	defer endHandlers()
	replies, endReplies := context.WithCancel(context.WithoutCancel(ctx))
	defer endReplies()

	sub, err := s.transport.Listen(setup, Address{Topics: s.opts.Topics, Server: s.opts.Host}, func(d Delivery) {
		s.deliver(handlers, replies, d)
	})
	if err != nil {
		if setup.Err() != nil {
			return nil
		}
		return fmt.Errorf("serve %v as %s: %w", s.opts.Topics, s.opts.Host, err)
	}
	close(s.ready)
	<-setup.Done()

	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	err = sub.Close(tidy)
	s.drain(endHandlers, endReplies)
	return err
}

// drain waits for the handlers: Grace, then with their contexts ended, then
// with the sending of replies ended too.
func (s *Server) drain(endHandlers, endReplies context.CancelFunc) {
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	for _, step := range []struct {
		wait time.Duration
		end  context.CancelFunc
	}{{s.opts.Grace, endHandlers}, {tidyTime, endReplies}} {
		select {
		case <-done:
			return
		case <-time.After(step.wait):
			step.end()
		}
	}
	<-done
}

// tidyTime bounds what is said to the broker at the end.
const tidyTime = 5 * time.Second

// Close ends Serve and does not wait for it. Idempotent.
func (s *Server) Close() { s.closeOnce.Do(func() { close(s.closing) }) }

// deliver acknowledges a request, drops what is unreadable or known, and
// starts the handler.
func (s *Server) deliver(handlers, replies context.Context, d Delivery) {
	if err := d.Ack(); err != nil {
		return // comes again
	}
	received := time.Now()
	req, err := decodeRequest(d.Body)
	if err != nil {
		s.opts.Log.Warn().Err(err).Int("bytes", len(d.Body)).Msg("unreadable request dropped")
		return
	}
	if !s.recall.first(req.UniqueID) {
		s.opts.Log.Debug().Str(logging.Method, req.Method).Str("unique_id", req.UniqueID).Msg("duplicate request dropped")
		return
	}
	s.running.Go(func() { s.handle(handlers, replies, req, received) })
}

// handle runs one request and replies to a caller.
func (s *Server) handle(handlers, replies context.Context, req wireRequest, received time.Time) {
	isCall := req.MsgID != "" && req.ReplyQ != ""
	h, refusal := find(s.opts.Endpoints, req.Namespace, req.Version, req.Method)
	var result any
	var err error
	if refusal != nil {
		err = refusal
	} else {
		stop := func() {}
		if isCall {
			stop = s.heartbeat(replies, req)
		}
		result, err = s.run(handlers, h, &Request{
			Method: req.Method, Namespace: req.Namespace, Version: req.Version, Args: req.Args,
			Context: req.Context, IsCall: isCall, Received: received,
		})
		stop()
	}
	if s.opts.Observe != nil {
		method := req.Method
		if refusal != nil {
			method = "unknown"
		}
		s.opts.Observe(method, err)
	}
	if err != nil {
		s.opts.Log.Warn().Err(err).Str(logging.Method, req.Method).Str(logging.Request, req.Context.RequestID()).
			Dur(logging.Took, time.Since(received)).Bool("call", isCall).Msg("request failed")
	}
	if !isCall {
		return
	}
	if err := s.replies.send(replies, req.ReplyQ, s.reply(req, result, err)); err != nil {
		s.opts.Log.Warn().Err(err).Str(logging.Method, req.Method).Str(logging.Request, req.Context.RequestID()).
			Str("queue", req.ReplyQ).Msg("reply not delivered")
	}
}

// errPanic is what the caller of a handler that panicked gets.
var errPanic = errors.New("handler panicked")

// run calls the handler and turns a panic into an error.
func (s *Server) run(ctx context.Context, h Handler, req *Request) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.opts.Log.Error().Str(logging.Method, req.Method).Interface("panic", p).
				Bytes("stack", debug.Stack()).Msg("handler panicked")
			result, err = nil, fmt.Errorf("%s: %w", req.Method, errPanic)
		}
	}()
	return h(ctx, req)
}

// reply encodes the last message of a call.
func (s *Server) reply(req wireRequest, result any, err error) []byte {
	r := wireReply{Ending: true, MsgID: req.MsgID, UniqueID: newID()}
	if err == nil {
		raw, bad := marshal(result)
		r.Result, err = raw, bad
	}
	if err == nil {
		body, bad := EncodeEnvelope(r)
		if bad == nil {
			return body
		}
		err = bad
	}
	failure := encodeFailure(s.opts.RemoteErrorOf(err))
	r.Result, r.Failure = nil, &failure
	body, bad := EncodeEnvelope(r)
	if bad != nil {
		return s.reply(req, nil, NovaError("NovaException", 500, "The error is too long to be sent."))
	}
	return body
}

// heartbeat tells the caller of a monitored call twice in each of its
// intervals that the handler still runs, until stop is called
// (oslo_messaging/rpc/server.py; _drivers/amqpdriver.py, AMQPIncomingMessage.heartbeat).
func (s *Server) heartbeat(ctx context.Context, req wireRequest) (stop func()) {
	interval := req.Monitor.Truncate(time.Second) / 2
	if interval < time.Second {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			body, err := EncodeEnvelope(wireReply{MsgID: req.MsgID, UniqueID: newID()})
			if err != nil {
				return
			}
			// A missed one does no harm, and the reply has its own retries.
			_ = s.transport.Reply(ctx, req.ReplyQ, Message{Body: body})
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}
