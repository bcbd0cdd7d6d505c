package compute_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// guestPorts are the ports that the guest has on the host.
func (r *rig) guestPorts(inst *objects.Object) []string {
	var ids []string
	for _, v := range r.drv.VIFs(driver.InstanceUUID(inst.String("uuid"))) {
		ids = append(ids, v.ID)
	}
	return ids
}

func (r *rig) wantPlugged(inst *objects.Object, want ...string) {
	r.t.Helper()
	if got := r.guestPorts(inst); !slices.Equal(got, want) {
		r.t.Errorf("ports of the guest %q, want %q", got, want)
	}
}

func TestAttachAndDetachInterface(t *testing.T) {
	for _, version := range []string{"5.0", "6.0"} {
		r := newRig(t, noWait)
		inst := r.active()
		first := portOf(inst.String("uuid"))
		to := target()
		to.Version = version
		var vif objects.VIF
		attach := func(args map[string]any) error {
			args["instance"] = r.row(inst)
			return r.api.Call(t.Context(), r.context(inst.String("uuid"), "attach_interface"), to, "attach_interface", args, &vif)
		}
		if err := attach(map[string]any{"network_id": "net", "port_id": nil, "requested_ip": nil, "tag": "uplink"}); err != nil || vif.ID != "new-net" || r.ports.tag != "uplink" {
			t.Fatalf("attach of a network: %v, %+v, tag %q", err, vif.ID, r.ports.tag)
		}
		if err := attach(map[string]any{"network_id": nil, "port_id": "mine", "requested_ip": nil, "tag": nil}); err != nil || vif.ID != "mine" {
			t.Fatalf("attach of a port: %v, %+v", err, vif.ID)
		}
		r.wantPlugged(inst, first, "new-net", "mine")
		r.ask(inst, "detach_interface", "", "detach_interface", map[string]any{"port_id": "new-net"})
		r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", nil) })
		r.wait("the port to go", func() bool { return slices.Equal(r.guestPorts(inst), []string{first, "mine"}) })
		r.waitState(inst, "active")
	}
}

// What fails gives the port back, leaves the guest as it was, and is told in
// Nova's words.
func TestAttachInterfaceFails(t *testing.T) {
	for name, x := range map[string]struct {
		prepare func(r *rig)
		class   string
	}{
		"no port":         {func(r *rig) { r.ports.fail(messaging.NovaError("PortInUse", 409, "Port x is still in use.")) }, "PortInUse"},
		"no address":      {func(r *rig) { r.ports.fail(messaging.NovaError("NoMoreFixedIps", 400, "No fixed IP addresses")) }, "NoMoreFixedIps"},
		"not bound":       {func(r *rig) { r.ports.kind = "binding_failed" }, "InterfaceAttachFailed"},
		"another kind":    {func(r *rig) { r.ports.kind = "vhostuser" }, "InterfaceAttachFailed"},
		"the host cannot": {func(r *rig) { r.drv.FailNext(fake.StepChange, errdefs.ErrUnavailable) }, "InterfaceAttachFailed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, noWait)
			inst := r.active()
			x.prepare(r)
			rc := r.context(inst.String("uuid"), "attach_interface")
			err := r.call(rc, "attach_interface", map[string]any{"instance": r.row(inst), "network_id": "net"}, nil)
			if !messaging.IsRemote(err, x.class) {
				t.Errorf("error %v, want %s", err, x.class)
			}
			r.wantPlugged(inst, portOf(inst.String("uuid")))
			if len(r.ports.more[inst.String("uuid")]) != 0 {
				t.Errorf("ports left: %v", r.ports.more)
			}
			row := r.row(inst)
			if row.String("vm_state") != "active" || !row.IsNull("task_state") || len(r.db.Faults(inst.String("uuid"))) != 1 {
				t.Errorf("state %s/%s, faults %v", row.String("vm_state"), row.String("task_state"), r.db.Faults(inst.String("uuid")))
			}
		})
	}
}

