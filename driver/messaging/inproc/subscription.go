package inproc

import (
	"context"
	"errors"
	"sync"

	"github.com/gantry-project/gantry/driver/messaging"
)

// errStale: the delivery was given back and will come again.
var errStale = errors.New("delivery is not ours any more")

// subscription runs one goroutine for each queue it consumes.
type subscription struct {
	transport *Transport
	deliver   func(messaging.Delivery)
	queues    []*queue
	fanouts   map[string]*queue
	running   sync.WaitGroup

	// guarded by the broker's mutex
	closed  bool
	unacked map[*item]*queue
}

func newSubscription(t *Transport, deliver func(messaging.Delivery)) *subscription {
	return &subscription{
		transport: t, deliver: deliver,
		fanouts: make(map[string]*queue), unacked: make(map[*item]*queue),
	}
}

// start begins the deliveries; the broker's mutex is held.
func (t *Transport) start(s *subscription) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return messaging.ErrClosed
	}
	t.subs[s] = struct{}{}
	t.broker.subs[s] = struct{}{}
	for _, q := range s.queues {
		s.running.Go(func() { s.consume(q) })
	}
	return nil
}

// consume delivers the messages of q until the subscription ends.
func (s *subscription) consume(q *queue) {
	b := s.transport.broker
	for {
		b.mu.Lock()
		var it *item
		for !s.closed {
			if it = b.pop(q); it != nil {
				break
			}
			b.arrived.Wait()
		}
		if it == nil {
			b.mu.Unlock()
			return
		}
		s.unacked[it] = q
		d := messaging.NewDelivery(it.body, it.redelivered, func() error { return s.ack(it) })
		b.mu.Unlock()
		s.deliver(d)
	}
}

func (s *subscription) ack(it *item) error {
	b := s.transport.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := s.unacked[it]; !ok {
		return errStale
	}
	delete(s.unacked, it)
	return nil
}

// Close implements messaging.Subscription.
func (s *subscription) Close(context.Context) error {
	s.transport.mu.Lock()
	delete(s.transport.subs, s)
	s.transport.mu.Unlock()
	s.end()
	return nil
}

// end stops the deliveries, gives back what is not acknowledged and removes
// the fan-out queues.
func (s *subscription) end() {
	b := s.transport.broker
	b.mu.Lock()
	s.closed = true
	delete(b.subs, s)
	b.requeue(s)
	for topic, q := range s.fanouts {
		delete(b.fanouts[topic], q)
		if len(b.fanouts[topic]) == 0 {
			delete(b.fanouts, topic)
		}
	}
	b.arrived.Broadcast()
	b.mu.Unlock()
	s.running.Wait()
}
