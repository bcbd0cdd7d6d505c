package compute_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// rebuild asks for another image as the API does, which has written it into
// the row before, and waits for the end.
func (r *rig) rebuild(inst *objects.Object, more map[string]any) {
	r.t.Helper()
	before := r.row(inst)
	r.db.Update(inst.String("uuid"), func(row objects.Instance) {
		row.Set("image_ref", "new")
		row.Set("system_metadata", map[string]string{"image_disk_format": "raw"})
	})
	args := map[string]any{
		"image_ref": "new", "orig_image_ref": before.String("image_ref"), "orig_sys_metadata": before.Strings("system_metadata"),
		"new_pass": "fresh", "injected_files": [][]string{{"/etc/issue", "aGVsbG8K"}}, "bdms": nil, "recreate": false,
		"on_shared_storage": false, "preserve_ephemeral": false, "migration": nil, "scheduled_node": nil, "limits": nil,
		"request_spec": nil, "accel_uuids": []string{}, "reimage_boot_volume": false,
	}
	for k, v := range more {
		args[k] = v
	}
	n := r.ended(inst, "compute_rebuild_instance")
	r.ask(inst, "rebuild", "rebuilding", "rebuild_instance", args)
	r.wait("the rebuild", func() bool { return r.ended(inst, "compute_rebuild_instance") > n })
	r.settled(inst)
}

// ended counts the ended events of that name.
func (r *rig) ended(inst *objects.Object, name string) int {
	n := 0
	for _, e := range r.db.Events(inst.String("uuid")) {
		if e.Name == name && e.Result != "" {
			n++
		}
	}
	return n
}

func (r *rig) wantImage(inst *objects.Object, want string) {
	r.t.Helper()
	if got := r.row(inst).String("image_ref"); got != want {
		r.t.Errorf("image_ref %q, want %q", got, want)
	}
	req, _ := r.drv.Request(uuidOf(inst))
	if req.Image.ID != want {
		r.t.Errorf("the guest has image %q, want %q", req.Image.ID, want)
	}
}

func TestRebuild(t *testing.T) {
	tests := []struct {
		name   string
		before func(*rig, *objects.Object)
		args   map[string]any
		state  string
		power  driver.PowerState
	}{
		{"running", func(*rig, *objects.Object) {}, nil, "active", driver.PowerRunning},
		{"stopped", stopIt, nil, "stopped", driver.PowerShutdown},
		{"stopped, to run", stopIt, map[string]any{"target_state": "active"}, "active", driver.PowerRunning},
		{"error without a guest", func(r *rig, inst *objects.Object) {
			_ = r.drv.Destroy(r.t.Context(), uuidOf(inst))
			r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("vm_state", "error") })
		}, nil, "active", driver.PowerRunning},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, noWait)
			r.images.serve(driver.Image{ID: "new", Name: "alpine", DiskFormat: "raw"})
			inst := r.active()
			tc.before(r, inst)
			launched := time.Now().Add(-time.Hour)
			r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("launched_at", launched) })
			r.rebuild(inst, tc.args)
			row := r.waitState(inst, tc.state)
			r.wantPower(inst, tc.power)
			r.wantImage(inst, "new")
			req, _ := r.drv.Request(uuidOf(inst))
			if req.AdminPassword != "fresh" || len(req.Files) != 1 || req.Files[0].Path != "/etc/issue" || string(req.Files[0].Content) != "hello\n" ||
				req.Hostname != "web" || req.PublicKey == "" || len(req.UserData) == 0 || req.Metadata["k"] != "v" {
				t.Errorf("request = %+v", req)
			}
			vifs, err := req.Network.Wait(t.Context())
			if err != nil || len(vifs) != 1 || vifs[0].ID != portOf(inst.String("uuid")) || r.ports.count() != 1 {
				t.Errorf("network = %v, %v, %d ports, want the old one", vifs, err, r.ports.count())
			}
			if time.Since(row.Time("launched_at")) > time.Minute {
				t.Error("launched_at stays")
			}
			if n := len(r.db.Faults(inst.String("uuid"))); n != 0 {
				t.Errorf("%d faults", n)
			}
			r.ask(inst, "delete", "deleting", "terminate_instance", nil)
			r.wantDeleted(inst)
		})
	}
}

func stopIt(r *rig, inst *objects.Object) {
	r.ask(inst, "stop", "powering-off", "stop_instance", nil)
	r.waitState(inst, "stopped")
}

