package fake

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// PowerOn starts a stopped instance.
func (d *Driver) PowerOn(ctx context.Context, req driver.PowerOnRequest) error {
	if err := d.pass(ctx, StepOn); err != nil {
		return fmt.Errorf("power on %s: %w", req.UUID, err)
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("power on", req.UUID)
	if err != nil {
		return err
	}
	if i.state == driver.PowerRunning {
		return nil
	}
	if i.state == driver.PowerSuspended {
		d.host.replug(req.UUID, i, req.VIFs)
		i.state = driver.PowerRunning
		d.host.residue[processOf(req.UUID)] = req.UUID
		delete(d.host.residue, memoryOf(req.UUID))
		return nil
	}
	if i.state == driver.PowerPaused {
		return fmt.Errorf("power on %s: paused: %w", req.UUID, errdefs.ErrConflict)
	}
	d.host.replug(req.UUID, i, req.VIFs)
	d.host.boot(req.UUID, i)
	return nil
}

// PowerOff stops the instance. The guest obeys at once.
func (d *Driver) PowerOff(ctx context.Context, uuid driver.InstanceUUID, _ driver.PowerOffOptions) error {
	if err := d.pass(ctx, StepOff); err != nil {
		return fmt.Errorf("power off %s: %w", uuid, err)
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("power off", uuid)
	if err != nil {
		return err
	}
	delete(d.host.residue, memoryOf(uuid))
	delete(d.host.residue, quietOf(uuid))
	if i.state == driver.PowerRunning || i.state == driver.PowerPaused || i.state == driver.PowerSuspended {
		i.state, i.reason = driver.PowerShutdown, "stopped"
	}
	i.hangUp()
	delete(d.host.residue, processOf(uuid))
	return nil
}

// Reboot starts the instance anew.
func (d *Driver) Reboot(ctx context.Context, req driver.RebootRequest) error {
	if err := d.pass(ctx, StepReboot); err != nil {
		return fmt.Errorf("reboot %s: %w", req.UUID, err)
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("reboot", req.UUID)
	if err != nil {
		return err
	}
	d.host.replug(req.UUID, i, req.VIFs)
	i.hangUp()
	delete(d.host.residue, memoryOf(req.UUID))
	d.host.boot(req.UUID, i)
	return nil
}

// Pause holds a running instance.
func (d *Driver) Pause(_ context.Context, uuid driver.InstanceUUID) error {
	return d.hold("pause", uuid, driver.PowerPaused)
}

// Unpause lets it go on.
func (d *Driver) Unpause(_ context.Context, uuid driver.InstanceUUID) error {
	return d.hold("unpause", uuid, driver.PowerRunning)
}

func (d *Driver) hold(op string, uuid driver.InstanceUUID, to driver.PowerState) error {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get(op, uuid)
	if err != nil {
		return err
	}
	if i.state != driver.PowerRunning && i.state != driver.PowerPaused {
		return fmt.Errorf("%s %s: %s: %w", op, uuid, i.state, errdefs.ErrConflict)
	}
	i.state = to
	return nil
}
