//go:build functional

package conductor_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/amqp"
	"github.com/gantry-project/gantry/driver/objects"
)

// These tests talk to the nova-conductor of a real cell, whose transport_url
// is in GANTRY_TEST_AMQP_URL. They make rows of their own, under a host that
// does not exist, and remove them.

func realConductor(t *testing.T, host string) *conductor.Client {
	t.Helper()
	o := amqp.DefaultOptions()
	var err error
	if o.URL, err = amqp.ParseURL(os.Getenv("GANTRY_TEST_AMQP_URL")); err != nil {
		t.Fatalf("GANTRY_TEST_AMQP_URL must be rabbit://USER:PASS@HOST:PORT/VHOST: %v", err)
	}
	o.ControlExchange, o.Program = "nova", "gantrytest"
	o.TransientQueuesTTL = time.Minute
	o.Log = zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	transport, err := amqp.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	caller := messaging.NewClient(transport, messaging.ClientOptions{ResponseTimeout: 30 * time.Second, Log: o.Log})
	t.Cleanup(func() {
		_ = caller.Close(context.WithoutCancel(t.Context()))
		_ = transport.Close()
	})
	return conductor.New(caller, host)
}

func TestRealReads(t *testing.T) {
	ctx, rc := t.Context(), messaging.AdminContext()
	c := realConductor(t, "gantry-no-such-host")
	if err := c.Ping(ctx, rc); err != nil {
		t.Fatal(err)
	}
	if v, err := c.MinimumServiceVersion(ctx, rc, "nova-conductor"); err != nil || v < 60 {
		t.Errorf("version of conductor: %d %v", v, err)
	}
	if l, err := c.InstancesByHost(ctx, rc, "gantry-no-such-host", "info_cache", "metadata", "numa_topology"); err != nil || len(l) != 0 {
		t.Error(l, err)
	}
	if l, err := c.InstancesByNode(ctx, rc, "gantry-no-such-host", "n", "system_metadata", "flavor", "migration_context", "resources"); err != nil || len(l) != 0 {
		t.Error(l, err)
	}
	if s, err := c.GetService(ctx, rc, "gantry-no-such-host", "nova-compute"); err != nil || s != nil {
		t.Error(s, err)
	}
	if l, err := c.MigrationsInProgress(ctx, rc, "gantry-no-such-host", "n"); err != nil || len(l) != 0 {
		t.Error(l, err)
	}
	for name, err := range map[string]error{
		"node":    second(c.GetComputeNode(ctx, rc, "gantry-no-such-host", "n")),
		"nodes":   second(c.ComputeNodesByHost(ctx, rc, "gantry-no-such-host")),
		"service": second(c.GetComputeService(ctx, rc, "gantry-no-such-host")),
	} {
		if !messaging.IsRemote(err, "ComputeHostNotFound") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.GetInstance(ctx, rc, uuid.NewString()); !messaging.IsRemote(err, "InstanceNotFound") {
		t.Error(err)
	}
	if err := c.EventStart(ctx, rc, uuid.NewString(), "compute_stop_instance"); !messaging.IsRemote(err, "InstanceActionNotFound") {
		t.Error(err)
	}
	if _, err := c.GetInstanceGroup(ctx, rc, uuid.NewString()); !messaging.IsRemote(err, "InstanceGroupNotFound") {
		t.Error(err)
	}
	if err := c.CleanExpiredConsoleAuths(ctx, rc); err != nil {
		t.Error(err)
	}
}

func second[V any](_ V, err error) error { return err }

func TestRealServiceAndNode(t *testing.T) {
	ctx, rc := t.Context(), messaging.AdminContext()
	host := "gantry-test-" + uuid.NewString()[:8]
	c := realConductor(t, host)
	undo := context.WithoutCancel(ctx)

	s := objects.NewService(host, "nova-cells", "gantry-test", 64)
	if err := c.CreateService(ctx, rc, s.Object); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.ObjectAction(undo, rc, s.Object, "destroy", nil, nil); err != nil {
			t.Error(err)
		}
	})
	twice := objects.NewService(host, "nova-cells", "gantry-test", 64)
	if err := c.CreateService(ctx, rc, twice.Object); !messaging.IsRemote(err, "ServiceTopicExists", "ServiceBinaryExists") {
		t.Error(err)
	}
	s.SetReportCount(1)
	if err := c.SaveService(ctx, rc, s.Object); err != nil || s.LastSeenUp().IsZero() || s.ID() == 0 {
		t.Errorf("heartbeat: %v", err)
	}

	n := objects.NewComputeNode(uuid.NewString(), host, "n1")
	n.Set("host_ip", "192.0.2.1")
	n.SetTotals(8, 16000, 100)
	n.Set("vcpus_used", 0)
	n.Set("memory_mb_used", 512)
	n.Set("local_gb_used", 0)
	n.SetHypervisor("docker", 1000, "")
	n.SetStats(map[string]string{"failed_builds": "0"})
	n.SetSupported(objects.NewHVSpec("x86_64", "docker", "exe"))
	if err := c.CreateComputeNode(ctx, rc, n.Object); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.DestroyComputeNode(undo, rc, n.Object); err != nil {
			t.Error(err)
		}
	})
	if cpu, ram, disk := n.Ratios(); cpu != 16 || ram != 1.5 || disk != 1 || n.Int("mapped") != 0 {
		t.Errorf("ratios %v %v %v", cpu, ram, disk)
	}
	n.SetUsage(objects.Usage{MemoryMB: 512, RunningVMs: 1})
	n.Set("metrics", "[]")
	if err := c.SaveComputeNode(ctx, rc, n.Object); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetComputeNode(ctx, rc, host, "n1")
	if err != nil || got.Int("free_disk_gb") != 100 || got.String("uuid") != n.UUID() {
		t.Error(err)
	}
}

