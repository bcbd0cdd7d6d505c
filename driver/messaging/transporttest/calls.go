package transporttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/driver/messaging"
)

func callReturnsResult(t *testing.T, b *bed) {
	topic := b.topic()
	rc := messaging.AdminContext()
	b.serve(t, topic, "h", map[string]messaging.Handler{
		"who": func(_ context.Context, req *messaging.Request) (any, error) {
			if !req.IsCall || req.Version != "6.0" || req.Context.RequestID() != rc.RequestID() {
				return nil, fmt.Errorf("request is %+v", req)
			}
			return map[string]any{"id": req.Context.RequestID(), "arg": req.Args["n"]}, nil
		},
		"none": func(context.Context, *messaging.Request) (any, error) { return nil, nil },
	})
	c := b.client(t)
	var got struct{ ID, Arg string }
	if err := c.Call(within(t), rc, target(topic, "h"), "who", args("<ü&>"), &got); err != nil {
		t.Fatal(err)
	}
	if got.ID != rc.RequestID() || got.Arg != "<ü&>" {
		t.Errorf("result is %+v", got)
	}
	var none any
	if err := c.Call(within(t), rc, target(topic, "h"), "none", nil, &none); err != nil || none != nil {
		t.Errorf("null result is %v, %v", none, err)
	}
	var pong map[string]string
	ping := messaging.Target{Topic: topic, Server: "h", Namespace: "baseapi", Version: "1.0"}
	if err := c.Call(within(t), rc, ping, "ping", map[string]any{"arg": "x"}, &pong); err != nil {
		t.Fatal(err)
	}
	if pong["service"] != "compute" || pong["arg"] != "x" {
		t.Errorf("ping answers %v", pong)
	}
}

func callReturnsRemoteError(t *testing.T, b *bed) {
	topic := b.topic()
	b.serve(t, topic, "h", map[string]messaging.Handler{
		"gone": func(context.Context, *messaging.Request) (any, error) {
			return nil, fmt.Errorf("look: %w", messaging.NovaError("InstanceNotFound", 404, "no instance"))
		},
		"never": func(context.Context, *messaging.Request) (any, error) {
			return nil, messaging.NotImplemented("")
		},
		"secret":  func(context.Context, *messaging.Request) (any, error) { return nil, errors.New("/var/lib/secret") },
		"_hidden": func(context.Context, *messaging.Request) (any, error) { return nil, nil },
	})
	c := b.client(t)
	for _, tc := range []struct {
		method, version, class, module string
		code                           int
	}{
		{"gone", "6.0", "InstanceNotFound", "nova.exception", 404},
		{"never", "6.0", "NotImplementedError", "builtins", 0},
		{"secret", "6.0", "NovaException", "nova.exception", 500},
		{"other", "6.0", "NoSuchMethod", "oslo_messaging.rpc.dispatcher", 0},
		{"_hidden", "6.0", "NoSuchMethod", "oslo_messaging.rpc.dispatcher", 0},
		{"gone", "6.2", "UnsupportedVersion", "oslo_messaging.rpc.dispatcher", 0},
		{"gone", "7.0", "UnsupportedVersion", "oslo_messaging.rpc.dispatcher", 0},
	} {
		to := messaging.Target{Topic: topic, Server: "h", Version: tc.version}
		err := c.Call(within(t), messaging.AdminContext(), to, tc.method, nil, nil)
		re, ok := errors.AsType[*messaging.RemoteError](err)
		if !ok {
			t.Errorf("%s %s: %v", tc.method, tc.version, err)
			continue
		}
		if re.Class != tc.class || re.Module != tc.module || re.Code != tc.code {
			t.Errorf("%s %s: %+v", tc.method, tc.version, re)
		}
		if strings.Contains(re.Message, "secret") {
			t.Errorf("%s: text of an internal error reached the caller: %q", tc.method, re.Message)
		}
	}
}

