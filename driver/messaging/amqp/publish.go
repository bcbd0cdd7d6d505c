package amqp

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
)

// publication is one message and where it goes.
type publication struct {
	exchange string // empty: the default exchange, which is never declared
	kind     string
	props    properties
	key      string
	// queue, if set, is declared with queueProps and bound by key.
	queue      string
	queueProps properties
	// mandatory asks the broker to hand the message back when no queue takes
	// it; publishing then fails with messaging.ErrNoReplyQueue.
	mandatory bool
	msg       messaging.Message
}

// publisher publishes on one confirm-mode channel of a link. A message is
// published again, the same bytes, until the broker confirms it: the receiver
// drops the duplicate that a lost confirmation makes. Safe for concurrent use.
type publisher struct {
	link  *link
	pause time.Duration // between tries on a connection that lives
	log   zerolog.Logger
	done  <-chan struct{} // the transport is closed

	spawn func(func()) bool // starts a goroutine that the transport waits for

	flights  chan struct{} // one element for each message without confirmation
	building chan struct{} // holds one token: the right to look at outlet
	outlet   *outlet       // guarded by building
}

// maxFlights is how many messages may wait for confirmation. The channel of
// returned messages is longer, so that the connection's reader never waits.
const maxFlights = 256

func newPublisher(l *link, o Options, done <-chan struct{}, spawn func(func()) bool) *publisher {
	p := &publisher{
		link: l, pause: o.RetryInterval, log: l.log, done: done, spawn: spawn,
		flights: make(chan struct{}, maxFlights), building: make(chan struct{}, 1),
	}
	p.building <- struct{}{}
	return p
}

// errRetry: the message may or may not have arrived; publish it again.
var errRetry = errors.New("not confirmed")

// publish returns when the broker has the message, when it was handed back, at
// the end of ctx, or with messaging.ErrClosed.
func (p *publisher) publish(ctx context.Context, m publication) error {
	for try := 0; ; try++ {
		s, err := p.link.session(ctx)
		if err != nil {
			return err
		}
		err = p.detached(ctx, func() error { return p.attempt(s, m) })
		switch {
		case err == nil, errors.Is(err, messaging.ErrNoReplyQueue), errors.Is(err, messaging.ErrClosed):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("publish: %w (%w)", ctx.Err(), err)
		}
		p.log.Debug().Err(err).Int("try", try).Msg("publish again")
		// The first time at once: most often an exchange has vanished with
		// its last queue, or the connection has just gone.
		if try > 0 && !sleep(ctx, p.pause) {
			return fmt.Errorf("publish: %w (%w)", ctx.Err(), err)
		}
	}
}

// detached runs f on a goroutine of its own and leaves it behind when ctx
// ends, because a write to a stuck connection cannot be stopped: it ends with
// the connection. Transport.Close waits for what is left behind.
func (p *publisher) detached(ctx context.Context, f func() error) error {
	result := make(chan error, 1)
	if !p.spawn(func() { result <- f() }) {
		return messaging.ErrClosed
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-p.done:
		return messaging.ErrClosed
	}
}

// attempt publishes once and waits for the confirmation.
func (p *publisher) attempt(s *session, m publication) error {
	select {
	case p.flights <- struct{}{}:
		defer func() { <-p.flights }()
	case <-s.gone:
		return errRetry
	}
	if !s.writable(p.done) {
		return errRetry
	}
	o, err := p.ready(s, m)
	if err != nil {
		return err
	}
	id := ""
	if m.mandatory {
		id = uuid.NewString()
	}
	confirm, err := o.ch.PublishWithDeferredConfirm(m.exchange, m.key, m.mandatory, false, amqp.Publishing{
		ContentType: "application/json", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent,
		MessageId: id, Expiration: expiration(m.msg.Expiration), Body: m.msg.Body,
	})
	if err != nil {
		p.drop(o)
		return fmt.Errorf("%w: %w", errRetry, err)
	}
	select {
	case <-confirm.Done():
	case <-s.gone:
	}
	if m.mandatory && o.wasReturned(id) {
		return messaging.ErrNoReplyQueue
	}
	if !confirm.Acked() {
		p.drop(o)
		return errRetry
	}
	return nil
}

// expiration is the AMQP property: milliseconds, rounded up.
func expiration(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10)
}

// ready returns an outlet on s on which everything that m needs is declared.
func (p *publisher) ready(s *session, m publication) (*outlet, error) {
	select {
	case <-p.building:
	case <-s.gone:
		return nil, errRetry
	}
	defer func() { p.building <- struct{}{} }()
	if p.outlet == nil || p.outlet.session != s || p.outlet.ch.IsClosed() {
		o, err := newOutlet(s)
		if err != nil {
			return nil, fmt.Errorf("open channel: %w", err)
		}
		p.outlet = o
	}
	return p.outlet, p.outlet.declare(m)
}

// drop gives up a channel on which something went wrong.
func (p *publisher) drop(o *outlet) {
	<-p.building
	defer func() { p.building <- struct{}{} }()
	if p.outlet == o {
		p.outlet = nil
	}
	_ = o.ch.Close()
}

// outlet is one AMQP channel for publishing.
type outlet struct {
	session  *session
	ch       *amqp.Channel
	declared map[string]bool // exchanges, and queue bindings; guarded by publisher.building
	returns  chan amqp.Return

	mu       sync.Mutex
	returned map[string]bool // +checklocks:mu; message ids
}

func newOutlet(s *session) (*outlet, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(false); err != nil {
		_ = ch.Close()
		return nil, err
	}
	return &outlet{
		session: s, ch: ch, declared: make(map[string]bool), returned: make(map[string]bool),
		returns: ch.NotifyReturn(make(chan amqp.Return, 2*maxFlights)),
	}, nil
}

// declare adopts or makes what m needs, once for each channel.
func (o *outlet) declare(m publication) error {
	what := m.exchange + "\x00" + m.queue
	if m.exchange == "" || o.declared[what] {
		return nil
	}
	a := adopterOn(o.session)
	defer a.close()
	if err := a.exchange(m.exchange, m.kind, m.props); err != nil {
		return err
	}
	if m.queue != "" {
		if err := a.queue(m.queue, m.queueProps); err != nil {
			return err
		}
		if err := a.bind(m.queue, m.key, m.exchange); err != nil {
			return err
		}
	}
	o.declared[what] = true
	return nil
}

// wasReturned says whether the broker has handed the message back. It does so
// before it confirms, so after the confirmation the answer is final.
func (o *outlet) wasReturned(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		select {
		case r, ok := <-o.returns:
			if !ok {
				o.returns = nil
				continue
			}
			o.returned[r.MessageId] = true
			continue
		default:
		}
		break
	}
	was := o.returned[id]
	delete(o.returned, id)
	return was
}
