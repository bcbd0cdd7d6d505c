package compute_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const shelf = "shelf-1"

func keepShelved(o *compute.Options) { o.ShelvedOffloadTime = time.Hour }

// finish asks and waits for the event of the method.
func (r *rig) finish(inst *objects.Object, action, task, method string, args map[string]any) {
	r.t.Helper()
	n := r.ended(inst, "compute_"+method)
	r.ask(inst, action, task, method, args)
	r.wait(method, func() bool { return r.ended(inst, "compute_"+method) > n })
	r.settled(inst)
}

func (r *rig) shelve(inst *objects.Object) {
	r.t.Helper()
	r.images.add(shelf)
	r.finish(inst, "shelve", "shelving", "shelve_instance", map[string]any{"image_id": shelf, "clean_shutdown": true, "accel_uuids": nil})
}

// shelved returns an offloaded instance.
func (r *rig) shelved() *objects.Object {
	r.t.Helper()
	inst := r.active()
	r.shelve(inst)
	return r.waitState(inst, "shelved_offloaded")
}

// unshelve asks as the conductor does, which has had an allocation made.
func (r *rig) unshelve(inst *objects.Object, more map[string]any) {
	r.t.Helper()
	r.tracker.allocate(inst.String("uuid"))
	args := map[string]any{
		"image":             map[string]any{"id": shelf, "name": "web-shelved", "disk_format": "raw", "container_format": "docker", "properties": map[string]any{}},
		"filter_properties": map[string]any{"limits": map[string]any{}, "retry": map[string]any{"num_attempts": 1}},
		"node":              node, "request_spec": map[string]any{}, "accel_uuids": []string{},
	}
	for k, v := range more {
		args[k] = v
	}
	r.finish(inst, "unshelve", "unshelving", "unshelve_instance", args)
}

func (r *rig) wantOffloaded(inst *objects.Object) {
	r.t.Helper()
	row := r.waitState(inst, "shelved_offloaded")
	if !row.IsNull("host") || !row.IsNull("node") || driver.PowerState(row.Int("power_state")) != driver.PowerShutdown {
		r.t.Errorf("on %q %q, power state %d", row.String("host"), row.String("node"), row.Int("power_state"))
	}
	if left := r.drv.Host().Residue(); len(left) != 0 {
		r.t.Errorf("left on the host: %q", left)
	}
	if c, a := r.tracker.claimed(), r.tracker.allocated(); len(c)+len(a) != 0 {
		r.t.Errorf("claims %v, allocations %v", c, a)
	}
	if r.ports.count() != 1 {
		r.t.Errorf("%d ports, want them kept", r.ports.count())
	}
}

func TestShelveAndUnshelve(t *testing.T) {
	r := newRig(t, noWait)
	r.notes.on = true
	inst := r.active()
	r.notes.take()
	r.shelve(inst)
	r.wantOffloaded(inst)
	r.wantEvent(inst, "compute_shelve_instance", "Success")
	r.wantNotes("INFO compute.instance.shelve.start", "INFO compute.instance.shelve.end",
		"INFO compute.instance.shelve_offload.start", "INFO compute.instance.shelve_offload.end")
	meta := r.row(inst).Strings("system_metadata")
	if at, err := time.Parse("2006-01-02T15:04:05.000000", meta["shelved_at"]); err != nil || time.Since(at) > time.Minute ||
		meta["shelved_image_id"] != shelf || meta["shelved_host"] != host {
		t.Errorf("system_metadata = %v", meta)
	}
	if img := r.images.get(shelf); !img.active || !strings.Contains(string(img.content), inst.String("uuid")) {
		t.Errorf("image = %+v", img)
	}

	r.unshelve(inst, nil)
	row := r.waitState(inst, "active")
	r.wantPower(inst, driver.PowerRunning)
	r.wantEvent(inst, "compute_unshelve_instance", "Success")
	r.wantNotes("INFO compute.instance.unshelve.start", "INFO compute.instance.unshelve.end")
	if row.String("host") != host || row.String("node") != node || row.String("image_ref") != "img" || row.String("key_data") == "" {
		t.Errorf("on %q %q, image %q, key %q", row.String("host"), row.String("node"), row.String("image_ref"), row.String("key_data"))
	}
	if meta := row.Strings("system_metadata"); meta["shelved_at"]+meta["shelved_image_id"]+meta["shelved_host"] != "" || meta["image_os_shutdown_timeout"] != "1" {
		t.Errorf("system_metadata = %v", meta)
	}
	if r.images.get(shelf) != nil {
		t.Error("the image of the shelved instance was left")
	}
	req, _ := r.drv.Request(uuidOf(inst))
	if req.Image.ID != shelf || req.PublicKey != "" || req.AdminPassword != "" || len(req.Files) != 0 || req.Hostname != "web" {
		t.Errorf("request = %+v", req)
	}
	if !slices.Equal(r.tracker.claimed(), []string{inst.String("uuid")}) {
		t.Errorf("claims %v", r.tracker.claimed())
	}
	r.ask(inst, "delete", "deleting", "terminate_instance", nil)
	r.wantDeleted(inst)
	r.nothingLeft()
}

