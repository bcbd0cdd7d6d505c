package conductor_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/inproc"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/conductor"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// deadline is how long a test waits for what must happen.
const deadline = 20 * time.Second

// host is a compute host that takes messages and does nothing.
type host struct {
	name, uuid string
	got        chan *messaging.Request
}

// addRow makes the rows of a compute host that is up and has room.
func (r *rig) addRow(t *testing.T, name string, memoryMB int64) (node string) {
	t.Helper()
	node = uuid.NewString()
	s, err := r.store.CreateService(t.Context(), objects.NewService(name, "nova-compute", "compute", 64))
	if err == nil {
		_, err = r.store.SaveService(t.Context(), s.ID(), map[string]any{"report_count": 1})
	}
	n := objects.NewComputeNode(node, name, name)
	n.SetTotals(8, memoryMB, 100)
	n.SetUsage(objects.Usage{})
	n.SetHypervisor("docker", 1000, "")
	n.SetSupported(objects.NewHVSpec("x86_64", "docker", "exe"))
	if err == nil {
		_, err = r.store.CreateComputeNode(t.Context(), n)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.room.add(node, memoryMB)
	return node
}

// addHost makes such a compute host and listens for it.
func (r *rig) addHost(t *testing.T, name string, memoryMB int64) *host {
	t.Helper()
	h := &host{name: name, uuid: r.addRow(t, name, memoryMB), got: make(chan *messaging.Request, 100)}
	take := func(_ context.Context, req *messaging.Request) (any, error) { h.got <- req; return nil, nil }
	server, err := messaging.NewServer(inproc.New(r.broker), messaging.ServerOptions{
		Topics: []string{"compute"}, Host: name, Log: zerolog.Nop(),
		Endpoints: []messaging.Endpoint{{Version: "6.1", Methods: map[string]messaging.Handler{"build_and_run_instance": take, "unshelve_instance": take}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-server.Ready()
	return h
}

func (h *host) next(t *testing.T) *messaging.Request {
	t.Helper()
	select {
	case req := <-h.got:
		return req
	case <-time.After(deadline):
		t.Fatalf("host %s was not told", h.name)
		return nil
	}
}

// until polls the store until the instance is as wanted.
func (r *rig) until(t *testing.T, id string, ok func(objects.Instance) bool) objects.Instance {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(deadline)
	for {
		i, err := r.store.AnyInstance(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if ok(i) {
			return i
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("instance stays in %s/%s on %q", i.VMState(), i.TaskState(), i.Host())
		}
	}
}

// accepted makes what the API makes for a request of n servers.
func (r *rig) accepted(t *testing.T, n int, change func(spec objects.RequestSpec)) conductor.BuildRequest {
	t.Helper()
	flavor := objects.New("Flavor")
	for f, v := range map[string]any{"id": 1, "name": "tiny", "flavorid": "1", "memory_mb": 64, "vcpus": 1, "root_gb": 1, "ephemeral_gb": 0, "swap": 0} {
		flavor.Set(f, v)
	}
	c := cell.Create{Action: cell.Actor{Action: "create", RequestID: "req-build", UserID: "u", ProjectID: "p"}}
	for range n {
		i := objects.NewInstance()
		i.SetVMState("building")
		i.SetTaskState("scheduling")
		i.Set("project_id", "p")
		i.Set("user_id", "u")
		i.Set("flavor", flavor)
		spec := objects.RequestSpec{Object: objects.New("RequestSpec")}
		spec.Set("flavor", flavor)
		spec.Set("project_id", "p")
		spec.Set("user_id", "u")
		if change != nil {
			change(spec)
		}
		bdm := objects.New("BlockDeviceMapping")
		bdm.Set("source_type", "image")
		bdm.Set("destination_type", "local")
		c.Instances = append(c.Instances, cell.NewInstance{Instance: i, Spec: spec, BlockDevices: []*objects.Object{bdm}})
	}
	instances, err := r.store.CreateInstances(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return conductor.BuildRequest{Instances: instances, Image: map[string]any{"id": "image"}, AdminPassword: "secret", SecurityGroups: []string{"default"}}
}

func argument[V any](t *testing.T, req *messaging.Request, name string) (v V) {
	t.Helper()
	if err := req.Arg(name, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestBuildTellsTheEmptiestHost(t *testing.T) {
	r := newServed(t)
	r.addHost(t, "small", 128)
	big := r.addHost(t, "big", 4096)
	req := r.accepted(t, 1, nil)
	id := req.Instances[0].UUID()
	if err := r.conductor.Build(t.Context(), userContext("req-build"), req); err != nil {
		t.Fatal(err)
	}
	got := big.next(t)
	if r.room.at(id) != big.uuid {
		t.Error("there is no allocation at the chosen host")
	}
	i := argument[objects.Instance](t, got, "instance")
	if i.UUID() != id || i.AvailabilityZone() != "nova" || i.VMState() != "building" || i.TaskState() != "scheduling" || i.Host() != "" ||
		i.Flavor().FlavorName() != "tiny" || !i.Has("keypairs") || !i.Has("metadata") || !i.Has("info_cache") {
		t.Errorf("instance: %v", i.Object)
	}
	hosts := argument[[]objects.Selection](t, got, "host_list")
	if len(hosts) != 1 || hosts[0].ServiceHost() != "small" || hosts[0].String("allocation_request") == "" {
		t.Errorf("alternates: %v", hosts)
	}
	filters := argument[map[string]any](t, got, "filter_properties")
	if retry, _ := json.Marshal(filters["retry"]); string(retry) != `{"hosts":[["big","big"]],"num_attempts":1}` {
		t.Errorf("retry: %s", retry)
	}
	if node := argument[string](t, got, "node"); node != "big" || got.Version != "6.0" || got.Context.RequestID() != "req-build" {
		t.Errorf("node %q, version %s, request %s", node, got.Version, got.Context.RequestID())
	}
	if devices := argument[objects.BlockDeviceMappingList](t, got, "block_device_mapping"); len(devices.All()) != 1 {
		t.Error("no disk")
	}
	for _, name := range []string{"image", "request_spec", "admin_password", "injected_files", "requested_networks", "security_groups", "limits", "accel_uuids"} {
		if _, has := got.Args[name]; !has {
			t.Errorf("argument %s is missing", name)
		}
	}
}

// TestRecordedBuildHasNoArgumentOfItsOwn compares the arguments of a build with
// the recorded ones by name.
func TestRecordedBuildHasNoArgumentOfItsOwn(t *testing.T) {
	r := newServed(t)
	h := r.addHost(t, "cmp1", 4096)
	if err := r.conductor.Build(t.Context(), userContext("req-build"), r.accepted(t, 1, nil)); err != nil {
		t.Fatal(err)
	}
	got := h.next(t)
	for _, m := range recorded(t, "create") {
		if m.Method != "build_and_run_instance" {
			continue
		}
		for name := range m.Args {
			if _, has := got.Args[name]; !has {
				t.Errorf("recorded argument %s is missing", name)
			}
		}
		if len(got.Args) != len(m.Args) {
			t.Errorf("%d arguments, recorded %d", len(got.Args), len(m.Args))
		}
		ours, theirs := argument[objects.Instance](t, got, "instance"), objects.Instance{}
		if err := json.Unmarshal(m.Args["instance"], &theirs); err != nil {
			t.Fatal(err)
		}
		for _, f := range theirs.Fields() {
			if !ours.Has(f) {
				t.Errorf("field %s of the instance is missing", f)
			}
		}
	}
}

func TestBuildWithoutAHost(t *testing.T) {
	r := newServed(t)
	full := r.addHost(t, "full", 100)
	req := r.accepted(t, 2, nil) // there is room for one
	if err := r.conductor.Build(t.Context(), userContext("req-build"), req); err != nil {
		t.Fatal(err)
	}
	for _, i := range req.Instances {
		got := r.until(t, i.UUID(), func(i objects.Instance) bool { return i.VMState() == "error" })
		fault := objects.InstanceFault{Object: got.Object.Object("fault")}
		if got.TaskState() != "" || got.Host() != "" || fault.Message() != "No valid host was found. There are not enough hosts available." || fault.Code() != 500 {
			t.Errorf("fault %q", fault.Message())
		}
		_, events, err := r.store.Action(t.Context(), i.UUID(), "req-build")
		if err != nil || len(events) != 1 || events[0].String("event") != "conductor_schedule_and_build_instances" || events[0].String("result") != "Error" {
			t.Errorf("events: %v %v", events, err)
		}
		if r.room.at(i.UUID()) != "" {
			t.Error("an allocation is left")
		}
	}
	if len(full.got) != 0 {
		t.Error("a host was told")
	}
}

func TestForcedHostIsNotRetried(t *testing.T) {
	r := newServed(t)
	r.addHost(t, "big", 4096)
	small := r.addHost(t, "small", 256)
	req := r.accepted(t, 1, func(s objects.RequestSpec) { s.Set("force_hosts", []string{"small"}) })
	if err := r.conductor.Build(t.Context(), userContext("req-build"), req); err != nil {
		t.Fatal(err)
	}
	got := small.next(t)
	if filters := argument[map[string]any](t, got, "filter_properties"); filters["retry"] != nil {
		t.Errorf("retry: %v", filters["retry"])
	}
	if hosts := argument[[]objects.Selection](t, got, "host_list"); len(hosts) != 0 {
		t.Errorf("alternates: %v", hosts)
	}
}

// again is what a compute host sends when a build has failed on it.
func again(t *testing.T, r *rig, got *messaging.Request) {
	t.Helper()
	i := argument[objects.Instance](t, got, "instance")
	if err := r.room.Free(t.Context(), i.UUID()); err != nil {
		t.Fatal(err)
	}
	args := map[string]any{"instances": []any{i}, "host_lists": []any{got.Args["host_list"]}}
	for _, name := range []string{"image", "filter_properties", "admin_password", "injected_files", "requested_networks", "security_groups", "request_spec"} {
		args[name] = got.Args[name]
	}
	if err := r.client.BuildInstances(t.Context(), got.Context, args); err != nil {
		t.Fatal(err)
	}
}

func TestRescheduleUntilAllHostsHaveFailed(t *testing.T) {
	r := newServed(t)
	hosts := []*host{r.addHost(t, "a", 4096), r.addHost(t, "b", 2048), r.addHost(t, "c", 1024), r.addHost(t, "d", 512)}
	req := r.accepted(t, 1, nil)
	id := req.Instances[0].UUID()
	if err := r.conductor.Build(t.Context(), userContext("req-build"), req); err != nil {
		t.Fatal(err)
	}
	for n, h := range hosts[:3] {
		got := h.next(t)
		if r.room.at(id) != h.uuid {
			t.Errorf("try %d: the allocation is not at the host", n+1)
		}
		filters := argument[struct {
			Retry struct {
				Attempts int        `json:"num_attempts"`
				Hosts    [][]string `json:"hosts"`
			} `json:"retry"`
		}](t, got, "filter_properties")
		if filters.Retry.Attempts != n+1 || len(filters.Retry.Hosts) != n+1 {
			t.Errorf("try %d: %+v", n+1, filters)
		}
		if p := argument[string](t, got, "admin_password"); p != "secret" {
			t.Errorf("try %d: password %q", n+1, p)
		}
		again(t, r, got)
	}
	got := r.until(t, id, func(i objects.Instance) bool { return i.VMState() == "error" && !i.IsNull("fault") })
	fault := got.Object.Object("fault").String("message")
	if !strings.HasPrefix(fault, "Exceeded maximum number of retries. Exceeded max scheduling attempts 3 for instance "+id) {
		t.Errorf("fault %q", fault)
	}
	if r.room.at(id) != "" || len(hosts[3].got) != 0 {
		t.Error("a fourth host was tried, or an allocation is left")
	}
}

func TestRescheduleSkipsAlternatesThatAreFullNow(t *testing.T) {
	r := newServed(t)
	a, b, c := r.addHost(t, "a", 4096), r.addHost(t, "b", 2048), r.addHost(t, "c", 1024)
	req := r.accepted(t, 1, nil)
	if err := r.conductor.Build(t.Context(), userContext("req-build"), req); err != nil {
		t.Fatal(err)
	}
	got := a.next(t)
	r.room.add(b.uuid, 0)
	again(t, r, got)
	if got = c.next(t); r.room.at(req.Instances[0].UUID()) != c.uuid {
		t.Error("no allocation at the next host")
	}
	again(t, r, got)
	i := r.until(t, req.Instances[0].UUID(), func(i objects.Instance) bool { return i.VMState() == "error" })
	if fault := i.Object.Object("fault").String("message"); !strings.Contains(fault, "Exhausted all hosts available for retrying build failures for instance "+i.UUID()+".") {
		t.Errorf("fault %q", fault)
	}
}

func TestUnshelve(t *testing.T) {
	r := newServed(t)
	h := r.addHost(t, "cmp1", 100)
	req := r.accepted(t, 2, nil) // there is room for one
	image := map[string]any{"id": "shelf"}
	for n, i := range req.Instances {
		id := i.UUID()
		if _, err := r.store.SetInstance(t.Context(), id, cell.Expect{}, map[string]any{"vm_state": "shelved_offloaded", "task_state": "unshelving"}); err != nil {
			t.Fatal(err)
		}
		if err := r.conductor.Unshelve(t.Context(), userContext("req-build"), id, image); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			got := h.next(t)
			if got.Method != "unshelve_instance" || argument[objects.Instance](t, got, "instance").UUID() != id || argument[string](t, got, "node") != "cmp1" ||
				argument[map[string]any](t, got, "image")["id"] != "shelf" {
				t.Errorf("message = %+v", got)
			}
			if r.room.at(id) == "" {
				t.Error("no allocation")
			}
			continue
		}
		left := r.until(t, id, func(i objects.Instance) bool { return i.TaskState() == "" })
		if left.VMState() != "shelved_offloaded" || r.room.at(id) != "" || !strings.HasPrefix(left.Object.Object("fault").String("message"), "No valid host was found.") {
			t.Errorf("without room: %s, allocation %q, fault %q", left.VMState(), r.room.at(id), left.Object.Object("fault").String("message"))
		}
	}
}

func TestDeleteWhileScheduling(t *testing.T) {
	r := newServed(t)
	h := r.addHost(t, "cmp1", 4096)
	req := r.accepted(t, 2, nil)
	gone, other := req.Instances[0].UUID(), req.Instances[1].UUID()
	if err := r.conductor.DeleteUnhosted(t.Context(), userContext("req-delete"), gone); err != nil {
		t.Fatal(err)
	}
	if err := r.conductor.Build(t.Context(), userContext("req-build"), req); err != nil {
		t.Fatal(err)
	}
	if got := argument[objects.Instance](t, h.next(t), "instance"); got.UUID() != other {
		t.Error("a deleted instance is built")
	}
	if r.room.at(gone) != "" || r.room.at(other) == "" {
		t.Errorf("allocations: %q %q", r.room.at(gone), r.room.at(other))
	}
	if i, err := r.store.AnyInstance(t.Context(), gone); err != nil || !i.Deleted() || i.VMState() != "deleted" || i.Time("terminated_at").IsZero() {
		t.Errorf("row: %v %v", i.Object, err)
	}
	if err := r.conductor.DeleteUnhosted(t.Context(), userContext("req-delete"), gone); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
}

func TestDeleteIsTheHostsWhileItIsUp(t *testing.T) {
	r := newServed(t)
	r.addHost(t, "cmp1", 4096)
	id := r.accepted(t, 1, nil).Instances[0].UUID()
	if _, err := r.store.SetInstance(t.Context(), id, cell.Expect{}, map[string]any{"host": "cmp1", "node": "cmp1", "vm_state": "active", "task_state": nil}); err != nil {
		t.Fatal(err)
	}
	if err := r.conductor.DeleteUnhosted(t.Context(), userContext("req-delete"), id); !errors.Is(err, errdefs.ErrConflict) {
		t.Fatalf("its host is up: %v", err)
	}
	if i, err := r.store.Instance(t.Context(), id); err != nil || i.TaskState() != "" {
		t.Errorf("a refused delete has changed it: %v %v", i.TaskState(), err)
	}
	services, err := r.store.Services(t.Context(), cell.ServiceQuery{Host: "cmp1"})
	if err == nil {
		_, err = r.store.SaveService(t.Context(), services[0].ID(), map[string]any{"forced_down": true})
	}
	if err == nil {
		err = r.conductor.DeleteUnhosted(t.Context(), userContext("req-delete"), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Instance(t.Context(), id); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a host that is down keeps it: %v", err)
	}
}

func TestRecoverAfterACrash(t *testing.T) {
	r := newRig(t, filepath.Join(t.TempDir(), "cell.db"))
	h := r.addHost(t, "cmp1", 4096)
	made := r.accepted(t, 6, nil).Instances
	lost, leaving, running, deleted, failed := made[0].UUID(), made[1].UUID(), made[2].UUID(), made[3].UUID(), made[4].UUID()
	shelved := made[5].UUID()
	set := func(id string, fields map[string]any) {
		if _, err := r.store.SetInstance(t.Context(), id, cell.Expect{}, fields); err != nil {
			t.Fatal(err)
		}
	}
	set(leaving, map[string]any{"task_state": "deleting"})
	set(running, map[string]any{"host": "cmp1", "vm_state": "building", "task_state": "spawning"})
	set(shelved, map[string]any{"vm_state": "shelved_offloaded", "task_state": "unshelving"})
	set(failed, map[string]any{"vm_state": "error", "task_state": nil})
	if _, err := r.store.DestroyInstance(t.Context(), deleted, cell.NoHost); err != nil {
		t.Fatal(err)
	}
	stranger := uuid.NewString()
	for _, id := range []string{lost, leaving, running, deleted, stranger, shelved} {
		r.room.held[id] = map[string]int64{h.uuid: 64}
	}
	r.serve(t)
	i, err := r.store.Instance(t.Context(), lost)
	if err != nil || i.VMState() != "error" || i.TaskState() != "" || i.Object.Object("fault").String("message") != "The build was interrupted by a restart of the cloud." {
		t.Errorf("a build that was lost: %v %v", i.Object, err)
	}
	if _, events, err := r.store.Action(t.Context(), lost, "req-build"); err != nil || len(events) != 1 || events[0].String("result") != "Error" {
		t.Errorf("its event: %v %v", events, err)
	}
	if _, err := r.store.Instance(t.Context(), leaving); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a delete that was lost: %v", err)
	}
	if i, err := r.store.Instance(t.Context(), running); err != nil || i.TaskState() != "spawning" {
		t.Errorf("an instance of a host: %v %v", i.TaskState(), err)
	}
	if i, err := r.store.Instance(t.Context(), failed); err != nil || !i.IsNull("fault") {
		t.Errorf("an instance in error: %v", err)
	}
	if i, err := r.store.Instance(t.Context(), shelved); err != nil || i.TaskState() != "" || i.VMState() != "shelved_offloaded" {
		t.Errorf("an unshelve that was lost: %s %s, %v", i.VMState(), i.TaskState(), err)
	}
	for id, want := range map[string]bool{shelved: false, lost: false, leaving: false, running: true, deleted: false, stranger: true} {
		if got := r.room.at(id) != ""; got != want {
			t.Errorf("allocation of %s: %v", id, got)
		}
	}
	for id, want := range map[string]bool{shelved: false, lost: true, leaving: true, running: false, failed: false} {
		if got := r.ports.of(id); got != want {
			t.Errorf("networks of %s are given back: %v", id, got)
		}
	}
}

// TestStartWhileTheNetworkFails: the cloud starts, and what it could not do is
// left to be done.
func TestStartWhileTheNetworkFails(t *testing.T) {
	r := newRig(t, filepath.Join(t.TempDir(), "cell.db"))
	made := r.accepted(t, 2, nil).Instances
	if _, err := r.store.SetInstance(t.Context(), made[1].UUID(), cell.Expect{}, map[string]any{"task_state": "deleting"}); err != nil {
		t.Fatal(err)
	}
	r.ports.err = errors.New("away")
	r.serve(t)
	if i, err := r.store.Instance(t.Context(), made[0].UUID()); err != nil || i.VMState() != "error" {
		t.Errorf("a lost build: %v %v", i.VMState(), err)
	}
	if i, err := r.store.Instance(t.Context(), made[1].UUID()); err != nil || i.TaskState() != "deleting" {
		t.Errorf("a lost delete: %v %v", i.TaskState(), err)
	}
	if err := r.conductor.DeleteUnhosted(t.Context(), userContext("req-delete"), made[1].UUID()); err == nil {
		t.Error("a delete that leaves ports behind is done")
	}
}

func TestServicesOfTheControlPlane(t *testing.T) {
	r := newServed(t)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(deadline)
	for {
		v, err := r.client.MinimumServiceVersion(t.Context(), messaging.AdminContext(), "nova-conductor")
		s, err2 := r.client.GetService(t.Context(), messaging.AdminContext(), "control", "nova-scheduler")
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if v == 64 && s != nil && cell.Up(objects.Service{Object: s}, time.Now()) {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("conductor's version %d, scheduler %v", v, s)
		}
	}
}
