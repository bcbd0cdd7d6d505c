package conductor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	client "github.com/gantry-project/gantry/driver/conductor"
	fakedriver "github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/inproc"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// These tests have the true compute manager, with a driver that runs nothing,
// on the other end of the wire.

// claims is the resource tracker of one host; the amounts are placement's.
type claims struct {
	compute.Tracker // nil: what is not here is not asked

	node string
	room *room
}

func (c claims) Claim(_ context.Context, _ messaging.RequestContext, _ *objects.Object, req compute.ClaimRequest) (func(context.Context), error) {
	if req.Node != c.node {
		return nil, fmt.Errorf("node %s: %w", req.Node, errdefs.ErrInvalid)
	}
	return func(context.Context) {}, nil
}

func (c claims) Drop(ctx context.Context, _ messaging.RequestContext, i *objects.Object) error {
	return c.room.Free(ctx, i.String("uuid"))
}

func (claims) BuildEnded(context.Context, string, bool) {}

func (claims) SetHostEnabled(context.Context, messaging.RequestContext, bool) error { return nil }

// rows is a network service that gives each instance one port and keeps Nova's
// rows of it, as driver/neutron does.
type rows struct {
	compute.Ports // nil: what is not here is not asked

	c *client.Client
}

func (p rows) Allocate(ctx context.Context, rc messaging.RequestContext, req compute.AllocateRequest) (objects.NetworkInfo, error) {
	id := req.Instance.String("uuid")
	info := objects.NetworkInfo{{ID: "port-" + id, Address: "fa:16:3e:00:00:01", Type: "bridge", Active: true}} // nothing to wait for
	vif := objects.NewVirtualInterface(id, info[0].ID, info[0].Address, "")
	return info, errors.Join(p.c.CreateVIF(ctx, rc, vif.Object), p.c.SaveInfoCache(ctx, rc, id, info))
}

func (p rows) Deallocate(ctx context.Context, rc messaging.RequestContext, i *objects.Object, _ objects.NetworkInfo) error {
	return errors.Join(p.c.DeleteVIFs(ctx, rc, i.String("uuid")), p.c.SaveInfoCache(ctx, rc, i.String("uuid"), nil))
}

func (p rows) Refresh(ctx context.Context, rc messaging.RequestContext, i *objects.Object) (objects.NetworkInfo, error) {
	return p.c.GetInfoCache(ctx, rc, i.String("uuid"))
}

func (p rows) Cached(ctx context.Context, rc messaging.RequestContext, i *objects.Object) (objects.NetworkInfo, error) {
	return p.c.GetInfoCache(ctx, rc, i.String("uuid"))
}

func (p rows) Attach(ctx context.Context, rc messaging.RequestContext, req compute.AttachRequest) (objects.NetworkInfo, error) {
	id := req.Instance.String("uuid")
	info, err := p.Cached(ctx, rc, req.Instance)
	info = append(info, objects.VIF{ID: req.PortID, Address: "fa:16:3e:00:00:02", Type: "bridge"})
	vif := objects.NewVirtualInterface(id, req.PortID, "fa:16:3e:00:00:02", req.Tag)
	return info, errors.Join(err, p.c.CreateVIF(ctx, rc, vif.Object), p.c.SaveInfoCache(ctx, rc, id, info))
}

func (p rows) Detach(ctx context.Context, rc messaging.RequestContext, i *objects.Object, known objects.NetworkInfo, port string) error {
	rest := slices.DeleteFunc(slices.Clone(known), func(v objects.VIF) bool { return v.ID == port })
	return errors.Join(p.c.DeleteVIF(ctx, rc, port), p.c.SaveInfoCache(ctx, rc, i.String("uuid"), rest))
}

