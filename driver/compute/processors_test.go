package compute_test

import (
	"slices"
	"testing"

	"github.com/gantry-project/gantry/driver/objects"
)

// TestProcessorsComeAlong: what a claim gives is in the row, and the driver has
// it, through a build, a resize that is reverted and one that is confirmed.
func TestProcessorsComeAlong(t *testing.T) {
	r := newRig(t, noWait)
	r.tracker.own = []int{64, 65, 65}
	flavor := sizedFlavor(2, 128, 2)
	flavor.SetClean("vcpus", 1)
	has := func(what string, inst *objects.Object, want ...int) {
		t.Helper()
		row := objects.InstanceNUMATopology{Object: r.row(inst).Object("numa_topology")}.Processors()
		req, _ := r.drv.Request(uuidOf(inst))
		if got := req.Flavor.Processors; !slices.Equal(row, want) || !slices.Equal(got, want) {
			t.Errorf("%s: the row has processors %v, the guest %v, want %v", what, row, got, want)
		}
	}
	inst := r.active()
	has("built", inst, 64)
	finish := func(action, task, method string, mig *objects.Object) {
		t.Helper()
		r.ask(inst, action, task, method, map[string]any{"migration": r.migration(mig)})
		if task == "" {
			r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", nil) })
		}
		r.waitState(inst, "active")
	}
	mig := r.prep(inst, flavor, nil)
	r.waitState(inst, "resized")
	has("resized", inst, 65)
	finish("revertResize", "resize_reverting", "revert_resize", mig)
	has("reverted", inst, 64)
	mig = r.prep(inst, flavor, nil)
	r.waitState(inst, "resized")
	finish("confirmResize", "", "confirm_resize", mig)
	has("confirmed", inst, 65)
}
