package compute_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// A resize that a kill has cut off is undone, whatever step it was in.
func TestAbandonMove(t *testing.T) {
	for _, tc := range []struct {
		what, task, vm, status string
		arrived                bool // the guest has the new flavor
		want                   string
		power                  driver.PowerState
		ends                   string
	}{
		{"asked", "resize_prep", "active", "pre-migrating", false, "active", driver.PowerRunning, "error"},
		{"asked of a stopped one", "resize_prep", "stopped", "pre-migrating", false, "stopped", driver.PowerShutdown, "error"},
		{"begun", "resize_migrating", "active", "migrating", false, "active", driver.PowerRunning, "error"},
		{"on its way", "resize_migrated", "active", "post-migrating", true, "active", driver.PowerRunning, "error"},
		{"arriving", "resize_finish", "active", "post-migrating", true, "active", driver.PowerRunning, "error"},
		{"arrived", "resize_finish", "active", "finished", true, "active", driver.PowerRunning, "error"},
		{"reverting", "resize_reverting", "resized", "reverting", true, "active", driver.PowerRunning, "reverted"},
		{"reverted", "resize_reverting", "resized", "reverted", true, "active", driver.PowerRunning, "reverted"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			r := newRig(t, noWait)
			var inst, mig *objects.Object
			if tc.arrived {
				inst, mig = r.resized()
			} else {
				inst = r.active()
				mig = r.unprepared(inst)
			}
			id := inst.String("uuid")
			if tc.vm == "stopped" {
				if err := r.drv.PowerOff(t.Context(), uuidOf(inst), driver.PowerOffOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			now := r.migration(mig)
			now.Set("status", tc.status)
			if err := r.conductor.SaveMigration(t.Context(), messaging.AdminContext(), now); err != nil {
				t.Fatal(err)
			}
			r.db.Update(id, func(row objects.Instance) {
				row.Set("task_state", tc.task)
				row.Set("vm_state", tc.vm)
			})
			if err := r.m.AbandonMove(t.Context(), messaging.AdminContext(), r.row(inst)); err != nil {
				t.Fatal(err)
			}
			row := r.row(inst)
			if row.String("vm_state") != tc.want || !row.IsNull("task_state") || row.Int("memory_mb") != 64 || row.Object("flavor").Int("memory_mb") != 64 ||
				row.Object("old_flavor") != nil || row.Strings("system_metadata")["old_vm_state"] != "" {
				t.Errorf("row %s/%s with %d MiB, %v", row.String("vm_state"), row.String("task_state"), row.Int("memory_mb"), row.Strings("system_metadata"))
			}
			if req, _ := r.drv.Request(uuidOf(inst)); req.Flavor.MemoryMB != 64 {
				t.Errorf("guest has %d MiB", req.Flavor.MemoryMB)
			}
			if info, err := r.drv.Info(t.Context(), uuidOf(inst)); err != nil || info.State != tc.power {
				t.Errorf("guest is %s, %v", info.State, err)
			}
			if got := r.migration(mig).String("status"); got != tc.ends {
				t.Errorf("migration %s, want %s", got, tc.ends)
			}
			if got := r.tracker.allocated(); len(got) != 1 || got[0] != id {
				t.Errorf("allocations %v", got)
			}
			if n := r.drv.Boots(uuidOf(inst)); n != 1 {
				t.Errorf("started %d times", n)
			}
		})
	}
}

func TestConfirmMove(t *testing.T) {
	r := newRig(t, noWait)
	inst, mig := r.resized()
	if err := r.m.ConfirmMove(t.Context(), messaging.AdminContext(), r.row(inst), r.migration(mig)); err != nil {
		t.Fatal(err)
	}
	if row := r.row(inst); row.String("vm_state") != "active" || row.Int("memory_mb") != 128 || r.migration(mig).String("status") != "confirmed" {
		t.Errorf("%s with %d MiB, migration %s", row.String("vm_state"), row.Int("memory_mb"), r.migration(mig).String("status"))
	}
	if got := r.tracker.allocated(); len(got) != 1 || got[0] != inst.String("uuid") {
		t.Errorf("allocations %v", got)
	}
}

// unprepared is a resize that the conductor has asked for and nobody has begun.
func (r *rig) unprepared(inst *objects.Object) *objects.Object {
	mig := objects.New("Migration")
	for k, v := range map[string]any{
		"uuid": uuid.NewString(), "instance_uuid": inst.String("uuid"), "source_compute": host, "source_node": node,
		"status": "pre-migrating", "migration_type": "resize", "old_instance_type_id": 1, "new_instance_type_id": 2,
	} {
		mig.SetClean(k, v)
	}
	mig = r.db.AddMigration(mig)
	r.tracker.allocate(mig.String("uuid"))
	return mig
}
