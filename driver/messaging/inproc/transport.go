package inproc

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/messaging"
)

// Transport is one process's connection to a Broker. It implements
// messaging.Transport; nothing in it waits, because the broker is never away.
type Transport struct {
	broker *Broker

	mu      sync.Mutex
	closed  bool                       // +checklocks:mu
	subs    map[*subscription]struct{} // +checklocks:mu
	replies []string                   // +checklocks:mu; our reply queues
}

var _ messaging.Transport = (*Transport)(nil)

// New returns a new transport on b.
func New(b *Broker) *Transport {
	return &Transport{broker: b, subs: make(map[*subscription]struct{})}
}

// Send implements messaging.Transport.
func (t *Transport) Send(ctx context.Context, to messaging.Target, m messaging.Message) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	b := t.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if to.Fanout {
		for q := range b.fanouts[to.Topic] {
			b.push(q, newItem(m))
		}
		return nil
	}
	name := to.Topic
	if to.Server != "" {
		name = own(to.Topic, to.Server)
	}
	if q := b.queues[name]; q != nil {
		b.push(q, newItem(m))
	}
	return nil
}

// Reply implements messaging.Transport.
func (t *Transport) Reply(ctx context.Context, name string, m messaging.Message) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	b := t.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[name]
	if q == nil {
		return fmt.Errorf("reply to %s: %w", name, messaging.ErrNoReplyQueue)
	}
	b.push(q, newItem(m))
	return nil
}

// Notify implements messaging.Transport. A queue that nobody reads keeps the
// last 1000 messages.
func (t *Transport) Notify(ctx context.Context, name string, m messaging.Message) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	b := t.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	b.push(b.declare(name, notifyLimit), newItem(m))
	return nil
}

// Listen implements messaging.Transport.
func (t *Transport) Listen(ctx context.Context, a messaging.Address, deliver func(messaging.Delivery)) (messaging.Subscription, error) {
	if err := t.usable(ctx); err != nil {
		return nil, err
	}
	b := t.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	s := newSubscription(t, deliver)
	for _, topic := range a.Topics {
		s.queues = append(s.queues, b.declare(topic, 0))
		if a.Server != "" {
			s.queues = append(s.queues, b.declare(own(topic, a.Server), 0))
		}
		q := &queue{}
		if b.fanouts[topic] == nil {
			b.fanouts[topic] = make(map[*queue]struct{})
		}
		b.fanouts[topic][q] = struct{}{}
		s.fanouts[topic] = q
		s.queues = append(s.queues, q)
	}
	return s, t.start(s)
}

// ListenReplies implements messaging.Transport. The queue ends with t.
func (t *Transport) ListenReplies(ctx context.Context, deliver func(messaging.Delivery)) (string, messaging.Subscription, error) {
	if err := t.usable(ctx); err != nil {
		return "", nil, err
	}
	b := t.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	name := "reply_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	s := newSubscription(t, deliver)
	s.queues = append(s.queues, b.declare(name, 0))
	t.mu.Lock()
	t.replies = append(t.replies, name)
	t.mu.Unlock()
	return name, s, t.start(s)
}

// Close implements messaging.Transport.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	subs, replies := t.subs, t.replies
	t.subs, t.replies = make(map[*subscription]struct{}), nil
	t.mu.Unlock()
	for s := range subs {
		s.end()
	}
	t.broker.mu.Lock()
	defer t.broker.mu.Unlock()
	for _, name := range replies {
		delete(t.broker.queues, name)
	}
	return nil
}

func (t *Transport) usable(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return messaging.ErrClosed
	}
	return ctx.Err()
}

// own is the name of a server's own queue of a topic.
func own(topic, server string) string { return topic + "." + server }

func newItem(m messaging.Message) item {
	it := item{body: bytes.Clone(m.Body)}
	if m.Expiration > 0 {
		it.expires = time.Now().Add(m.Expiration)
	}
	return it
}
