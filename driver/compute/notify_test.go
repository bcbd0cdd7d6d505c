package compute_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// notes keeps notifications once it is switched on.
type notes struct {
	mu       sync.Mutex
	on       bool
	events   []string
	payloads []map[string]any
}

func (n *notes) Enabled() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.on
}

func (n *notes) Notify(_ context.Context, _ messaging.RequestContext, p messaging.Priority, event string, payload any) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, string(p)+" "+event)
	n.payloads = append(n.payloads, payload.(map[string]any))
	return nil
}

func (n *notes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.payloads)
}

// take returns the events so far and forgets them.
func (n *notes) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.events
	n.events = nil
	return out
}

// wantNotes waits for as many notifications: an operation tells of its end after
// the row says so.
func (r *rig) wantNotes(want ...string) {
	r.t.Helper()
	r.wantOf(r.notes, want...)
}

func (r *rig) wantOf(n *notes, want ...string) {
	r.t.Helper()
	r.wait("the notifications", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.events) >= len(want)
	})
	if got := n.take(); !slices.Equal(got, want) {
		r.t.Errorf("notifications\n  %q, want\n  %q", got, want)
	}
}

func TestNotifications(t *testing.T) {
	r := newRig(t, noWait)
	r.notes.on = true
	inst := r.active()
	r.wantNotes("INFO compute.instance.create.start", "INFO compute.instance.create.end")
	p := r.notes.payloads[1]
	for key, want := range map[string]any{
		"instance_id": inst.String("uuid"), "tenant_id": "p1", "state": "active", "host": host, "instance_type": "c1.tiny", "message": "Success",
	} {
		if p[key] != want {
			t.Errorf("%s = %v, want %v", key, p[key], want)
		}
	}
	if ips, ok := p["fixed_ips"].([]map[string]any); !ok || ips == nil {
		t.Errorf("fixed_ips = %v", p["fixed_ips"])
	}
	r.ask(inst, "stop", "powering-off", "stop_instance", nil)
	r.waitState(inst, "stopped")
	r.wantNotes("INFO compute.instance.power_off.start", "INFO compute.instance.power_off.end")
	r.drv.FailNext(fake.StepOn, errdefs.ErrUnavailable)
	n := len(r.db.Events(inst.String("uuid")))
	r.ask(inst, "start", "powering-on", "start_instance", nil)
	r.wait("the event", func() bool { return len(r.db.Events(inst.String("uuid"))) > n })
	r.waitState(inst, "stopped")
	r.wait("the exception", func() bool { return r.notes.count() == 6 })
	r.wantNotes("INFO compute.instance.power_on.start", "ERROR start_instance")
	r.ask(inst, "delete", "deleting", "terminate_instance", nil)
	r.wantDeleted(inst)
	r.wantNotes("INFO compute.instance.delete.start", "INFO compute.instance.shutdown.start",
		"INFO compute.instance.shutdown.end", "INFO compute.instance.delete.end")
}

func TestNotificationOfAFailedBuild(t *testing.T) {
	r := newRig(t, noWait)
	r.notes.on = true
	inst := r.instance()
	r.drv.FailNext(fake.StepImage, errdefs.ErrCorrupt)
	r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
	r.waitState(inst, "error")
	r.wantNotes("INFO compute.instance.create.start", "ERROR compute.instance.create.error")
}

// TestVersionedNotifications: each verb tells in Nova's names for versioned
// events, with the payload object of its kind and the network as it is stored.
func TestVersionedNotifications(t *testing.T) {
	r := newRig(t, noWait)
	r.versioned.on = true
	inst := r.active()
	r.wantOf(r.versioned, "INFO instance.create.start", "INFO instance.create.end")
	kind, data := r.lastVersioned()
	if kind != "InstanceCreatePayload 1.12" || data["uuid"] != inst.String("uuid") || data["state"] != "active" || data["power_state"] != "running" {
		t.Errorf("%s %v", kind, data)
	}
	if flavor, ok := data["flavor"].(map[string]any)["nova_object.data"].(map[string]any); !ok || flavor["name"] != "c1.tiny" {
		t.Errorf("flavor %v", data["flavor"])
	}
	if r.notes.count() != 0 {
		t.Error("unversioned ones too")
	}
	if err := r.call(r.context(inst.String("uuid"), "attach_interface"), "attach_interface", map[string]any{"instance": r.row(inst), "network_id": "net"}, nil); err != nil {
		t.Fatal(err)
	}
	r.wantOf(r.versioned, "INFO instance.interface_attach.start", "INFO instance.interface_attach.end")
	r.drv.FailNext(fake.StepOn, errdefs.ErrUnavailable)
	r.ask(inst, "stop", "powering-off", "stop_instance", nil)
	r.waitState(inst, "stopped")
	r.wantOf(r.versioned, "INFO instance.power_off.start", "INFO instance.power_off.end")
	r.ask(inst, "start", "powering-on", "start_instance", nil)
	r.wantOf(r.versioned, "INFO instance.power_on.start", "ERROR compute.exception")
	kind, data = r.lastVersioned()
	if kind != "ExceptionPayload 1.1" || data["function_name"] != "start_instance" || data["exception"] != "NovaException" || data["module_name"] != "nova.exception" {
		t.Errorf("%s %v", kind, data)
	}
}

// TestVersionedFailure: a failed build names the exception, and nothing of the
// host.
func TestVersionedFailure(t *testing.T) {
	r := newRig(t, noWait)
	r.versioned.on = true
	inst := r.instance()
	r.drv.FailNext(fake.StepImage, errdefs.ErrCorrupt)
	r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
	r.waitState(inst, "error")
	r.wantOf(r.versioned, "INFO instance.create.start", "ERROR instance.create.error")
	_, data := r.lastVersioned()
	fault, _ := data["fault"].(map[string]any)
	inner, _ := fault["nova_object.data"].(map[string]any)
	if inner["exception"] != "ImageUnacceptable" || inner["exception_message"] != "Stored or received data is damaged." {
		t.Errorf("fault %v", fault)
	}
}

// lastVersioned is the last payload: its object's name with the version, and
// its data.
func (r *rig) lastVersioned() (string, map[string]any) {
	r.versioned.mu.Lock()
	defer r.versioned.mu.Unlock()
	p := r.versioned.payloads[len(r.versioned.payloads)-1]
	data, _ := p["nova_object.data"].(map[string]any)
	return fmt.Sprint(p["nova_object.name"], " ", p["nova_object.version"]), data
}
