package amqp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
)

// connection is what a link needs of *amqp.Connection.
type connection interface {
	Channel() (*amqp.Channel, error)
	NotifyClose(chan *amqp.Error) chan *amqp.Error
	NotifyBlocked(chan amqp.Blocking) chan amqp.Blocking
	CloseDeadline(time.Time) error
}

// link keeps one connection to any of the brokers, for as long as run runs:
//
//	down --dial ok--> up --connection ends--> (ReconnectDelay) --> down
//	down --dial fails--> (pause, longer each time) --> down, next host
//
// Users ask for the session of the moment and wait while there is none.
type link struct {
	purpose string // for the log: "publish", "consume"
	dial    func(context.Context, Host) (connection, error)
	hosts   []Host
	pace    pace
	log     zerolog.Logger

	mu      sync.Mutex
	current *session      // +checklocks:mu; nil while down
	phase   phase         // +checklocks:mu; what run does
	changed chan struct{} // +checklocks:mu; closed when current or closed changes
	closed  bool          // +checklocks:mu
}

func newLink(purpose string, o Options, dial func(context.Context, Host) (connection, error)) *link {
	hosts := append([]Host(nil), o.URL.Hosts...)
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	return &link{
		purpose: purpose, dial: dial, hosts: hosts, changed: make(chan struct{}),
		pace: pace{first: o.RetryInterval, step: o.RetryBackoff, most: o.IntervalMax, loss: o.ReconnectDelay},
		log:  o.Log.With().Str("connection", purpose).Logger(),
	}
}

// run connects and reconnects until ctx ends; then the link is closed for good.
func (l *link) run(ctx context.Context) {
	defer l.set(nil, true)
	for host, failures := 0, 0; ; host++ {
		h := l.hosts[host%len(l.hosts)]
		l.enter("connecting to "+h.String(), handshakeTime)
		conn, err := l.dial(ctx, h)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			pause := l.pace.after(failures)
			failures++
			l.log.Warn().Err(err).Dur("retry_in", pause).Msg("broker not reachable")
			l.enter("waiting after a failure", pause)
			if !sleep(ctx, pause) {
				return
			}
			continue
		}
		failures = 0
		s := newSession(conn)
		l.log.Info().Stringer("broker", h).Msg("broker connected")
		l.enter("connected to "+h.String(), 0)
		l.set(s, false)
		select {
		case <-s.gone:
		case <-ctx.Done():
			l.set(nil, true)
			l.enter("closing", tidyTime)
			_ = conn.CloseDeadline(time.Now().Add(tidyTime))
			<-s.gone
			return
		}
		l.set(nil, false)
		l.log.Warn().AnErr("cause", s.reason()).Stringer("broker", h).Msg("broker connection lost")
		l.enter("waiting after a loss", l.pace.loss)
		if !sleep(ctx, l.pace.loss) {
			return
		}
	}
}

// tidyTime bounds what is said to the broker at the end: once for the
// subscriptions, once for the connections.
const tidyTime = 2 * time.Second

func (l *link) set(s *session, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current, l.closed = s, l.closed || closed
	close(l.changed)
	l.changed = make(chan struct{})
}

// session returns the session of the moment; it waits for one until ctx ends.
// messaging.ErrClosed says that there will be none.
func (l *link) session(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		s, closed, changed := l.current, l.closed, l.changed
		l.mu.Unlock()
		switch {
		case closed:
			return nil, messaging.ErrClosed
		case s != nil && !s.isGone():
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no broker connection: %w", ctx.Err())
		}
	}
}

// session is the life of one connection.
type session struct {
	conn connection
	gone chan struct{} // closed when the connection has ended

	mu      sync.Mutex
	cause   error         // +checklocks:mu
	blocked bool          // +checklocks:mu; the broker takes no messages (memory or disk alarm)
	open    chan struct{} // +checklocks:mu; closed when blocked becomes false
}

func newSession(conn connection) *session {
	s := &session{conn: conn, gone: make(chan struct{})}
	closes := conn.NotifyClose(make(chan *amqp.Error, 1))
	blocks := conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	go func() {
		defer close(s.gone)
		for {
			select {
			case e := <-closes: // nil: closed by us
				if e != nil {
					s.mu.Lock()
					s.cause = e
					s.mu.Unlock()
				}
				return
			case b, ok := <-blocks:
				if !ok {
					blocks = nil
					continue
				}
				s.block(b.Active)
			}
		}
	}()
	return s
}

func (s *session) block(active bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if active == s.blocked {
		return
	}
	s.blocked = active
	if active {
		s.open = make(chan struct{})
	} else {
		close(s.open)
	}
}

// writable waits while the broker takes no messages; false says that the
// connection has ended or stop was closed.
func (s *session) writable(stop <-chan struct{}) bool {
	for {
		s.mu.Lock()
		blocked, open := s.blocked, s.open
		s.mu.Unlock()
		if !blocked {
			return true
		}
		select {
		case <-open:
		case <-s.gone:
			return false
		case <-stop:
			return false
		}
	}
}

func (s *session) isGone() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// pace is how fast a link tries to connect.
type pace struct{ first, step, most, loss time.Duration }

// after is the pause after so many failures before, a quarter of it by chance
// so that the hosts of a cloud do not come back all at once.
func (p pace) after(failures int) time.Duration {
	d := min(p.first+time.Duration(min(failures, 1000))*p.step, p.most)
	return d - rand.N(d/4+1)
}

// sleep returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
