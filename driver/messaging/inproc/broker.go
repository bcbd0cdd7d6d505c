// Package inproc is messaging.Transport inside one process: the embedded
// cloud's bus, and the bus of tests. It has the semantics of the AMQP
// transport (queues that outlive listeners, expiration, redelivery, messages
// for nobody that vanish) and the same suite, messaging/transporttest.
//
// Nothing is stored: a Broker's queues end with it.
package inproc

import (
	"slices"
	"sync"
	"time"
)

// Broker holds the queues that several transports share. Safe for concurrent use.
type Broker struct {
	mu      sync.Mutex
	arrived *sync.Cond                     // on mu: a queue has got a message, or a subscription has ended
	queues  map[string]*queue              // +checklocks:mu
	fanouts map[string]map[*queue]struct{} // +checklocks:mu; by topic
	subs    map[*subscription]struct{}     // +checklocks:mu
}

// NewBroker returns an empty broker.
func NewBroker() *Broker {
	b := &Broker{
		queues:  make(map[string]*queue),
		fanouts: make(map[string]map[*queue]struct{}),
		subs:    make(map[*subscription]struct{}),
	}
	b.arrived = sync.NewCond(&b.mu)
	return b
}

// queue is guarded by its broker's mutex.
type queue struct {
	items []*item
	// limit is the length from which the oldest message is dropped; 0 is none.
	limit int
}

type item struct {
	body        []byte
	expires     time.Time
	redelivered bool
}

// notifyLimit bounds a queue that Notify made: nobody may ever read it.
const notifyLimit = 1000

// Interrupt does what a cut of all connections does: every delivery that is
// not acknowledged goes back to its queue and is delivered again, and its late
// acknowledgement fails.
func (b *Broker) Interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		b.requeue(s)
	}
	b.arrived.Broadcast()
}

// declare returns the queue of that name and makes it if need be.
//
// +checklocks:b.mu
func (b *Broker) declare(name string, limit int) *queue {
	q := b.queues[name]
	if q == nil {
		q = &queue{limit: limit}
		b.queues[name] = q
	}
	return q
}

// +checklocks:b.mu
func (b *Broker) push(q *queue, it item) {
	q.items = append(q.items, &it)
	if q.limit > 0 && len(q.items) > q.limit {
		q.items = slices.Delete(q.items, 0, len(q.items)-q.limit)
	}
	b.arrived.Broadcast()
}

// pop returns the next message of q that has not expired, or nil.
//
// +checklocks:b.mu
func (b *Broker) pop(q *queue) *item {
	for len(q.items) > 0 {
		it := q.items[0]
		q.items[0] = nil
		q.items = q.items[1:]
		if it.expires.IsZero() || time.Now().Before(it.expires) {
			return it
		}
	}
	return nil
}

// requeue puts what s has not acknowledged back where it came from.
//
// +checklocks:b.mu
func (b *Broker) requeue(s *subscription) {
	for it, q := range s.unacked {
		it.redelivered = true
		q.items = slices.Insert(q.items, 0, it)
	}
	clear(s.unacked)
}
