package compute_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func uuidOf(inst *objects.Object) driver.InstanceUUID {
	return driver.InstanceUUID(inst.String("uuid"))
}

func (r *rig) wantPower(inst *objects.Object, want driver.PowerState) {
	r.t.Helper()
	info, err := r.drv.Info(r.t.Context(), uuidOf(inst))
	if err != nil || info.State != want {
		r.t.Errorf("guest is %s, %v, want %s", info.State, err, want)
	}
	if got := driver.PowerState(r.row(inst).Int("power_state")); got != want {
		r.t.Errorf("row says %s, want %s", got, want)
	}
}

// wantEvent checks the last event of the instance.
func (r *rig) wantEvent(inst *objects.Object, name, result string) {
	r.t.Helper()
	events := r.db.Events(inst.String("uuid"))
	last := events[len(events)-1]
	if last.Name != name || last.Result != result || last.Host != host {
		r.t.Errorf("last event = %+v, want %s %s", last, name, result)
	}
}

func TestVerbs(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	steps := []struct {
		action, task, method string
		args                 map[string]any
		state                string
		power                driver.PowerState
		boots                int
	}{
		{"stop", "powering-off", "stop_instance", map[string]any{"clean_shutdown": true}, "stopped", driver.PowerShutdown, 1},
		{"start", "powering-on", "start_instance", nil, "active", driver.PowerRunning, 2},
		{"reboot", "rebooting", "reboot_instance", map[string]any{"block_device_info": nil, "reboot_type": "SOFT"}, "active", driver.PowerRunning, 3},
		{"reboot", "rebooting_hard", "reboot_instance", map[string]any{"block_device_info": nil, "reboot_type": "HARD"}, "active", driver.PowerRunning, 4},
		{"pause", "pausing", "pause_instance", nil, "paused", driver.PowerPaused, 4},
		{"unpause", "unpausing", "unpause_instance", nil, "active", driver.PowerRunning, 4},
		{"softDelete", "soft-deleting", "soft_delete_instance", nil, "soft-delete", driver.PowerShutdown, 4},
		{"restore", "restoring", "restore_instance", nil, "active", driver.PowerRunning, 5},
	}
	for _, s := range steps {
		r.ask(inst, s.action, s.task, s.method, s.args)
		r.wait("an event of "+s.method, func() bool {
			ev := r.db.Events(inst.String("uuid"))
			return ev[len(ev)-1].Name == "compute_"+s.method
		})
		r.waitState(inst, s.state)
		r.wantPower(inst, s.power)
		r.wantEvent(inst, "compute_"+s.method, "Success")
		if got := r.drv.Boots(uuidOf(inst)); got != s.boots {
			t.Errorf("after %s: %d boots, want %d", s.method, got, s.boots)
		}
	}
	r.ask(inst, "delete", "deleting", "terminate_instance", nil)
	r.wantDeleted(inst)
	r.wantEvent(inst, "compute_terminate_instance", "Success")
	r.wait("the scheduler to be told of the delete", func() bool { return r.find("delete_instance_info") >= 0 })
}

// A verb that fails gives its task back, stores a fault and an error event;
// the instance stays what it was.
func TestVerbFails(t *testing.T) {
	tests := []struct {
		name, task, method string
		args               map[string]any
		break_             func(*rig, *objects.Object)
		state              string
		faults             int
		result             string
	}{
		{"stop", "powering-off", "stop_instance", nil, func(r *rig, _ *objects.Object) { r.drv.FailNext(fake.StepOff, errdefs.ErrUnavailable) }, "active", 1, "Error"},
		{"start", "powering-on", "start_instance", nil, func(r *rig, _ *objects.Object) { r.drv.FailNext(fake.StepOn, errors.New("boom")) }, "active", 1, "Error"},
		{"guest gone", "pausing", "pause_instance", nil, func(r *rig, i *objects.Object) { _ = r.drv.Destroy(r.t.Context(), uuidOf(i)) }, "active", 1, "Error"},
		{"reboot, guest runs on", "rebooting", "reboot_instance", map[string]any{"reboot_type": "SOFT"}, func(r *rig, _ *objects.Object) { r.drv.FailNext(fake.StepReboot, errors.New("boom")) }, "active", 1, "Success"},
		{"reboot, guest down", "rebooting_hard", "reboot_instance", map[string]any{"reboot_type": "HARD"}, func(r *rig, i *objects.Object) {
			_ = r.drv.PowerOff(r.t.Context(), uuidOf(i), driver.PowerOffOptions{})
			r.drv.FailNext(fake.StepReboot, errors.New("boom"))
		}, "error", 1, "Error"},
		{"delete, guest stuck", "deleting", "terminate_instance", nil, func(r *rig, _ *objects.Object) { r.drv.FailNext(fake.StepDestroy, errors.New("busy")) }, "error", 1, "Error"},
		{"delete, neutron away", "deleting", "terminate_instance", nil, func(r *rig, _ *objects.Object) { r.ports.fail(errdefs.ErrUnavailable) }, "error", 1, "Error"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, noWait)
			inst := r.active()
			tc.break_(r, inst)
			before := len(r.db.Events(inst.String("uuid")))
			r.ask(inst, tc.name, tc.task, tc.method, tc.args)
			r.wait("the event", func() bool { return len(r.db.Events(inst.String("uuid"))) > before })
			r.waitState(inst, tc.state)
			r.wantEvent(inst, "compute_"+tc.method, tc.result)
			faults := r.db.Faults(inst.String("uuid"))
			if len(faults) != tc.faults {
				t.Fatalf("%d faults, want %d", len(faults), tc.faults)
			}
			if text := faults[0].String("message"); strings.Contains(text, "boom") || strings.Contains(text, "busy") || text == "" {
				t.Errorf("fault = %q", text)
			}
			// The user deletes what failed, and that works.
			r.ask(inst, "delete", "deleting", "terminate_instance", nil)
			r.wantDeleted(inst)
		})
	}
}

