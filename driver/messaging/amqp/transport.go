package amqp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gantry-project/gantry/driver/messaging"
)

// Transport implements messaging.Transport over RabbitMQ.
type Transport struct {
	opts                  Options
	publishing, consuming *link
	requests, replies     *publisher
	done                  chan struct{}      // closed by Close
	end                   context.CancelFunc // ends the links
	running               sync.WaitGroup     // links, subscriptions, publications

	mu     sync.Mutex
	closed bool                       // +checklocks:mu
	subs   map[*subscription]struct{} // +checklocks:mu
}

var (
	_ messaging.Transport = (*Transport)(nil)
	_ messaging.Connected = (*Transport)(nil)
)

// New returns a transport that connects in the background, for ever, and is
// ended by Close only; of ctx it takes the values. Errors are
// errdefs.ErrInvalid and about the options: an unreachable broker is none.
func New(ctx context.Context, o Options) (*Transport, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	d, err := newDialer(o)
	if err != nil {
		return nil, fmt.Errorf("oslo_messaging_rabbit: %w", err)
	}
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	t := &Transport{
		opts: o, done: make(chan struct{}), end: end, subs: make(map[*subscription]struct{}),
		publishing: newLink("publish", o, d.dial),
		consuming:  newLink("consume", o, d.dial),
	}
	t.requests = newPublisher(t.publishing, o, t.done, t.spawn)
	t.replies = newPublisher(t.publishing, o, t.done, t.spawn)
	t.running.Go(func() { t.publishing.run(ctx) })
	t.running.Go(func() { t.consuming.run(ctx) })
	return t, nil
}

// Send implements messaging.Transport.
func (t *Transport) Send(ctx context.Context, to messaging.Target, m messaging.Message) error {
	p := publication{exchange: t.opts.ControlExchange, kind: amqp.ExchangeTopic, props: t.opts.topicExchange(), msg: m}
	switch {
	case to.Fanout:
		p.exchange, p.kind, p.props, p.key = fanoutName(to.Topic), amqp.ExchangeFanout, t.opts.fanoutExchange(), to.Topic
	case to.Server != "":
		p.key = ownName(to.Topic, to.Server)
	default:
		p.key = to.Topic
	}
	return t.publish(ctx, t.requests, p)
}

// Reply implements messaging.Transport.
func (t *Transport) Reply(ctx context.Context, queue string, m messaging.Message) error {
	return t.publish(ctx, t.replies, publication{key: queue, mandatory: true, msg: m})
}

// Notify implements messaging.Transport.
func (t *Transport) Notify(ctx context.Context, queue string, m messaging.Message) error {
	return t.publish(ctx, t.requests, publication{
		exchange: t.opts.ControlExchange, kind: amqp.ExchangeTopic, props: t.opts.topicExchange(),
		key: queue, queue: queue, queueProps: t.opts.topic(), msg: m,
	})
}

func (t *Transport) publish(ctx context.Context, p *publisher, m publication) error {
	if t.isClosed() {
		return messaging.ErrClosed
	}
	if err := p.publish(ctx, m); err != nil {
		return fmt.Errorf("publish to %s/%s: %w", m.exchange, m.key, err)
	}
	return nil
}

// Listen implements messaging.Transport.
func (t *Transport) Listen(ctx context.Context, a messaging.Address, deliver func(messaging.Delivery)) (messaging.Subscription, error) {
	var p plan
	for _, topic := range a.Topics {
		names := []string{topic}
		if a.Server != "" {
			names = append(names, ownName(topic, a.Server))
		}
		for _, name := range names {
			p.queues = append(p.queues, planned{
				name: name, props: t.opts.topic(), key: name,
				exchange: t.opts.ControlExchange, kind: amqp.ExchangeTopic, exchangeProps: t.opts.topicExchange(),
			})
		}
		p.queues = append(p.queues, planned{
			name: fanoutName(topic) + "_" + newID(), props: t.opts.transient(), own: true, remove: true, key: topic,
			exchange: fanoutName(topic), kind: amqp.ExchangeFanout, exchangeProps: t.opts.fanoutExchange(),
		})
	}
	return t.subscribe(ctx, p, deliver)
}

// ListenReplies implements messaging.Transport.
func (t *Transport) ListenReplies(ctx context.Context, deliver func(messaging.Delivery)) (string, messaging.Subscription, error) {
	name := "reply_" + newID()
	s, err := t.subscribe(ctx, plan{queues: []planned{{name: name, props: t.opts.transient(), own: true}}}, deliver)
	return name, s, err
}

func (t *Transport) subscribe(ctx context.Context, p plan, deliver func(messaging.Delivery)) (messaging.Subscription, error) {
	s := newSubscription(t.consuming, t.opts, p, deliver)
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		cancel()
		return nil, messaging.ErrClosed
	}
	t.subs[s] = struct{}{}
	t.running.Go(func() {
		s.run(life)
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.subs, s)
	})
	t.mu.Unlock()
	select {
	case <-s.ready:
		return s, nil
	case <-ctx.Done():
		tidy, stop := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
		defer stop()
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", p.queues[0].name, ctx.Err()), s.Close(tidy))
	case <-t.done:
		cancel()
		return nil, messaging.ErrClosed
	}
}

// Close implements messaging.Transport. It deletes the fan-out queues if the
// broker answers within two seconds.
func (t *Transport) Close() error {
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	subs := make([]*subscription, 0, len(t.subs))
	for s := range t.subs {
		subs = append(subs, s)
	}
	t.mu.Unlock()
	if first {
		close(t.done)
	}
	for _, sub := range subs {
		sub.stop()
	}
	patience := time.After(tidyTime)
	for _, sub := range subs {
		select {
		case <-sub.done:
		case <-patience: // what is not deleted by now expires
			patience = alwaysReady()
		}
	}
	t.end()
	t.running.Wait()
	return nil
}

// alwaysReady returns a channel that never blocks.
func alwaysReady() <-chan time.Time {
	ch := make(chan time.Time)
	close(ch)
	return ch
}

// spawn runs f on a goroutine that Close waits for; false after Close.
func (t *Transport) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.running.Go(f)
	return true
}

func (t *Transport) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

func ownName(topic, server string) string { return topic + "." + server }

func fanoutName(topic string) string { return topic + "_fanout" }

// newID returns 32 hexadecimal digits.
func newID() string { return strings.ReplaceAll(uuid.NewString(), "-", "") }
