package compute_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// rescueBy asks for a rescue as the API does.
func (r *rig) rescueBy(inst *objects.Object, image any) error {
	r.t.Helper()
	rc := r.context(inst.String("uuid"), "rescue")
	r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", "rescuing") })
	return r.call(rc, "rescue_instance", map[string]any{
		"instance": r.row(inst), "rescue_password": "secret", "rescue_image_ref": image, "clean_shutdown": true,
	}, nil)
}

func TestRescue(t *testing.T) {
	r := newRig(t, noWait)
	r.notes.on = true
	inst := r.active()
	for _, id := range []string{"img", "base", "other"} {
		r.images.serve(driver.Image{ID: id, Name: id})
	}
	for _, tc := range []struct {
		image any
		meta  map[string]string
		want  string
	}{
		{image: "other", meta: map[string]string{"image_base_image_ref": "base"}, want: "other"},
		{meta: map[string]string{"image_base_image_ref": "base"}, want: "base"},
		{want: "img"},
	} {
		r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("system_metadata", tc.meta) })
		if err := r.rescueBy(inst, tc.image); err != nil {
			t.Fatalf("rescue by %v: %v", tc.image, err)
		}
		row := r.waitState(inst, "rescued")
		r.wantPower(inst, driver.PowerRunning)
		r.wantEvent(inst, "compute_rescue_instance", "Success")
		req, ok := r.drv.RescueRequest(uuidOf(inst))
		if !ok || req.Image.ID != tc.want || req.AdminPassword != "secret" || req.Hostname != "web" || row.Time("launched_at").IsZero() {
			t.Errorf("rescue by %v: %+v, %t", tc.image, req.SpawnRequest, ok)
		}
		r.ask(inst, "unrescue", "unrescuing", "unrescue_instance", nil)
		r.waitState(inst, "active")
		r.wantPower(inst, driver.PowerRunning)
		if _, ok := r.drv.RescueRequest(uuidOf(inst)); ok {
			t.Error("still rescued")
		}
	}
	told := r.notes.take()
	for _, want := range []string{"rescue.start", "rescue.end", "unrescue.start", "unrescue.end"} {
		if !slices.Contains(told, "INFO compute.instance."+want) {
			t.Errorf("no notification %s in %q", want, told)
		}
	}
}

// What fails leaves the instance as it was, and Nova's exception says why.
func TestRescueRefused(t *testing.T) {
	for _, tc := range []struct {
		what, image string
		prepare     func(*rig)
		text        string
	}{
		{what: "no such image", image: "nowhere", text: "Image nowhere could not be read."},
		{what: "a driver that fails", image: "img", prepare: func(r *rig) {
			r.drv.FailNext(fake.StepRescue, errdefs.WithPublic(errdefs.ErrExhausted, "no room"))
		}, text: "no room"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			r := newRig(t, noWait)
			inst := r.active()
			r.images.serve(driver.Image{ID: "img", Name: "img"})
			if tc.prepare != nil {
				tc.prepare(r)
			}
			err := r.rescueBy(inst, tc.image)
			if !messaging.IsRemote(err, "InstanceNotRescuable") || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("error = %v", err)
			}
			r.waitState(inst, "active")
			r.wantPower(inst, driver.PowerRunning)
			r.wantEvent(inst, "compute_rescue_instance", "Error")
		})
	}
}

// A rescued instance can be deleted; one whose state somebody has reset has its
// own system at the next start, and a rescue's time can be over.
func TestRescueEnds(t *testing.T) {
	rescued := func(r *rig) *objects.Object {
		inst := r.active()
		r.images.serve(driver.Image{ID: "img", Name: "img"})
		if err := r.rescueBy(inst, "img"); err != nil {
			r.t.Fatal(err)
		}
		return r.waitState(inst, "rescued")
	}
	t.Run("delete", func(t *testing.T) {
		r := newRig(t, noWait)
		inst := rescued(r)
		r.ask(inst, "delete", "deleting", "terminate_instance", nil)
		r.wantDeleted(inst)
		r.nothingLeft()
	})
	t.Run("reset", func(t *testing.T) {
		r := newRig(t, noWait)
		inst := rescued(r)
		r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("vm_state", "active") })
		r.ask(inst, "reboot", "rebooting_hard", "reboot_instance", map[string]any{"block_device_info": nil, "reboot_type": "HARD"})
		r.waitState(inst, "active")
		if _, ok := r.drv.RescueRequest(uuidOf(inst)); ok {
			t.Error("still rescued")
		}
	})
	t.Run("time", func(t *testing.T) {
		r := newRig(t, noWait)
		inst := rescued(r)
		if err := r.m.EndRescue(t.Context(), messaging.AdminContext(), inst); err != nil {
			t.Fatal(err)
		}
		r.waitState(inst, "active")
		if _, ok := r.drv.RescueRequest(uuidOf(inst)); ok {
			t.Error("still rescued")
		}
		if err := r.m.EndRescue(t.Context(), messaging.AdminContext(), inst); !messaging.IsRemote(err, "UnexpectedVMStateError") {
			t.Errorf("of an active one: %v", err)
		}
	})
}
