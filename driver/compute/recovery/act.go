package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// The texts that a tenant reads in the fault of an instance.
const (
	faultBuild   = "The build was interrupted by a restart of the compute service."
	faultShelf   = "The unshelving was interrupted by a restart of the compute service."
	faultMove    = "The resize was interrupted by a restart of the compute service."
	faultRescue  = "The rescue was interrupted by a restart of the compute service."
	faultRebuild = "The operation was interrupted by a restart of the compute service."
	faultNetwork = "The network of the instance could not be restored after a restart of the compute service."
	faultResume  = "The instance could not be started again after a restart of the host."
)

// act does what was decided.
func (r *Recovery) act(ctx context.Context, inst *objects.Object, d Decision, present bool) error {
	rc := messaging.AdminContext()
	ops := r.deps.Operations
	switch d.Action {
	case Skip, Foreign, Discard:
		return nil
	case FinishDelete:
		return r.finishDelete(ctx, rc, inst)
	case RepeatDelete:
		return ops.Terminate(ctx, rc, inst)
	case AbandonBuild:
		return r.abandon(ctx, rc, inst)
	case AbandonUnshelve:
		return r.abandonUnshelve(ctx, rc, inst)
	case Offload:
		return ops.Offload(ctx, rc, inst)
	case Fail:
		return r.fail(ctx, rc, inst, faultRebuild, "")
	case RebootSoft:
		return ops.Reboot(ctx, rc, inst, driver.RebootSoft)
	case RebootHard:
		return r.rebootHard(ctx, rc, inst)
	case Unpause:
		return ops.Unpause(ctx, rc, inst)
	case SettleSuspended:
		return r.save(ctx, rc, inst, map[string]any{"vm_state": vmSuspended, "task_state": nil, "power_state": int(driver.PowerSuspended)})
	case Resume:
		return ops.Resume(ctx, rc, inst)
	case Unrescue:
		return ops.Unrescue(ctx, rc, inst)
	case AbandonRescue:
		return r.abandonRescue(ctx, rc, inst)
	case SettleRescued:
		if err := r.settleRescued(ctx, rc, inst); err != nil {
			return err
		}
	case Stop:
		return ops.Stop(ctx, rc, inst)
	case Start:
		return ops.Start(ctx, rc, inst)
	case SettlePaused:
		return r.save(ctx, rc, inst, map[string]any{"vm_state": vmPaused, "task_state": nil, "power_state": int(driver.PowerPaused)})
	case SettleActive:
		if err := r.save(ctx, rc, inst, map[string]any{"vm_state": vmActive, "task_state": nil}); err != nil {
			return err
		}
	case AbandonMove:
		if err := r.abandonMove(ctx, rc, inst); err != nil {
			return err
		}
		if _, err := r.deps.Driver.Info(ctx, driver.InstanceUUID(inst.String("uuid"))); errors.Is(err, errdefs.ErrNotFound) {
			return nil // it has gone back to the host that it came from
		}
	case Thaw:
		if err := r.thaw(ctx, inst); err != nil {
			return err
		}
		fallthrough
	case ClearTask:
		if err := r.save(ctx, rc, inst, map[string]any{"task_state": nil}); err != nil {
			return err
		}
	case Continue:
	}
	return r.resume(ctx, rc, inst, d, present)
}

// save writes fields if the row's task is still the one that was judged.
func (r *Recovery) save(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, fields map[string]any) error {
	expect := compute.Expect{TaskState: []string{inst.String("task_state")}}
	for name, value := range fields {
		inst.Set(name, value)
	}
	if err := r.deps.Conductor.SaveInstance(ctx, rc, inst, expect); err != nil {
		return fmt.Errorf("save instance %s: %w", inst.String("uuid"), err)
	}
	return nil
}

// fail records a fault and sets error. keepTask is the task that stays, "" for none.
func (r *Recovery) fail(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, fault, keepTask string) error {
	fields := map[string]any{"vm_state": vmError, "task_state": nil}
	if keepTask != "" {
		delete(fields, "task_state")
	}
	return errors.Join(
		r.deps.Conductor.CreateFault(ctx, rc, inst.String("uuid"), 500, fault, ""),
		r.save(ctx, rc, inst, fields))
}

// abandon undoes a build that nobody waits for any more. The row gives up this
// host only when nothing of the instance is left here: otherwise the delete
// that the user will ask for comes to us and finds the rest.
func (r *Recovery) abandon(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	clean := r.deps.Driver.Destroy(ctx, driver.InstanceUUID(inst.String("uuid")))
	if clean == nil {
		known, _ := network(inst) // a damaged cache: Neutron knows the ports
		clean = r.deps.Ports.Deallocate(ctx, rc, inst, known)
	}
	if clean == nil {
		clean = r.deps.Tracker.Drop(ctx, rc, inst)
	}
	if clean == nil {
		orphan(inst)
	}
	return errors.Join(clean, r.fail(ctx, rc, inst, faultBuild, ""))
}

