package compute

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// triggerCrashDump has the memory of the guest kept on the host. It changes
// neither states nor the guest.
func (m *Manager) triggerCrashDump(ctx context.Context, o *op) (any, error) {
	unsupported := messaging.NovaError("TriggerCrashDumpNotSupported", 400, "Triggering crash dump is not supported")
	d, ok := m.dep.Driver.(driver.CrashDumper)
	if !ok {
		return nil, unsupported
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "trigger_crash_dump.start", nil)
	err := d.CrashDump(ctx, driver.InstanceUUID(o.uuid()))
	switch {
	case errors.Is(err, errdefs.ErrUnsupported):
		return nil, fmt.Errorf("%w: %w", unsupported, err)
	case errors.Is(err, errdefs.ErrConflict):
		return nil, fmt.Errorf("%w: %w", messaging.NovaError("InstanceNotRunning", 400, "Instance %s is not running.", o.uuid()), err)
	case err != nil:
		return nil, fmt.Errorf("crash dump of %s: %w", o.uuid(), err)
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "trigger_crash_dump.end", nil)
	return nil, nil
}
