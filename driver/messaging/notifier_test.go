package messaging_test

import (
	"encoding/json"
	"errors"
	"regexp"
	"testing"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/inproc"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestNotifierDrivers(t *testing.T) {
	for _, tc := range []struct {
		drivers []string
		sent    bool
		wrapped bool
		err     error
	}{
		{nil, false, false, nil},
		{[]string{""}, false, false, nil},
		{[]string{"noop"}, false, false, nil},
		{[]string{"messaging"}, true, false, nil},
		{[]string{"messagingv2"}, true, true, nil},
		{[]string{"log"}, false, false, errdefs.ErrInvalid},
	} {
		tr := inproc.New(inproc.NewBroker())
		n, err := messaging.NewNotifier(tr, messaging.NotifierOptions{
			Drivers: tc.drivers, Topics: []string{"notifications"}, Publisher: "compute.h",
		})
		if !errors.Is(err, tc.err) {
			t.Fatalf("%v: %v", tc.drivers, err)
		}
		if err != nil {
			continue
		}
		rc := messaging.NewRequestContext(map[string]json.RawMessage{"user_id": json.RawMessage(`"u"`)})
		if err := n.Notify(t.Context(), rc, messaging.PriorityError, "compute.instance.create.error", []int{1}); err != nil {
			t.Fatal(err)
		}
		if n.Enabled() != tc.sent {
			t.Errorf("%v: enabled is %t", tc.drivers, n.Enabled())
		}
		if !tc.sent {
			_ = tr.Close()
			continue
		}
		got := make(chan []byte, 1)
		_, err = tr.Listen(t.Context(), messaging.Address{Topics: []string{"notifications.error"}}, func(d messaging.Delivery) {
			_ = d.Ack()
			got <- d.Body
		})
		if err != nil {
			t.Fatal(err)
		}
		body := <-got
		var outer map[string]json.RawMessage
		if err := json.Unmarshal(body, &outer); err != nil {
			t.Fatal(err)
		}
		if _, wrapped := outer["oslo.message"]; wrapped != tc.wrapped {
			t.Errorf("%v: %s", tc.drivers, body)
		}
		p, err := messaging.DecodeEnvelope(body)
		if err != nil {
			t.Fatal(err)
		}
		for key, pattern := range map[string]string{
			"message_id": `^"[0-9a-f]{8}-[0-9a-f-]{27}"$`, "publisher_id": `^"compute\.h"$`,
			"event_type": `^"compute\.instance\.create\.error"$`, "priority": `^"ERROR"$`, "payload": `^\[1\]$`,
			"timestamp": `^"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}"$`, "_context_user_id": `^"u"$`, "_unique_id": `^"[0-9a-f]{32}"$`,
		} {
			if !regexp.MustCompile(pattern).Match(p[key]) {
				t.Errorf("%s is %s", key, p[key])
			}
		}
		_ = tr.Close()
	}
}
