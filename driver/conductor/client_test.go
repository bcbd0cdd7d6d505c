package conductor_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/conductor/conductortest"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/inproc"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// wire is a client on one end of the in-process transport and an in-memory
// conductor on the other.
func wire(t *testing.T) (*conductor.Client, *conductortest.Conductor, messaging.Caller) {
	t.Helper()
	broker := inproc.NewBroker()
	server, client := inproc.New(broker), inproc.New(broker)
	fake := conductortest.New()
	fake.Serve(t, server)
	caller := messaging.NewClient(client, messaging.ClientOptions{ResponseTimeout: 20 * time.Second, Log: zerolog.Nop()})
	t.Cleanup(func() { _ = caller.Close(context.WithoutCancel(t.Context())) })
	return conductor.New(caller, "cmp1"), fake, caller
}

func userContext(requestID string) messaging.RequestContext {
	return messaging.NewRequestContext(map[string]json.RawMessage{
		"request_id": json.RawMessage(`"` + requestID + `"`), "project_id": json.RawMessage(`"p"`),
		"user_id": json.RawMessage(`"u"`), "read_deleted": json.RawMessage(`"no"`),
	})
}

func newInstance(fake *conductortest.Conductor) *objects.Object {
	i := objects.NewInstance()
	i.SetVMState("building")
	i.SetTaskState("scheduling")
	i.Set("project_id", "p")
	i.Set("system_metadata", map[string]string{"image_min_ram": "0"})
	flavor := objects.New("Flavor")
	flavor.Set("name", "small")
	i.Set("flavor", flavor)
	return fake.AddInstance(i.Object)
}

func TestSaveInstanceSendsOnlyChanges(t *testing.T) {
	c, fake, _ := wire(t)
	rc := userContext("req-1")
	inst := objects.Instance{Object: newInstance(fake)}
	inst.Mark("ec2_ids")
	inst.Mark("tags") // as an incoming build has them
	inst.SetVMState("building")
	inst.SetTaskState("")
	if err := c.SaveInstance(t.Context(), rc, inst.Object, conductor.Expect{TaskState: []string{"scheduling", ""}}); err != nil {
		t.Fatal(err)
	}
	call := fake.Calls()[0]
	if diff := cmp.Diff([]string{"id", "task_state", "uuid", "vm_state"}, call.Object.Fields()); diff != "" {
		t.Errorf("sent fields: %s", diff)
	}
	if diff := cmp.Diff(map[string]any{"expected_task_state": []any{"scheduling", nil}}, call.Kwargs); diff != "" {
		t.Errorf("expectation: %s", diff)
	}
	if call.Context.RequestID() != "req-1" {
		t.Error("the caller's context was not sent on")
	}
	if len(inst.Changes()) != 0 || inst.TaskState() != "" || inst.UpdatedAt().IsZero() {
		t.Errorf("not merged: marks %v", inst.Changes())
	}
	if inst.SystemMetadata()["image_min_ram"] != "0" || inst.Flavor().FlavorName() != "small" {
		t.Error("what was not sent was lost")
	}

	fake.ResetCalls()
	if err := c.SaveInstance(t.Context(), rc, inst.Object, conductor.Expect{}); err != nil || len(fake.Calls()) != 0 {
		t.Errorf("nothing to save was sent: %v", err)
	}
}

func TestSaveInstanceConflicts(t *testing.T) {
	c, fake, _ := wire(t)
	rc := userContext("req-1")
	inst := objects.Instance{Object: newInstance(fake)}
	for _, step := range []struct {
		stored string
		expect []string
		class  string
	}{
		{"scheduling", []string{""}, "UnexpectedTaskStateError"},
		{"deleting", []string{"scheduling", ""}, "UnexpectedDeletingTaskStateError"},
		{"", []string{"spawning"}, "UnexpectedTaskStateError"},
	} {
		fake.Update(inst.UUID(), func(row objects.Instance) { row.SetTaskState(step.stored) })
		inst.SetTaskState("networking")
		err := c.SaveInstance(t.Context(), rc, inst.Object, conductor.Expect{TaskState: step.expect})
		if !messaging.IsRemote(err, step.class) {
			t.Errorf("stored %q: %v", step.stored, err)
		}
		if !slices.Contains(inst.Changes(), "task_state") {
			t.Error("a failed save cleared the marks")
		}
		if got := fake.Instance(inst.UUID()).String("task_state"); got != step.stored {
			t.Errorf("a failed save wrote %q", got)
		}
	}
	inst.SetClean("uuid", "0a3f7b60-0000-4000-8000-000000000000")
	if err := c.SaveInstance(t.Context(), rc, inst.Object, conductor.Expect{}); !messaging.IsRemote(err, "InstanceNotFound") {
		t.Errorf("absent: %v", err)
	}
}