// An instance that keeps its place is started again, or offloaded later.
func TestShelveWithoutOffload(t *testing.T) {
	r := newRig(t, noWait, keepShelved)
	inst := r.active()
	r.shelve(inst)
	r.waitState(inst, "shelved")
	r.wantPower(inst, driver.PowerShutdown)
	r.finish(inst, "unshelve", "powering-on", "start_instance", nil)
	row := r.waitState(inst, "active")
	if _, on := row.Strings("system_metadata")["shelved_image_id"]; on || r.images.get(shelf) != nil {
		t.Errorf("system_metadata = %v, image left: %t", row.Strings("system_metadata"), r.images.get(shelf) != nil)
	}
	r.shelve(inst)
	r.waitState(inst, "shelved")
	r.finish(inst, "shelveOffload", "shelving_offloading", "shelve_offload_instance", map[string]any{"clean_shutdown": false})
	r.wantOffloaded(inst)
	if r.images.get(shelf) == nil {
		t.Error("the image of the shelved instance is gone")
	}
}

func TestPeriodicOffload(t *testing.T) {
	r := newRig(t, noWait, keepShelved)
	inst := r.active()
	if err := r.m.Offload(t.Context(), messaging.AdminContext(), r.row(inst)); err == nil {
		t.Error("an instance that is not shelved was offloaded")
	}
	r.wantPower(inst, driver.PowerRunning)
	r.shelve(inst)
	r.waitState(inst, "shelved")
	if err := r.m.Offload(t.Context(), messaging.AdminContext(), r.row(inst)); err != nil {
		t.Errorf("Offload: %v", err)
	}
	r.wantOffloaded(inst)
}

// A stale message must not end a guest that was not to be offloaded.
func TestStaleOffload(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	stale := r.row(inst)
	stale.SetClean("task_state", "shelving_offloading")
	if err := r.call(r.context(inst.String("uuid"), "shelveOffload"), "shelve_offload_instance", map[string]any{"instance": stale}, nil); err == nil {
		t.Error("a stale message was obeyed")
	}
	r.wantPower(inst, driver.PowerRunning)
}

// When there is no image in the end the instance is what it was.
func TestShelveFails(t *testing.T) {
	tests := map[string]func(*rig){
		"stop":     func(r *rig) { r.drv.FailNext(fake.StepOff, errors.New("boom")) },
		"snapshot": func(r *rig) { r.drv.FailNext(fake.StepCapture, errors.New("boom")) },
		"read":     func(r *rig) { r.drv.FailNext(fake.StepRead, errors.New("boom")) },
		"upload":   func(r *rig) { r.images.err = errdefs.ErrExhausted },
		"no image": func(r *rig) { r.images.m = map[string]*image{} },
	}
	for name, fail := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, noWait)
			inst := r.active()
			r.images.add(shelf)
			fail(r)
			r.finish(inst, "shelve", "shelving", "shelve_instance", map[string]any{"image_id": shelf})
			row := r.waitState(inst, "active")
			r.wantPower(inst, driver.PowerRunning)
			r.wantEvent(inst, "compute_shelve_instance", "Error")
			if row.Strings("system_metadata")["shelved_image_id"] != "" || r.images.get(shelf) != nil {
				t.Errorf("system_metadata %v, image left: %t", row.Strings("system_metadata"), r.images.get(shelf) != nil)
			}
			if n := len(r.db.Faults(inst.String("uuid"))); n != 1 {
				t.Errorf("%d faults", n)
			}
		})
	}
}

// What fails on the way to this host leaves the instance offloaded, its image
// and its ports kept, the allocation of the scheduler freed.
func TestUnshelveFails(t *testing.T) {
	tests := []struct {
		name   string
		break_ func(*rig)
		args   map[string]any
	}{
		{"no room", func(r *rig) { r.tracker.err = errdefs.ErrExhausted }, nil},
		{"port binding", func(r *rig) { r.ports.fail(errdefs.ErrUnavailable) }, nil},
		{"start", func(r *rig) { r.drv.FailNext(fake.StepStart, errors.New("boom")) }, nil},
		{"image", func(r *rig) { r.drv.FailNext(fake.StepImage, errdefs.ErrNotFound) }, nil},
		{"no image", func(*rig) {}, map[string]any{"image": nil}},
		{"accelerators", func(*rig) {}, map[string]any{"accel_uuids": []string{"x"}}},
		{"arguments of other types", func(*rig) {}, map[string]any{"node": 7}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, noWait)
			inst := r.shelved()
			tc.break_(r)
			r.unshelve(inst, tc.args)
			r.wantOffloaded(inst)
			r.wantEvent(inst, "compute_unshelve_instance", "Error")
			if r.images.get(shelf) == nil {
				t.Error("the image of the shelved instance is gone")
			}
			if n := len(r.db.Faults(inst.String("uuid"))); n != 1 {
				t.Errorf("%d faults", n)
			}
			r.unshelve(inst, nil)
			r.waitState(inst, "active")
		})
	}
}

