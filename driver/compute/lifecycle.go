package compute

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Watch follows the driver's events until ctx ends and brings the power state
// of each named instance into agreement. It returns nil at once when the
// driver has no events.
func (m *Manager) Watch(ctx context.Context) error {
	s, ok := m.dep.Driver.(driver.EventSource)
	if !ok {
		return nil
	}
	events := s.Events()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, open := <-events:
			if !open {
				return nil
			}
			m.goBackground(ctx, func(ctx context.Context) { m.lifecycle(ctx, ev) })
		}
	}
}

// lifecycle handles one event. The lock makes it wait for the operation that
// may have caused it; afterwards the states agree and nothing is left to do.
func (m *Manager) lifecycle(ctx context.Context, ev driver.LifecycleEvent) {
	uuid, rc := string(ev.UUID), messaging.AdminContext()
	log := m.log.With().Str(logging.Instance, uuid).Str("reason", ev.Reason).Logger()
	log.Info().Msg("the guest's state changed by itself")
	unlock, err := m.locks.Lock(ctx, uuid)
	if err != nil {
		return
	}
	row, err := m.row(ctx, rc, uuid)
	unlock()
	switch {
	case gone(err):
		return
	case err != nil:
		log.Warn().Err(err).Msg("power state not compared, the periodic task will")
		return
	case row.String("host") != m.opt.Host:
		log.Warn().Str("other", row.String("host")).Msg("guest of an instance of another host")
		return
	}
	if err := m.sync(ctx, row, ev.Reason); err != nil {
		log.Warn().Err(err).Msg("power state not brought into agreement, the periodic task will")
	}
}

// SyncPowerState compares the instance's row with the guest and acts as Nova's
// periodic task does: the row learns the power state, and a guest that ended by
// itself is stopped through the path of the API. inst may be stale: when it
// differs from the guest, the row is read again. An instance in the middle of
// a task, and one of another host, is left alone.
func (m *Manager) SyncPowerState(ctx context.Context, inst *objects.Object) error {
	real, _, err := m.real(ctx, inst.String("uuid"))
	if err != nil {
		return err
	}
	if m.active.any(inst.String("uuid")) || inst.String("host") != m.opt.Host || !inst.IsNull("task_state") {
		return nil
	}
	if real == driver.PowerState(inst.Int("power_state")) && m.decide(inst, real) == syncNothing {
		return nil
	}
	row, err := m.row(ctx, messaging.AdminContext(), inst.String("uuid"))
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.sync(ctx, row, "")
}

// row reads what the verbs need of an instance.
func (m *Manager) row(ctx context.Context, rc messaging.RequestContext, uuid string) (*objects.Object, error) {
	return m.dep.Conductor.GetInstance(ctx, rc, uuid, "metadata", "system_metadata", "info_cache", "flavor")
}

// real is the guest's power state and the reason for it; an absent guest has
// no state.
func (m *Manager) real(ctx context.Context, uuid string) (driver.PowerState, string, error) {
	info, err := m.dep.Driver.Info(ctx, driver.InstanceUUID(uuid))
	if errors.Is(err, errdefs.ErrNotFound) {
		return driver.PowerNoState, "", nil
	}
	return info.State, info.Reason, err
}

func (m *Manager) decide(inst *objects.Object, real driver.PowerState) syncAction {
	return decideSync(inst.String("vm_state"), real, inst.Bool("shutdown_terminate"))
}

// sync acts on a fresh row.
func (m *Manager) sync(ctx context.Context, row *objects.Object, reason string) error {
	rc, uuid := messaging.AdminContext(), row.String("uuid")
	act, err := m.compare(ctx, rc, row, &reason)
	if err != nil {
		if gone(err) || messaging.IsRemote(err, "UnexpectedTaskStateError") {
			return nil // somebody else is at work on it
		}
		return err
	}
	log := m.instanceLog(rc, row)
	switch act {
	case syncStop:
		if reason != "" {
			err := fmt.Errorf("guest of %s: %s: %w", uuid, reason, errdefs.ErrUnavailable)
			if err := m.fault(ctx, rc, uuid, errdefs.WithPublic(err, "The instance ended by itself: "+reason)); err != nil {
				log.Warn().Err(err).Msg("reason not stored")
			}
		}
		return m.Stop(ctx, rc, row)
	case syncDelete:
		return m.Terminate(ctx, rc, row)
	case syncWarn:
		log.Warn().Str("vm_state", row.String("vm_state")).Int64("power_state", row.Int("power_state")).
			Msg("the guest's power state does not fit the instance")
	case syncNothing:
	}
	return nil
}

// compare writes the power state and, where something must be done, the action
// and the task that the API would have set; all under the lock. reason is
// filled in from the driver when it is empty.
func (m *Manager) compare(ctx context.Context, rc messaging.RequestContext, row *objects.Object, reason *string) (syncAction, error) {
	unlock, err := m.locks.Lock(ctx, row.String("uuid"))
	if err != nil {
		return syncNothing, err
	}
	defer unlock()
	real, why, err := m.real(ctx, row.String("uuid"))
	if err != nil || !row.IsNull("task_state") {
		return syncNothing, err
	}
	if *reason == "" {
		*reason = why
	}
	act := m.decide(row, real)
	fields, action := map[string]any{"power_state": int(real)}, ""
	switch act {
	case syncStop:
		fields["task_state"], action = taskPoweringOff, "stop"
	case syncDelete:
		fields["task_state"], action = taskDeleting, "delete"
	case syncNothing, syncWarn:
		if real == driver.PowerState(row.Int("power_state")) {
			return act, nil
		}
	}
	if err := m.save(ctx, rc, row, fields, Expect{TaskState: []string{noTask}}); err != nil || action == "" {
		return act, err
	}
	return act, m.dep.Conductor.ActionStart(ctx, rc, row.String("uuid"), action)
}