// addManager makes a compute host with a true manager.
func (r *rig) addManager(t *testing.T, name string, memoryMB int64) *fakedriver.Driver {
	t.Helper()
	r.addRow(t, name, memoryMB)
	caller := messaging.NewClient(inproc.New(r.broker), messaging.ClientOptions{Log: zerolog.Nop()})
	c := client.New(caller, name)
	drv := fakedriver.New()
	m := compute.New(compute.Deps{
		Driver: drv, Conductor: c, Tracker: claims{node: name, room: r.room}, Ports: rows{c: c},
		Scheduler: client.NewScheduler(caller, name, zerolog.Nop()),
	}, compute.DefaultOptions(name), zerolog.Nop())
	s, err := messaging.NewServer(inproc.New(r.broker), messaging.ServerOptions{
		Topics: []string{"compute"}, Host: name, Endpoints: m.Endpoints(), Log: zerolog.Nop(), Grace: deadline,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	<-s.Ready()
	t.Cleanup(func() {
		cancel()
		end, giveUp := context.WithTimeout(context.WithoutCancel(ctx), deadline)
		defer giveUp()
		if err := errors.Join(<-done, m.Close(end), caller.Close(end)); err != nil {
			t.Error(err)
		}
	})
	return drv
}

// tell casts an action of the API to the host of an instance, with the action
// recorded.
func (r *rig) tell(t *testing.T, id, action, method, task string, args map[string]any) {
	t.Helper()
	rc := userContext("req-" + action)
	i, err := r.store.SetInstance(t.Context(), id, cell.Expect{}, map[string]any{"task_state": orNull(task)})
	if err == nil {
		_, err = r.store.StartAction(t.Context(), id, cell.Actor{Action: action, RequestID: rc.RequestID(), UserID: "u", ProjectID: "p"})
	}
	if err != nil {
		t.Fatal(err)
	}
	args["instance"] = i
	if err := r.caller.Cast(t.Context(), rc, messaging.Target{Topic: "compute", Server: i.Host(), Version: "6.0"}, method, args); err != nil {
		t.Fatal(err)
	}
}

func inState(state string) func(objects.Instance) bool {
	return func(i objects.Instance) bool { return i.VMState() == state && i.TaskState() == "" }
}

func TestLifeWithTheTrueManager(t *testing.T) {
	r := newServed(t)
	drv := r.addManager(t, "cmp1", 4096)
	req := r.accepted(t, 1, nil)
	id := req.Instances[0].UUID()
	if err := r.conductor.Build(t.Context(), userContext("req-build"), req); err != nil {
		t.Fatal(err)
	}
	i := r.until(t, id, inState("active"))
	if i.Host() != "cmp1" || i.Node() != "cmp1" || i.PowerState() != 1 || i.LaunchedAt().IsZero() || i.AvailabilityZone() != "nova" {
		t.Errorf("row: %v", i.Object)
	}
	if info, err := i.NetworkInfo(); err != nil || len(info) != 1 {
		t.Errorf("network: %v %v", info, err)
	}
	r.ended(t, id, "req-build", "compute__do_build_and_run_instance", "Success")

	r.tell(t, id, "stop", "stop_instance", "powering-off", map[string]any{"clean_shutdown": true})
	r.until(t, id, inState("stopped"))
	r.ended(t, id, "req-stop", "compute_stop_instance", "Success")
	r.tell(t, id, "start", "start_instance", "powering-on", map[string]any{})
	r.until(t, id, inState("active"))
	r.tell(t, id, "reboot", "reboot_instance", "rebooting", map[string]any{"reboot_type": "SOFT", "block_device_info": nil})
	r.until(t, id, inState("active"))
	r.ended(t, id, "req-reboot", "compute_reboot_instance", "Success")

	for _, n := range []string{"attach", "detach"} {
		want := map[string]int{"attach": 2, "detach": 1}[n]
		r.tell(t, id, n, n+"_interface", "", map[string]any{"port_id": "port-2", "tag": "uplink"})
		r.ended(t, id, "req-"+n, "compute_"+n+"_interface", "Success")
		ports, err := r.store.Interfaces(t.Context(), id)
		if err != nil || len(ports) != want || want == 2 && ports[1].String("tag") != "uplink" {
			t.Errorf("%s: rows %v, %v", n, ports, err)
		}
	}
	devices, err := r.store.BlockDevices(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	r.tell(t, id, "delete", "terminate_instance", "deleting", map[string]any{"bdms": objects.NewBlockDeviceMappingList(devices[id]...)})
	r.until(t, id, func(i objects.Instance) bool { return i.Deleted() })
	r.ended(t, id, "req-delete", "compute_terminate_instance", "Success")
	if at := r.room.at(id); at != "" {
		t.Errorf("an allocation is left at %s", at)
	}
	if left := drv.Host().Residue(); len(left) != 0 {
		t.Errorf("left on the host: %v", left)
	}
	if ports, err := r.store.Interfaces(t.Context(), id); err != nil || len(ports) != 0 {
		t.Errorf("left in the cell: %v %v", ports, err)
	}
}

// ended waits for the end of an event.
func (r *rig) ended(t *testing.T, id, request, event, result string) {
	t.Helper()
	var last []*objects.Object
	r.until(t, id, func(objects.Instance) bool {
		_, events, err := r.store.Action(t.Context(), id, request)
		if err != nil {
			t.Fatal(err)
		}
		last = events
		return len(events) > 0 && events[0].String("result") != ""
	})
	if last[0].String("event") != event || last[0].String("result") != result {
		t.Errorf("event of %s: %v", request, last[0])
	}
}

func TestRescheduleFromTheTrueManager(t *testing.T) {
	r := newServed(t)
	broken := r.addManager(t, "big", 8192)
	good := r.addManager(t, "small", 4096)
	broken.FailNext(fakedriver.StepStart, errors.New("no"))
	req := r.accepted(t, 1, nil)
	id := req.Instances[0].UUID()
	if err := r.conductor.Build(t.Context(), userContext("req-build"), req); err != nil {
		t.Fatal(err)
	}
	if i := r.until(t, id, inState("active")); i.Host() != "small" {
		t.Errorf("on %s", i.Host())
	}
	if good.Boots(driver.InstanceUUID(id)) != 1 || len(broken.Host().Residue()) != 0 {
		t.Errorf("boots %d, residue %v", good.Boots(driver.InstanceUUID(id)), broken.Host().Residue())
	}
}

func TestAllTrueManagersFail(t *testing.T) {
	r := newServed(t)
	for name, memory := range map[string]int64{"a": 8192, "b": 4096} {
		r.addManager(t, name, memory).FailNext(fakedriver.StepStart, errors.New("no"))
	}
	req := r.accepted(t, 1, nil)
	id := req.Instances[0].UUID()
	if err := r.conductor.Build(t.Context(), userContext("req-build"), req); err != nil {
		t.Fatal(err)
	}
	i := r.until(t, id, func(i objects.Instance) bool { return i.VMState() == "error" && !i.IsNull("fault") })
	want := "Exceeded maximum number of retries. Exhausted all hosts available for retrying build failures for instance " + id + "."
	if got := i.Object.Object("fault").String("message"); got != want || i.Host() != "" || r.room.at(id) != "" {
		t.Errorf("fault %q, host %q, allocation %q", got, i.Host(), r.room.at(id))
	}
	if err := r.conductor.DeleteUnhosted(t.Context(), userContext("req-delete"), id); err != nil {
		t.Error(err)
	}
}

// TestDeleteWhileTheTrueManagerBuilds has the tenant delete a server whose host
// is in the middle of its build.
func TestDeleteWhileTheTrueManagerBuilds(t *testing.T) {
	r := newServed(t)
	drv := r.addManager(t, "cmp1", 4096)
	entered, release := drv.Stall(fakedriver.StepStart)
	defer release()
	req := r.accepted(t, 1, nil)
	id := req.Instances[0].UUID()
	if err := r.conductor.Build(t.Context(), userContext("req-build"), req); err != nil {
		t.Fatal(err)
	}
	select {
	case <-entered:
	case <-time.After(deadline):
		t.Fatal("the build does not come to its start")
	}
	if err := r.conductor.DeleteUnhosted(t.Context(), userContext("req-delete"), id); !errors.Is(err, errdefs.ErrConflict) {
		t.Fatalf("it has a host: %v", err)
	}
	r.tell(t, id, "delete", "terminate_instance", "deleting", map[string]any{"bdms": objects.NewBlockDeviceMappingList()})
	r.until(t, id, func(i objects.Instance) bool { return i.Deleted() })
	r.until(t, id, func(objects.Instance) bool { return len(drv.Host().Residue()) == 0 && r.room.at(id) == "" })
}

// TestHundredAtOnce: all become active, and no message is lost.
func TestHundredAtOnce(t *testing.T) {
	r := newServed(t)
	r.addManager(t, "a", 1<<20)
	r.addManager(t, "b", 1<<20)
	req := r.accepted(t, 100, nil)
	if err := r.conductor.Build(t.Context(), userContext("req-build"), req); err != nil {
		t.Fatal(err)
	}
	hosts := map[string]int{}
	for _, i := range req.Instances {
		hosts[r.until(t, i.UUID(), inState("active")).Host()]++
	}
	if raw, _ := json.Marshal(hosts); hosts["a"]+hosts["b"] != 100 || hosts["a"] == 0 || hosts["b"] == 0 {
		t.Errorf("hosts: %s", raw)
	}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
