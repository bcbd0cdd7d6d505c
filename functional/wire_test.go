//go:build functional

package functional

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/google/uuid"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

// tap copies what is sent under a routing key and can send more to this host.
type tap struct {
	ch   *amqp091.Channel
	msgs <-chan amqp091.Delivery
}

// brokerURL is the broker of the control plane, for a plain AMQP client.
func brokerURL() string {
	return strings.Replace(os.Getenv("GANTRY_TEST_AMQP_URL"), "rabbit://", "amqp://", 1)
}

func (c *cloud) tap(t *testing.T, keys ...string) *tap {
	t.Helper()
	conn, err := amqp091.Dial(brokerURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if err := ch.QueueBind(q.Name, key, "nova", false, nil); err != nil {
			t.Fatal(err)
		}
	}
	msgs, err := ch.Consume(q.Name, "", true, true, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &tap{ch: ch, msgs: msgs}
}

// next waits for a message of the method and returns its payload.
func (p *tap) next(t *testing.T, method string) map[string]any {
	t.Helper()
	limit := time.NewTimer(bootLimit)
	defer limit.Stop()
	for {
		select {
		case m := <-p.msgs:
			var envelope map[string]string
			if json.Unmarshal(m.Body, &envelope) != nil {
				continue
			}
			var payload map[string]any
			if err := json.Unmarshal([]byte(envelope["oslo.message"]), &payload); err == nil && payload["method"] == method {
				return payload
			}
		case <-limit.C:
			t.Fatalf("no %s was sent", method)
		}
	}
}

// send publishes a payload to this host.
func (p *tap) send(t *testing.T, payload map[string]any) {
	t.Helper()
	inner, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{"oslo.version": "2.0", "oslo.message": string(inner)})
	if err != nil {
		t.Fatal(err)
	}
	p.raw(t, body)
}

func (p *tap) raw(t *testing.T, body []byte) {
	t.Helper()
	err := p.ch.PublishWithContext(t.Context(), "nova", "compute."+host, false, false,
		amqp091.Publishing{ContentType: "application/json", ContentEncoding: "utf-8", Body: body})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFunctionalRedeliveredBuildIsDoneOnce(t *testing.T) {
	c := the
	p := c.tap(t, "compute."+host)
	id := c.boot(t, bootOpts{})
	build := p.next(t, "build_and_run_instance")
	p.send(t, build) // the broker's own redelivery: the same message
	again := map[string]any{}
	for k, v := range build {
		again[k] = v
	}
	again["_unique_id"] = strings.ReplaceAll(uuid.NewString(), "-", "")
	p.send(t, again) // a sender that repeats itself
	c.waitStatus(t, id, "ACTIVE")
	pid := c.firstPid(t, id)
	p.send(t, again)
	again["_unique_id"] = strings.ReplaceAll(uuid.NewString(), "-", "")
	p.send(t, again)
	c.active(t, bootOpts{name: "meanwhile", network: "none"})
	if s := c.server(t, id); s.Status != "ACTIVE" || s.PowerState != servers.RUNNING || c.firstPid(t, id) != pid {
		t.Errorf("after the repeats: %s %v", s.Status, s.PowerState)
	}
}

func TestFunctionalMessagesForOthersAndNoise(t *testing.T) {
	c := the
	p := c.tap(t, "compute."+host)
	id := c.active(t, bootOpts{network: "none"})
	if err := servers.Pause(t.Context(), c.demo.compute, id).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	pause := p.next(t, "pause_instance")
	c.waitStatus(t, id, "PAUSED")
	// the same for an instance that lives elsewhere
	data := pause["args"].(map[string]any)["instance"].(map[string]any)["nova_object.data"].(map[string]any)
	data["host"] = "elsewhere"
	pause["method"] = "terminate_instance"
	pause["args"].(map[string]any)["bdms"] = []any{}
	pause["_unique_id"] = strings.ReplaceAll(uuid.NewString(), "-", "")
	p.send(t, pause)
	for _, noise := range []string{"", "{", `{"oslo.version":"9.0","oslo.message":"{}"}`, `{"oslo.version":"2.0","oslo.message":"[]"}`, strings.Repeat("x", 1<<20)} {
		p.raw(t, []byte(noise))
	}
	c.active(t, bootOpts{name: "works-on", network: "none"})
	if s := c.server(t, id); s.Status != "PAUSED" {
		t.Errorf("instance is %s", s.Status)
	}
	c.firstPid(t, id)
}

func TestFunctionalFlavorLargerThanTheHost(t *testing.T) {
	c := the
	disk := 1
	f, err := flavors.Create(t.Context(), c.admin.compute, flavors.CreateOpts{Name: t.Name(), RAM: 8 << 20, VCPUs: 1, Disk: &disk}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := flavors.Delete(context.WithoutCancel(t.Context()), c.admin.compute, f.ID).ExtractErr(); err != nil {
			t.Error(err)
		}
	})
	id := c.boot(t, bootOpts{flavor: f.Name, network: "none"})
	s := c.waitStatus(t, id, "ERROR")
	if !strings.Contains(s.Fault.Message, "No valid host") {
		t.Errorf("fault %q", s.Fault.Message)
	}
	// past the scheduler, with a forged message, the host refuses by itself
	p := c.tap(t, "compute."+host)
	small := c.boot(t, bootOpts{name: "forged", network: "none"})
	build := p.next(t, "build_and_run_instance")
	c.waitStatus(t, small, "ACTIVE")
	other := uuid.NewString()
	raw, err := json.Marshal(build)
	if err != nil {
		t.Fatal(err)
	}
	var forged map[string]any
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(raw), small, other)), &forged); err != nil {
		t.Fatal(err)
	}
	forged["_unique_id"] = strings.ReplaceAll(uuid.NewString(), "-", "")
	p.send(t, forged)
	c.active(t, bootOpts{name: "works-on", network: "none"})
	if left := c.traces(other); len(left) > 0 {
		t.Errorf("a forged build left %v", left)
	}
}

