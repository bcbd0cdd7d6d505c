package compute_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// watch follows the driver's events until the test ends.
func (r *rig) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.m.Watch(ctx) }()
	r.t.Cleanup(func() { cancel(); <-done })
}

func TestGuestEndsByItself(t *testing.T) {
	r := newRig(t, noWait)
	r.watch()
	inst := r.active()
	r.drv.Exit(uuidOf(inst), driver.PowerCrashed, "exited with status 3")
	r.waitState(inst, "stopped")
	r.wantPower(inst, driver.PowerCrashed)
	events := r.db.Events(inst.String("uuid"))
	if e := events[len(events)-2]; e.Name != "guest_crashed" || e.Result != "Error" || !strings.HasSuffix(e.Details, "exited with status 3") {
		t.Errorf("events %+v", events)
	}
	r.wantEvent(inst, "compute_stop_instance", "Success")
	if actions := r.db.Actions(inst.String("uuid")); !slices.Equal(actions, []string{"create", "stop"}) {
		t.Errorf("actions = %v", actions)
	}
	faults := r.db.Faults(inst.String("uuid"))
	if len(faults) != 1 || !strings.HasSuffix(faults[0].String("message"), "exited with status 3") {
		t.Errorf("faults = %v", faults)
	}
	// It can be started again.
	r.ask(inst, "start", "powering-on", "start_instance", nil)
	r.waitState(inst, "active")
}

// A guest that ends during its own stop is no news.
func TestGuestEndsDuringStop(t *testing.T) {
	r := newRig(t, noWait)
	r.watch()
	inst := r.active()
	entered, release := r.drv.Stall(fake.StepOff)
	r.ask(inst, "stop", "powering-off", "stop_instance", nil)
	<-entered
	r.drv.Exit(uuidOf(inst), driver.PowerShutdown, "exited with status 0")
	release()
	r.waitState(inst, "stopped")
	if actions, faults := r.db.Actions(inst.String("uuid")), r.db.Faults(inst.String("uuid")); len(actions) != 2 || len(faults) != 0 {
		t.Errorf("actions %v, faults %v", actions, faults)
	}
}

func TestSyncPowerState(t *testing.T) {
	tests := []struct {
		name   string
		set    func(r *rig, inst *objects.Object)
		state  string
		power  driver.PowerState
		action string
	}{
		{"agreed", func(*rig, *objects.Object) {}, "active", driver.PowerRunning, ""},
		{"row knows less", func(r *rig, i *objects.Object) {
			r.db.Update(i.String("uuid"), func(row objects.Instance) { row.Set("power_state", 0) })
		}, "active", driver.PowerRunning, ""},
		{"guest down", func(r *rig, i *objects.Object) {
			_ = r.drv.PowerOff(r.t.Context(), uuidOf(i), driver.PowerOffOptions{})
		}, "stopped", driver.PowerShutdown, "stop"},
		{"guest up", func(r *rig, i *objects.Object) {
			r.db.Update(i.String("uuid"), func(row objects.Instance) { row.Set("vm_state", "stopped") })
		}, "stopped", driver.PowerShutdown, "stop"},
		{"guest paused", func(r *rig, i *objects.Object) { _ = r.drv.Pause(r.t.Context(), uuidOf(i)) }, "active", driver.PowerPaused, ""},
		{"of another host", func(r *rig, i *objects.Object) {
			r.db.Update(i.String("uuid"), func(row objects.Instance) { row.Set("host", "other"); row.Set("power_state", 4) })
		}, "active", driver.PowerShutdown, ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, noWait)
			inst := r.active()
			tc.set(r, inst)
			if err := r.m.SyncPowerState(t.Context(), r.row(inst)); err != nil {
				t.Fatal(err)
			}
			row := r.waitState(inst, tc.state)
			if got := driver.PowerState(row.Int("power_state")); got != tc.power {
				t.Errorf("power state %s, want %s", got, tc.power)
			}
			actions := r.db.Actions(inst.String("uuid"))
			if got := strings.Join(actions[1:], ","); got != tc.action {
				t.Errorf("actions %q, want %q", got, tc.action)
			}
		})
	}
	t.Run("in a task", func(t *testing.T) {
		r := newRig(t, noWait)
		inst := r.active()
		_ = r.drv.PowerOff(t.Context(), uuidOf(inst), driver.PowerOffOptions{})
		r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", "rebooting") })
		r.db.ResetCalls()
		if err := r.m.SyncPowerState(t.Context(), r.row(inst)); err != nil || r.find("Instance.save") >= 0 {
			t.Errorf("an instance in a task was touched: %v", err)
		}
	})
}

// A save whose answer is lost is repeated, and not mistaken for a failure.
func TestConductorDoesNotAnswer(t *testing.T) {
	r := newRig(t, noWait, func(o *compute.Options) { o.ConductorPatience = time.Minute })
	inst := r.active()
	flaky := &flakyConductor{Conductor: r.conductor}
	m := r.managerWith(flaky)
	r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", "powering-off") })
	if err := m.Stop(t.Context(), r.context(inst.String("uuid"), "stop"), r.row(inst)); err != nil {
		t.Fatal(err)
	}
	r.waitState(inst, "stopped")
	if flaky.lost != 1 {
		t.Errorf("%d answers lost, want 1", flaky.lost)
	}
}

// flakyConductor loses the answer of the first save.
type flakyConductor struct {
	compute.Conductor
	lost int
}

func (f *flakyConductor) SaveInstance(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, expect compute.Expect) error {
	if f.lost > 0 {
		return f.Conductor.SaveInstance(ctx, rc, inst, expect)
	}
	f.lost++
	if err := f.Conductor.SaveInstance(ctx, rc, inst.Clone(), expect); err != nil {
		return err
	}
	return messaging.ErrTimeout
}

// At the end of the service running builds go back to the scheduler.
func TestCloseDuringBuild(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.instance()
	entered, release := r.drv.Stall(fake.StepDisk)
	defer release()
	r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.m.Close(ctx); err == nil {
		t.Error("Close did not have to cancel anything")
	}
	wantRescheduled(t, r, inst, "")
	r.nothingLeft()
}