// A message that comes late must not touch an instance that runs elsewhere.
func TestStaleUnshelve(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.shelved()
	stale := r.row(inst)
	stale.SetClean("task_state", "unshelving")
	r.db.Update(inst.String("uuid"), func(row objects.Instance) {
		row.Set("vm_state", "active")
		row.Set("task_state", "powering-off")
		row.Set("host", "other")
	})
	r.tracker.allocate(inst.String("uuid"))
	err := r.call(r.context(inst.String("uuid"), "unshelve"), "unshelve_instance", map[string]any{
		"instance": stale, "image": map[string]any{"id": shelf}, "node": node,
	}, nil)
	row := r.row(inst)
	if err == nil || row.String("host") != "other" || row.String("task_state") != "powering-off" || len(r.tracker.allocated()) != 1 || len(r.tracker.claimed()) != 0 {
		t.Errorf("%v: on %q, task %q, allocations %v, claims %v", err, row.String("host"), row.String("task_state"), r.tracker.allocated(), r.tracker.claimed())
	}
	if left := r.drv.Host().Residue(); len(left) != 0 {
		t.Errorf("left on the host: %q", left)
	}
}

func TestDeleteDuringShelve(t *testing.T) {
	for _, step := range []fake.Step{fake.StepOff, fake.StepCapture, fake.StepRead} {
		t.Run(string(step), func(t *testing.T) {
			r := newRig(t, noWait)
			inst := r.active()
			r.images.add(shelf)
			entered, release := r.drv.Stall(step)
			defer release()
			r.ask(inst, "shelve", "shelving", "shelve_instance", map[string]any{"image_id": shelf})
			<-entered
			r.ask(inst, "delete", "deleting", "terminate_instance", nil)
			r.wantDeleted(inst)
			if r.images.get(shelf) != nil {
				t.Error("the image record was left")
			}
		})
	}
}

// The image service knows whole seconds, and the next backup may have a record
// before the rotation of this one: the one just made is the newest all the same,
// and one that is not complete does not count, unless it was left long ago.
func TestBackupsOfOneSecond(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	take := func(id string) {
		t.Helper()
		r.images.backup(id, inst.String("uuid"), "daily")
		r.images.oneSecond()
		r.finish(inst, "createBackup", "image_backup", "backup_instance", map[string]any{"image_id": id, "backup_type": "daily", "rotation": 1})
		r.waitState(inst, "active")
		r.wantEvent(inst, "compute_backup_instance", "Success")
	}
	r.images.backup("cut off", inst.String("uuid"), "daily")
	for _, id := range []string{"z", "m", "a", "k"} {
		r.images.backup("next", inst.String("uuid"), "daily")
		take(id)
		for _, other := range []string{"z", "m", "a", "k", "cut off"} {
			if got := r.images.get(other) != nil; got != (other == id) {
				t.Errorf("after %s: image %s there: %t", id, other, got)
			}
		}
		if r.images.get("next") == nil {
			t.Errorf("%s has removed the next one", id)
		}
	}
}

func TestBackup(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	r.images.backup("other", "another instance", "daily")
	r.images.backup("weekly", inst.String("uuid"), "weekly")
	take := func(id string, keep int) {
		r.images.backup(id, inst.String("uuid"), "daily")
		r.finish(inst, "createBackup", "image_backup", "backup_instance", map[string]any{"image_id": id, "backup_type": "daily", "rotation": keep})
		r.waitState(inst, "active")
		r.wantEvent(inst, "compute_backup_instance", "Success")
	}
	want := func(there ...string) {
		t.Helper()
		for _, id := range []string{"other", "weekly", "a", "b", "c", "d"} {
			if got := r.images.get(id) != nil; got != slices.Contains(there, id) {
				t.Errorf("image %s there: %t", id, got)
			}
		}
	}
	take("a", 2)
	if !r.images.get("a").active {
		t.Error("the backup has no data")
	}
	take("b", 2)
	want("other", "weekly", "a", "b")
	take("c", 2)
	want("other", "weekly", "b", "c")
	take("d", 0)
	want("other", "weekly")

	// One that fails removes its own record and no other.
	r.images.backup("a", inst.String("uuid"), "weekly")
	r.drv.FailNext(fake.StepCapture, errors.New("boom"))
	r.finish(inst, "createBackup", "image_backup", "backup_instance", map[string]any{"image_id": "a", "backup_type": "weekly", "rotation": 1})
	r.waitState(inst, "active")
	r.wantEvent(inst, "compute_backup_instance", "Error")
	want("other", "weekly")
}