func TestStartWithoutNeutron(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	r.ask(inst, "stop", "powering-off", "stop_instance", nil)
	r.waitState(inst, "stopped")
	r.ports.fail(errdefs.ErrUnavailable)
	r.ask(inst, "start", "powering-on", "start_instance", nil)
	r.waitState(inst, "active")
}

// A delete that comes while a stop hangs keeps its task.
func TestDeleteDuringStop(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	entered, release := r.drv.Stall(fake.StepOff)
	r.ask(inst, "stop", "powering-off", "stop_instance", nil)
	<-entered
	r.ask(inst, "delete", "deleting", "terminate_instance", nil)
	r.drv.FailNext(fake.StepOff, errors.New("late")) // must not matter
	release()
	r.wantDeleted(inst)
	if n := len(r.db.Faults(inst.String("uuid"))); n != 0 {
		t.Errorf("%d faults for a stop that a delete overtook", n)
	}
}

func TestTerminateTwiceAndGone(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", "deleting") })
	row := r.row(inst)
	for range 3 {
		rc := r.context(inst.String("uuid"), "delete")
		if err := r.call(rc, "terminate_instance", map[string]any{"instance": row}, nil); err != nil {
			t.Fatalf("terminate: %v", err)
		}
	}
	r.wantDeleted(inst)
}

func TestForeignInstance(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	stale := r.row(inst)
	stale.SetClean("host", "other")
	r.wait("the scheduler to be told", func() bool { return r.find("update_instance_info") >= 0 })
	r.db.ResetCalls()
	for _, method := range []string{"stop_instance", "terminate_instance", "reboot_instance", "get_console_output", "snapshot_instance"} {
		err := r.call(r.context(inst.String("uuid"), method), method, map[string]any{"instance": stale}, nil)
		if !messaging.IsRemote(err, "InstanceNotFound") {
			t.Errorf("%s: %v, want InstanceNotFound", method, err)
		}
	}
	if calls := r.db.Calls(); len(calls) != 0 {
		t.Errorf("conductor was called: %v", calls)
	}
	r.wantPower(inst, driver.PowerRunning)
}

