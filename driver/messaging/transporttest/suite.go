// Package transporttest is the executable contract of messaging.Transport,
// together with what Client and Server promise on top of one. Each
// implementation runs it; the embedded cloud and the real broker differ in
// nothing that it checks.
package transporttest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"testing"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
)

// Bus is one broker as a test sees it.
type Bus struct {
	// Open returns a new transport to the broker, which the suite closes.
	Open func(t *testing.T) messaging.Transport
	// Interrupt cuts all connections; transports come back by themselves.
	Interrupt func(t *testing.T)
	// Forget is called at the end with the topics that were used.
	Forget func(t *testing.T, topics []string)
}

// Factory returns a broker for one test.
type Factory func(t *testing.T) Bus

// patience is how long something that must happen may take; only failing
// tests wait so long.
const patience = 30 * time.Second

// Run checks the implementation that f makes.
func Run(t *testing.T, f Factory) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *bed)
	}{
		{"CallReturnsResult", callReturnsResult},
		{"CallReturnsRemoteError", callReturnsRemoteError},
		{"CallsRunConcurrently", callsRunConcurrently},
		{"CallWithoutServerTimesOut", callWithoutServerTimesOut},
		{"CallEndsWithContext", callEndsWithContext},
		{"ExpiredCallIsNotRun", expiredCallIsNotRun},
		{"LateReplyIsDropped", lateReplyIsDropped},
		{"TwoMessageReply", twoMessageReply},
		{"LargeMessage", largeMessage},
		{"CastGoesToItsServer", castGoesToItsServer},
		{"SharedTopicGoesToOne", sharedTopicGoesToOne},
		{"FanoutGoesToAll", fanoutGoesToAll},
		{"FanoutToNobodyIsDropped", fanoutToNobodyIsDropped},
		{"UnknownTopicIsDropped", unknownTopicIsDropped},
		{"CastWaitsForItsServer", castWaitsForItsServer},
		{"DuplicateIsRunOnce", duplicateIsRunOnce},
		{"PoisonIsDropped", poisonIsDropped},
		{"PanicIsAnError", panicIsAnError},
		{"NotAcknowledgedComesAgain", notAcknowledgedComesAgain},
		{"ReplyToNobody", replyToNobody},
		{"NotificationWaits", notificationWaits},
		{"InterruptInMidCall", interruptInMidCall},
		{"InterruptKeepsListeners", interruptKeepsListeners},
		{"CloseEndsEverything", closeEndsEverything},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newBed(t, f(t))) })
	}
}

// bed is what one test works with.
type bed struct {
	bus Bus

	mu     sync.Mutex
	topics []string
}

func newBed(t *testing.T, bus Bus) *bed {
	b := &bed{bus: bus}
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if bus.Forget != nil {
			bus.Forget(t, b.topics)
		}
	})
	return b
}

// topic returns a name that no other test uses.
func (b *bed) topic() string {
	id := make([]byte, 8)
	_, _ = rand.Read(id)
	b.mu.Lock()
	defer b.mu.Unlock()
	name := "gantrytest-" + hex.EncodeToString(id)
	b.topics = append(b.topics, name)
	return name
}

// open returns a transport that is closed with the test.
func (b *bed) open(t *testing.T) messaging.Transport {
	t.Helper()
	tr := b.bus.Open(t)
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Errorf("close transport: %v", err)
		}
	})
	return tr
}

// client returns a client with a transport of its own.
func (b *bed) client(t *testing.T) *messaging.Client {
	t.Helper()
	c := messaging.NewClient(b.open(t), messaging.ClientOptions{ResponseTimeout: patience})
	t.Cleanup(func() { _ = c.Close(t.Context()) })
	return c
}

// serve starts a server with a transport of its own and waits until it
// listens; the returned function ends it and waits for the end.
func (b *bed) serve(t *testing.T, topic, host string, methods map[string]messaging.Handler) (stop func()) {
	t.Helper()
	s, err := messaging.NewServer(b.open(t), messaging.ServerOptions{
		Topics: []string{topic}, Host: host,
		Endpoints: []messaging.Endpoint{{Version: "6.1", Methods: methods}, messaging.BaseEndpoint("compute")},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.WithoutCancel(t.Context())) }()
	stop = sync.OnceFunc(func() {
		s.Close()
		if err := wait(t, done, "server to end"); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(stop)
	wait(t, s.Ready(), "server to listen")
	return stop
}

// within returns a context with the suite's patience.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// wait receives from ch or fails the test.
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

// nothing fails the test if ch has something now.
func nothing[T any](t *testing.T, ch <-chan T, what string) {
	t.Helper()
	select {
	case v := <-ch:
		t.Fatalf("%s: %v", what, v)
	default:
	}
}

// collect is a handler that sends the argument "n" to ch.
func collect(ch chan<- string) messaging.Handler {
	return func(_ context.Context, req *messaging.Request) (any, error) {
		var n string
		if err := req.Arg("n", &n); err != nil {
			return nil, err
		}
		ch <- n
		return n, nil
	}
}

func target(topic, server string) messaging.Target {
	return messaging.Target{Topic: topic, Server: server, Version: "6.0"}
}

func args(n string) map[string]any { return map[string]any{"n": n} }
