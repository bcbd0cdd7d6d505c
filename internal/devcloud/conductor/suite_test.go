package conductor_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	client "github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/conductor/conductortest"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/inproc"
	"github.com/gantry-project/gantry/driver/objects"
)

// The compute service's own client, on one wire, sees the same conductor
// whether it is ours or the one that its tests are written for.

func TestSuiteAgainstTheComputeServicesFake(t *testing.T) {
	suite(t, func(t *testing.T) (world, *client.Client) {
		f, broker := conductortest.New(), inproc.NewBroker()
		f.Serve(t, inproc.New(broker))
		caller := messaging.NewClient(inproc.New(broker), messaging.ClientOptions{ResponseTimeout: 20 * time.Second})
		return fake{f}, client.New(caller, "cmp1")
	})
}

func TestSuite(t *testing.T) {
	suite(t, func(t *testing.T) (world, *client.Client) {
		r := newServed(t)
		return real{t: t, store: r.store, groups: r.groups}, r.client
	})
}

func suite(t *testing.T, start func(t *testing.T) (world, *client.Client)) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, world, *client.Client){
		"save": testSave, "conflicts": testConflicts, "flavors": testFlavors, "life": testLife, "events": testEvents,
		"service": testService, "node": testNode, "network": testNetwork, "devices": testDevices,
		"migrations": testMigrations, "consoles": testConsoles, "groups": testGroups,
	} {
		t.Run(name, func(t *testing.T) {
			w, c := start(t)
			test(t, w, c)
		})
	}
}

func someInstance(w world) objects.Instance {
	i := objects.NewInstance()
	i.SetVMState("building")
	i.SetTaskState("scheduling")
	i.Set("project_id", "p")
	i.Set("system_metadata", map[string]string{"image_min_ram": "0"})
	flavor := objects.New("Flavor")
	flavor.Set("name", "small")
	i.Set("flavor", flavor)
	return objects.Instance{Object: w.addInstance(i.Object)}
}

func testSave(t *testing.T, w world, c *client.Client) {
	rc, i := userContext("req-1"), someInstance(w)
	part := objects.Instance{Object: i.Sparse("id", "uuid")}
	part.SetVMState("building")
	part.SetTaskState("")
	if err := c.SaveInstance(t.Context(), rc, part.Object, client.Expect{TaskState: []string{"scheduling", ""}}); err != nil {
		t.Fatal(err)
	}
	if len(part.Changes()) != 0 || part.TaskState() != "" || part.UpdatedAt().IsZero() || part.ProjectID() != "p" {
		t.Errorf("not merged: marks %v, %v", part.Changes(), part.Fields())
	}
	if part.SystemMetadata()["image_min_ram"] != "0" || part.Has("flavor") || part.Has("metadata") {
		t.Errorf("joined fields: %v", part.Fields())
	}
	row := objects.Instance{Object: w.instance(i.UUID())}
	if row.TaskState() != "" || row.Flavor().FlavorName() != "small" {
		t.Error("what was not sent was lost")
	}
}

func testConflicts(t *testing.T, w world, c *client.Client) {
	rc, i := userContext("req-1"), someInstance(w)
	for _, step := range []struct {
		stored string
		expect []string
		class  string
	}{
		{"scheduling", []string{""}, "UnexpectedTaskStateError"},
		{"deleting", []string{"scheduling", ""}, "UnexpectedDeletingTaskStateError"},
		{"", []string{"spawning"}, "UnexpectedTaskStateError"},
	} {
		w.update(i.UUID(), func(row objects.Instance) { row.SetTaskState(step.stored) })
		i.SetTaskState("networking")
		err := c.SaveInstance(t.Context(), rc, i.Object, client.Expect{TaskState: step.expect})
		if !messaging.IsRemote(err, step.class) {
			t.Errorf("stored %q: %v", step.stored, err)
		}
		if !slices.Contains(i.Changes(), "task_state") || w.instance(i.UUID()).String("task_state") != step.stored {
			t.Errorf("stored %q: a failed save has done something", step.stored)
		}
	}
	i.SetClean("uuid", uuid.NewString())
	if err := c.SaveInstance(t.Context(), rc, i.Object, client.Expect{}); !messaging.IsRemote(err, "InstanceNotFound") {
		t.Errorf("absent: %v", err)
	}
}

