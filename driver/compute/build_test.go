package compute_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// plugged sends network-vif-plugged for the instance's port until the build is
// over: Neutron's event may come at any time after the plug.
func (r *rig) plugged(inst *objects.Object, status string) {
	r.t.Helper()
	row := r.row(inst)
	ev := objects.New("InstanceExternalEvent")
	for k, v := range map[string]any{
		"instance_uuid": row.String("uuid"), "name": "network-vif-plugged", "status": status, "tag": portOf(row.String("uuid")),
	} {
		ev.Set(k, v)
	}
	r.cast(messaging.AdminContext(), "external_instance_event", map[string]any{"instances": []any{row}, "events": []any{ev}})
}

// noWait switches the wait for events off; most tests are about other things.
func noWait(o *compute.Options) { o.VIFPluggingTimeout = 0 }

func TestBuild(t *testing.T) {
	r := newRig(t)
	inst := r.instance()
	rc := r.context(inst.String("uuid"), "create")
	r.cast(rc, "build_and_run_instance", buildArgs(inst))
	r.wait("the plug", func() bool {
		return slices.Contains(r.drv.Host().Residue(), "link "+portOf(inst.String("uuid"))+" of "+inst.String("uuid"))
	})
	if row := r.row(inst); row.String("host") != host || row.String("task_state") != "spawning" {
		t.Errorf("before the event: host %q, task %q", row.String("host"), row.String("task_state"))
	}
	r.plugged(inst, "completed")
	row := r.waitState(inst, "active")
	for field, want := range map[string]any{"host": host, "node": node, "launched_on": host, "power_state": json.Number("1")} {
		if got := row.Get(field); got != want {
			t.Errorf("%s = %v, want %v", field, got, want)
		}
	}
	if row.Time("launched_at").IsZero() || row.Strings("system_metadata")["boot_roles"] != "member,reader" {
		t.Errorf("launched_at %v, system_metadata %v", row.Get("launched_at"), row.Strings("system_metadata"))
	}
	req, _ := r.drv.Request(driver.InstanceUUID(inst.String("uuid")))
	want := driver.SpawnRequest{
		UUID: driver.InstanceUUID(inst.String("uuid")), Name: fmt.Sprintf("instance-%08x", inst.Int("id")), Hostname: "web", ProjectID: "p1",
	}
	if req.UUID != want.UUID || req.Name != want.Name || req.Hostname != want.Hostname || req.ProjectID != want.ProjectID {
		t.Errorf("request = %+v", req)
	}
	if req.Image.Properties["os_command_line"] != "/bin/true" || req.Image.Properties["hw_vif_multiqueue_enabled"] != "true" || req.Image.SizeBytes != 7 {
		t.Errorf("image = %+v", req.Image)
	}
	if req.AdminPassword != "secret" || string(req.UserData) != "#!/bin/sh\n" || string(req.Files[0].Content) != "hello\n" ||
		req.PublicKey != "ssh-ed25519 AAAA" || req.Credentials.UserToken != "token" || req.Metadata["k"] != "v" {
		t.Errorf("guest configuration = %+v", req)
	}
	events := r.db.Events(inst.String("uuid"))
	if len(events) != 1 || events[0].Name != "compute__do_build_and_run_instance" || events[0].Result != "Success" {
		t.Errorf("events = %+v", events)
	}
	if got := r.tracker.ended(); !slices.Equal(got, []bool{false}) {
		t.Errorf("builds ended (failed?) = %v", got)
	}
}

