package compute_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// other is a second host of a rig.
type other struct {
	*rig
	name string
	drv  *fake.Driver
	m    *compute.Manager
}

func (r *rig) otherHost() *other {
	r.t.Helper()
	o := &other{rig: r, name: "cmp2", drv: fake.New()}
	opt := r.opt
	opt.Host = o.name
	o.m = r.managerOf(conductor.New(r.caller, o.name), o.drv, opt)
	r.serve("compute", o.name, o.m.Endpoints())
	return o
}

// castTo casts to one of the hosts.
func (r *rig) castTo(server string, inst *objects.Object, action, task, method string, args map[string]any) {
	r.t.Helper()
	id := inst.String("uuid")
	rc := r.context(id, action)
	r.db.Update(id, func(row objects.Instance) {
		row.Set("task_state", nil)
		if task != "" {
			row.Set("task_state", task)
		}
	})
	args["instance"] = r.row(inst)
	to := target()
	to.Server = server
	if err := r.api.Cast(r.t.Context(), rc, to, method, args); err != nil {
		r.t.Fatalf("cast %s: %v", method, err)
	}
}

// migrate is what the conductor does and casts for a move to the other host.
func (o *other) migrate(inst *objects.Object) (mig *objects.Object) {
	o.t.Helper()
	flavor := inst.Object("flavor")
	mig = objects.New("Migration")
	for k, v := range map[string]any{
		"uuid": uuid.NewString(), "instance_uuid": inst.String("uuid"), "source_compute": host, "source_node": node,
		"status": "pre-migrating", "migration_type": "migration", "old_instance_type_id": 1, "new_instance_type_id": 1,
	} {
		mig.SetClean(k, v)
	}
	mig = o.db.AddMigration(mig)
	o.tracker.allocate(mig.String("uuid"))
	o.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("instance_type_id", 1) })
	o.castTo(o.name, inst, "migrate", "resize_prep", "prep_resize", map[string]any{
		"image": map[string]any{"id": "img"}, "flavor": flavor, "request_spec": map[string]any{}, "filter_properties": map[string]any{},
		"node": node, "clean_shutdown": true, "migration": mig, "host_list": []any{},
	})
	return mig
}

// moved returns an instance in vm state resized on the other host.
func (o *other) moved() (inst, mig *objects.Object) {
	o.t.Helper()
	inst = o.active()
	mig = o.migrate(inst)
	row := o.waitState(inst, "resized")
	if got := o.migration(mig); row.String("host") != o.name || got.String("status") != "finished" || got.String("dest_compute") != o.name {
		o.t.Errorf("on %s, migration %s to %s", row.String("host"), got.String("status"), got.String("dest_compute"))
	}
	o.power("there", o.drv, inst, driver.PowerRunning)
	o.power("here", o.rig.drv, inst, driver.PowerShutdown)
	return inst, mig
}

func (o *other) power(where string, d *fake.Driver, inst *objects.Object, want driver.PowerState) {
	o.t.Helper()
	info, err := d.Info(o.t.Context(), uuidOf(inst))
	if err != nil || info.State != want {
		o.t.Errorf("%s it is %s, %v", where, info.State, err)
	}
}

func (o *other) nothing(where string, d *fake.Driver) {
	o.t.Helper()
	if left := d.Host().Residue(); len(left) != 0 {
		o.t.Errorf("%s is left: %q", where, left)
	}
}

// back fails the test unless the instance is on its first host as before.
func (o *other) back(inst, mig *objects.Object, status string) {
	o.t.Helper()
	o.wait("the migration to end", func() bool { return o.migration(mig).String("status") == status })
	row := o.waitState(inst, "active")
	if row.String("host") != host || row.Object("old_flavor") != nil || !row.IsNull("migration_context") || row.Strings("system_metadata")["gantry_move_peer"] != "" {
		o.t.Errorf("on %s, %v", row.String("host"), row.Strings("system_metadata"))
	}
	o.power("here", o.rig.drv, inst, driver.PowerRunning)
	o.nothing("there", o.drv)
	if got := o.tracker.allocated(); len(got) != 1 || got[0] != inst.String("uuid") {
		o.t.Errorf("allocations %v", got)
	}
}

func TestMoveConfirm(t *testing.T) {
	o := newRig(t, noWait).otherHost()
	inst, mig := o.moved()
	o.castTo(host, inst, "confirmResize", "", "confirm_resize", map[string]any{"migration": o.migration(mig)})
	row := o.waitState(inst, "active")
	o.wait("the migration to be confirmed", func() bool { return o.migration(mig).String("status") == "confirmed" })
	if row.String("host") != o.name || row.Object("old_flavor") != nil {
		t.Errorf("on %s", row.String("host"))
	}
	o.nothing("here", o.rig.drv)
	o.power("there", o.drv, inst, driver.PowerRunning)
	if got := o.tracker.allocated(); len(got) != 1 || got[0] != inst.String("uuid") {
		t.Errorf("allocations %v", got)
	}
}

func TestMoveRevert(t *testing.T) {
	o := newRig(t, noWait).otherHost()
	inst, mig := o.moved()
	o.castTo(o.name, inst, "revertResize", "resize_reverting", "revert_resize", map[string]any{"migration": o.migration(mig)})
	o.back(inst, mig, "reverted")
}