func TestSaveInstanceFlavorTrio(t *testing.T) {
	c, fake, _ := wire(t)
	rc := userContext("req-1")
	row := newInstance(fake)
	whole := objects.Instance{Object: row.Clone()}
	whole.Mark("flavor")
	if err := c.SaveInstance(t.Context(), rc, whole.Object, conductor.Expect{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"flavor", "new_flavor", "old_flavor"}, fake.Calls()[0].Changes); diff != "" {
		t.Error(diff)
	}
	part := row.Clone()
	part.Unset("old_flavor")
	part.Mark("flavor")
	if err := c.SaveInstance(t.Context(), rc, part, conductor.Expect{}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("an incomplete trio was sent: %v", err)
	}
}

func TestLifeOfARecord(t *testing.T) {
	c, fake, _ := wire(t)
	ctx, rc := t.Context(), userContext("req-1")
	inst := objects.Instance{Object: newInstance(fake)}
	inst.SetHost("cmp1", "cmp1")
	if err := c.SaveInstance(ctx, rc, inst.Object, conductor.Expect{}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetInstance(ctx, rc, inst.UUID(), "flavor", "system_metadata")
	if err != nil {
		t.Fatal(err)
	}
	if !got.Has("old_flavor") || !got.Has("system_metadata") || got.Has("metadata") || got.Has("info_cache") {
		t.Errorf("joined fields: %v", got.Fields())
	}
	for name, get := range map[string]func() ([]*objects.Object, error){
		"host": func() ([]*objects.Object, error) { return c.InstancesByHost(ctx, rc, "cmp1", "metadata") },
		"node": func() ([]*objects.Object, error) { return c.InstancesByNode(ctx, rc, "cmp1", "cmp1") },
		"filter": func() ([]*objects.Object, error) {
			return c.InstancesByFilters(ctx, rc, map[string]any{"vm_state": "building", "uuid": []string{inst.UUID()}})
		},
	} {
		if list, err := get(); err != nil || len(list) != 1 || list[0].String("uuid") != inst.UUID() {
			t.Errorf("by %s: %v %v", name, list, err)
		}
	}
	if list, err := c.InstancesByHost(ctx, rc, "cmp2"); err != nil || len(list) != 0 {
		t.Errorf("unknown host: %v %v", list, err)
	}
	if err := c.DestroyInstance(ctx, rc, inst.Object); err != nil || !inst.Deleted() {
		t.Fatalf("destroy: %v", err)
	}
	if _, err := c.GetInstance(ctx, rc, inst.UUID()); !messaging.IsRemote(err, "InstanceNotFound") {
		t.Errorf("deleted: %v", err)
	}
	if _, err := c.GetInstance(ctx, rc.WithReadDeleted("yes"), inst.UUID()); err != nil {
		t.Errorf("deleted and asked for: %v", err)
	}
}

func TestEventsAndFaults(t *testing.T) {
	c, fake, _ := wire(t)
	ctx, rc := t.Context(), userContext("req-1")
	uuid := newInstance(fake).String("uuid")
	if err := c.EventStart(ctx, rc, uuid, "compute_stop_instance"); !messaging.IsRemote(err, "InstanceActionNotFound") {
		t.Fatalf("without an action: %v", err)
	}
	fake.AddAction(uuid, "stop", "req-1")
	if err := c.ActionStart(ctx, userContext("req-2"), uuid, "delete"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		c.EventStart(ctx, rc, uuid, "compute_stop_instance"),
		c.EventFinish(ctx, rc, uuid, "compute_stop_instance", "", ""),
		c.EventStart(ctx, messaging.AdminContext(), uuid, "compute_terminate_instance"),
		c.EventFinish(ctx, messaging.AdminContext(), uuid, "compute_terminate_instance", "disk is full", ""),
		c.CreateFault(ctx, rc, uuid, 500, strings.Repeat("x", 300), "details"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []conductortest.Event{
		{Action: "stop", Name: "compute_stop_instance", Host: "cmp1", Result: "Success"},
		{Action: "delete", Name: "compute_terminate_instance", Host: "cmp1", Result: "Error", Details: "disk is full", Traceback: "disk is full"},
	}
	if diff := cmp.Diff(want, fake.Events(uuid)); diff != "" {
		t.Error(diff)
	}
	if f := fake.Faults(uuid); len(f) != 1 || len(f[0].Message()) != 255 || f[0].String("host") != "cmp1" {
		t.Error(f)
	}
}

func TestServiceAndNode(t *testing.T) {
	c, fake, _ := wire(t)
	ctx, rc := t.Context(), messaging.AdminContext()
	if err := c.Ping(ctx, rc); err != nil {
		t.Fatal(err)
	}
	if v, err := c.MinimumServiceVersion(ctx, rc, "nova-compute"); v != 0 || err != nil {
		t.Errorf("minimum of none: %d %v", v, err)
	}
	if s, err := c.GetService(ctx, rc, "cmp1", "nova-compute"); s != nil || err != nil {
		t.Errorf("absent service: %v %v", s, err)
	}
	s := objects.NewService("cmp1", "nova-compute", "compute", 64)
	if err := c.CreateService(ctx, rc, s.Object); err != nil || s.ID() == 0 || len(s.Changes()) != 0 {
		t.Fatalf("create: %v", err)
	}
	twice := objects.NewService("cmp1", "nova-compute", "compute", 64)
	if err := c.CreateService(ctx, rc, twice.Object); !messaging.IsRemote(err, "ServiceTopicExists", "ServiceBinaryExists") {
		t.Errorf("twice: %v", err)
	}
	fake.UpdateService("cmp1", "nova-compute", func(s objects.Service) { s.SetClean("disabled", true) })
	s.SetReportCount(s.ReportCount() + 1)
	if err := c.SaveService(ctx, rc, s.Object); err != nil || !s.Disabled() || s.LastSeenUp().IsZero() {
		t.Errorf("heartbeat: %v", err)
	}
	calls := fake.Calls()
	last := calls[len(calls)-1]
	if last.String() != "Service.save{report_count}" || !last.Object.Has("version") {
		t.Errorf("%s without version", last)
	}
	if s, err := c.GetComputeService(ctx, rc, "cmp1"); err != nil || s.Int("version") != 64 {
		t.Error(err)
	}
	fake.DeleteService("cmp1", "nova-compute")
	s.SetReportCount(9)
	if err := c.SaveService(ctx, rc, s.Object); !messaging.IsRemote(err, "ServiceNotFound") {
		t.Errorf("deleted: %v", err)
	}

	if _, err := c.GetComputeNode(ctx, rc, "cmp1", "n1"); !messaging.IsRemote(err, "ComputeHostNotFound") {
		t.Errorf("absent node: %v", err)
	}
	if _, err := c.ComputeNodesByHost(ctx, rc, "cmp1"); !messaging.IsRemote(err, "ComputeHostNotFound") {
		t.Errorf("absent nodes: %v", err)
	}
	n := objects.NewComputeNode("4ad0a0b4-0000-4000-8000-000000000001", "cmp1", "n1")
	if err := c.CreateComputeNode(ctx, rc, n.Object); err == nil {
		t.Error("a node without columns was stored")
	}
	n.SetTotals(8, 16000, 100)
	n.SetUsage(objects.Usage{MemoryMB: 512})
	n.SetHypervisor("docker", 1000, "")
	n.SetStats(map[string]string{"failed_builds": "0"})
	n.SetSupported(objects.NewHVSpec("x86_64", "docker", "exe"))
	if err := c.CreateComputeNode(ctx, rc, n.Object); err != nil {
		t.Fatal(err)
	}
	if cpu, ram, disk := n.Ratios(); cpu != 16 || ram != 1.5 || disk != 1 {
		t.Errorf("ratios %v %v %v", cpu, ram, disk)
	}
	n.SetUsage(objects.Usage{MemoryMB: 1024, RunningVMs: 1})
	if err := c.SaveComputeNode(ctx, rc, n.Object); err != nil {
		t.Fatal(err)
	}
	if row := fake.Node("cmp1", "n1"); row.Int("free_ram_mb") != 14976 || row.Int("free_disk_gb") != 100 {
		t.Errorf("usage: %d", row.Int("free_ram_mb"))
	}
	if list, err := c.ComputeNodesByHost(ctx, rc, "cmp1"); err != nil || len(list) != 1 {
		t.Error(err)
	}
	fake.ResetCalls()
	if err := c.SaveComputeNode(ctx, rc, n.Object); err != nil || len(fake.Calls()) != 0 {
		t.Error("an unchanged node was saved")
	}
	if err := c.DestroyComputeNode(ctx, rc, n.Object); err != nil || fake.Node("cmp1", "n1") != nil {
		t.Error(err)
	}
}

func TestNetworkRecords(t *testing.T) {
	c, fake, _ := wire(t)
	ctx, rc := t.Context(), userContext("req-1")
	uuid := newInstance(fake).String("uuid")
	vif := objects.NewVirtualInterface(uuid, "port-1", "fa:16:3e:00:00:01", "")
	if err := c.CreateVIF(ctx, rc, vif.Object); err != nil || vif.Int("id") == 0 {
		t.Fatal(err)
	}
	if l, err := c.VIFs(ctx, rc, uuid); err != nil || len(l) != 1 || l[0].String("address") != "fa:16:3e:00:00:01/port-1" {
		t.Error(l, err)
	}
	info := objects.NetworkInfo{{ID: "port-1", Address: "fa:16:3e:00:00:01", Active: true}}
	if err := c.SaveInfoCache(ctx, rc, uuid, info); err != nil {
		t.Fatal(err)
	}
	if got, err := c.GetInfoCache(ctx, rc, uuid); err != nil || len(got) != 1 || !got[0].Active {
		t.Error(got, err)
	}
	if err := c.SaveInfoCache(ctx, rc, uuid, nil); err != nil || fake.NetworkInfo(uuid) != "[]" {
		t.Error(fake.NetworkInfo(uuid), err)
	}
	second := objects.NewVirtualInterface(uuid, "port-2", "fa:16:3e:00:00:02", "uplink")
	if err := c.CreateVIF(ctx, rc, second.Object); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a row that is gone is what was wanted
		if err := c.DeleteVIF(ctx, rc, "port-2"); err != nil || len(fake.Ports(uuid)) != 1 {
			t.Errorf("DeleteVIF: %v, %v left", err, fake.Ports(uuid))
		}
	}
	if err := c.DeleteVIFs(ctx, rc, uuid); err != nil || len(fake.Ports(uuid)) != 0 {
		t.Error(err)
	}
	if err := c.SaveInfoCache(ctx, rc, "absent", nil); !messaging.IsRemote(err, "InstanceInfoCacheNotFound") {
		t.Error(err)
	}
}

func TestOtherRecords(t *testing.T) {
	c, fake, _ := wire(t)
	ctx, rc := t.Context(), userContext("req-1")
	uuid := newInstance(fake).String("uuid")

	bdm := objects.New("BlockDeviceMapping")
	bdm.Set("instance_uuid", uuid)
	fake.AddBlockDevice(bdm)
	l, err := c.BlockDevices(ctx, rc, uuid)
	if err != nil || len(l) != 1 {
		t.Fatal(err)
	}
	disk := objects.BlockDeviceMapping{Object: l[0]}
	disk.SetDeviceName("/dev/vda")
	if err := c.SaveBlockDevice(ctx, rc, disk.Object); err != nil {
		t.Error(err)
	}

	m := objects.Migration{Object: objects.New("Migration")}
	for f, v := range map[string]string{"source_compute": "cmp1", "source_node": "n1", "status": "accepted", "migration_type": "evacuation"} {
		m.Set(f, v)
	}
	fake.AddMigration(m.Object)
	moves, err := c.MigrationsByFilters(ctx, rc, map[string]any{"source_compute": "cmp1", "status": []string{"accepted", "done"}})
	if err != nil || len(moves) != 1 {
		t.Fatal(moves, err)
	}
	move := objects.Migration{Object: moves[0]}
	move.SetStatus("completed")
	if err := c.SaveMigration(ctx, rc, move.Object); err != nil {
		t.Error(err)
	}
	if moves, err = c.MigrationsInProgress(ctx, rc, "cmp1", "n1"); err != nil || len(moves) != 0 {
		t.Error(moves, err)
	}

	token := objects.NewConsoleAuthToken(objects.Console{Type: "serial", Host: "h", Port: 1, InstanceUUID: uuid, BaseURL: "ws://x/"})
	if err := c.AuthorizeConsole(ctx, rc, token.Object, 10*time.Minute); err != nil || token.String("token") == "" {
		t.Error(err)
	}
	if err := errors.Join(c.CleanConsoleAuths(ctx, rc, uuid), c.CleanExpiredConsoleAuths(ctx, rc)); err != nil {
		t.Error(err)
	}

	g := objects.New("InstanceGroup")
	g.Set("name", "g")
	g.Set("policy", "anti-affinity")
	g.Set("members", []string{uuid})
	fake.AddGroup(g)
	for _, get := range []func() (*objects.Object, error){
		func() (*objects.Object, error) { return c.GetInstanceGroup(ctx, rc, uuid) },
		func() (*objects.Object, error) { return c.GetInstanceGroupByHint(ctx, rc, "g") },
	} {
		if got, err := get(); err != nil || got.String("policy") != "anti-affinity" {
			t.Error(err)
		}
	}
	if _, err := c.GetInstanceGroup(ctx, rc, "other"); !messaging.IsRemote(err, "InstanceGroupNotFound") {
		t.Error(err)
	}
}

func TestCasts(t *testing.T) {
	c, fake, caller := wire(t)
	ctx, rc := t.Context(), userContext("req-1")
	inst := newInstance(fake)
	s := conductor.NewScheduler(caller, "cmp1", zerolog.Nop())
	s.InstanceUpdated(ctx, rc, inst)
	s.InstanceDeleted(ctx, rc, "u")
	s.Sync(ctx, rc, nil)
	err := c.BuildInstances(ctx, rc, map[string]any{"instances": []any{inst}, "image": json.RawMessage(`{"id":"i"}`), "host_lists": []any{[]any{}}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]conductortest.Call{}
	for range 10000 { // casts come in no order, and when they come
		for _, call := range fake.Calls() {
			got[call.Method] = call
		}
		if len(got) == 4 {
			break
		}
		// A call of ours on the way to the same conductor is a pause without a clock.
		if err := c.Ping(ctx, rc); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 4 {
		t.Fatalf("only %d casts came", len(got))
	}
	info, _ := got["update_instance_info"].Kwargs["instance_info"].(*objects.Object)
	if info == nil || len(info.Objects("objects")) != 1 || got["update_instance_info"].Kwargs["host_name"] != "cmp1" {
		t.Errorf("update: %v", got["update_instance_info"])
	}
	if uuids, ok := got["sync_instance_info"].Kwargs["instance_uuids"].([]any); !ok || len(uuids) != 0 {
		t.Error("sync of nothing")
	}
	if image, ok := got["build_instances"].Kwargs["image"].(map[string]any); !ok || image["id"] != "i" {
		t.Error("build")
	}
}

func TestFailuresAreInjected(t *testing.T) {
	c, fake, _ := wire(t)
	inst := newInstance(fake)
	inst.Set("display_name", "x")
	fake.FailNext("Instance.save", messaging.NovaError("InstanceNotFound", 404, "gone"))
	if err := c.SaveInstance(t.Context(), userContext("r"), inst, conductor.Expect{}); !messaging.IsRemote(err, "InstanceNotFound") {
		t.Error(err)
	}
	if err := c.SaveInstance(t.Context(), userContext("r"), inst, conductor.Expect{}); err != nil {
		t.Error(err)
	}
}

func TestUndeclaredIsRefused(t *testing.T) {
	c, fake, _ := wire(t)
	inst := newInstance(fake)
	inst.Set("no_such_field", "x")
	if err := c.SaveInstance(t.Context(), userContext("r"), inst, conductor.Expect{}); !messaging.IsRemote(err, "ValueError") {
		t.Error(err)
	}
}
