package daemon

import (
	"context"
	"fmt"
	"strings"

	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// describeDevices saves what the metadata service tells of an instance's tagged
// ports (Instance.device_metadata). A container has no bus on which its guest
// could find one: the MAC address is what names it. inst has it afterwards.
//
// Source: nova/virt/libvirt/driver.py, _build_interface_metadata.
func (p ports) describeDevices(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	rows, err := p.conductor.VIFs(ctx, rc, inst.String("uuid"))
	if err != nil {
		return err
	}
	row := inst.Sparse("id", "uuid")
	row.ResetChanges()
	for _, f := range row.Fields() {
		if f != "id" && f != "uuid" {
			row.Unset(f)
		}
	}
	devices := deviceMetadata(rows)
	row.Set("device_metadata", devices)
	if err := p.conductor.SaveInstance(ctx, rc, row, conductor.Expect{}); err != nil {
		return fmt.Errorf("save tagged devices: %w", err)
	}
	inst.SetClean("device_metadata", devices)
	return nil
}

// deviceMetadata is an InstanceDeviceMetadata of the VirtualInterface rows that
// have a tag, or nil if none has.
func deviceMetadata(rows []*objects.Object) any {
	var devices []*objects.Object
	for _, row := range rows {
		tag := row.String("tag")
		if tag == "" {
			continue
		}
		mac, _, _ := strings.Cut(row.String("address"), "/")
		d := objects.New("NetworkInterfaceMetadata")
		d.Set("mac", mac)
		d.Set("tags", []string{tag})
		devices = append(devices, d)
	}
	if len(devices) == 0 {
		return nil
	}
	all := objects.New("InstanceDeviceMetadata")
	all.Set("devices", devices)
	return all
}
