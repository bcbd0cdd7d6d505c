package amqp

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
)

// fakeConn is a connection that a test ends.
type fakeConn struct {
	host   Host
	closes chan *amqp.Error
	blocks chan amqp.Blocking
	closed bool
}

func (c *fakeConn) Channel() (*amqp.Channel, error) { return nil, amqp.ErrClosed }

func (c *fakeConn) NotifyClose(ch chan *amqp.Error) chan *amqp.Error {
	c.closes = ch
	return ch
}

func (c *fakeConn) NotifyBlocked(ch chan amqp.Blocking) chan amqp.Blocking {
	c.blocks = ch
	return ch
}

func (c *fakeConn) CloseDeadline(time.Time) error {
	c.closed = true
	close(c.closes)
	return nil
}

// fakeBroker answers dials from a script: nil is success.
type fakeBroker struct {
	script []error
	dials  []time.Duration // since the start
	hosts  []string
	conns  []*fakeConn
	start  time.Time
}

func (b *fakeBroker) dial(_ context.Context, h Host) (connection, error) {
	b.dials = append(b.dials, time.Since(b.start))
	b.hosts = append(b.hosts, h.Name)
	var err error
	if len(b.script) > 0 {
		err, b.script = b.script[0], b.script[1:]
	}
	if err != nil {
		return nil, err
	}
	c := &fakeConn{host: h}
	b.conns = append(b.conns, c)
	return c, nil
}

// startLink runs a link with the default pauses inside a synctest bubble.
func startLink(t *testing.T, b *fakeBroker, hosts ...string) (l *link, stop func()) {
	t.Helper()
	o := DefaultOptions()
	o.Log = zerolog.Nop()
	for _, h := range hosts {
		o.URL.Hosts = append(o.URL.Hosts, Host{Name: h, Port: 5672})
	}
	b.start = time.Now()
	l = newLink("test", o, b.dial)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(ctx)
	}()
	return l, func() {
		cancel()
		<-done
	}
}

var errRefused = errors.New("refused")

func TestLinkBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{}
		for range 25 {
			b.script = append(b.script, errRefused)
		}
		l, stop := startLink(t, b, "a")
		defer stop()
		s, err := l.session(t.Context())
		if err != nil || s == nil {
			t.Fatal(err)
		}
		last := b.dials[0]
		for i, at := range b.dials[1:] {
			most := min(time.Second+time.Duration(i)*2*time.Second, 30*time.Second)
			if pause := at - last; pause > most || pause < most*3/4 {
				t.Errorf("pause %d is %s, expected up to %s", i, pause, most)
			}
			last = at
		}
	})
}

func TestLinkReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{}
		l, stop := startLink(t, b, "a", "b", "c")
		defer stop()
		first, err := l.session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		again, err := l.session(t.Context())
		if err != nil || again != first {
			t.Errorf("another session without a loss: %v", err)
		}
		b.script = []error{errRefused}
		b.conns[0].closes <- &amqp.Error{Code: amqp.ConnectionForced}
		<-first.gone
		synctest.Wait()
		second, err := l.session(t.Context())
		if err != nil || second == first {
			t.Errorf("no new session: %v", err)
		}
		if !hasCode(first.reason(), amqp.ConnectionForced) {
			t.Errorf("reason is %v", first.reason())
		}
		if b.hosts[0] == b.hosts[1] || b.hosts[1] == b.hosts[2] || b.hosts[0] == b.hosts[2] {
			t.Errorf("hosts were tried as %v", b.hosts)
		}
		if wait := b.dials[1] - b.dials[0]; wait > time.Second {
			t.Errorf("waited %s after the loss", wait)
		}
	})
}

func TestLinkWaitersAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{}
		for range 1000 {
			b.script = append(b.script, errRefused)
		}
		l, stop := startLink(t, b, "a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := l.session(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		waiter := make(chan error)
		go func() {
			_, err := l.session(t.Context())
			waiter <- err
		}()
		synctest.Wait()
		stop()
		if err := <-waiter; !errors.Is(err, messaging.ErrClosed) {
			t.Errorf("waiter got %v", err)
		}
		if _, err := l.session(t.Context()); !errors.Is(err, messaging.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestLinkClosesItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{}
		l, stop := startLink(t, b, "a")
		if _, err := l.session(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop()
		if !b.conns[0].closed {
			t.Error("connection left open")
		}
	})
}

// TestBlockedBroker: messages wait while the broker raises an alarm.
func TestBlockedBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeConn{}
		s := newSession(c)
		never := make(chan struct{})
		if !s.writable(never) {
			t.Error("not writable at first")
		}
		c.blocks <- amqp.Blocking{Active: true}
		synctest.Wait()
		result := make(chan bool, 1)
		go func() { result <- s.writable(never) }()
		synctest.Wait()
		select {
		case <-result:
			t.Error("writable while blocked")
		default:
		}
		c.blocks <- amqp.Blocking{Active: false}
		if !<-result {
			t.Error("not writable when unblocked")
		}
		c.blocks <- amqp.Blocking{Active: true}
		synctest.Wait()
		go func() { result <- s.writable(never) }()
		close(c.closes)
		if <-result {
			t.Error("writable after the end")
		}
	})
}