func callsRunConcurrently(t *testing.T, b *bed) {
	const n = 50
	topic := b.topic()
	gate := make(chan struct{})
	arrived := make(chan struct{}, n)
	b.serve(t, topic, "h", map[string]messaging.Handler{
		"echo": func(_ context.Context, req *messaging.Request) (any, error) {
			arrived <- struct{}{}
			<-gate
			return req.Args["n"], nil
		},
	})
	c := b.client(t)
	ctx := within(t)
	var g errgroup.Group
	for i := range n {
		g.Go(func() error {
			want, got := fmt.Sprint(i), ""
			if err := c.Call(ctx, messaging.AdminContext(), target(topic, "h"), "echo", args(want), &got); err != nil {
				return err
			}
			if got != want {
				return fmt.Errorf("answer to %s is %s", want, got)
			}
			return nil
		})
	}
	for range n {
		wait(t, arrived, "all calls to run at once")
	}
	close(gate)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func callWithoutServerTimesOut(t *testing.T, b *bed) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := b.client(t).Call(ctx, messaging.AdminContext(), target(b.topic(), "nobody"), "x", nil, nil)
	if !errors.Is(err, messaging.ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

func callEndsWithContext(t *testing.T, b *bed) {
	topic := b.topic()
	ctx, cancel := context.WithCancel(within(t))
	release := make(chan struct{})
	defer close(release)
	b.serve(t, topic, "h", map[string]messaging.Handler{
		"hang": func(ctx context.Context, _ *messaging.Request) (any, error) {
			cancel()
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil, nil
		},
	})
	err := b.client(t).Call(ctx, messaging.AdminContext(), target(topic, "h"), "hang", nil, nil)
	if !errors.Is(err, context.Canceled) || errors.Is(err, messaging.ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

func expiredCallIsNotRun(t *testing.T, b *bed) {
	topic := b.topic()
	ran := make(chan string, 10)
	methods := map[string]messaging.Handler{"run": collect(ran)}
	b.serve(t, topic, "h", methods)() // makes the queues and leaves
	c := b.client(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, messaging.AdminContext(), target(topic, "h"), "run", args("stale"), nil); !errors.Is(err, messaging.ErrTimeout) {
		t.Fatalf("got %v", err)
	}
	<-time.After(500 * time.Millisecond) // the message expires a little later than the call
	if err := c.Cast(within(t), messaging.AdminContext(), target(topic, "h"), "run", args("kept")); err != nil {
		t.Fatal(err)
	}
	b.serve(t, topic, "h", methods)
	if got := wait(t, ran, "the cast"); got != "kept" {
		t.Errorf("ran %q", got)
	}
	nothing(t, ran, "the expired call was run")
}

func lateReplyIsDropped(t *testing.T, b *bed) {
	topic := b.topic()
	started, release := make(chan struct{}, 1), make(chan struct{})
	b.serve(t, topic, "h", map[string]messaging.Handler{
		"slow": func(context.Context, *messaging.Request) (any, error) {
			started <- struct{}{}
			<-release
			return "late", nil
		},
		"echo": func(_ context.Context, req *messaging.Request) (any, error) { return req.Args["n"], nil },
	})
	c := b.client(t)
	ctx, cancel := context.WithCancel(within(t))
	go func() {
		<-started
		cancel()
	}()
	if err := c.Call(ctx, messaging.AdminContext(), target(topic, "h"), "slow", nil, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	close(release)
	var got string
	if err := c.Call(within(t), messaging.AdminContext(), target(topic, "h"), "echo", args("next"), &got); err != nil || got != "next" {
		t.Errorf("got %q, %v", got, err)
	}
}

// twoMessageReply plays a server of an old release: the result first, then an
// end without one; between them a heartbeat and a duplicate.
func twoMessageReply(t *testing.T, b *bed) {
	topic := b.topic()
	tr := b.open(t)
	ctx := within(t)
	sub, err := tr.Listen(ctx, messaging.Address{Topics: []string{topic}, Server: "old"}, func(d messaging.Delivery) {
		if err := d.Ack(); err != nil {
			return
		}
		p, err := messaging.DecodeEnvelope(d.Body)
		if err != nil {
			t.Error(err)
			return
		}
		var queue string
		_ = json.Unmarshal(p["_reply_q"], &queue)
		for _, r := range []map[string]any{
			{"result": "first", "ending": false, "_unique_id": "1" + topic},
			{"result": nil, "ending": false, "_unique_id": "2" + topic},
			{"result": "duplicate", "ending": false, "_unique_id": "2" + topic},
			{"result": nil, "ending": true, "_unique_id": "3" + topic},
		} {
			r["failure"], r["_msg_id"] = nil, p["_msg_id"]
			body, err := messaging.EncodeEnvelope(r)
			if err == nil {
				err = tr.Reply(ctx, queue, messaging.Message{Body: body})
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close(ctx)
	var got string
	if err := b.client(t).Call(ctx, messaging.AdminContext(), target(topic, "old"), "x", nil, &got); err != nil || got != "first" {
		t.Errorf("got %q, %v", got, err)
	}
}

func largeMessage(t *testing.T, b *bed) {
	topic := b.topic()
	b.serve(t, topic, "h", map[string]messaging.Handler{
		"echo": func(_ context.Context, req *messaging.Request) (any, error) { return req.Args["n"], nil },
	})
	want := strings.Repeat("\"é\n", 100_000)
	var got string
	if err := b.client(t).Call(within(t), messaging.AdminContext(), target(topic, "h"), "echo", args(want), &got); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got %d bytes back of %d", len(got), len(want))
	}
}

func panicIsAnError(t *testing.T, b *bed) {
	topic := b.topic()
	b.serve(t, topic, "h", map[string]messaging.Handler{
		"boom": func(context.Context, *messaging.Request) (any, error) { panic("boom") },
		"odd":  func(context.Context, *messaging.Request) (any, error) { return make(chan int), nil },
	})
	c := b.client(t)
	for _, method := range []string{"boom", "odd", "boom"} {
		err := c.Call(within(t), messaging.AdminContext(), target(topic, "h"), method, nil, nil)
		if !messaging.IsRemote(err, "NovaException") {
			t.Errorf("%s: %v", method, err)
		}
	}
}