func TestSnapshot(t *testing.T) {
	const id = "img-1"
	snap := map[string]any{"image_id": id}
	t.Run("done", func(t *testing.T) {
		r := newRig(t, noWait)
		inst := r.active()
		r.images.add(id)
		r.ask(inst, "createImage", "image_snapshot_pending", "snapshot_instance", snap)
		r.wait("the upload", func() bool { return r.images.get(id).active })
		r.waitState(inst, "active")
		got := r.images.get(id)
		if got.disk != "raw" || got.container != "docker" || !strings.Contains(string(got.content), inst.String("uuid")) {
			t.Errorf("image = %+v", got)
		}
		if got.properties["image_state"] != "available" || got.properties["image_location"] != "snapshot" || got.properties["owner_id"] != "p1" {
			t.Errorf("properties = %v", got.properties)
		}
		r.wantEvent(inst, "compute_snapshot_instance", "Success")
		if slices.ContainsFunc(r.drv.Host().Residue(), func(s string) bool { return strings.HasPrefix(s, "snapshot") }) {
			t.Error("temporary content left")
		}
	})
	failures := []struct {
		name    string
		break_  func(*rig)
		faults  int
		result  string
		removed bool
	}{
		{"capture fails", func(r *rig) { r.drv.FailNext(fake.StepCapture, errdefs.ErrExhausted) }, 1, "Error", true},
		{"content breaks off", func(r *rig) { r.drv.FailNext(fake.StepRead, errdefs.ErrCorrupt) }, 1, "Error", true},
		{"glance refuses", func(r *rig) { r.images.err = errdefs.ErrForbidden }, 1, "Error", true},
		{"user deleted the image", func(r *rig) { _ = r.images.Delete(r.t.Context(), driver.Credentials{}, id) }, 0, "Success", true},
	}
	for _, tc := range failures {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, noWait)
			inst := r.active()
			r.images.add(id)
			tc.break_(r)
			r.ask(inst, "createImage", "image_snapshot_pending", "snapshot_instance", snap)
			r.wait("the event", func() bool { return len(r.db.Events(inst.String("uuid"))) == 2 })
			r.waitState(inst, "active")
			r.wantEvent(inst, "compute_snapshot_instance", tc.result)
			if n := len(r.db.Faults(inst.String("uuid"))); n != tc.faults {
				t.Errorf("%d faults, want %d", n, tc.faults)
			}
			if (r.images.get(id) == nil) != tc.removed {
				t.Errorf("image = %+v", r.images.get(id))
			}
		})
	}
	t.Run("deleted meanwhile", func(t *testing.T) {
		r := newRig(t, noWait)
		inst := r.active()
		r.images.add(id)
		entered, release := r.drv.Stall(fake.StepRead)
		defer release()
		r.ask(inst, "createImage", "image_snapshot_pending", "snapshot_instance", snap)
		<-entered
		r.ask(inst, "delete", "deleting", "terminate_instance", nil)
		r.wantDeleted(inst)
		if r.images.get(id) != nil {
			t.Error("the unfilled image was left")
		}
	})
}

func TestReads(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	rc := r.context(inst.String("uuid"), "read")
	r.drv.WriteConsole(uuidOf(inst), []byte("gr\xc3\xbc\xc3\x9fe \xff\n"))
	for _, tc := range []struct {
		tail any
		want string
	}{{nil, "boot 1 of web\nlogin:\ngr??e ?\n"}, {1, ""}, {"2", "gr??e ?\n"}, {3, "login:\ngr??e ?\n"}, {9, "boot 1 of web\nlogin:\ngr??e ?\n"}, {0, ""}} {
		var got string
		if err := r.call(rc, "get_console_output", map[string]any{"instance": r.row(inst), "tail_length": tc.tail}, &got); err != nil || got != tc.want {
			t.Errorf("console, tail %v = %q, %v, want %q", tc.tail, got, err, tc.want)
		}
	}
	var diag objects.Object
	if err := r.call(rc, "get_instance_diagnostics", map[string]any{"instance": r.row(inst)}, &diag); err != nil {
		t.Fatal(err)
	}
	if diag.Name != "Diagnostics" || diag.String("state") != "running" || diag.String("driver") != "libvirt" || diag.Int("num_cpus") != 1 ||
		len(diag.Objects("nic_details")) != 1 || diag.Object("memory_details").Int("maximum") != 64 {
		t.Errorf("diagnostics = %+v", &diag)
	}
	var old map[string]any
	if err := r.call(rc, "get_diagnostics", map[string]any{"instance": r.row(inst)}, &old); err != nil || old["nic0_rx"] == nil {
		t.Errorf("old diagnostics = %v, %v", old, err)
	}
	var text string
	if err := r.call(rc, "get_host_uptime", nil, &text); err != nil || !strings.Contains(text, "up 1 day,  2:03,  0 users,  load average: 0.25, 0.50, 0.75") {
		t.Errorf("uptime = %q, %v", text, err)
	}
	if err := r.call(rc, "set_host_enabled", map[string]any{"enabled": false}, &text); err != nil || text != "disabled" {
		t.Errorf("set_host_enabled = %q, %v", text, err)
	}
	var port bool
	args := map[string]any{"instance": r.row(inst), "port": "5900", "console_type": "novnc"}
	if err := r.call(rc, "validate_console_port", args, &port); err != nil || port {
		t.Errorf("validate_console_port = %t, %v", port, err)
	}
	r.drv.Host().Serve("new")
	var cached map[string]string
	if err := r.call(rc, "cache_images", map[string]any{"image_ids": []string{"new", "none"}}, &cached); err != nil || cached["new"] != "cached" || cached["none"] != "error" {
		t.Errorf("cache_images = %v, %v", cached, err)
	}
	r.ask(inst, "stop", "powering-off", "stop_instance", nil)
	r.waitState(inst, "stopped")
	err := r.call(rc, "get_instance_diagnostics", map[string]any{"instance": r.row(inst)}, nil)
	if !messaging.IsRemote(err, "InstanceInvalidState") {
		t.Errorf("diagnostics of a stopped instance: %v", err)
	}
}
