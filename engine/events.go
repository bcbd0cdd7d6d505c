package engine

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"
)

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventCreate EventKind = "create"
	EventStart  EventKind = "start"
	// EventExec and EventExecExit are the begin and the end of an exec session.
	EventExec     EventKind = "exec"
	EventExecExit EventKind = "exec-exit"
	EventPause    EventKind = "pause"
	EventResume   EventKind = "resume"
	EventUpdate   EventKind = "update"
	// EventOOM comes before the EventExit of a container that the kernel ended
	// for memory.
	EventOOM    EventKind = "oom"
	EventExit   EventKind = "exit"
	EventDelete EventKind = "delete"
	// EventMissed tells a subscriber that was too slow how many it has lost.
	EventMissed EventKind = "missed"
)

// Event tells what has happened to a container. It is sent after the fact.
type Event struct {
	Kind EventKind
	Time time.Time
	// ID is empty for EventMissed.
	ID ContainerID
	// Exec is the exec session of EventExec and EventExecExit.
	Exec string
	// Exit is set for EventExit and EventExecExit.
	Exit ExitState
	// Asked is true when Stop or Delete caused an EventExit.
	Asked bool
	// Missed counts what a slow subscriber has lost.
	Missed int
}

// backlog is how many events a subscriber may be behind.
const backlog = 256

// Bus passes events to any number of subscribers and waits for none. The zero
// value is ready; methods are safe for concurrent use.
type Bus struct {
	mu     sync.Mutex
	subs   map[*Subscription]struct{} // guarded by mu
	closed bool                       // guarded by mu
}

// Publish hands the event to all who have subscribed. An event without a time
// gets the present one.
func (b *Bus) Publish(ev Event) {
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.put(ev)
	}
}

// Subscribe returns what is published from now on. Close it when done.
func (b *Bus) Subscribe() *Subscription {
	s := &Subscription{bus: b, wake: make(chan struct{}, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		s.ended = true
		return s
	}
	if b.subs == nil {
		b.subs = map[*Subscription]struct{}{}
	}
	b.subs[s] = struct{}{}
	return s
}

// Close ends all subscriptions when they have been read.
func (b *Bus) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for s := range b.subs {
		s.end()
	}
	b.subs = nil
}

// Subscription is one reader's view of a Bus. Next is for one goroutine.
type Subscription struct {
	bus  *Bus
	wake chan struct{}

	mu     sync.Mutex
	queue  []Event // guarded by mu, at most backlog
	missed int     // guarded by mu: dropped before queue[0]
	ended  bool    // guarded by mu
}

func (s *Subscription) put(ev Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == backlog {
		s.queue = slices.Delete(s.queue, 0, 1)
		s.missed++
	}
	s.queue = append(s.queue, ev)
	s.poke()
}

func (s *Subscription) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.poke()
}

// Next returns the next event. When the oldest had to be dropped it first
// returns one EventMissed with their number. io.EOF says that the bus or the
// subscription has been closed; otherwise the error is ctx's.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if ev, err, ok := s.take(); ok {
			return ev, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

func (s *Subscription) take() (ev Event, err error, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.missed > 0:
		ev = Event{Kind: EventMissed, Time: time.Now(), Missed: s.missed}
		s.missed = 0
		return ev, nil, true
	case len(s.queue) > 0:
		ev = s.queue[0]
		s.queue = s.queue[1:]
		return ev, nil, true
	case s.ended:
		return Event{}, io.EOF, true
	}
	return Event{}, nil, false
}

// Close ends the subscription; a Next that waits returns io.EOF.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	delete(s.bus.subs, s)
	s.bus.mu.Unlock()
	s.end()
}

// Subscribe returns the events of all containers from now on. A subscriber that
// falls behind loses the oldest and is told so.
func (e *Engine) Subscribe() *Subscription { return e.bus.Subscribe() }

// Events returns the channel of ended containers (EventExit). It loses none,
// those before the first call included, so somebody has to read it; who only
// wants to look uses Subscribe.
func (e *Engine) Events() <-chan Event { return e.events }