func TestFunctionalNotifications(t *testing.T) {
	c := the
	p := c.tap(t, "notifications.#", "versioned_notifications.#")
	id := c.active(t, bootOpts{})
	want := map[string]string{
		"compute.instance.create.start": "compute." + host, "compute.instance.create.end": "compute." + host,
		"instance.create.start": "nova-compute:" + host, "instance.create.end": "nova-compute:" + host,
	}
	limit := time.NewTimer(bootLimit)
	defer limit.Stop()
	for len(want) > 0 {
		select {
		case m := <-p.msgs:
			var envelope map[string]string
			if json.Unmarshal(m.Body, &envelope) != nil || !strings.Contains(envelope["oslo.message"], id) {
				continue
			}
			var n notice
			if err := json.Unmarshal([]byte(envelope["oslo.message"]), &n); err != nil {
				t.Fatal(err)
			}
			if n.Publisher != want[n.Event] {
				continue
			}
			delete(want, n.Event)
			if n.Event != "instance.create.end" {
				continue
			}
			d := n.Payload.Data
			if n.Payload.Name != "InstanceCreatePayload" || d.State != "active" || len(d.Addresses) == 0 || d.Flavor.Data.Name == "" || d.Initiator == "" {
				t.Errorf("payload %+v", n.Payload)
			}
		case <-limit.C:
			t.Fatalf("not sent: %v", want)
		}
	}
}

// notice is the part of a notification that is looked at.
type notice struct {
	Event     string `json:"event_type"`
	Publisher string `json:"publisher_id"`
	Payload   struct {
		Name string `json:"nova_object.name"`
		Data struct {
			State     string `json:"state"`
			Addresses []any  `json:"ip_addresses"`
			Initiator string `json:"action_initiator_user"`
			Flavor    struct {
				Data struct {
					Name string `json:"name"`
				} `json:"nova_object.data"`
			} `json:"flavor"`
		} `json:"nova_object.data"`
	} `json:"payload"`
}

// TestFunctionalBadConfigurationIsRefused is what an operator sees of a typo.
func TestFunctionalBadConfigurationIsRefused(t *testing.T) {
	c := the
	name := filepath.Join(t.TempDir(), "bad.conf")
	if err := os.WriteFile(name, []byte("[gantry]\nconsole_bytes = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := append(c.config(), name)
	out, err := runGantry(t, c.binary, files, nil)
	if err == nil || !strings.Contains(out, name) || !strings.Contains(out, "[gantry] console_bytes") || !strings.Contains(out, "console_log_bytes") {
		t.Errorf("unknown key: %v %s", err, out)
	}
	out, err = runGantry(t, c.binary, c.config(), []string{"GANTRY_GANTRY_CONSOLE_LOG_BYTES=many"})
	if err == nil || !strings.Contains(out, "GANTRY_GANTRY_CONSOLE_LOG_BYTES") || !strings.Contains(out, "integer") {
		t.Errorf("wrong type: %v %s", err, out)
	}
	out, err = runGantry(t, c.binary, nil, nil)
	if err == nil || !strings.Contains(out, "[DEFAULT] transport_url: missing") {
		t.Errorf("missing value: %v %s", err, out)
	}
	// a second service on the same state must not start
	out, err = runGantry(t, c.binary, c.config(), nil)
	if err == nil || !strings.Contains(out, "another gantry uses this state directory") {
		t.Errorf("second service: %v %s", err, out)
	}
}
