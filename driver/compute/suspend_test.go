package compute_test

import (
	"slices"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestSuspend(t *testing.T) {
	r := newRig(t, noWait)
	r.notes.on = true
	inst := r.active()
	r.ask(inst, "suspend", "suspending", "suspend_instance", nil)
	r.waitState(inst, "suspended")
	r.wantPower(inst, driver.PowerSuspended)
	r.wantEvent(inst, "compute_suspend_instance", "Success")
	// nobody takes that for an end of the guest
	if err := r.m.SyncPowerState(t.Context(), r.row(inst)); err != nil {
		t.Error(err)
	}
	r.db.Update(inst.String("uuid"), func(row objects.Instance) {
		row.Set("system_metadata", map[string]string{"old_vm_state": "active", "k": "v"}) // as a stock compute does
	})
	r.ask(inst, "resume", "resuming", "resume_instance", nil)
	row := r.waitState(inst, "active")
	r.wantPower(inst, driver.PowerRunning)
	if meta := row.Strings("system_metadata"); meta["old_vm_state"] != "" || meta["k"] != "v" {
		t.Errorf("system metadata %v", meta)
	}
	if got := r.drv.Boots(uuidOf(inst)); got != 1 {
		t.Errorf("%d boots", got)
	}
	told := r.notes.take()
	for _, want := range []string{"suspend.start", "suspend.end", "resume.start", "resume.end"} {
		if !slices.Contains(told, "INFO compute.instance."+want) {
			t.Errorf("no notification %s in %q", want, told)
		}
	}
	// a host that cannot leaves it as it was
	r.drv.FailNext(fake.StepSuspend, errdefs.WithPublic(errdefs.ErrUnsupported, "This host cannot suspend the instance."))
	rc := r.context(inst.String("uuid"), "suspend")
	r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", "suspending") })
	if err := r.call(rc, "suspend_instance", map[string]any{"instance": r.row(inst)}, nil); !messaging.IsRemote(err, "NotImplementedError") {
		t.Errorf("unsupported: %v", err)
	}
	r.waitState(inst, "active")
	r.wantPower(inst, driver.PowerRunning)
	r.ask(inst, "suspend", "suspending", "suspend_instance", nil)
	r.waitState(inst, "suspended")
	r.ask(inst, "delete", "deleting", "terminate_instance", nil)
	r.wantDeleted(inst)
	r.nothingLeft()
}
