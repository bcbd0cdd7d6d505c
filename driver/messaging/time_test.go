package messaging_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/inproc"
)

// serve runs a server of topic "t" as "h" until the test ends.
func serve(t *testing.T, tr messaging.Transport, o messaging.ServerOptions) (stop func()) {
	t.Helper()
	o.Topics, o.Host = []string{"t"}, "h"
	s, err := messaging.NewServer(tr, o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.WithoutCancel(t.Context())) }()
	<-s.Ready()
	return func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func methods(m map[string]messaging.Handler) []messaging.Endpoint {
	return []messaging.Endpoint{{Version: "1.0", Methods: m}}
}

var host = messaging.Target{Topic: "t", Server: "h"}

// counting counts the replies that pass.
type counting struct {
	messaging.Transport
	replies atomic.Int32
	fail    atomic.Int32 // so many replies find no queue
	gone    atomic.Bool  // none finds one
}

func (c *counting) Reply(ctx context.Context, queue string, m messaging.Message) error {
	c.replies.Add(1)
	if c.gone.Load() || c.fail.Add(-1) >= 0 {
		return messaging.ErrNoReplyQueue
	}
	return c.Transport.Reply(ctx, queue, m)
}

// TestHeartbeats: a long call with a monitor gets a sign of life twice in each
// interval and lives longer than the interval.
func TestHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := inproc.NewBroker()
		tr := &counting{Transport: inproc.New(b)}
		defer serve(t, tr, messaging.ServerOptions{Endpoints: methods(map[string]messaging.Handler{
			"slow": func(ctx context.Context, _ *messaging.Request) (any, error) {
				<-time.After(10 * time.Minute)
				return "done", nil
			},
		})})()
		c := messaging.NewClient(inproc.New(b), messaging.ClientOptions{})
		defer c.Close(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		var got string
		if err := c.Call(ctx, messaging.AdminContext(), host, "slow", nil, &got); err != nil || got != "done" {
			t.Fatalf("%q, %v", got, err)
		}
		if n := tr.replies.Load(); n < 19 || n > 21 {
			t.Errorf("%d replies in ten minutes, expected 19 or 20 heartbeats and the reply", n)
		}
	})
}

// TestSilence: a server that dies in a monitored call is noticed after the
// interval; a short call has no monitor and waits its whole time.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := inproc.NewBroker()
		c := messaging.NewClient(inproc.New(b), messaging.ClientOptions{})
		defer c.Close(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		start := time.Now()
		if err := c.Call(ctx, messaging.AdminContext(), host, "x", nil, nil); !errors.Is(err, messaging.ErrTimeout) {
			t.Error(err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("gave up after %s", took)
		}
		start = time.Now()
		if err := c.Call(t.Context(), messaging.AdminContext(), host, "x", nil, nil); !errors.Is(err, messaging.ErrTimeout) {
			t.Error(err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("default timeout was %s", took)
		}
	})
}

// TestReplyRetries: a reply queue that comes back in time gets its reply; one
// that does not is not tried again for a minute.
func TestReplyRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := inproc.NewBroker()
		tr := &counting{Transport: inproc.New(b)}
		defer serve(t, tr, messaging.ServerOptions{Endpoints: methods(map[string]messaging.Handler{
			"echo": func(_ context.Context, req *messaging.Request) (any, error) { return req.Args["n"], nil },
		})})()
		c := messaging.NewClient(inproc.New(b), messaging.ClientOptions{})
		defer c.Close(t.Context())
		call := func(d time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			return c.Call(ctx, messaging.AdminContext(), host, "echo", nil, nil)
		}
		tr.fail.Store(8)
		start := time.Now()
		if err := call(time.Minute); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("eight retries took %s", took)
		}
		tr.gone.Store(true)
		if err := call(61 * time.Second); !errors.Is(err, messaging.ErrTimeout) {
			t.Error(err)
		}
		synctest.Wait()
		tr.gone.Store(false)
		tr.replies.Store(0)
		if err := call(10 * time.Second); !errors.Is(err, messaging.ErrTimeout) || tr.replies.Load() != 0 {
			t.Errorf("the dead queue was tried %d times: %v", tr.replies.Load(), err)
		}
		<-time.After(time.Minute)
		if err := call(10 * time.Second); err != nil {
			t.Errorf("after a minute: %v", err)
		}
	})
}

// TestGrace: at the end running handlers get time, then their context ends.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := inproc.NewBroker()
		ended := make(chan time.Duration, 2)
		start := time.Now() // no time passes before the stop
		stop := serve(t, inproc.New(b), messaging.ServerOptions{Grace: 10 * time.Second, Endpoints: methods(map[string]messaging.Handler{
			"run": func(ctx context.Context, _ *messaging.Request) (any, error) {
				select {
				case <-ctx.Done():
				case <-time.After(5 * time.Second):
				}
				ended <- time.Since(start)
				return nil, nil
			},
			"hang": func(ctx context.Context, _ *messaging.Request) (any, error) {
				<-ctx.Done()
				ended <- time.Since(start)
				return nil, nil
			},
		})})
		c := messaging.NewClient(inproc.New(b), messaging.ClientOptions{})
		for _, m := range []string{"run", "hang"} {
			if err := c.Cast(t.Context(), messaging.AdminContext(), host, m, nil); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		stop()
		if first, second := <-ended, <-ended; first != 5*time.Second || second != 10*time.Second {
			t.Errorf("handlers ended after %s and %s", first, second)
		}
	})
}