func testFlavors(t *testing.T, w world, c *client.Client) {
	i := someInstance(w)
	bigger := objects.New("Flavor")
	bigger.Set("name", "large")
	i.Set("new_flavor", bigger)
	if err := c.SaveInstance(t.Context(), userContext("r"), i.Object, client.Expect{}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetInstance(t.Context(), userContext("r"), i.UUID(), "flavor")
	if err != nil {
		t.Fatal(err)
	}
	view := objects.Instance{Object: got}
	if view.Flavor().FlavorName() != "small" || view.NewFlavor().FlavorName() != "large" || !view.IsNull("old_flavor") {
		t.Errorf("flavors: %v", got)
	}
}

func testLife(t *testing.T, w world, c *client.Client) {
	ctx, rc, i := t.Context(), userContext("req-1"), someInstance(w)
	i.SetHost("cmp1", "n1")
	if err := c.SaveInstance(ctx, rc, i.Object, client.Expect{}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetInstance(ctx, rc, i.UUID(), "flavor", "system_metadata")
	if err != nil {
		t.Fatal(err)
	}
	if !got.Has("old_flavor") || !got.Has("system_metadata") || got.Has("metadata") || got.Has("info_cache") {
		t.Errorf("joined fields: %v", got.Fields())
	}
	for name, get := range map[string]func() ([]*objects.Object, error){
		"host": func() ([]*objects.Object, error) { return c.InstancesByHost(ctx, rc, "cmp1", "metadata") },
		"node": func() ([]*objects.Object, error) { return c.InstancesByNode(ctx, rc, "cmp1", "n1") },
		"filter": func() ([]*objects.Object, error) {
			return c.InstancesByFilters(ctx, rc, map[string]any{"vm_state": "building", "uuid": []string{i.UUID()}, "soft_deleted": false})
		},
	} {
		if l, err := get(); err != nil || len(l) != 1 || l[0].String("uuid") != i.UUID() || l[0].Has("flavor") {
			t.Errorf("by %s: %v %v", name, l, err)
		}
	}
	if l, err := c.InstancesByHost(ctx, rc, "cmp2"); err != nil || len(l) != 0 {
		t.Errorf("unknown host: %v %v", l, err)
	}
	unhosted := objects.Instance{Object: i.Clone()}
	unhosted.Set("host", nil)
	if err := c.DestroyInstance(ctx, rc, unhosted.Object); !messaging.IsRemote(err, "ObjectActionError") {
		t.Errorf("destroy behind a host's back: %v", err)
	}
	if err := c.DestroyInstance(ctx, rc, i.Object); err != nil || !i.Deleted() {
		t.Fatalf("destroy: %v", err)
	}
	if _, err := c.GetInstance(ctx, rc, i.UUID()); !messaging.IsRemote(err, "InstanceNotFound") {
		t.Errorf("deleted: %v", err)
	}
	if _, err := c.GetInstance(ctx, rc.WithReadDeleted("yes"), i.UUID()); err != nil {
		t.Errorf("deleted and asked for: %v", err)
	}
	unclean := map[string]any{"deleted": true, "soft_deleted": false, "host": "cmp1", "cleaned": false}
	l, err := c.InstancesByFilters(ctx, rc.WithReadDeleted("yes"), unclean)
	if err != nil || len(l) != 1 {
		t.Fatalf("deleted ones: %v %v", l, err)
	}
	l[0].Set("cleaned", true)
	if err := c.SaveInstance(ctx, rc.WithReadDeleted("yes"), l[0], client.Expect{}); err != nil {
		t.Errorf("a deleted one is cleaned: %v", err)
	}
	if l, err = c.InstancesByFilters(ctx, rc.WithReadDeleted("yes"), unclean); err != nil || len(l) != 0 {
		t.Errorf("unclean ones: %v %v", l, err)
	}
}

func testEvents(t *testing.T, w world, c *client.Client) {
	ctx, rc := t.Context(), userContext("req-1")
	id := someInstance(w).UUID()
	if err := c.EventStart(ctx, rc, id, "compute_stop_instance"); !messaging.IsRemote(err, "InstanceActionNotFound") {
		t.Fatalf("without an action: %v", err)
	}
	w.addAction(id, "stop", "req-1")
	if err := c.ActionStart(ctx, userContext("req-2"), id, "delete"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		c.EventStart(ctx, rc, id, "compute_stop_instance"),
		c.EventFinish(ctx, rc, id, "compute_stop_instance", "", ""),
		c.EventStart(ctx, messaging.AdminContext(), id, "compute_terminate_instance"),
		c.EventFinish(ctx, messaging.AdminContext(), id, "compute_terminate_instance", "disk is full", ""),
		c.CreateFault(ctx, rc, id, 500, strings.Repeat("x", 300), "details"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []conductortest.Event{
		{Action: "stop", Name: "compute_stop_instance", Host: "cmp1", Result: "Success"},
		{Action: "delete", Name: "compute_terminate_instance", Host: "cmp1", Result: "Error", Details: "disk is full", Traceback: "disk is full"},
	}
	if diff := cmp.Diff(want, w.events(id)); diff != "" {
		t.Error(diff)
	}
	if err := c.EventFinish(ctx, rc, id, "compute_start_instance", "", ""); !messaging.IsRemote(err, "InstanceActionEventNotFound") {
		t.Errorf("an event that was not started: %v", err)
	}
	if f := w.faults(id); len(f) != 1 || len(f[0].Message()) != 255 || f[0].String("host") != "cmp1" {
		t.Error(f)
	}
	if err := c.CreateFault(ctx, rc, uuid.NewString(), 500, "x", ""); !messaging.IsRemote(err, "InstanceNotFound") {
		t.Errorf("a fault of nobody: %v", err)
	}
}

func testService(t *testing.T, w world, c *client.Client) {
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
	if _, err := c.GetComputeService(ctx, rc, "cmp1"); !messaging.IsRemote(err, "ComputeHostNotFound") {
		t.Errorf("absent service: %v", err)
	}
	s := objects.NewService("cmp1", "nova-compute", "compute", 64)
	if err := c.CreateService(ctx, rc, s.Object); err != nil || s.ID() == 0 || len(s.Changes()) != 0 || s.UUID() == "" {
		t.Fatalf("create: %v", err)
	}
	twice := objects.NewService("cmp1", "nova-compute", "compute", 64)
	if err := c.CreateService(ctx, rc, twice.Object); !messaging.IsRemote(err, "ServiceTopicExists", "ServiceBinaryExists") {
		t.Errorf("twice: %v", err)
	}
	w.updateService("cmp1", "nova-compute", func(s objects.Service) { s.SetClean("disabled", true) })
	s.SetReportCount(s.ReportCount() + 1)
	if err := c.SaveService(ctx, rc, s.Object); err != nil || !s.Disabled() || s.LastSeenUp().IsZero() {
		t.Errorf("heartbeat: %v", err)
	}
	if v, err := c.MinimumServiceVersion(ctx, rc, "nova-compute"); v != 64 || err != nil {
		t.Errorf("minimum: %d %v", v, err)
	}
	if s, err := c.GetComputeService(ctx, rc, "cmp1"); err != nil || s.Int("version") != 64 || s.Has("compute_node") {
		t.Error(s, err)
	}
	w.deleteService("cmp1", "nova-compute")
	s.SetReportCount(9)
	if err := c.SaveService(ctx, rc, s.Object); !messaging.IsRemote(err, "ServiceNotFound") {
		t.Errorf("deleted: %v", err)
	}
}

func testNode(t *testing.T, _ world, c *client.Client) {
	ctx, rc := t.Context(), messaging.AdminContext()
	if _, err := c.GetComputeNode(ctx, rc, "cmp1", "n1"); !messaging.IsRemote(err, "ComputeHostNotFound") {
		t.Errorf("absent node: %v", err)
	}
	if _, err := c.ComputeNodesByHost(ctx, rc, "cmp1"); !messaging.IsRemote(err, "ComputeHostNotFound") {
		t.Errorf("absent nodes: %v", err)
	}
	n := objects.NewComputeNode(uuid.NewString(), "cmp1", "n1")
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
	got, err := c.GetComputeNode(ctx, rc, "cmp1", "n1")
	if err != nil || got.Int("free_ram_mb") != 14976 || got.String("uuid") != n.UUID() || got.Strings("stats")["failed_builds"] != "0" ||
		len(got.Objects("supported_hv_specs")) != 1 {
		t.Errorf("%v %v", got, err)
	}
	if l, err := c.ComputeNodesByHost(ctx, rc, "cmp1"); err != nil || len(l) != 1 {
		t.Error(err)
	}
	if err := c.DestroyComputeNode(ctx, rc, n.Object); err != nil {
		t.Error(err)
	}
	if _, err := c.GetComputeNode(ctx, rc, "cmp1", "n1"); !messaging.IsRemote(err, "ComputeHostNotFound") {
		t.Error(err)
	}
}

func testNetwork(t *testing.T, w world, c *client.Client) {
	ctx, rc := t.Context(), userContext("req-1")
	id := someInstance(w).UUID()
	vif := objects.NewVirtualInterface(id, "port-1", "fa:16:3e:00:00:01", "")
	if err := c.CreateVIF(ctx, rc, vif.Object); err != nil || vif.Int("id") == 0 {
		t.Fatal(err)
	}
	again := objects.NewVirtualInterface(id, "port-1", "fa:16:3e:00:00:01", "")
	if err := c.CreateVIF(ctx, rc, again.Object); !messaging.IsRemote(err, "VirtualInterfaceCreateException") {
		t.Errorf("twice: %v", err)
	}
	if l, err := c.VIFs(ctx, rc, id); err != nil || len(l) != 1 || !strings.HasPrefix(l[0].String("address"), "fa:16:3e:00:00:01") {
		t.Error(l, err)
	}
	info := objects.NetworkInfo{{ID: "port-1", Address: "fa:16:3e:00:00:01", Active: true}}
	if err := c.SaveInfoCache(ctx, rc, id, info); err != nil {
		t.Fatal(err)
	}
	if got, err := c.GetInfoCache(ctx, rc, id); err != nil || len(got) != 1 || !got[0].Active {
		t.Error(got, err)
	}
	if err := c.SaveInfoCache(ctx, rc, id, nil); err != nil || w.networkInfo(id) != "[]" {
		t.Error(w.networkInfo(id), err)
	}
	if err := c.DeleteVIFs(ctx, rc, id); err != nil {
		t.Error(err)
	}
	if l, err := c.VIFs(ctx, rc, id); err != nil || len(l) != 0 {
		t.Error(l, err)
	}
	if err := c.SaveInfoCache(ctx, rc, "absent", nil); !messaging.IsRemote(err, "InstanceInfoCacheNotFound") {
		t.Error(err)
	}
}

func testDevices(t *testing.T, w world, c *client.Client) {
	ctx, rc := t.Context(), userContext("req-1")
	id := someInstance(w).UUID()
	bdm := objects.New("BlockDeviceMapping")
	bdm.Set("instance_uuid", id)
	w.addBlockDevice(bdm)
	l, err := c.BlockDevices(ctx, rc, id)
	if err != nil || len(l) != 1 {
		t.Fatal(err)
	}
	disk := objects.BlockDeviceMapping{Object: l[0]}
	disk.SetDeviceName("/dev/vda")
	if err := c.SaveBlockDevice(ctx, rc, disk.Object); err != nil {
		t.Error(err)
	}
	if l, err = c.BlockDevices(ctx, rc, id); err != nil || l[0].String("device_name") != "/dev/vda" {
		t.Error(l, err)
	}
	disk.SetClean("id", 4711)
	disk.SetDeviceName("/dev/vdb")
	if err := c.SaveBlockDevice(ctx, rc, disk.Object); !messaging.IsRemote(err, "BDMNotFound") {
		t.Error(err)
	}
}

func testMigrations(t *testing.T, w world, c *client.Client) {
	ctx, rc := t.Context(), messaging.AdminContext()
	m := objects.New("Migration")
	for f, v := range map[string]string{"source_compute": "cmp1", "source_node": "n1", "status": "accepted", "migration_type": "evacuation"} {
		m.Set(f, v)
	}
	w.addMigration(m)
	moves, err := c.MigrationsByFilters(ctx, rc, map[string]any{"source_compute": "cmp1", "status": []string{"accepted", "done"}, "migration_type": "evacuation"})
	if err != nil || len(moves) != 1 {
		t.Fatal(moves, err)
	}
	if other, err := c.MigrationsByFilters(ctx, rc, map[string]any{"source_compute": "cmp2"}); err != nil || len(other) != 0 {
		t.Error(other, err)
	}
	if moves, err = c.MigrationsInProgress(ctx, rc, "cmp1", "n1"); err != nil || len(moves) != 1 {
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
	move.SetClean("id", 4711)
	move.SetStatus("error")
	if err := c.SaveMigration(ctx, rc, move.Object); !messaging.IsRemote(err, "MigrationNotFound") {
		t.Error(err)
	}
}

func testConsoles(t *testing.T, w world, c *client.Client) {
	ctx, rc := t.Context(), userContext("req-1")
	id := someInstance(w).UUID()
	token := objects.NewConsoleAuthToken(objects.Console{Type: "serial", Host: "h", Port: 1, InstanceUUID: id, BaseURL: "ws://x/"})
	if err := c.AuthorizeConsole(ctx, rc, token.Object, 10*time.Minute); err != nil || token.String("token") == "" {
		t.Error(err)
	}
	if err := errors.Join(c.CleanConsoleAuths(ctx, rc, id), c.CleanExpiredConsoleAuths(ctx, rc)); err != nil {
		t.Error(err)
	}
}

func testGroups(t *testing.T, w world, c *client.Client) {
	ctx, rc := t.Context(), userContext("req-1")
	id := someInstance(w).UUID()
	g := objects.New("InstanceGroup")
	g.Set("name", "g")
	g.Set("policy", "anti-affinity")
	g.Set("members", []string{id})
	w.addGroup(g)
	for _, get := range []func() (*objects.Object, error){
		func() (*objects.Object, error) { return c.GetInstanceGroup(ctx, rc, id) },
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
