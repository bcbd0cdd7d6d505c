package transporttest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/gantry-project/gantry/driver/messaging"
)

// mustCast sends a cast of the method "run".
func mustCast(t *testing.T, c *messaging.Client, to messaging.Target, n string) {
	t.Helper()
	if err := c.Cast(within(t), messaging.AdminContext(), to, "run", args(n)); err != nil {
		t.Fatal(err)
	}
}

// settle makes sure that what was sent to the server before has been received.
func settle(t *testing.T, c *messaging.Client, topic, host string, ran <-chan string) {
	t.Helper()
	var got string
	if err := c.Call(within(t), messaging.AdminContext(), target(topic, host), "run", args("settle"), &got); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, ran, "the settling call"); got != "settle" {
		t.Fatalf("ran %q, expected only the settling call", got)
	}
}

func castGoesToItsServer(t *testing.T, b *bed) {
	topic := b.topic()
	one, two := make(chan string, 10), make(chan string, 10)
	b.serve(t, topic, "one", map[string]messaging.Handler{"run": collect(one)})
	b.serve(t, topic, "two", map[string]messaging.Handler{"run": collect(two)})
	c := b.client(t)
	mustCast(t, c, target(topic, "two"), "x")
	if got := wait(t, two, "the cast"); got != "x" {
		t.Errorf("ran %q", got)
	}
	settle(t, c, topic, "one", one)
}

func sharedTopicGoesToOne(t *testing.T, b *bed) {
	const n = 20
	topic := b.topic()
	ran := make(chan string, 2*n)
	b.serve(t, topic, "one", map[string]messaging.Handler{"run": collect(ran)})
	b.serve(t, topic, "two", map[string]messaging.Handler{"run": collect(ran)})
	c := b.client(t)
	seen := map[string]bool{}
	for i := range n {
		mustCast(t, c, target(topic, ""), fmt.Sprint(i))
	}
	for range n {
		seen[wait(t, ran, "the casts")] = true
	}
	if len(seen) != n {
		t.Errorf("%d of %d were run", len(seen), n)
	}
	settle(t, c, topic, "one", ran)
	settle(t, c, topic, "two", ran)
}

func fanoutGoesToAll(t *testing.T, b *bed) {
	topic := b.topic()
	one, two := make(chan string, 10), make(chan string, 10)
	b.serve(t, topic, "one", map[string]messaging.Handler{"run": collect(one)})
	stop := b.serve(t, topic, "two", map[string]messaging.Handler{"run": collect(two)})
	c := b.client(t)
	all := messaging.Target{Topic: topic, Version: "6.0", Fanout: true}
	mustCast(t, c, all, "a")
	wait(t, one, "the fan-out at one")
	wait(t, two, "the fan-out at two")
	stop()
	mustCast(t, c, all, "b")
	if got := wait(t, one, "the second fan-out"); got != "b" {
		t.Errorf("ran %q", got)
	}
}

// fanoutToNobodyIsDropped also covers an exchange that vanishes with its last
// listener and is there again with the next.
func fanoutToNobodyIsDropped(t *testing.T, b *bed) {
	topic := b.topic()
	ran := make(chan string, 10)
	methods := map[string]messaging.Handler{"run": collect(ran)}
	c := b.client(t)
	all := messaging.Target{Topic: topic, Version: "6.0", Fanout: true}
	mustCast(t, c, all, "before")
	stop := b.serve(t, topic, "h", methods)
	mustCast(t, c, all, "during")
	if got := wait(t, ran, "the fan-out"); got != "during" {
		t.Errorf("ran %q", got)
	}
	stop()
	mustCast(t, c, all, "between")
	b.serve(t, topic, "h", methods)
	mustCast(t, c, all, "after")
	if got := wait(t, ran, "the fan-out"); got != "after" {
		t.Errorf("ran %q", got)
	}
}

func unknownTopicIsDropped(t *testing.T, b *bed) {
	topic := b.topic()
	c := b.client(t)
	mustCast(t, c, target(topic, ""), "lost")
	mustCast(t, c, target(topic, "h"), "lost")
	ran := make(chan string, 10)
	b.serve(t, topic, "h", map[string]messaging.Handler{"run": collect(ran)})
	settle(t, c, topic, "h", ran)
}

func castWaitsForItsServer(t *testing.T, b *bed) {
	topic := b.topic()
	ran := make(chan string, 10)
	methods := map[string]messaging.Handler{"run": collect(ran)}
	b.serve(t, topic, "h", methods)()
	c := b.client(t)
	mustCast(t, c, target(topic, "h"), "own")
	mustCast(t, c, target(topic, ""), "shared")
	b.serve(t, topic, "h", methods)
	got := map[string]bool{wait(t, ran, "a cast"): true, wait(t, ran, "a cast"): true}
	if !got["own"] || !got["shared"] {
		t.Errorf("ran %v", got)
	}
}