// Each step of a build fails in turn: Nova learns it in the right way, nothing
// is left, and the host builds the next one.
func TestBuildFailures(t *testing.T) {
	const rescheduled, failed, unclean = "rescheduled", "failed", "clean-up fails too"
	tests := []struct {
		name  string
		set   func(r *rig, args map[string]any)
		want  string
		fault string
	}{
		{"no room", func(r *rig, _ map[string]any) { r.tracker.err = errdefs.ErrExhausted }, rescheduled, "Insufficient compute resources."},
		{"unknown node", func(_ *rig, a map[string]any) { a["node"] = "elsewhere" }, rescheduled, ""},
		{"no port", func(r *rig, _ map[string]any) {
			r.ports.fail(errdefs.WithPublic(errdefs.ErrExhausted, "No fixed IP addresses available."))
		}, failed, "No fixed IP addresses available."},
		{"neutron away", func(r *rig, _ map[string]any) { r.ports.fail(errdefs.ErrUnavailable) }, failed, "Failed to allocate the network(s), not rescheduling."},
		{"image damaged", func(r *rig, _ map[string]any) { r.drv.FailNext(fake.StepImage, errdefs.ErrCorrupt) }, failed, "Stored or received data is damaged."},
		{"image cut off", func(r *rig, _ map[string]any) { r.drv.FailNext(fake.StepImage, errdefs.ErrUnavailable) }, rescheduled, ""},
		{"image gone", func(r *rig, _ map[string]any) {
			r.drv.FailNext(fake.StepImage, errdefs.WithPublic(errdefs.ErrNotFound, "Image img could not be found."))
		}, failed, "Image img could not be found."},
		{"bad format", func(_ *rig, a map[string]any) { a["image"].(map[string]any)["disk_format"] = fake.BadFormat }, failed, "Image format vmdk cannot be booted."},
		{"disk full", func(r *rig, _ map[string]any) { r.drv.FailNext(fake.StepDisk, errdefs.ErrExhausted) }, rescheduled, ""},
		{"after the network", func(r *rig, _ map[string]any) { r.drv.FailNext(fake.StepNetwork, errors.New("boom")) }, rescheduled, ""},
		{"plug", func(r *rig, _ map[string]any) { r.drv.FailNext(fake.StepPlug, errors.New("boom")) }, rescheduled, ""},
		{"start", func(r *rig, _ map[string]any) {
			r.drv.FailNext(fake.StepStart, errdefs.WithPublic(errdefs.ErrInvalid, "Command /bin/nope not found in the image."))
		}, failed, "Command /bin/nope not found in the image."},
		{"last save", func(r *rig, _ map[string]any) {
			r.db.FailNext("Instance.save", nil)
			r.db.FailNext("Instance.save", &messaging.RemoteError{Class: "DBConnectionError", Module: "oslo_db.exception", Message: "no database"})
		}, rescheduled, ""},
		{unclean, func(r *rig, _ map[string]any) {
			r.db.FailNext("Instance.save", nil)
			r.db.FailNext("Instance.save", &messaging.RemoteError{Class: "DBConnectionError", Module: "oslo_db.exception", Message: "no database"})
			r.drv.FailNext(fake.StepDestroy, errors.New("busy"))
		}, failed, ""},
		{"volume", func(_ *rig, a map[string]any) { a["block_device_mapping"] = bdms("volume", "volume", "") }, failed, "Volumes are not supported by this host"},
		{"device tag", func(_ *rig, a map[string]any) { a["block_device_mapping"] = bdms("image", "local", "db") }, failed, "Tags of disks are not supported by this host"},
		{"accelerator", func(_ *rig, a map[string]any) { a["accel_uuids"] = []string{"x"} }, failed, "Accelerators are not supported by this host"},
		{"bad file", func(_ *rig, a map[string]any) { a["injected_files"] = [][]string{{"/x", "&"}} }, failed, "Invalid Base 64 data for file /x"},
		{"malformed argument", func(_ *rig, a map[string]any) { a["security_groups"] = 7 }, failed, "The request cannot be accepted."},
		{"no image", func(_ *rig, a map[string]any) { a["image"] = map[string]any{} }, failed, "Volumes are not supported by this host"},
	}
	for _, tc := range tests {
		for _, mayRetry := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/retry=%t", tc.name, mayRetry), func(t *testing.T) {
				r := newRig(t, noWait)
				inst := r.instance()
				args := buildArgs(inst)
				if !mayRetry {
					args["filter_properties"] = map[string]any{"limits": map[string]any{}}
				}
				tc.set(r, args)
				r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", args)
				want := tc.want
				if !mayRetry {
					want = failed
				}
				if want == failed {
					row := r.waitState(inst, "error")
					wantFault(t, r, inst, tc.fault)
					if tc.name == unclean {
						// It stays ours, so that a delete comes here.
						if row.String("host") != host {
							t.Errorf("host = %q", row.String("host"))
						}
						r.ask(inst, "delete", "deleting", "terminate_instance", nil)
						r.wantDeleted(inst)
					} else {
						wantOrphan(t, row)
					}
				} else {
					wantRescheduled(t, r, inst, tc.fault)
				}
				r.nothingLeft()
				if left := r.tracker.allocated(); len(left) != 0 {
					t.Errorf("allocations left: %v", left)
				}
				if got := r.tracker.ended(); !slices.Equal(got, []bool{true}) {
					t.Errorf("builds ended (failed?) = %v", got)
				}
				r.active() // the next one is built
			})
		}
	}
}

func bdms(source, destination, tag string) *objects.Object {
	bdm := objects.New("BlockDeviceMapping")
	for k, v := range map[string]any{"source_type": source, "destination_type": destination, "boot_index": 0, "no_device": false} {
		bdm.Set(k, v)
	}
	if tag != "" {
		bdm.Set("tag", tag)
	}
	list := objects.New("BlockDeviceMappingList")
	list.Set("objects", []*objects.Object{bdm})
	return list
}