// orphan makes the row one that belongs to no host.
func orphan(inst *objects.Object) {
	for _, field := range []string{"host", "node", "launched_on", "availability_zone"} {
		inst.Set(field, nil)
	}
}

// abandonUnshelve makes an instance offloaded again; its ports and its image
// stay. While something of it is left here the row stays ours, in error.
func (r *Recovery) abandonUnshelve(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	uuid := inst.String("uuid")
	clean := r.deps.Driver.Destroy(ctx, driver.InstanceUUID(uuid))
	if clean == nil {
		clean = r.deps.Tracker.Drop(ctx, rc, inst)
	}
	if clean != nil {
		return errors.Join(clean, r.fail(ctx, rc, inst, faultShelf, ""))
	}
	orphan(inst)
	return errors.Join(
		r.deps.Conductor.CreateFault(ctx, rc, uuid, 500, faultShelf, ""),
		r.save(ctx, rc, inst, map[string]any{"task_state": nil}))
}

// abandonMove undoes a resize and tells the tenant.
func (r *Recovery) abandonMove(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	return errors.Join(
		r.deps.Conductor.CreateFault(ctx, rc, inst.String("uuid"), 500, faultMove, ""),
		r.deps.Operations.AbandonMove(ctx, rc, inst))
}

// finishDelete ends a delete that had removed everything but the row.
func (r *Recovery) finishDelete(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	uuid := inst.String("uuid")
	if err := r.deps.Driver.Destroy(ctx, driver.InstanceUUID(uuid)); err != nil {
		return fmt.Errorf("destroy guest of %s: %w", uuid, err)
	}
	return errors.Join(
		r.deps.Tracker.Drop(ctx, rc, inst),
		r.deps.Conductor.CleanConsoleAuths(ctx, rc, uuid),
		r.deps.Conductor.DestroyInstance(ctx, rc, inst))
}

// rebootHard repeats a reboot whose guest may be off; a soft one becomes hard.
func (r *Recovery) rebootHard(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	switch inst.String("task_state") {
	case taskRebootPending, taskRebootStarted:
		if err := r.save(ctx, rc, inst, map[string]any{"task_state": taskRebootPendingHard}); err != nil {
			return err
		}
	}
	return r.deps.Operations.Reboot(ctx, rc, inst, driver.RebootHard)
}

// thaw ends the pause of a cut-off snapshot.
func (r *Recovery) thaw(ctx context.Context, inst *objects.Object) error {
	p, ok := r.deps.Driver.(driver.Pauser)
	if !ok {
		return nil
	}
	return p.Unpause(ctx, driver.InstanceUUID(inst.String("uuid")))
}

// resume matches the network of a guest that is here and starts it if asked.
func (r *Recovery) resume(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, d Decision, present bool) error {
	uuid := driver.InstanceUUID(inst.String("uuid"))
	if !present {
		if inst.String("vm_state") == vmActive {
			return fmt.Errorf("guest of active instance %s: %w", uuid, errdefs.ErrNotFound)
		}
		return nil
	}
	vifs, err := network(inst)
	if err != nil {
		return err
	}
	for _, vif := range vifs {
		if vif.Type == "binding_failed" {
			return errors.Join(fmt.Errorf("port %s of instance %s: binding failed: %w", vif.ID, uuid, errdefs.ErrInvalid),
				r.fail(ctx, rc, inst, faultNetwork, inst.String("task_state")))
		}
	}
	if rec, ok := r.deps.Driver.(driver.Recoverer); ok {
		if err := rec.Plug(ctx, uuid, vifs); err != nil {
			return fmt.Errorf("plug instance %s: %w", uuid, err)
		}
	}
	if !d.PowerOn {
		return nil
	}
	if err := r.deps.Driver.PowerOn(ctx, driver.PowerOnRequest{UUID: uuid, VIFs: vifs}); err != nil {
		return errors.Join(err, r.fail(ctx, rc, inst, faultResume, inst.String("task_state")))
	}
	return nil
}

// network reads the info cache that came with the instance.
func network(inst *objects.Object) (objects.NetworkInfo, error) {
	cache := inst.Object("info_cache")
	if cache == nil || cache.String("network_info") == "" {
		return nil, nil
	}
	var info objects.NetworkInfo
	if err := json.Unmarshal([]byte(cache.String("network_info")), &info); err != nil {
		return nil, fmt.Errorf("info cache of instance %s: %w: %w", inst.String("uuid"), errdefs.ErrInvalid, err)
	}
	return info, nil
}
