package compute_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// sizedFlavor is another flavor than the instance has.
func sizedFlavor(id int, mb, gb int) *objects.Object {
	f := objects.New("Flavor")
	for k, v := range map[string]any{
		"id": id, "name": "c1.other", "memory_mb": mb, "vcpus": 2, "root_gb": gb, "ephemeral_gb": 0, "swap": 0,
		"flavorid": "9", "rxtx_factor": 1.0, "disabled": false, "is_public": true, "extra_specs": map[string]string{},
	} {
		f.SetClean(k, v)
	}
	return f
}

// prep is what the conductor does and casts for a resize on one host.
func (r *rig) prep(inst, flavor *objects.Object, more map[string]any) *objects.Object {
	r.t.Helper()
	mig := objects.New("Migration")
	for k, v := range map[string]any{
		"uuid": uuid.NewString(), "instance_uuid": inst.String("uuid"), "source_compute": host, "source_node": node,
		"status": "pre-migrating", "migration_type": "resize", "old_instance_type_id": 1, "new_instance_type_id": flavor.Int("id"),
	} {
		mig.SetClean(k, v)
	}
	mig = r.db.AddMigration(mig)
	r.tracker.allocate(mig.String("uuid"))
	args := map[string]any{
		"image": map[string]any{"id": "img"}, "flavor": flavor, "request_spec": map[string]any{}, "filter_properties": map[string]any{},
		"node": node, "clean_shutdown": true, "migration": mig, "host_list": []any{},
	}
	for k, v := range more {
		args[k] = v
	}
	r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("instance_type_id", 1) })
	r.ask(inst, "resize", "resize_prep", "prep_resize", args)
	return mig
}

func (r *rig) migration(mig *objects.Object) *objects.Object {
	for _, m := range r.db.Migrations() {
		if m.String("uuid") == mig.String("uuid") {
			return m
		}
	}
	return nil
}

// resized returns an instance in vm state resized, whose guest ran on.
func (r *rig) resized() (inst, mig *objects.Object) {
	r.t.Helper()
	inst = r.active()
	mig = r.prep(inst, sizedFlavor(2, 128, 2), nil)
	row := r.waitState(inst, "resized")
	if row.Int("memory_mb") != 128 || row.Int("instance_type_id") != 2 || row.Object("flavor").Int("vcpus") != 2 || row.Object("old_flavor").Int("memory_mb") != 64 {
		r.t.Errorf("row = %v, %v", row.Int("memory_mb"), row.Object("flavor"))
	}
	r.wantPower(inst, driver.PowerRunning)
	if n := r.drv.Boots(uuidOf(inst)); n != 1 {
		r.t.Errorf("the guest was started %d times", n)
	}
	if got := r.migration(mig); got.String("status") != "finished" || got.String("dest_compute") != host || got.String("dest_node") != node {
		r.t.Errorf("migration = %s to %s %s", got.String("status"), got.String("dest_compute"), got.String("dest_node"))
	}
	return inst, mig
}

func TestResizeConfirm(t *testing.T) {
	r := newRig(t, noWait)
	inst, mig := r.resized()
	done := map[string]string{}
	for _, e := range r.db.Events(inst.String("uuid")) {
		done[e.Name] = e.Result
	}
	for _, event := range []string{"compute_prep_resize", "compute_resize_instance", "compute_finish_resize"} {
		if done[event] != "Success" {
			t.Errorf("%s: %q", event, done[event])
		}
	}
	r.ask(inst, "confirmResize", "", "confirm_resize", map[string]any{"migration": r.migration(mig)})
	r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", nil) })
	row := r.waitState(inst, "active")
	r.wait("the migration to be confirmed", func() bool { return r.migration(mig).String("status") == "confirmed" })
	meta := row.Strings("system_metadata")
	if row.Object("old_flavor") != nil || row.Object("new_flavor") != nil || meta["old_vm_state"] != "" || !row.IsNull("migration_context") || row.Int("memory_mb") != 128 {
		t.Errorf("old %v, new %v, %v", row.Object("old_flavor"), row.Object("new_flavor"), meta)
	}
	if slices.Contains(r.tracker.allocated(), mig.String("uuid")) || !slices.Contains(r.tracker.allocated(), inst.String("uuid")) {
		t.Errorf("allocations %v", r.tracker.allocated())
	}
	r.ask(inst, "delete", "deleting", "terminate_instance", nil)
	r.wantDeleted(inst)
	r.wait("claims", func() bool { return len(r.tracker.claimed()) == 0 })
	r.nothingLeft()
}