func wantFault(t *testing.T, r *rig, inst *objects.Object, text string) {
	t.Helper()
	faults := r.db.Faults(inst.String("uuid"))
	if len(faults) != 1 {
		t.Fatalf("%d faults, want 1", len(faults))
	}
	got := faults[0].String("message")
	if !strings.HasPrefix(got, "Build of instance "+inst.String("uuid")+" aborted: ") || !strings.HasSuffix(got, text) {
		t.Errorf("fault = %q, want … %q", got, text)
	}
	for _, secret := range []string{"/var/", "boom", host, "no database"} {
		if strings.Contains(got, secret) {
			t.Errorf("fault %q shows %q", got, secret)
		}
	}
	if faults[0].Int("code") != 500 || faults[0].String("host") != host {
		t.Errorf("fault code %d, host %q", faults[0].Int("code"), faults[0].String("host"))
	}
}

func wantOrphan(t *testing.T, row *objects.Object) {
	t.Helper()
	for _, f := range []string{"host", "node", "launched_on", "availability_zone"} {
		if !row.IsNull(f) {
			t.Errorf("%s = %v, want null", f, row.Get(f))
		}
	}
}

func wantRescheduled(t *testing.T, r *rig, inst *objects.Object, reason string) {
	t.Helper()
	r.settled(inst)
	r.wait("build_instances", func() bool { return r.find("build_instances") >= 0 })
	row := r.row(inst)
	if row.String("vm_state") != "building" || row.String("task_state") != "scheduling" {
		t.Errorf("state %s/%s, want building/scheduling", row.String("vm_state"), row.String("task_state"))
	}
	wantOrphan(t, row)
	if n := len(r.db.Faults(inst.String("uuid"))); n != 0 {
		t.Errorf("%d faults, want none: the next host may succeed", n)
	}
	call := r.db.Calls()[r.find("build_instances")]
	retry, _ := call.Kwargs["filter_properties"].(map[string]any)["retry"].(map[string]any)
	if got, _ := retry["exc_reason"].(string); got == "" || reason != "" && got != reason {
		t.Errorf("exc_reason = %q, want %q", got, reason)
	}
	hosts, _ := json.Marshal(call.Kwargs["host_lists"])
	files, _ := json.Marshal(call.Kwargs["injected_files"])
	if string(hosts) != "[[]]" || string(files) != `[["/etc/motd","aGVsbG8K"]]` {
		t.Errorf("host_lists %s, injected_files %s", hosts, files)
	}
	for _, name := range []string{"instances", "image", "admin_password", "requested_networks", "security_groups", "request_spec"} {
		if _, ok := call.Kwargs[name]; !ok {
			t.Errorf("build_instances lacks %s", name)
		}
	}
}

// find returns the index of the last call of the method, -1 if there is none.
func (r *rig) find(method string) int {
	calls := r.db.Calls()
	for i := len(calls) - 1; i >= 0; i-- {
		if calls[i].Method == method {
			return i
		}
	}
	return -1
}

func TestBuildEvents(t *testing.T) {
	t.Run("failed event is fatal", func(t *testing.T) {
		r := newRig(t)
		inst := r.instance()
		r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
		r.wait("the plug", func() bool { return len(r.drv.Host().Residue()) == 3 })
		r.plugged(inst, "failed")
		r.waitState(inst, "error")
		wantFault(t, r, inst, "Virtual Interface creation failed")
		r.nothingLeft()
	})
	t.Run("failed event is not fatal", func(t *testing.T) {
		r := newRig(t, func(o *compute.Options) { o.VIFPluggingFatal = false })
		inst := r.instance()
		r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
		r.wait("the plug", func() bool { return len(r.drv.Host().Residue()) == 3 })
		r.plugged(inst, "failed")
		r.waitState(inst, "active")
	})
	t.Run("a change of the network waits for the build", func(t *testing.T) {
		r := newRig(t, noWait)
		inst := r.instance()
		entered, release := r.drv.Stall(fake.StepStart)
		r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
		<-entered
		for range 3 {
			r.changed(inst)
		}
		if n := r.ports.refreshes(); n != 0 {
			t.Errorf("%d refreshes during the build", n)
		}
		release()
		r.waitState(inst, "active")
		r.wait("one refresh", func() bool { return r.ports.refreshes() == 1 })
	})
}