// Whatever is wrong with the request is found before the guest is touched.
func TestRebuildRefused(t *testing.T) {
	tests := []struct {
		name   string
		break_ func(*rig)
		args   map[string]any
		fault  string
	}{
		{"no such image", func(r *rig) { r.images.m = map[string]*image{} }, nil, "Image new could not be read."},
		{"an image that cannot be booted", func(r *rig) { r.images.serve(driver.Image{ID: "new", DiskFormat: fake.BadFormat}) }, nil, "Image format vmdk cannot be booted."},
		{"a damaged image", func(r *rig) { r.drv.FailNext(fake.StepPrepare, errdefs.ErrCorrupt) }, nil, "Stored or received data is damaged."},
		{"neutron refuses", func(r *rig) { r.ports.fail(errdefs.ErrForbidden) }, nil, "The credentials do not allow the operation."},
		{"a file that is no base 64", func(*rig) {}, map[string]any{"injected_files": [][]string{{"/x", "%"}}}, "Invalid Base 64 data for file /x"},
		{"preserve ephemeral", func(*rig) {}, map[string]any{"preserve_ephemeral": true}, "The current driver does not support preserving ephemeral partitions."},
		{"volume", func(*rig) {}, map[string]any{"image_ref": nil, "reimage_boot_volume": true}, "Rebuilding an instance from a volume is not supported by this host."},
		{"accelerators", func(*rig) {}, map[string]any{"accel_uuids": []string{"x"}}, "Rebuilding an instance with accelerators is not supported by this host."},
		{"arguments of other types", func(*rig) {}, map[string]any{"preserve_ephemeral": "maybe"}, "The request cannot be accepted."},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, noWait)
			r.images.serve(driver.Image{ID: "new", DiskFormat: "raw"})
			inst := r.active()
			tc.break_(r)
			r.rebuild(inst, tc.args)
			row := r.waitState(inst, "active")
			r.wantPower(inst, driver.PowerRunning)
			r.wantImage(inst, "img")
			r.wantEvent(inst, "compute_rebuild_instance", "Error")
			if r.drv.Boots(uuidOf(inst)) != 1 || row.Strings("system_metadata")["image_os_shutdown_timeout"] != "1" {
				t.Errorf("%d boots, system_metadata %v", r.drv.Boots(uuidOf(inst)), row.Strings("system_metadata"))
			}
			if faults := r.db.Faults(inst.String("uuid")); len(faults) != 1 || faults[0].String("message") != tc.fault {
				t.Errorf("faults %v, want %q", faults, tc.fault)
			}
		})
	}
}

// An evacuation to the host that the instance is on changes nothing.
func TestEvacuationRefused(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	before := len(r.db.Events(inst.String("uuid")))
	r.ask(inst, "evacuate", "rebuilding", "rebuild_instance", map[string]any{"recreate": true, "image_ref": nil, "migration": migration()})
	r.wait("the event", func() bool { return len(r.db.Events(inst.String("uuid"))) > before })
	r.waitState(inst, "active")
	r.wantEvent(inst, "compute_rebuild_instance", "Error")
	r.wantPower(inst, driver.PowerRunning)
}

// Once the guest is gone a failure is an error, and another rebuild ends it.
func TestRebuildFails(t *testing.T) {
	for _, step := range []fake.Step{fake.StepOff, fake.StepDestroy, fake.StepDisk, fake.StepPlug, fake.StepStart} {
		t.Run(string(step), func(t *testing.T) {
			r := newRig(t, noWait)
			r.images.serve(driver.Image{ID: "new", DiskFormat: "raw"})
			inst := r.active()
			r.drv.FailNext(step, errors.New("boom"))
			r.rebuild(inst, nil)
			r.waitState(inst, "error")
			r.wantEvent(inst, "compute_rebuild_instance", "Error")
			if faults := r.db.Faults(inst.String("uuid")); len(faults) != 1 || strings.Contains(faults[0].String("message"), "boom") {
				t.Errorf("faults %v", faults)
			}
			if r.ports.count() != 1 {
				t.Errorf("%d ports, want them kept", r.ports.count())
			}
			r.rebuild(inst, nil)
			r.waitState(inst, "active")
			r.wantPower(inst, driver.PowerRunning)
			r.ask(inst, "delete", "deleting", "terminate_instance", nil)
			r.wantDeleted(inst)
		})
	}
}

// A delete ends a rebuild, before and after the old guest is gone.
func TestDeleteDuringRebuild(t *testing.T) {
	for _, step := range []fake.Step{fake.StepPrepare, fake.StepOff, fake.StepStart} {
		t.Run(string(step), func(t *testing.T) {
			r := newRig(t, noWait)
			r.images.serve(driver.Image{ID: "new", DiskFormat: "raw"})
			inst := r.active()
			entered, release := r.drv.Stall(step)
			defer release()
			r.ask(inst, "rebuild", "rebuilding", "rebuild_instance", map[string]any{"image_ref": "new"})
			<-entered
			r.ask(inst, "delete", "deleting", "terminate_instance", nil)
			r.wantDeleted(inst)
			if n := len(r.db.Faults(inst.String("uuid"))); n != 0 {
				t.Errorf("%d faults for a rebuild that a delete overtook", n)
			}
		})
	}
}
