package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// abandonRescue undoes a rescue that the end of the service has cut off, and
// tells the tenant. The instance is what it was, in whatever state that is.
func (r *Recovery) abandonRescue(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	uuid := driver.InstanceUUID(inst.String("uuid"))
	vifs, err := network(inst)
	if err != nil {
		return err
	}
	if d, ok := r.deps.Driver.(driver.Rescuer); ok {
		err = d.Unrescue(ctx, driver.UnrescueRequest{UUID: uuid, VIFs: vifs, PowerOn: inst.String("vm_state") == vmActive})
	}
	if err != nil {
		return errors.Join(fmt.Errorf("unrescue %s: %w", uuid, err), r.fail(ctx, rc, inst, faultRescue, ""))
	}
	info, err := r.deps.Driver.Info(ctx, uuid)
	if err != nil {
		return err
	}
	return errors.Join(
		r.deps.Conductor.CreateFault(ctx, rc, string(uuid), 500, faultRescue, ""),
		r.save(ctx, rc, inst, map[string]any{"task_state": nil, "power_state": int(info.State)}))
}

// settleRescued completes a rescue that the row has not heard of.
func (r *Recovery) settleRescued(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	return r.save(ctx, rc, inst, map[string]any{
		"vm_state": vmRescued, "task_state": nil, "power_state": int(driver.PowerRunning), "launched_at": time.Now(),
	})
}
