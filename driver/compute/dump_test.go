package compute_test

import (
	"slices"
	"testing"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestTriggerCrashDump(t *testing.T) {
	r := newRig(t, noWait)
	r.notes.on = true
	inst := r.active()
	dump := func() error {
		rc := r.context(inst.String("uuid"), "trigger_crash_dump")
		return r.call(rc, "trigger_crash_dump", map[string]any{"instance": r.row(inst)}, nil)
	}
	if err := dump(); err != nil {
		t.Fatal(err)
	}
	r.wantEvent(inst, "compute_trigger_crash_dump", "Success")
	told := r.notes.take()
	for _, want := range []string{"trigger_crash_dump.start", "trigger_crash_dump.end"} {
		if !slices.Contains(told, "INFO compute.instance."+want) {
			t.Errorf("no notification %s in %q", want, told)
		}
	}
	for class, cause := range map[string]error{
		"TriggerCrashDumpNotSupported": errdefs.ErrUnsupported, "InstanceNotRunning": errdefs.ErrConflict, "ComputeResourcesUnavailable": errdefs.ErrExhausted,
	} {
		r.drv.FailNext(fake.StepDump, cause)
		if err := dump(); !messaging.IsRemote(err, class) {
			t.Errorf("%v: %v, want %s", cause, err, class)
		}
		r.wantEvent(inst, "compute_trigger_crash_dump", "Error")
	}
	r.waitState(inst, "active")
	r.wantPower(inst, driver.PowerRunning)
}

// A guest is quiet until it is told, or until its time is over: nothing stays so.
func TestQuiesce(t *testing.T) {
	for _, tc := range []struct {
		what  string
		limit time.Duration
		tell  bool
	}{{"told", time.Hour, true}, {"forgotten", time.Millisecond, false}, {"the service ends", time.Hour, false}} {
		t.Run(tc.what, func(t *testing.T) {
			r := newRig(t, noWait, func(o *compute.Options) { o.QuiesceTimeout = tc.limit })
			inst := r.active()
			args := map[string]any{"instance": r.row(inst)}
			if err := r.call(messaging.AdminContext(), "quiesce_instance", args, nil); err != nil {
				t.Fatal(err)
			}
			if tc.limit == time.Hour && !r.drv.Quiet(uuidOf(inst)) {
				t.Error("it is not quiet")
			}
			switch {
			case tc.tell:
				args["mapping"] = nil
				if err := r.call(messaging.AdminContext(), "unquiesce_instance", args, nil); err != nil {
					t.Fatal(err)
				}
			case tc.limit == time.Hour:
				if err := r.m.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			r.wait("the guest to go on", func() bool { return !r.drv.Quiet(uuidOf(inst)) })
			r.waitState(inst, "active")
			if err := r.drv.PowerOff(t.Context(), uuidOf(inst), driver.PowerOffOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := r.call(messaging.AdminContext(), "quiesce_instance", map[string]any{"instance": r.row(inst)}, nil); !messaging.IsRemote(err, "InstanceQuiesceNotSupported") {
				t.Errorf("of a stopped one: %v", err)
			}
		})
	}
}
