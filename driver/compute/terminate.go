package compute

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// Terminate deletes an instance as terminate_instance does: guest, ports,
// usage, allocation, console tokens and row. It cancels a build or snapshot of
// the instance and waits for it. It is idempotent, and a row that is gone
// already is success.
func (m *Manager) Terminate(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	_, err := m.perform(ctx, wrapXREF, m.own(rc, "terminate_instance", inst), (*Manager).terminateInstance)
	return err
}

// terminateInstance overtakes what runs and then deletes under the lock.
func (m *Manager) terminateInstance(ctx context.Context, o *op) (any, error) {
	ctx, end, ok := m.active.begin(ctx, o.uuid(), kindDelete)
	if !ok {
		o.log.Info().Msg("a delete of the instance is under way")
		return nil, nil
	}
	defer end()
	m.active.cancel(o.uuid(), errDeleted)
	m.waiters.drop(driver.InstanceUUID(o.uuid()))
	unlock, err := m.locks.Lock(ctx, o.uuid())
	if err != nil {
		return nil, err
	}
	defer unlock()
	err = m.terminate(ctx, o)
	if messaging.IsRemote(err, "InstanceNotFound") {
		return nil, nil
	}
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, m.setError(ctx, o))
	}
	return nil, err
}

// terminate is a straight list; each step is idempotent.
func (m *Manager) terminate(ctx context.Context, o *op) error {
	inst, rc := o.inst, o.rc
	m.notify(ctx, rc, inst, messaging.PriorityInfo, "delete.start", nil)
	m.notify(ctx, rc, inst, messaging.PriorityInfo, "shutdown.start", nil)
	m.dropConsoles(o.uuid())
	if err := m.dep.Driver.Destroy(ctx, driver.InstanceUUID(o.uuid())); err != nil {
		return fmt.Errorf("destroy %s: %w", o.uuid(), err)
	}
	if err := m.dep.Ports.Deallocate(ctx, rc, inst, cachedNetwork(inst)); err != nil && !gone(err) {
		return fmt.Errorf("free the network of %s: %w", o.uuid(), err)
	}
	m.notify(ctx, rc, inst, messaging.PriorityInfo, "shutdown.end", nil)
	// cleaned says that no files are left, which spares the periodic task a
	// look at every deleted instance.
	saved := m.save(ctx, rc, inst, map[string]any{
		"vm_state": vmDeleted, "task_state": nil, "power_state": int(driver.PowerNoState),
		"terminated_at": time.Now(), "cleaned": true,
	}, Expect{})
	rowGone := messaging.IsRemote(saved, "InstanceNotFound")
	if saved != nil && !rowGone {
		return saved
	}
	if err := m.dep.Tracker.Drop(ctx, rc, inst); err != nil {
		return fmt.Errorf("drop usage of %s: %w", o.uuid(), err)
	}
	if err := m.endMoves(ctx, o); err != nil {
		return fmt.Errorf("end moves of %s: %w", o.uuid(), err)
	}
	if err := m.dep.Conductor.CleanConsoleAuths(ctx, rc, o.uuid()); err != nil {
		o.log.Warn().Err(err).Msg("console tokens stay until they expire")
	}
	if m.dep.Scheduler != nil {
		m.dep.Scheduler.InstanceDeleted(ctx, rc, o.uuid())
	}
	if rowGone {
		return nil
	}
	if err := m.dep.Conductor.DestroyInstance(ctx, rc, inst); err != nil {
		return fmt.Errorf("destroy row of %s: %w", o.uuid(), err)
	}
	m.notify(ctx, rc, inst, messaging.PriorityInfo, "delete.end", nil)
	return nil
}

// endMoves gives up what the moves of an instance hold that is being deleted in
// the middle of one. In error, the other host finds it (its periodic task
// _cleanup_incomplete_migrations).
func (m *Manager) endMoves(ctx context.Context, o *op) error {
	if _, moving := o.inst.Strings("system_metadata")[oldVMState]; !moving {
		return nil
	}
	list, err := m.dep.Conductor.MigrationsByFilters(ctx, o.rc.Elevated(), map[string]any{
		"instance_uuid": o.uuid(), "status": []string{"pre-migrating", "migrating", "post-migrating", "finished", "confirming", "reverting", "error"},
	})
	for _, mig := range list {
		mig.ResetChanges()
		mig.Set("status", "error")
		err = errors.Join(err, m.dep.Tracker.DropMove(ctx, o.rc, mig), m.dep.Conductor.SaveMigration(ctx, o.rc, mig))
	}
	return err
}

// setError sets vm_state error and keeps the task for revertTask.
func (m *Manager) setError(ctx context.Context, o *op) error {
	err := m.save(ctx, o.rc, o.inst, map[string]any{"vm_state": vmError}, Expect{})
	if gone(err) {
		return nil
	}
	return err
}
