package compute_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// stranded is an instance of a host that is dead, with its evacuation asked for.
func (r *rig) stranded(state string) (inst, mig *objects.Object) {
	r.t.Helper()
	r.images.serve(driver.Image{ID: "img", Name: "busybox", DiskFormat: "raw"})
	inst = r.instance()
	r.db.Update(inst.String("uuid"), func(row objects.Instance) {
		row.Set("host", "dead")
		row.Set("node", "dead.example")
		row.Set("vm_state", state)
		row.Set("task_state", nil)
	})
	mig = objects.New("Migration")
	for k, v := range map[string]any{
		"uuid": uuid.NewString(), "instance_uuid": inst.String("uuid"), "source_compute": "dead", "source_node": "dead.example",
		"dest_compute": host, "dest_node": node, "status": "accepted", "migration_type": "evacuation",
	} {
		mig.SetClean(k, v)
	}
	return inst, r.db.AddMigration(mig)
}

func (r *rig) evacuate(inst, mig *objects.Object, more map[string]any) {
	r.t.Helper()
	args := map[string]any{
		"image_ref": nil, "orig_image_ref": nil, "orig_sys_metadata": nil, "new_pass": "fresh", "injected_files": [][]string{}, "bdms": nil,
		"recreate": true, "on_shared_storage": nil, "preserve_ephemeral": false, "migration": mig, "scheduled_node": node, "limits": map[string]any{},
		"request_spec": nil, "accel_uuids": []string{}, "reimage_boot_volume": false,
	}
	for k, v := range more {
		args[k] = v
	}
	r.ask(inst, "evacuate", "rebuilding", "rebuild_instance", args)
	r.wait("the evacuation", func() bool { return r.ended(inst, "compute_rebuild_instance") > 0 })
	r.settled(inst)
}

func TestEvacuate(t *testing.T) {
	for state, power := range map[string]driver.PowerState{"active": driver.PowerRunning, "stopped": driver.PowerShutdown} {
		t.Run(state, func(t *testing.T) {
			r := newRig(t, noWait)
			inst, mig := r.stranded(state)
			r.evacuate(inst, mig, nil)
			row := r.waitState(inst, state)
			r.wantPower(inst, power)
			if row.String("host") != host || row.String("node") != node || r.migration(mig).String("status") != "done" {
				t.Errorf("on %s %s, migration %s", row.String("host"), row.String("node"), r.migration(mig).String("status"))
			}
			if req, _ := r.drv.Request(uuidOf(inst)); req.Image.ID != "img" || req.AdminPassword != "fresh" || req.PublicKey == "" {
				t.Errorf("request %+v", req)
			}
			if got := r.tracker.claimed(); len(got) != 1 || got[0] != inst.String("uuid") {
				t.Errorf("claims %v", got)
			}
			r.ask(inst, "delete", "deleting", "terminate_instance", nil)
			r.wantDeleted(inst)
		})
	}
}

// An instance that cannot come stays the other host's, and holds nothing here.
func TestEvacuateFails(t *testing.T) {
	for what, tc := range map[string]struct {
		fail func(*rig)
		args map[string]any
	}{
		"no room":        {func(r *rig) { r.tracker.err = errdefs.ErrExhausted }, nil},
		"no image":       {func(r *rig) { r.images.m = map[string]*image{} }, nil},
		"no port":        {func(r *rig) { r.ports.fail(errdefs.ErrForbidden) }, nil},
		"start":          {func(r *rig) { r.drv.FailNext(fake.StepStart, errors.New("boom")) }, nil},
		"shared storage": {func(*rig) {}, map[string]any{"on_shared_storage": true}},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, noWait)
			inst, mig := r.stranded("active")
			tc.fail(r)
			r.evacuate(inst, mig, tc.args)
			row := r.waitState(inst, "active")
			if row.String("host") != "dead" || row.String("node") != "dead.example" || r.migration(mig).String("status") != "error" {
				t.Errorf("on %s %s, migration %s", row.String("host"), row.String("node"), r.migration(mig).String("status"))
			}
			if _, err := r.drv.Info(t.Context(), uuidOf(inst)); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("a guest is left: %v", err)
			}
			if len(r.db.Faults(inst.String("uuid"))) != 1 || len(r.tracker.claimed())+len(r.tracker.allocated()) != 0 {
				t.Errorf("%d faults, claims %v, allocations %v", len(r.db.Faults(inst.String("uuid"))), r.tracker.claimed(), r.tracker.allocated())
			}
		})
	}
}
