package daemon

import (
	"fmt"
	"testing"

	"github.com/gantry-project/gantry/driver/metadata"
	"github.com/gantry-project/gantry/driver/objects"
)

// What the rows of the ports say reaches the guest's metadata.
func TestTaggedPortsReachTheMetadata(t *testing.T) {
	inst := objects.NewInstance()
	inst.Set("uuid", "2d8ce347-329f-4670-a326-2e1b52c9ef62")
	if deviceMetadata([]*objects.Object{objects.NewVirtualInterface("i", "port-1", "fa:16:3e:00:00:01", "").Object}) != nil {
		t.Error("ports without a tag are devices")
	}
	inst.Set("device_metadata", deviceMetadata([]*objects.Object{
		objects.NewVirtualInterface("i", "port-1", "fa:16:3e:00:00:01", "").Object,
		objects.NewVirtualInterface("i", "port-2", "fa:16:3e:00:00:02", "uplink").Object,
	}))
	devices, _ := metadata.MetaData(metadata.Victoria, inst)["devices"].([]any)
	if len(devices) != 1 {
		t.Fatalf("devices %v", devices)
	}
	one, _ := devices[0].(map[string]any)
	if one["mac"] != "fa:16:3e:00:00:02" || one["type"] != "nic" || one["vf_trusted"] != false || one["bus"] != "none" || fmt.Sprint(one["tags"]) != "[uplink]" {
		t.Errorf("device %v", one)
	}
}