// TestRealInstance proves the sparse save: what is not sent stays in the row.
func TestRealInstance(t *testing.T) {
	ctx, rc := t.Context(), messaging.AdminContext()
	host := "gantry-test-" + uuid.NewString()[:8]
	c := realConductor(t, host)
	inst := realInstance(t, c, rc)

	part := objects.Instance{Object: inst.Sparse("id", "uuid")}
	part.SetHost(host, "n1")
	part.SetVMState("building")
	part.SetTaskState("")
	if err := c.SaveInstance(ctx, rc, part.Object, conductor.Expect{TaskState: []string{"scheduling", ""}}); err != nil {
		t.Fatal(err)
	}
	if len(part.Changes()) != 0 || part.DisplayName() != "gantry-test" {
		t.Errorf("the answer does not complete the object: %v", part.Fields())
	}
	part.SetTaskState("networking")
	if err := c.SaveInstance(ctx, rc, part.Object, conductor.Expect{TaskState: []string{"spawning"}}); !messaging.IsRemote(err, "UnexpectedTaskStateError") {
		t.Error(err)
	}
	if err := part.PutSystemMetadata("boot_roles", "member"); err != nil {
		t.Fatal(err)
	}
	part.SetTaskState("deleting")
	if err := c.SaveInstance(ctx, rc, part.Object, conductor.Expect{TaskState: []string{""}}); err != nil {
		t.Fatal(err)
	}
	part.SetTaskState("spawning")
	if err := c.SaveInstance(ctx, rc, part.Object, conductor.Expect{TaskState: []string{""}}); !messaging.IsRemote(err, "UnexpectedDeletingTaskStateError") {
		t.Error(err)
	}

	all, err := c.InstancesByHost(ctx, rc, host, "metadata", "system_metadata", "flavor", "info_cache")
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	row := objects.Instance{Object: all[0]}
	if diff := cmp.Diff(map[string]string{"image_min_ram": "0", "boot_roles": "member"}, row.SystemMetadata()); diff != "" {
		t.Error(diff)
	}
	if row.Flavor().FlavorName() != "gantry-test" || row.Metadata()["nova_object.name"] != "Service" || row.Node() != "n1" {
		t.Errorf("%q %v %q", row.Flavor().FlavorName(), row.Metadata(), row.Node())
	}
	l, err := c.InstancesByFilters(ctx, rc, map[string]any{"uuid": []string{row.UUID()}, "vm_state": "building"})
	if err != nil || len(l) != 1 {
		t.Error(l, err)
	}
	plain, err := c.GetInstance(ctx, rc, row.UUID())
	if err != nil || !plain.Has("info_cache") || !plain.Has("security_groups") || plain.Has("metadata") || plain.Has("flavor") {
		t.Errorf("joins of a plain get: %v", err)
	}
}

