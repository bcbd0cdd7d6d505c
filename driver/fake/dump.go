package fake

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// StepDump is a crash dump.
const StepDump Step = "crash dump"

func dumpOf(uuid driver.InstanceUUID) string  { return "crash dump " + string(uuid) }
func quietOf(uuid driver.InstanceUUID) string { return "quiet " + string(uuid) }

// lives must be called with Host.mu held.
func (h *Host) lives(op string, uuid driver.InstanceUUID) error {
	i, err := h.get(op, uuid)
	if err == nil && i.state != driver.PowerRunning && i.state != driver.PowerPaused {
		err = fmt.Errorf("%s %s: %s: %w", op, uuid, i.state, errdefs.ErrConflict)
	}
	return err
}

// CrashDump keeps a file.
func (d *Driver) CrashDump(ctx context.Context, uuid driver.InstanceUUID) error {
	if err := d.pass(ctx, StepDump); err != nil {
		return fmt.Errorf("crash dump of %s: %w", uuid, err)
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if err := d.host.lives("crash dump of", uuid); err != nil {
		return err
	}
	d.host.residue[dumpOf(uuid)] = uuid
	return nil
}

// Quiesce holds the guest's files still.
func (d *Driver) Quiesce(_ context.Context, uuid driver.InstanceUUID) error {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if err := d.host.lives("quiesce", uuid); err != nil {
		return err
	}
	d.host.residue[quietOf(uuid)] = uuid
	return nil
}

// Unquiesce lets them go.
func (d *Driver) Unquiesce(_ context.Context, uuid driver.InstanceUUID) error {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if err := d.host.lives("unquiesce", uuid); err != nil {
		return err
	}
	delete(d.host.residue, quietOf(uuid))
	return nil
}

// Quiet reports whether the guest's files are held still.
func (d *Driver) Quiet(uuid driver.InstanceUUID) bool {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	_, ok := d.host.residue[quietOf(uuid)]
	return ok
}
