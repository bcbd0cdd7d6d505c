//go:build functional

package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/amqp"
)

const patience = 60 * time.Second

// stand is one topic with a server and a client, each on a transport of its
// own behind one proxy.
type stand struct {
	proxy  *proxy
	topic  string
	client *messaging.Client
	ran    chan string
	gate   chan struct{} // "slow" returns when it is closed
}

func newStand(t *testing.T, change func(*amqp.Options)) *stand {
	t.Helper()
	s := &stand{
		proxy: newProxy(t, brokerURL(t).Hosts[0].Address()),
		topic: "gantrytest-" + strings.ReplaceAll(uuid.NewString(), "-", ""),
		ran:   make(chan string, 10_000), gate: make(chan struct{}),
	}
	t.Cleanup(func() { forget(t, []string{s.topic}) })
	o := options(t, s.proxy)
	if change != nil {
		change(&o)
	}
	theirs, ours := open(t, o), open(t, o)
	srv, err := messaging.NewServer(theirs, messaging.ServerOptions{
		Topics: []string{s.topic}, Host: "h", Endpoints: []messaging.Endpoint{{Version: "1.0", Methods: map[string]messaging.Handler{
			"run": func(_ context.Context, req *messaging.Request) (any, error) {
				var n string
				err := req.Arg("n", &n)
				s.ran <- n
				return n, err
			},
			"slow": func(context.Context, *messaging.Request) (any, error) {
				s.ran <- "slow"
				<-s.gate
				return "done", nil
			},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.client = messaging.NewClient(ours, messaging.ClientOptions{})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() {
		srv.Close()
		if err := wait(t, done, "the server to end"); err != nil {
			t.Log(err)
		}
		_ = ours.Close()
		_ = theirs.Close()
	})
	wait(t, srv.Ready(), "the server")
	return s
}

func (s *stand) target() messaging.Target { return messaging.Target{Topic: s.topic, Server: "h"} }

func (s *stand) call(t *testing.T, method, n string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got string
	err := s.client.Call(ctx, messaging.AdminContext(), s.target(), method, map[string]any{"n": n}, &got)
	return got, err
}

// slow starts a call that ends when the gate opens.
func (s *stand) slow(t *testing.T) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		got, err := s.call(t, "slow", "")
		if err == nil && got != "done" {
			err = fmt.Errorf("result is %q", got)
		}
		result <- err
	}()
	if got := wait(t, s.ran, "the call to run"); got != "slow" {
		t.Fatalf("ran %q", got)
	}
	return result
}

func wait[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited too long for %s", what)
		panic("unreachable")
	}
}

// TestBrokerDown: the broker goes away in mid call and comes back; casts of the
// meantime wait, one with a deadline gives up.
func TestBrokerDown(t *testing.T) {
	s := newStand(t, nil)
	result := s.slow(t)
	s.proxy.down()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.client.Cast(short, messaging.AdminContext(), s.target(), "run", map[string]any{"n": "short"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cast with a deadline: %v", err)
	}
	patient := make(chan error, 1)
	go func() {
		patient <- s.client.Cast(t.Context(), messaging.AdminContext(), s.target(), "run", map[string]any{"n": "patient"})
	}()
	close(s.gate) // the server wants to reply now, and cannot
	s.proxy.up()
	if err := wait(t, result, "the call"); err != nil {
		t.Error(err)
	}
	if err := wait(t, patient, "the cast"); err != nil {
		t.Error(err)
	}
	if got := wait(t, s.ran, "the cast to run"); got != "patient" {
		t.Errorf("ran %q", got)
	}
}

// TestHalfOpen: connections that stay open and carry nothing are found dead by
// the heartbeat.
func TestHalfOpen(t *testing.T) {
	s := newStand(t, func(o *amqp.Options) { o.HeartbeatTimeout = 3 * time.Second })
	result := s.slow(t)
	s.proxy.freeze()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.client.Cast(short, messaging.AdminContext(), s.target(), "run", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cast with a deadline: %v", err)
	}
	close(s.gate)
	if err := wait(t, result, "the call"); err != nil {
		t.Error(err)
	}
	if got, err := s.call(t, "run", "after"); err != nil || got != "after" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestCloseWhileHalfOpen: the end does not wait for a broker that is silent.
func TestCloseWhileHalfOpen(t *testing.T) {
	p := newProxy(t, brokerURL(t).Hosts[0].Address())
	tr := open(t, options(t, p))
	c := messaging.NewClient(tr, messaging.ClientOptions{ResponseTimeout: 300 * time.Millisecond})
	_ = c.Call(t.Context(), messaging.AdminContext(), messaging.Target{Topic: "gantrytest-none"}, "x", nil, nil)
	p.freeze()
	done := make(chan error, 1)
	go func() { done <- tr.Close() }()
	if err := wait(t, done, "close"); err != nil {
		t.Error(err)
	}
}

// TestQueuesDeleted: what takes the queues away makes the consumers declare
// them again, the reply queue in time for the reply.
func TestQueuesDeleted(t *testing.T) {
	s := newStand(t, nil)
	result := s.slow(t)
	ch := admin(t)
	for _, q := range []string{s.topic, s.topic + ".h"} {
		if _, err := ch.QueueDelete(q, false, false, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := ch.ExchangeDelete(s.topic+"_fanout", false, false); err != nil {
		t.Fatal(err)
	}
	// A cast to a queue that does not exist is lost, so ask until it does.
	deadline := time.After(patience)
	for settled := false; !settled; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := s.client.Call(ctx, messaging.AdminContext(), s.target(), "run", map[string]any{"n": "back"}, nil)
		cancel()
		settled = err == nil
		select {
		case <-deadline:
			t.Fatal("queues do not come back")
		default:
		}
	}
	if _, err := ch.QueueDeclarePassive(s.topic, false, false, false, false, nil); err != nil {
		t.Errorf("shared queue: %v", err)
	}
	close(s.gate)
	if err := wait(t, result, "the call"); err != nil {
		t.Error(err)
	}
}

// TestAdoptsWhatIsThere: a stock service has declared exchange and queues with
// other properties; stock of another release would get 406 from the broker.
func TestAdoptsWhatIsThere(t *testing.T) {
	ch := admin(t)
	exchange := "gantrytest-" + uuid.NewString()
	if err := ch.ExchangeDeclare(exchange, "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin(t).ExchangeDelete(exchange, false, false) })
	topic := "gantrytest-" + uuid.NewString()
	t.Cleanup(func() { forget(t, []string{topic}) })
	for _, q := range []string{topic, topic + ".h"} {
		if _, err := ch.QueueDeclare(q, true, false, false, false, map[string]any{"x-max-length": int32(1000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := ch.ExchangeDeclare(topic+"_fanout", "fanout", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	o := options(t, nil)
	o.ControlExchange = exchange
	tr := open(t, o)
	defer tr.Close()
	got := make(chan string, 3)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := tr.Listen(ctx, messaging.Address{Topics: []string{topic}, Server: "h"}, func(d messaging.Delivery) {
		_ = d.Ack()
		got <- string(d.Body)
	}); err != nil {
		t.Fatal(err)
	}
	for _, to := range []messaging.Target{{Topic: topic}, {Topic: topic, Server: "h"}, {Topic: topic, Fanout: true}} {
		if err := tr.Send(ctx, to, messaging.Message{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		wait(t, got, fmt.Sprint("message to ", to))
	}
}

// TestStorm cuts the connections again and again while casts and calls flow:
// each is run exactly once.
func TestStorm(t *testing.T) {
	s := newStand(t, nil)
	const n = 300
	stop := make(chan struct{})
	var cutting, sending sync.WaitGroup
	cutting.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(120 * time.Millisecond):
				s.proxy.cut()
			}
		}
	})
	for i := range n {
		sending.Go(func() {
			name := fmt.Sprint(i)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if i%2 == 0 {
				if err := s.client.Cast(ctx, messaging.AdminContext(), s.target(), "run", map[string]any{"n": name}); err != nil {
					t.Errorf("cast %s: %v", name, err)
				}
				return
			}
			if got, err := s.call(t, "run", name); err != nil || got != name {
				t.Errorf("call %s: %q, %v", name, got, err)
			}
		})
		if i%10 == 9 {
			<-time.After(30 * time.Millisecond)
		}
	}
	sending.Wait()
	close(stop)
	cutting.Wait()
	times := map[string]int{}
	for range n {
		times[wait(t, s.ran, "the requests to run")]++
	}
	if got, err := s.call(t, "run", "last"); err != nil || got != "last" {
		t.Fatalf("%q, %v", got, err)
	}
	close(s.ran)
	for name := range s.ran {
		times[name]++
	}
	for i := range n {
		if c := times[fmt.Sprint(i)]; c != 1 {
			t.Errorf("request %d ran %d times", i, c)
		}
	}
}
