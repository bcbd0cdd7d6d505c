package notification_test

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/notification"
	"github.com/gantry-project/gantry/driver/objects"
)

// captured is what Nova's own code made of an instance (testdata/capture.py).
type captured struct {
	Instance  json.RawMessage           `json:"instance"`
	NewFlavor json.RawMessage           `json:"new_flavor"`
	Payloads  map[string]map[string]any `json:"payloads"`
}

func capture(t *testing.T) (*objects.Object, *objects.Object, map[string]map[string]any) {
	t.Helper()
	raw, err := os.ReadFile("testdata/zed.json")
	if err != nil {
		t.Fatal(err)
	}
	var c captured
	var inst objects.Instance
	var flavor objects.Flavor
	for _, err := range []error{json.Unmarshal(raw, &c), json.Unmarshal(c.Instance, &inst), json.Unmarshal(c.NewFlavor, &flavor)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return inst.Object, flavor.Object, c.Payloads
}

// asker is the user of another project than the instance's.
func asker(t *testing.T) messaging.RequestContext {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(`{"user_id":"u2","project_id":"p2","request_id":"req-1"}`), &fields); err != nil {
		t.Fatal(err)
	}
	return messaging.NewRequestContext(fields)
}

// wire is a payload as its reader has it.
func wire(t *testing.T, payload any) map[string]any {
	t.Helper()
	raw, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAsNova compares each kind of payload with what Nova's code makes of the
// same instance.
func TestAsNova(t *testing.T) {
	inst, flavor, want := capture(t)
	s := notification.Subject{Instance: inst, Name: "instance-0000002a"}
	fault := &notification.Fault{Module: "nova.exception", Class: "InstanceInvalidState", Message: "no", Method: "rebuild_instance"}
	more := map[string]notification.More{
		"reboot": {Fault: fault}, "rebuild": {Fault: fault}, "resize_prep": {NewFlavor: flavor},
		"rescue":   {RescueImage: "155d900f-4e14-4e4c-a73d-069cbf4541e7"},
		"snapshot": {SnapshotImage: "155d900f-4e14-4e4c-a73d-069cbf4541e8"},
	}
	if len(want) != 7 {
		t.Fatalf("%d payloads captured", len(want))
	}
	for action, payload := range want {
		got := wire(t, notification.Payload(asker(t), notification.Name{Action: action, Phase: "start"}, s, more[action]))
		differ(t, action, got, payload)
	}
}

// differ tells where two trees differ.
func differ(t *testing.T, at string, got, want any) {
	t.Helper()
	g, ok := got.(map[string]any)
	w, both := want.(map[string]any)
	if !ok || !both {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, Nova has %v", at, got, want)
		}
		return
	}
	for k := range w {
		if _, ok := g[k]; !ok {
			t.Errorf("%s.%s is missing, Nova has %v", at, k, w[k])
			continue
		}
		differ(t, at+"."+k, g[k], w[k])
	}
	for k := range g {
		if _, ok := w[k]; !ok {
			t.Errorf("%s.%s: %v, Nova has none", at, k, g[k])
		}
	}
}

// TestNobodyAsked: what a periodic task does has no request; an instance of
// which little is known makes a payload still.
func TestNobodyAsked(t *testing.T) {
	bare := objects.New("Instance")
	bare.Set("uuid", "u")
	s := notification.Subject{Instance: bare, BlockDevices: true}
	data := wire(t, notification.Payload(messaging.AdminContext(), notification.Name{Action: "create", Phase: "end"}, s, notification.More{}))["nova_object.data"].(map[string]any)
	for field, want := range map[string]any{
		"request_id": nil, "action_initiator_user": nil, "flavor": nil, "power_state": nil, "fault": nil, "locked_reason": nil,
		"ip_addresses": []any{}, "block_devices": []any{}, "keypairs": []any{}, "tags": []any{}, "trusted_image_certificates": nil,
		"instance_name": nil, "locked": false, "metadata": map[string]any{}, "uuid": "u",
	} {
		if got, ok := data[field]; !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v (%v), want %v", field, got, ok, want)
		}
	}
}

func TestNames(t *testing.T) {
	for event, want := range map[string]string{
		"create.start": "instance.create.start", "resize.prep.end": "instance.resize_prep.end", "finish_resize.start": "instance.resize_finish.start",
		"resize.confirm.end": "instance.resize_confirm.end", "resize.error": "instance.resize.error", "soft_delete.end": "instance.soft_delete.end",
		"create_ip.start": "", "plain": "",
	} {
		n, ok := notification.NameOf(event)
		if ok != (want != "") || ok && n.String() != want {
			t.Errorf("%s: %s %v, want %q", event, n, ok, want)
		}
	}
}