// changed calls, so that the event has been handled when it returns.
func (r *rig) changed(inst *objects.Object) {
	r.t.Helper()
	row := r.row(inst)
	ev := objects.New("InstanceExternalEvent")
	ev.Set("instance_uuid", row.String("uuid"))
	ev.Set("name", "network-changed")
	ev.Set("status", "completed")
	if err := r.call(messaging.AdminContext(), "external_instance_event", map[string]any{"instances": []any{row}, "events": []any{ev}}, nil); err != nil {
		r.t.Fatal(err)
	}
}

func TestBuildTwice(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.instance()
	rc, args := r.context(inst.String("uuid"), "create"), buildArgs(inst)
	for range 3 {
		r.cast(rc, "build_and_run_instance", args)
	}
	r.waitState(inst, "active")
	r.cast(rc, "build_and_run_instance", args)
	// Even without a memory of the message, the row decides.
	r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", args)
	r.wait("the second event", func() bool { return len(r.db.Events(inst.String("uuid"))) == 2 })
	row := r.waitState(inst, "active")
	if row.String("host") != host || r.drv.Boots(driver.InstanceUUID(inst.String("uuid"))) != 1 || len(r.db.Faults(inst.String("uuid"))) != 0 {
		t.Errorf("host %q, boots %d", row.String("host"), r.drv.Boots(driver.InstanceUUID(inst.String("uuid"))))
	}
	if len(r.tracker.allocated()) != 1 || len(r.tracker.claimed()) != 1 || r.ports.count() != 1 {
		t.Errorf("allocations %v, claims %v, ports %d, want one of each", r.tracker.allocated(), r.tracker.claimed(), r.ports.count())
	}
}

// A delete overtakes a build at each place where it can hang.
func TestDeleteDuringBuild(t *testing.T) {
	for _, step := range []fake.Step{fake.StepImage, fake.StepDisk, fake.StepPlug, fake.StepStart} {
		t.Run(string(step), func(t *testing.T) {
			r := newRig(t, noWait)
			inst := r.instance()
			entered, release := r.drv.Stall(step)
			defer release()
			r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
			<-entered
			r.ask(inst, "delete", "deleting", "terminate_instance", map[string]any{"bdms": nil})
			r.wantDeleted(inst)
			if r.find("build_instances") >= 0 || len(r.db.Faults(inst.String("uuid"))) != 0 {
				t.Error("a deleted build was rescheduled or has a fault")
			}
		})
	}
	t.Run("waiting for the event", func(t *testing.T) {
		r := newRig(t)
		inst := r.instance()
		r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
		r.wait("the plug", func() bool { return len(r.drv.Host().Residue()) == 3 })
		r.ask(inst, "delete", "deleting", "terminate_instance", nil)
		r.wantDeleted(inst)
	})
	t.Run("the row is gone", func(t *testing.T) {
		r := newRig(t, noWait)
		inst := r.instance()
		entered, release := r.drv.Stall(fake.StepStart)
		r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
		<-entered
		r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("deleted", true) })
		release()
		r.settled(inst)
		r.wait("the allocation to go", func() bool { return len(r.tracker.allocated()) == 0 })
		r.nothingLeft()
	})
	t.Run("the API deletes while we build", func(t *testing.T) {
		r := newRig(t, noWait)
		inst := r.instance()
		entered, release := r.drv.Stall(fake.StepStart)
		r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
		<-entered
		r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", "deleting") })
		release()
		r.settled(inst)
		if row := r.row(inst); row.String("task_state") != "deleting" {
			t.Errorf("task %q: the delete lost its task", row.String("task_state"))
		}
		if left := r.drv.Host().Residue(); len(left) != 0 {
			t.Errorf("left on the host: %q", left)
		}
		r.ask(inst, "delete", "deleting", "terminate_instance", nil)
		r.wantDeleted(inst)
	})
}

func (r *rig) wantDeleted(inst *objects.Object) {
	r.t.Helper()
	r.wait("the row to go", func() bool { return r.row(inst).Bool("deleted") })
	r.settled(inst)
	row := r.row(inst)
	if row.String("vm_state") != "deleted" || !row.IsNull("task_state") || !row.Bool("cleaned") {
		r.t.Errorf("state %s/%s, cleaned %t", row.String("vm_state"), row.String("task_state"), row.Bool("cleaned"))
	}
	r.nothingLeft()
	if left := r.tracker.allocated(); len(left) != 0 {
		r.t.Errorf("allocations left: %v", left)
	}
}

func TestBuildOfAnotherHost(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.instance()
	r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("host", "other") })
	inst = r.row(inst)
	if err := r.call(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst), nil); err != nil {
		t.Fatal(err)
	}
	if r.m.Busy(inst.String("uuid")) || len(r.db.Calls()) != 0 || r.row(inst).String("host") != "other" {
		t.Error("an instance of another host was touched")
	}
}
