package compute

import (
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/metadata"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// wantsDrive reports whether the instance has a config drive: its user, its image
// or this host wants one (nova/virt/configdrive.py, required_by).
func (m *Manager) wantsDrive(inst *objects.Object, img driver.Image) bool {
	return inst.String("config_drive") != "" || img.Properties["img_config_drive"] == "mandatory" ||
		m.opt.ForceConfigDrive && inst.IsNull("launched_at")
}

// driveFor makes the function that makes the drive; nil for none. devices is asked
// when there is a network, for tagged interfaces that the row does not have yet; it
// may be nil.
func (m *Manager) driveFor(o *op, req *driver.SpawnRequest, groups []string, devices func() any) func(objects.NetworkInfo) ([]driver.File, error) {
	if !m.wantsDrive(o.inst, req.Image) {
		return nil
	}
	if len(groups) == 0 {
		for _, g := range o.inst.Object("security_groups").Objects("objects") {
			groups = append(groups, g.String("name"))
		}
	}
	row := objects.Instance{Object: o.inst.Clone()}
	password, personality := req.AdminPassword, req.Files
	return func(vifs objects.NetworkInfo) ([]driver.File, error) {
		facts := metadata.DriveFacts{EC2Facts: metadata.EC2Facts{Groups: groups}, AdminPassword: password}
		for _, f := range personality {
			facts.Personality = append(facts.Personality, metadata.File{Path: f.Path, Data: f.Content})
		}
		if devices != nil {
			row.SetClean("device_metadata", devices())
		}
		files, err := metadata.Drive(row, vifs, facts)
		if err != nil {
			return nil, fmt.Errorf("config drive: %w: %w", err, errdefs.ErrInvalid)
		}
		out := make([]driver.File, len(files))
		for i, f := range files {
			out[i] = driver.File{Path: f.Path, Content: f.Data}
		}
		return out, nil
	}
}
