package fake

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// StepSuspend is before a guest is put aside.
const StepSuspend Step = "suspend"

func memoryOf(uuid driver.InstanceUUID) string { return "memory " + string(uuid) }

// Suspend keeps the guest's memory and ends its process.
func (d *Driver) Suspend(ctx context.Context, uuid driver.InstanceUUID) error {
	if err := d.pass(ctx, StepSuspend); err != nil {
		return fmt.Errorf("suspend %s: %w", uuid, err)
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("suspend", uuid)
	switch {
	case err != nil:
		return err
	case i.state == driver.PowerSuspended:
		return nil
	case i.state != driver.PowerRunning:
		return fmt.Errorf("suspend %s: %s: %w", uuid, i.state, errdefs.ErrConflict)
	}
	i.hangUp()
	i.state = driver.PowerSuspended
	d.host.residue[memoryOf(uuid)] = uuid
	delete(d.host.residue, processOf(uuid))
	return nil
}

// Resume lets it go on.
func (d *Driver) Resume(ctx context.Context, req driver.PowerOnRequest) error {
	return d.PowerOn(ctx, req)
}
