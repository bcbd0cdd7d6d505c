package compute_test

import (
	"encoding/json"
	"testing"

	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/objects"
)

// TestConfigDrive: who asks gets one, of this instance; a host may force it.
func TestConfigDrive(t *testing.T) {
	for name, tc := range map[string]struct {
		force, asked, want bool
	}{
		"nobody": {false, false, false},
		"user":   {false, true, true},
		"host":   {true, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, noWait, func(o *compute.Options) { o.ForceConfigDrive = tc.force })
			inst := r.instance()
			if tc.asked {
				r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("config_drive", "True") })
				inst = r.row(inst)
			}
			r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
			row := r.waitState(inst, "active")
			req, ok := r.drv.Request(uuidOf(inst))
			if !ok || (req.Drive != nil) != tc.want || (row.String("config_drive") == "True") != tc.want {
				t.Fatalf("drive %v, row %q", req.Drive != nil, row.String("config_drive"))
			}
			if !tc.want {
				return
			}
			files, err := req.Drive(nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				var md struct{ UUID string }
				if f.Path == "openstack/latest/meta_data.json" && (json.Unmarshal(f.Content, &md) != nil || md.UUID != inst.String("uuid")) {
					t.Errorf("meta data %s", f.Content)
				}
			}
		})
	}
}

// TestTaggedInterfaceOfABoot: what a user called an interface reaches the config drive.
func TestTaggedInterfaceOfABoot(t *testing.T) {
	r := newRig(t, noWait, func(o *compute.Options) { o.ForceConfigDrive = true })
	inst := r.instance()
	args := buildArgs(inst)
	request := objects.New("NetworkRequest")
	request.Set("network_id", "net-1")
	request.Set("tag", "backend")
	list := objects.New("NetworkRequestList")
	list.Set("objects", []*objects.Object{request})
	args["requested_networks"] = list
	r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", args)
	r.waitState(inst, "active")
	req, _ := r.drv.Request(uuidOf(inst))
	files, err := req.Drive(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		var md struct{ Devices []struct{ Tags []string } }
		if f.Path != "openstack/latest/meta_data.json" {
			continue
		}
		if err := json.Unmarshal(f.Content, &md); err != nil || len(md.Devices) != 1 || len(md.Devices[0].Tags) != 1 || md.Devices[0].Tags[0] != "backend" {
			t.Errorf("devices of %s: %v", f.Content, err)
		}
		return
	}
	t.Error("the drive has no meta data")
}