func TestResizeRevert(t *testing.T) {
	r := newRig(t, noWait)
	inst, mig := r.resized()
	r.ask(inst, "revertResize", "resize_reverting", "revert_resize", map[string]any{"migration": r.migration(mig)})
	row := r.waitState(inst, "active")
	if row.Int("memory_mb") != 64 || row.Object("flavor").Int("memory_mb") != 64 || row.Object("old_flavor") != nil || r.migration(mig).String("status") != "reverted" {
		t.Errorf("memory %d, migration %s", row.Int("memory_mb"), r.migration(mig).String("status"))
	}
	if req, _ := r.drv.Request(uuidOf(inst)); req.Flavor.MemoryMB != 64 || r.drv.Boots(uuidOf(inst)) != 1 {
		t.Errorf("guest has %d MiB after %d starts", req.Flavor.MemoryMB, r.drv.Boots(uuidOf(inst)))
	}
	if slices.Contains(r.tracker.allocated(), mig.String("uuid")) {
		t.Errorf("allocations %v", r.tracker.allocated())
	}
	r.wantEvent(inst, "compute_finish_revert_resize", "Success")
}

// Each step can fail; the instance is then what it was.
func TestResizeFails(t *testing.T) {
	boom := errors.New("boom")
	tests := map[string]struct {
		fail   func(*rig)
		flavor *objects.Object
		text   string
	}{
		"no room":     {func(r *rig) { r.tracker.err = errdefs.ErrExhausted }, nil, ""},
		"migrate":     {func(r *rig) { r.drv.FailNext(fake.StepMigrate, boom) }, nil, ""},
		"finish":      {func(r *rig) { r.drv.FailNext(fake.StepFinish, boom) }, nil, ""},
		"smaller":     {func(*rig) {}, sizedFlavor(3, 64, 0), "Resize error: Unable to resize disk down."},
		"same flavor": {func(*rig) {}, sizedFlavor(1, 64, 1), ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, noWait)
			inst := r.active()
			tc.fail(r)
			flavor := tc.flavor
			if flavor == nil {
				flavor = sizedFlavor(2, 128, 2)
			}
			mig := r.prep(inst, flavor, nil)
			r.wait("the migration to fail", func() bool { return r.migration(mig).String("status") == "error" })
			row := r.waitState(inst, "active")
			r.wantPower(inst, driver.PowerRunning)
			faults := r.db.Faults(inst.String("uuid"))
			if row.Int("memory_mb") != 64 || row.Object("flavor").Int("memory_mb") != 64 || row.String("host") != host || len(faults) != 1 {
				t.Errorf("row has %d MiB on %s, %d faults", row.Int("memory_mb"), row.String("host"), len(faults))
			}
			if tc.text != "" && faults[0].String("message") != tc.text {
				t.Errorf("fault %q", faults[0].String("message"))
			}
			if got := r.tracker.allocated(); len(got) != 1 || got[0] != inst.String("uuid") {
				t.Errorf("allocations %v", got)
			}
			if r.drv.Boots(uuidOf(inst)) != 1 {
				t.Errorf("started %d times", r.drv.Boots(uuidOf(inst)))
			}
		})
	}
}

// A host that cannot take the instance hands it back to the conductor.
func TestResizeReschedule(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	r.tracker.err = errdefs.ErrExhausted
	r.prep(inst, sizedFlavor(2, 128, 2), map[string]any{
		"filter_properties": map[string]any{"retry": map[string]any{"num_attempts": 1, "hosts": [][]string{{host, node}}}},
	})
	r.wait("migrate_server", func() bool { return r.find("migrate_server") >= 0 })
	r.settled(inst)
	call := r.db.Calls()[r.find("migrate_server")]
	if call.Kwargs["live"] != false || call.Kwargs["flavor"].(*objects.Object).Int("id") != 2 || len(r.db.Faults(inst.String("uuid"))) != 1 {
		t.Errorf("migrate_server(%v)", call.Kwargs)
	}
	if row := r.row(inst); row.String("task_state") != "resize_prep" {
		t.Errorf("task %q: the next host expects it", row.String("task_state"))
	}
}

// A message that comes twice changes nothing.
func TestStaleResize(t *testing.T) {
	r := newRig(t, noWait)
	inst, mig := r.resized()
	err := r.call(r.context(inst.String("uuid"), "resize"), "finish_resize", map[string]any{
		"instance": r.row(inst), "migration": r.migration(mig), "disk_info": "{}", "image": nil, "request_spec": nil,
	}, nil)
	if !messaging.IsRemote(err, "UnexpectedTaskStateError") || r.migration(mig).String("status") != "finished" || r.row(inst).String("vm_state") != "resized" {
		t.Errorf("%v: migration %s", err, r.migration(mig).String("status"))
	}
}

func migration() *objects.Object {
	m := objects.New("Migration")
	m.SetClean("id", 1)
	m.SetClean("uuid", "1f3c1ad0-5a29-41ab-8bb2-7b2f11b0a001")
	m.SetClean("status", "accepted")
	return m
}