func TestMoveFails(t *testing.T) {
	boom := errors.New("boom")
	for name, fail := range map[string]func(*other){
		"no room":    func(o *other) { o.tracker.err = errdefs.ErrExhausted },
		"unexpected": func(o *other) { o.drv.FailNext(fake.StepExpect, boom) },
		"no offer":   func(o *other) { o.rig.drv.FailNext(fake.StepMigrate, boom) },
		"no arrival": func(o *other) { o.drv.FailNext(fake.StepFinish, boom) },
		"of another hypervisor": func(o *other) {
			libvirt := objects.ComputeNode{Object: objects.New("ComputeNode")}
			libvirt.Set("host", host)
			libvirt.Set("hypervisor_hostname", node)
			libvirt.SetHypervisor("QEMU", 7002000, "")
			libvirt.SetTotals(4, 4096, 40)
			libvirt.SetUsage(objects.Usage{})
			if err := conductor.New(o.caller, host).CreateComputeNode(o.t.Context(), messaging.AdminContext(), libvirt.Object); err != nil {
				o.t.Fatal(err)
			}
			o.drv.FailNext(fake.StepExpect, boom) // it does not come to that
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newRig(t, noWait).otherHost()
			inst := o.active()
			fail(o)
			mig := o.migrate(inst)
			o.wait("the migration to fail", func() bool { return o.migration(mig).String("status") == "error" })
			if name == "no offer" { // the expectation goes by its age
				if err := o.drv.Destroy(t.Context(), uuidOf(inst)); err != nil {
					t.Fatal(err)
				}
			}
			o.back(inst, mig, "error")
			if n := len(o.db.Faults(inst.String("uuid"))); n != 1 {
				t.Errorf("%d faults", n)
			}
		})
	}
}

// A kill of either service in any step of a move brings the instance back.
func TestAbandonMoveOfTwoHosts(t *testing.T) {
	const here, there = true, false
	for _, tc := range []struct {
		what         string
		killed       bool
		task, status string
		host         string
		gone         bool // nothing of it is there any more
		ends         string
	}{
		{"left and lost", here, "resize_migrated", "post-migrating", "cmp2", true, "error"},
		{"left", there, "resize_migrated", "post-migrating", "cmp2", true, "error"},
		{"arriving", there, "resize_finish", "post-migrating", "cmp2", false, "error"},
		{"arrived", there, "resize_finish", "finished", "cmp2", false, "error"},
		{"reverting", there, "resize_reverting", "reverting", "cmp2", false, "reverted"},
		{"destroyed", there, "resize_reverting", "reverting", "cmp2", true, "reverted"},
		{"reverted and lost", here, "resize_reverting", "reverted", "cmp2", true, "reverted"},
		{"turned back and lost", here, "resize_reverting", "error", "cmp2", true, "error"},
		{"coming back", here, "resize_reverting", "reverted", host, true, "reverted"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			o := newRig(t, noWait).otherHost()
			inst, mig := o.moved()
			if tc.gone {
				if err := o.drv.Destroy(t.Context(), uuidOf(inst)); err != nil {
					t.Fatal(err)
				}
			}
			now := o.migration(mig)
			now.Set("status", tc.status)
			if err := o.conductor.SaveMigration(t.Context(), messaging.AdminContext(), now); err != nil {
				t.Fatal(err)
			}
			o.db.Update(inst.String("uuid"), func(row objects.Instance) {
				row.Set("task_state", tc.task)
				row.Set("host", tc.host)
				row.Set("vm_state", "active")
			})
			m := o.m
			if tc.killed == here {
				m = o.rig.m
			}
			if err := m.AbandonMove(t.Context(), messaging.AdminContext(), o.row(inst)); err != nil {
				t.Fatal(err)
			}
			o.back(inst, mig, tc.ends)
		})
	}
}

// What the other host has begun with is its own.
func TestAbandonMoveLeavesWhatTheOtherHostHas(t *testing.T) {
	o := newRig(t, noWait).otherHost()
	inst, mig := o.moved()
	now := o.migration(mig)
	now.Set("status", "post-migrating")
	if err := o.conductor.SaveMigration(t.Context(), messaging.AdminContext(), now); err != nil {
		t.Fatal(err)
	}
	o.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", "resize_migrated") })
	old := o.row(inst)
	o.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", "resize_finish") })
	if err := o.rig.m.AbandonMove(t.Context(), messaging.AdminContext(), old); err != nil {
		t.Error(err)
	}
	if row := o.row(inst); row.String("host") != o.name || row.String("task_state") != "resize_finish" || o.migration(mig).String("status") != "post-migrating" {
		t.Errorf("row on %s in %s, migration %s", row.String("host"), row.String("task_state"), o.migration(mig).String("status"))
	}
	o.power("there", o.drv, inst, driver.PowerRunning)
}

// A confirmation that was cut off is completed, whatever it had done.
func TestConfirmMoveAgain(t *testing.T) {
	for _, vm := range []string{"resized", "paused"} {
		o := newRig(t, noWait).otherHost()
		inst, mig := o.moved()
		o.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("vm_state", vm) })
		for range 2 {
			if err := o.rig.m.ConfirmMove(t.Context(), messaging.AdminContext(), o.row(inst), o.migration(mig)); err != nil {
				t.Fatal(err)
			}
		}
		want := "active"
		if vm != "resized" {
			want = vm // the user has gone on since
		}
		if row := o.row(inst); row.String("vm_state") != want || o.migration(mig).String("status") != "confirmed" {
			t.Errorf("%s: %s, migration %s", vm, row.String("vm_state"), o.migration(mig).String("status"))
		}
		o.nothing("here", o.rig.drv)
	}
}
