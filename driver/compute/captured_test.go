package compute

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// captured reads a message that a Zed control plane sent to a compute host.
func captured(t *testing.T, method string) *op {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "messages", method+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var msg struct {
		Method, Version string
		Args            map[string]json.RawMessage
	}
	if err := json.Unmarshal(raw, &msg); err != nil {
		t.Fatal(err)
	}
	return &op{name: method, req: &messaging.Request{Method: method, Version: msg.Version, Args: msg.Args}}
}

func TestCapturedBuild(t *testing.T) {
	o := captured(t, "build_and_run_instance")
	m := New(Deps{}, DefaultOptions("fake-1"), o.log)
	if err := m.admit(method{name: o.name, wrap: wrapAnyHost}, o); err != nil {
		t.Fatal(err)
	}
	if changes := o.inst.Changes(); len(changes) != 0 {
		t.Errorf("marked: %v", changes)
	}
	b := &build{op: o, m: m}
	if err := b.args.decode(o); err != nil {
		t.Fatal(err)
	}
	if err := b.args.refuse(o.inst); err != nil {
		t.Errorf("refused: %v", err)
	}
	if b.args.node != "fake-1" || b.args.tries() != 1 || !b.args.mayRetry() || b.args.noNetwork() || len(b.args.networks.Objects("objects")) != 1 {
		t.Errorf("args = %+v", b.args)
	}
	req := b.request(nil)
	want := driver.Flavor{Name: "c1.tiny", MemoryMB: 64, VCPUs: 1, RootGB: 1}
	if f := req.Flavor; f.Name != want.Name || f.MemoryMB != want.MemoryMB || f.VCPUs != want.VCPUs || f.RootGB != want.RootGB {
		t.Errorf("flavor = %+v", f)
	}
	if req.Name != "instance-0000006d" || req.Image.SizeBytes != 16777216 || req.Image.HashAlgo != "sha512" || len(req.Image.HashValue) != 128 ||
		req.Image.Checksum == "" || string(req.UserData) != "#!/bin/sh\necho hi\n" || req.PublicKey == "" {
		t.Errorf("request = %+v", req)
	}
	again := b.args.again(o.inst, errDeleted)
	retry, _ := again["filter_properties"].(map[string]any)["retry"].(map[string]any)
	if retry["exc_reason"] == "" || b.args.filters["retry"].(map[string]any)["exc_reason"] != nil {
		t.Errorf("retry = %v: the original must not change", retry)
	}
	if dest, ok := again["filter_properties"].(map[string]any)["requested_destination"].(*objects.Object); !ok || dest.Name != "Destination" {
		t.Errorf("the requested destination is lost: %v", again["filter_properties"])
	}
}

func TestCapturedVerbs(t *testing.T) {
	for _, name := range []string{"stop_instance", "reboot_instance", "snapshot_instance", "terminate_instance"} {
		o := captured(t, name)
		m := New(Deps{}, DefaultOptions("fake-1"), o.log)
		if err := m.admit(method{name: name}, o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == "terminate_instance" && len(cachedNetwork(o.inst)) != 1 {
			t.Errorf("network of %s: %v", name, cachedNetwork(o.inst))
		}
		stranger := captured(t, name)
		if err := New(Deps{}, DefaultOptions("other"), o.log).admit(method{name: name}, stranger); err == nil {
			t.Errorf("%s was taken by a host that it is not for", name)
		}
	}
	var kind driver.RebootType
	if err := captured(t, "reboot_instance").arg("reboot_type", &kind); err != nil || kind != driver.RebootSoft {
		t.Errorf("reboot_type = %q, %v", kind, err)
	}
	var instances, events []*objects.Object
	o := captured(t, "external_instance_event")
	if o.arg("instances", &instances) != nil || o.arg("events", &events) != nil || len(instances) != 1 || len(events) != 1 ||
		events[0].String("instance_uuid") != instances[0].String("uuid") || events[0].String("name") != "network-changed" {
		t.Errorf("event = %v of %v", events, instances)
	}
}

func TestCapturedRebuildAndShelf(t *testing.T) {
	o := captured(t, "rebuild_instance")
	m := New(Deps{}, DefaultOptions("fake-1"), o.log)
	if err := m.admit(method{name: o.name, wrap: wrapAnyHost}, o); err != nil {
		t.Fatal(err)
	}
	r := &rebuild{op: o, m: m}
	if err := r.args.decode(o); err != nil {
		t.Fatal(err)
	}
	if err := r.args.refuse(o.inst); err != nil {
		t.Errorf("refused: %v", err)
	}
	req := m.spawnRequest(o, driver.Image{}, nil)
	if r.args.recreate || *r.args.image == "" || *r.args.origImage == "" || r.args.origMeta["image_disk_format"] == "" || r.args.password == "" ||
		req.Flavor.MemoryMB != 64 || req.Flavor.VCPUs != 1 || req.PublicKey == "" || req.Hostname != "fake-cap" {
		t.Errorf("args = %+v, request = %+v", r.args, req)
	}

	o = captured(t, "unshelve_instance")
	if err := m.admit(method{name: o.name, wrap: wrapAnyHost}, o); err != nil {
		t.Fatal(err)
	}
	u := &unshelve{op: o, m: m}
	if err := u.decode(); err != nil {
		t.Fatal(err)
	}
	meta, image := withoutShelf(o.inst)
	if u.node != "fake-1" || image == "" || u.image.ID != image || meta["shelved_at"] != "" || flavorOf(o.inst).MemoryMB != 256 || o.inst.String("vm_state") != vmShelvedOffloaded {
		t.Errorf("unshelve of %q from %q on %q: %v", image, u.image.ID, u.node, meta)
	}

	o = captured(t, "shelve_instance")
	var id string
	if err := m.admit(method{name: o.name}, o); err != nil || o.arg("image_id", &id) != nil || id == "" || o.inst.String("task_state") != taskShelving {
		t.Errorf("shelve to %q in task %q: %v", id, o.inst.String("task_state"), err)
	}
}