// A step that fails behind the port's creation takes it back; one behind the
// plug unplugs as well.
func TestAttachInterfaceFailsAtEachStep(t *testing.T) {
	for _, point := range []string{"compute.attach.bound", "compute.attach.plugged"} {
		r := newRig(t, noWait)
		inst := r.active()
		if err := failpoint.Set(point, "error"); err != nil {
			t.Fatal(err)
		}
		err := r.call(r.context(inst.String("uuid"), "attach_interface"), "attach_interface", map[string]any{"instance": r.row(inst), "network_id": "net"}, nil)
		if e := failpoint.Set(point, ""); e != nil || !messaging.IsRemote(err, "InterfaceAttachFailed") {
			t.Errorf("%s: %v, %v", point, err, e)
		}
		r.wantPlugged(inst, portOf(inst.String("uuid")))
		if n := len(r.ports.more[inst.String("uuid")]); n != 0 {
			t.Errorf("%s: %d ports left", point, n)
		}
	}
}

func TestDetachInterfaceFails(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	detach := func(port string) error {
		return r.call(r.context(inst.String("uuid"), "detach_interface"), "detach_interface", map[string]any{"instance": r.row(inst), "port_id": port}, nil)
	}
	if err := detach("another"); !messaging.IsRemote(err, "PortNotFound") {
		t.Errorf("a port that is not attached: %v", err)
	}
	r.drv.FailNext(fake.StepChange, errors.New("no"))
	if err := detach(portOf(inst.String("uuid"))); !messaging.IsRemote(err, "InterfaceDetachFailed") {
		t.Errorf("a link that does not go: %v", err)
	}
	r.wantPlugged(inst, portOf(inst.String("uuid")))
	if r.ports.count() != 1 {
		t.Error("the port has gone though it is plugged")
	}
	if err := detach(portOf(inst.String("uuid"))); err != nil {
		t.Errorf("again: %v", err)
	}
	r.wantPlugged(inst)
	if r.ports.count() != 0 {
		t.Error("the port was left")
	}
}

func TestFixedAddressesComeAndGo(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	label := func() string { return r.drv.VIFs(driver.InstanceUUID(inst.String("uuid")))[0].Network.Label }
	for method, args := range map[string]map[string]any{
		"add_fixed_ip_to_instance": {"network_id": "net-a"}, "remove_fixed_ip_from_instance": {"address": "10.0.0.9"},
	} {
		args["instance"] = r.row(inst)
		if err := r.call(r.context(inst.String("uuid"), method), method, args, nil); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		if got := label(); got != "net-a" && got != "10.0.0.9" {
			t.Errorf("%s: the guest has the network %q", method, got)
		}
	}
	r.ports.fail(messaging.NovaError("FixedIpNotFoundForInstance", 404, "no"))
	args := map[string]any{"instance": r.row(inst), "address": "10.0.0.9"}
	if err := r.call(r.context(inst.String("uuid"), "x"), "remove_fixed_ip_from_instance", args, nil); !messaging.IsRemote(err, "FixedIpNotFoundForInstance") {
		t.Errorf("an address that is not there: %v", err)
	}
}

// A port that Neutron's user deletes is unplugged while the guest runs.
func TestPortDeletedInNeutron(t *testing.T) {
	for _, name := range []string{"network-vif-deleted", "network-changed"} {
		r := newRig(t, noWait)
		inst := r.active()
		if err := r.call(r.context(inst.String("uuid"), "attach_interface"), "attach_interface", map[string]any{"instance": r.row(inst), "network_id": "net"}, nil); err != nil {
			t.Fatal(err)
		}
		r.wantPlugged(inst, portOf(inst.String("uuid")), "new-net")
		r.ports.lose(inst.String("uuid"))
		event := objects.New("InstanceExternalEvent")
		for k, v := range map[string]any{"instance_uuid": inst.String("uuid"), "name": name, "status": "completed", "tag": "new-net"} {
			event.SetClean(k, v)
		}
		r.cast(messaging.AdminContext(), "external_instance_event", map[string]any{"instances": []*objects.Object{r.row(inst)}, "events": []*objects.Object{event}})
		r.wait("the port to go", func() bool { return slices.Equal(r.guestPorts(inst), []string{portOf(inst.String("uuid"))}) })
	}
}
