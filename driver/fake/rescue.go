package fake

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver"
)

// The steps of a rescue.
const (
	StepRescue   Step = "rescue" // with the rescue disk made, before its start
	StepUnrescue Step = "unrescue"
)

func rescueDiskOf(uuid driver.InstanceUUID) string { return "rescue disk " + string(uuid) }

// Rescue runs a guest of another image over a disk of its own.
func (d *Driver) Rescue(ctx context.Context, req driver.RescueRequest) error {
	if err := refuse(req.SpawnRequest); err != nil {
		return err
	}
	vifs, err := req.Network.Wait(ctx)
	if err != nil {
		return err
	}
	d.host.mu.Lock()
	i, err := d.host.get("rescue", req.UUID)
	if err != nil {
		d.host.mu.Unlock()
		return err
	}
	ran := i.state == driver.PowerRunning || i.state == driver.PowerPaused
	d.host.use(req.Image.ID)
	i.hangUp()
	d.host.halt(req.UUID, i)
	d.host.residue[rescueDiskOf(req.UUID)] = req.UUID
	i.rescue = &req
	d.host.mu.Unlock()
	err = d.pass(ctx, StepRescue)
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if err != nil {
		d.host.ownSystem(req.UUID, i)
		if ran {
			d.host.boot(req.UUID, i)
		}
		return fmt.Errorf("rescue %s: %w", req.UUID, err)
	}
	d.host.replug(req.UUID, i, vifs)
	d.host.boot(req.UUID, i)
	return nil
}

// ownSystem must be called with mu held.
func (h *Host) ownSystem(uuid driver.InstanceUUID, i *instance) {
	i.rescue = nil
	delete(h.residue, rescueDiskOf(uuid))
}

// Unrescue runs the instance's own guest again.
func (d *Driver) Unrescue(ctx context.Context, req driver.UnrescueRequest) error {
	if err := d.pass(ctx, StepUnrescue); err != nil {
		return fmt.Errorf("unrescue %s: %w", req.UUID, err)
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("unrescue", req.UUID)
	if err != nil {
		return err
	}
	if i.rescue != nil {
		i.hangUp()
		d.host.halt(req.UUID, i)
		d.host.ownSystem(req.UUID, i)
	}
	if req.PowerOn && i.state != driver.PowerRunning {
		d.host.replug(req.UUID, i, req.VIFs)
		d.host.boot(req.UUID, i)
	}
	return nil
}

// RescueRequest is what the rescue system was asked with, if there is one.
func (d *Driver) RescueRequest(uuid driver.InstanceUUID) (driver.RescueRequest, bool) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i := d.host.instances[uuid]
	if i == nil || i.rescue == nil {
		return driver.RescueRequest{}, false
	}
	return *i.rescue, true
}
