package compute

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// confirmResize ends a move where the instance was. After a failure it can be
// confirmed again.
func (m *Manager) confirmResize(ctx context.Context, o *op) (any, error) {
	v, err := m.moveOf(ctx, o)
	if v == nil || err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"finished", "confirming"}, v.mig.Status()) {
		o.log.Warn().Str("status", v.mig.Status()).Msg("migration is not to be confirmed")
		return nil, nil
	}
	row, err := m.dep.Conductor.GetInstance(ctx, o.rc, o.uuid(), "metadata", "system_metadata", "flavor", "info_cache")
	if messaging.IsRemote(err, "InstanceNotFound") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v.inst = row
	if err := v.confirm(ctx); err != nil {
		if ctx.Err() == nil {
			err = errors.Join(err, v.setStatus(context.WithoutCancel(ctx), "finished"))
		}
		return nil, err
	}
	return nil, nil
}

func (v *move) confirm(ctx context.Context) error {
	m, o := v.m, v.op
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "resize.confirm.start", nil)
	if err := v.driver.ConfirmMigration(ctx, driver.InstanceUUID(o.uuid()), v.moved()); err != nil {
		return fmt.Errorf("confirm migration of %s: %w", o.uuid(), err)
	}
	if err := failpoint.Hit("compute.confirm_resize.done"); err != nil {
		return err
	}
	if err := m.dep.Tracker.DropMove(ctx, o.rc, v.mig.Object); err != nil {
		return err
	}
	state := vmActive
	if driver.PowerState(o.inst.Int("power_state")) == driver.PowerShutdown {
		state = vmStopped
	}
	if o.inst.String("vm_state") == vmResized { // else an earlier life of the service had come so far
		fields := v.settledFields(map[string]any{"vm_state": state, "task_state": nil})
		if err := m.save(ctx, o.rc, o.inst, fields, Expect{TaskState: []string{noTask, taskDeleting, taskSoftDeleting}}); err != nil && !gone(err) {
			return err
		}
	}
	if err := failpoint.Hit("compute.confirm_resize.saved"); err != nil {
		return err
	}
	if err := v.setStatus(ctx, "confirmed"); err != nil {
		return err
	}
	m.dep.Tracker.CountMove(o.inst, v.mig.Object)
	if m.dep.Scheduler != nil && v.moved() {
		m.dep.Scheduler.InstanceDeleted(ctx, o.rc, o.uuid())
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "resize.confirm.end", nil)
	return nil
}

// revertResize is the first half of a revert, where the instance is. After a
// failure it can be reverted again.
func (m *Manager) revertResize(ctx context.Context, o *op) (any, error) {
	v, err := m.moveOf(ctx, o)
	if v == nil || err != nil {
		return nil, err
	}
	if err := v.leave(ctx); err != nil {
		if ctx.Err() == nil && !gone(err) && !stale(err) {
			err = errors.Join(err, v.setStatus(context.WithoutCancel(ctx), "finished"))
		}
		return nil, err
	}
	return nil, nil
}

// leave makes sure that the row is what the sender saw: what follows ends the guest.
func (v *move) leave(ctx context.Context) error {
	m, o := v.m, v.op
	if err := m.save(ctx, o.rc, o.inst, map[string]any{"task_state": taskResizeReverting}, Expect{TaskState: []string{taskResizeReverting}}); err != nil {
		return err
	}
	if v.moved() {
		if err := m.dep.Driver.Destroy(ctx, driver.InstanceUUID(o.uuid())); err != nil {
			return fmt.Errorf("destroy %s: %w", o.uuid(), err)
		}
	}
	if err := failpoint.Hit("compute.revert_resize.destroyed"); err != nil {
		return err
	}
	if err := v.setStatus(ctx, "reverted"); err != nil {
		return err
	}
	if err := v.cast(ctx, v.mig.SourceCompute(), "finish_revert_resize", nil); err != nil {
		return err
	}
	if m.dep.Scheduler != nil && v.moved() {
		m.dep.Scheduler.InstanceDeleted(ctx, o.rc, o.uuid())
	}
	m.dep.Tracker.CountMove(o.inst, v.mig.Object)
	return nil
}

// finishRevertResize is the second half, where the instance was.
func (m *Manager) finishRevertResize(ctx context.Context, o *op) (any, error) {
	v, err := m.moveOf(ctx, o)
	if v == nil || err != nil {
		return nil, err
	}
	err = v.working(ctx, v.comeBack)
	if err == nil || ctx.Err() != nil || gone(err) || stale(err) {
		return nil, err
	}
	return nil, errors.Join(err, m.setError(context.WithoutCancel(ctx), o))
}

func (v *move) comeBack(ctx context.Context) error {
	m, o := v.m, v.op
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "resize.revert.start", nil)
	old := o.inst.Object("old_flavor")
	if old == nil {
		old = o.inst.Object("flavor")
	}
	fields := sized(old, map[string]any{"host": m.opt.Host, "node": v.mig.SourceNode()})
	v.settleProcessors("old", fields)
	if err := m.save(ctx, o.rc, o.inst, fields, Expect{TaskState: []string{taskResizeReverting}}); err != nil {
		return err
	}
	if err := failpoint.Hit("compute.finish_revert_resize.begun"); err != nil {
		return err
	}
	if err := m.dep.Tracker.RevertMove(ctx, o.rc, o.inst, v.mig.Object); err != nil {
		return err
	}
	vifs, err := m.dep.Ports.Allocate(ctx, o.rc, AllocateRequest{Instance: o.inst.Clone(), Rebind: true})
	if err != nil {
		return fmt.Errorf("network of %s: %w", o.uuid(), err)
	}
	err = v.driver.FinishRevertMigration(ctx, driver.RevertMigrationRequest{
		UUID: driver.InstanceUUID(o.uuid()), Flavor: pinned(flavorFrom(old), v.topology("old")), VIFs: vifs, PowerOn: v.wasRunning(), Off: m.patience(o.inst, true),
	})
	if err != nil {
		return fmt.Errorf("finish revert of %s: %w", o.uuid(), err)
	}
	if err := failpoint.Hit("compute.finish_revert_resize.done"); err != nil {
		return err
	}
	t := transition{expect: []string{taskResizeReverting}, to: v.restState()}
	if err := m.arrive(ctx, o, t, v.settledFields(map[string]any{"launched_at": time.Now()})); err != nil {
		return err
	}
	m.dep.Tracker.CountMove(o.inst, v.mig.Object)
	if m.dep.Scheduler != nil {
		m.dep.Scheduler.InstanceUpdated(ctx, o.rc, o.inst)
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "resize.revert.end", nil)
	return nil
}

// flavorFrom is a Flavor as the driver has it.
func flavorFrom(f *objects.Object) driver.Flavor {
	return driver.Flavor{
		Name: f.String("name"), MemoryMB: f.Int("memory_mb"), VCPUs: f.Int("vcpus"), RootGB: f.Int("root_gb"),
		EphemeralGB: f.Int("ephemeral_gb"), SwapMB: f.Int("swap"), ExtraSpecs: f.Strings("extra_specs"),
	}
}