func TestRealRecordsOfInstance(t *testing.T) {
	ctx, rc := t.Context(), messaging.AdminContext()
	c := realConductor(t, "gantry-test")
	id := realInstance(t, c, rc).UUID()
	if err := c.ActionStart(ctx, rc, id, "stop"); err != nil {
		t.Fatal(err)
	}
	for step, err := range map[string]error{
		"event": c.EventStart(ctx, rc, id, "compute_stop_instance"),
		"end":   c.EventFinish(ctx, rc, id, "compute_stop_instance", "disk is full", "trace"),
		"other": c.EventStart(ctx, messaging.AdminContext(), id, "compute_start_instance"),
		"fault": c.CreateFault(ctx, rc, id, 500, strings.Repeat("ä", 200), "details"),
		"clean": c.CleanConsoleAuths(ctx, rc, id),
	} {
		if err != nil {
			t.Errorf("%s: %v", step, err)
		}
	}
	port := uuid.NewString()
	if err := c.CreateVIF(ctx, rc, objects.NewVirtualInterface(id, port, "fa:16:3e:00:00:01", "").Object); err != nil {
		t.Error(err)
	}
	if l, err := c.VIFs(ctx, rc, id); err != nil || len(l) != 1 || l[0].String("uuid") != port {
		t.Error(l, err)
	}
	if err := c.DeleteVIFs(ctx, rc, id); err != nil {
		t.Error(err)
	}
	info := objects.NetworkInfo{{ID: port, Address: "fa:16:3e:00:00:01", Type: "bridge", VNICType: "normal"}}
	if err := c.SaveInfoCache(ctx, rc, id, info); err != nil {
		t.Error(err)
	}
	if got, err := c.GetInfoCache(ctx, rc, id); err != nil || len(got) != 1 || got[0].ID != port {
		t.Error(got, err)
	}
	if l, err := c.BlockDevices(ctx, rc, id); err != nil || len(l) != 0 {
		t.Error(l, err)
	}
	with, err := c.InstancesByFilters(ctx, rc, map[string]any{"uuid": []string{id}}, "fault")
	if err != nil || len(with) != 1 || with[0].Object("fault").String("host") != "gantry-test" {
		t.Error(err)
	}
	if _, err := c.GetInstance(ctx, rc, id, "fault"); err == nil {
		t.Error("the double and the documentation say that this fails")
	}
}

// realInstance makes a row that belongs to no host, with a metadata key that
// looks like an object, and removes it at the end.
func realInstance(t *testing.T, c *conductor.Client, rc messaging.RequestContext) objects.Instance {
	t.Helper()
	flavor := objects.New("Flavor")
	for f, v := range map[string]any{
		"id": 1, "name": "gantry-test", "flavorid": "f", "memory_mb": 64, "vcpus": 1, "root_gb": 1, "ephemeral_gb": 0,
		"swap": 0, "rxtx_factor": 1.0, "vcpu_weight": 0, "disabled": false, "is_public": true, "extra_specs": map[string]string{},
	} {
		flavor.Set(f, v)
	}
	i := objects.NewInstance()
	for f, v := range map[string]any{
		"uuid": uuid.NewString(), "project_id": "gantry-test", "user_id": "gantry-test", "display_name": "gantry-test",
		"vm_state": "building", "task_state": "scheduling", "memory_mb": 64, "vcpus": 1, "root_gb": 1, "ephemeral_gb": 0,
		"instance_type_id": 1, "flavor": flavor, "old_flavor": nil, "new_flavor": nil,
		"metadata":        map[string]string{"nova_object.name": "Service"},
		"system_metadata": map[string]string{"image_min_ram": "0"},
	} {
		i.Set(f, v)
	}
	if _, err := c.ObjectAction(t.Context(), rc, i.Object, "create", nil, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		now, err := c.GetInstance(ctx, rc, i.UUID())
		if err == nil {
			_, err = c.ObjectAction(ctx, rc, now, "destroy", nil, map[string]any{"hard_delete": true})
		}
		if err != nil {
			t.Error(err)
		}
	})
	if i.ID() == 0 {
		t.Fatal("created without an id")
	}
	i.ResetChanges() // create leaves marks on objects
	return i
}