func duplicateIsRunOnce(t *testing.T, b *bed) {
	topic := b.topic()
	ran := make(chan string, 10)
	b.serve(t, topic, "h", map[string]messaging.Handler{"run": collect(ran)})
	tr := b.open(t)
	body, err := messaging.EncodeEnvelope(map[string]any{
		"method": "run", "args": args("once"), "version": "6.0", "_unique_id": "u" + topic,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := tr.Send(within(t), target(topic, "h"), messaging.Message{Body: body}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Send(within(t), target(topic, ""), messaging.Message{Body: body}); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, ran, "the cast"); got != "once" {
		t.Errorf("ran %q", got)
	}
	settle(t, b.client(t), topic, "h", ran)
}

func poisonIsDropped(t *testing.T, b *bed) {
	topic := b.topic()
	ran := make(chan string, 10)
	b.serve(t, topic, "h", map[string]messaging.Handler{"run": collect(ran)})
	tr := b.open(t)
	for _, body := range []string{
		"", "null", "[]", "{}", "\xff\x00", `{"oslo.version":"3.0","oslo.message":"{}"}`,
		`{"oslo.version":"2.0","oslo.message":"{"}`, `{"oslo.version":"2.0","oslo.message":"{\"args\":7}"}`,
		`{"oslo.version":2,"oslo.message":null}`, `{"method":{"a":1},"args":null,"_msg_id":1,"_timeout":"x"}`,
	} {
		if err := tr.Send(within(t), target(topic, "h"), messaging.Message{Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, b.client(t), topic, "h", ran)
}

func notAcknowledgedComesAgain(t *testing.T, b *bed) {
	topic := b.topic()
	first := make(chan messaging.Delivery, 1)
	tr := b.open(t)
	to := messaging.Address{Topics: []string{topic}, Server: "h"}
	sub, err := tr.Listen(within(t), to, func(d messaging.Delivery) { first <- d })
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Send(within(t), target(topic, "h"), messaging.Message{Body: []byte(`"x"`)}); err != nil {
		t.Fatal(err)
	}
	if d := wait(t, first, "the message"); d.Redelivered || string(d.Body) != `"x"` {
		t.Errorf("first delivery is %+v", d)
	}
	if err := sub.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := sub.Close(within(t)); err != nil {
		t.Errorf("second close: %v", err)
	}
	sub, err = tr.Listen(within(t), to, func(d messaging.Delivery) { first <- d })
	if err != nil {
		t.Fatal(err)
	}
	d := wait(t, first, "the message again")
	if !d.Redelivered || string(d.Body) != `"x"` {
		t.Errorf("second delivery is %+v", d)
	}
	if err := d.Ack(); err != nil {
		t.Error(err)
	}
	if err := sub.Close(within(t)); err != nil {
		t.Error(err)
	}
}

func replyToNobody(t *testing.T, b *bed) {
	err := b.open(t).Reply(within(t), "reply_"+b.topic(), messaging.Message{Body: []byte("{}")})
	if !errors.Is(err, messaging.ErrNoReplyQueue) {
		t.Errorf("got %v", err)
	}
}

func notificationWaits(t *testing.T, b *bed) {
	topic := b.topic()
	tr := b.open(t)
	n, err := messaging.NewNotifier(tr, messaging.NotifierOptions{
		Drivers: []string{"messagingv2"}, Topics: []string{topic}, Publisher: "compute.h",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range []string{"one", "two"} {
		if err := n.Notify(within(t), messaging.AdminContext(), messaging.PriorityInfo, event, map[string]any{"a": 1}); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan messaging.Delivery, 2)
	b.mu.Lock()
	b.topics = append(b.topics, topic+".info")
	b.mu.Unlock()
	_, err = tr.Listen(within(t), messaging.Address{Topics: []string{topic + ".info"}}, func(d messaging.Delivery) {
		_ = d.Ack()
		got <- d
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range []string{`"one"`, `"two"`} {
		p, err := messaging.DecodeEnvelope(wait(t, got, "the notification").Body)
		if err != nil {
			t.Fatal(err)
		}
		if string(p["event_type"]) != event || string(p["publisher_id"]) != `"compute.h"` || string(p["priority"]) != `"INFO"` {
			t.Errorf("notification is %s", p)
		}
	}
}
