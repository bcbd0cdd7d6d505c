//go:build functional

package amqp_test

import (
	"context"
	"os"
	"testing"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/amqp"
)

// TestConductor talks to the conductor of a real Nova.
func TestConductor(t *testing.T) {
	o := options(t, nil)
	o.ControlExchange = "nova"
	tr := open(t, o)
	defer tr.Close()
	c := messaging.NewClient(tr, messaging.ClientOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	rc := messaging.AdminContext()

	var pong struct{ Service, Arg string }
	ping := messaging.Target{Topic: "conductor", Namespace: "baseapi", Version: "1.0"}
	if err := c.Call(ctx, rc, ping, "ping", map[string]any{"arg": "1.21 GigaWatts"}, &pong); err != nil {
		t.Fatal(err)
	}
	if pong.Service != "conductor" || pong.Arg != "1.21 GigaWatts" {
		t.Errorf("ping answers %+v", pong)
	}

	conductor := messaging.Target{Topic: "conductor", Version: "3.0"}
	service := func(method string, args ...any) map[string]any {
		return map[string]any{
			"objname": "Service", "objmethod": method, "object_versions": map[string]string{"Service": "1.22"},
			"args": args, "kwargs": map[string]any{},
		}
	}
	var version int
	if err := c.Call(ctx, rc, conductor, "object_class_action_versions", service("get_minimum_version", "nova-compute"), &version); err != nil {
		t.Fatal(err)
	}
	if version < 0 || version > 1000 {
		t.Errorf("minimum version is %d", version)
	}
	err := c.Call(ctx, rc, conductor, "object_class_action_versions", service("get_by_id", 987654321), nil)
	if !messaging.IsRemote(err, "ServiceNotFound") {
		t.Errorf("unknown service: %v", err)
	}
	err = c.Call(ctx, rc, messaging.Target{Topic: "conductor", Version: "3.999"}, "x", nil, nil)
	if !messaging.IsRemote(err, "UnsupportedVersion") {
		t.Errorf("unknown version: %v", err)
	}
}

// BenchmarkPing is one call to a real conductor and back.
func BenchmarkPing(b *testing.B) {
	u, err := amqp.ParseURL(os.Getenv("GANTRY_TEST_AMQP_URL"))
	if err != nil {
		b.Fatal(err)
	}
	o := amqp.DefaultOptions()
	o.URL = u
	tr, err := amqp.New(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	defer tr.Close()
	c := messaging.NewClient(tr, messaging.ClientOptions{})
	rc := messaging.AdminContext()
	ping := messaging.Target{Topic: "conductor", Namespace: "baseapi", Version: "1.0"}
	for b.Loop() {
		if err := c.Call(b.Context(), rc, ping, "ping", map[string]any{"arg": ""}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
