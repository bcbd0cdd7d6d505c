package transporttest

import (
	"context"
	"errors"
	"testing"

	"github.com/gantry-project/gantry/driver/messaging"
)

// interruptInMidCall cuts both sides while a handler runs: the reply arrives,
// and the handler has run once.
func interruptInMidCall(t *testing.T, b *bed) {
	topic := b.topic()
	started, release := make(chan struct{}, 10), make(chan struct{})
	b.serve(t, topic, "h", map[string]messaging.Handler{
		"slow": func(context.Context, *messaging.Request) (any, error) {
			started <- struct{}{}
			<-release
			return "done", nil
		},
	})
	c := b.client(t)
	ctx := within(t)
	got, failed := make(chan string, 1), make(chan error, 1)
	go func() {
		var s string
		failed <- c.Call(ctx, messaging.AdminContext(), target(topic, "h"), "slow", nil, &s)
		got <- s
	}()
	wait(t, started, "the call to run")
	b.bus.Interrupt(t)
	close(release)
	if err := wait(t, failed, "the call to end"); err != nil {
		t.Fatal(err)
	}
	if s := wait(t, got, "the result"); s != "done" {
		t.Errorf("result is %q", s)
	}
	nothing(t, started, "the call ran twice")
}

func interruptKeepsListeners(t *testing.T, b *bed) {
	topic := b.topic()
	ran := make(chan string, 10)
	b.serve(t, topic, "h", map[string]messaging.Handler{"run": collect(ran)})
	c := b.client(t)
	settle(t, c, topic, "h", ran)
	b.bus.Interrupt(t)
	mustCast(t, c, target(topic, "h"), "own")
	if got := wait(t, ran, "the cast"); got != "own" {
		t.Errorf("ran %q", got)
	}
	settle(t, c, topic, "h", ran)
	mustCast(t, c, messaging.Target{Topic: topic, Version: "6.0", Fanout: true}, "all")
	if got := wait(t, ran, "the fan-out"); got != "all" {
		t.Errorf("ran %q", got)
	}
}

func closeEndsEverything(t *testing.T, b *bed) {
	topic := b.topic()
	tr := b.bus.Open(t)
	got := make(chan messaging.Delivery, 10)
	if _, err := tr.Listen(within(t), messaging.Address{Topics: []string{topic}, Server: "h"}, func(d messaging.Delivery) {
		_ = d.Ack()
		got <- d
	}); err != nil {
		t.Fatal(err)
	}
	other := b.open(t)
	m := messaging.Message{Body: []byte("1")}
	if err := other.Send(within(t), target(topic, "h"), m); err != nil {
		t.Fatal(err)
	}
	wait(t, got, "the first message")
	for range 2 {
		if err := tr.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := other.Send(within(t), target(topic, "h"), m); err != nil {
		t.Fatal(err)
	}
	_, lerr := tr.Listen(within(t), messaging.Address{Topics: []string{topic}}, func(messaging.Delivery) {})
	_, _, rerr := tr.ListenReplies(within(t), func(messaging.Delivery) {})
	for name, err := range map[string]error{
		"send":    tr.Send(within(t), target(topic, "h"), m),
		"fan-out": tr.Send(within(t), messaging.Target{Topic: topic, Fanout: true}, m),
		"reply":   tr.Reply(within(t), "reply_x", m),
		"notify":  tr.Notify(within(t), topic, m),
		"listen":  lerr,
		"replies": rerr,
	} {
		if !errors.Is(err, messaging.ErrClosed) {
			t.Errorf("%s after close: %v", name, err)
		}
	}
	nothing(t, got, "delivered after close")
	c := messaging.NewClient(b.open(t), messaging.ClientOptions{})
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Call(within(t), messaging.AdminContext(), target(topic, "h"), "x", nil, nil); !errors.Is(err, messaging.ErrClosed) {
		t.Errorf("call after close: %v", err)
	}
}
