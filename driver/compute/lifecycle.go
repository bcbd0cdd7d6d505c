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
		case <-m.probe:
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
	log := m.log.With().Str(logging.Instance, string(ev.UUID)).Logger()
	log.Info().Str("reason", ev.Reason).Msg("the guest's state changed by itself")
	if err := m.sync(ctx, string(ev.UUID), ev.Reason); err != nil {
		log.Warn().Err(err).Msg("power state not brought into agreement, the periodic task will")
	}
}

// SyncPowerState compares the instance's row with the guest and acts as Nova's
// periodic task does: the row learns the power state, and a guest that ended by
// itself is stopped through the path of the API. inst may be stale: when it
// differs from the guest, the row is read again. An instance in the middle of
// a task, and one of another host, is left alone.
func (m *Manager) SyncPowerState(ctx context.Context, inst *objects.Object) error {
	uuid := inst.String("uuid")
	if m.active.any(uuid) || inst.String("host") != m.opt.Host || !inst.IsNull("task_state") {
		return nil
	}
	real, _, err := m.real(ctx, uuid)
	if err != nil {
		return err
	}
	if real == driver.PowerState(inst.Int("power_state")) && m.decide(inst, real) == syncNothing {
		return nil
	}
	return m.sync(ctx, uuid, "")
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

// sync brings row and guest into agreement.
func (m *Manager) sync(ctx context.Context, uuid, reason string) error {
	rc := messaging.AdminContext()
	row, act, why, err := m.compare(ctx, rc, uuid)
	if gone(err) || messaging.IsRemote(err, "UnexpectedTaskStateError") {
		return nil // somebody else is at work on it
	}
	if err != nil {
		return err
	}
	if reason == "" {
		reason = why
	}
	switch log := m.instanceLog(rc, row); act {
	case syncStop:
		if reason != "" {
			err := fmt.Errorf("guest of %s: %s: %w", uuid, reason, errdefs.ErrUnavailable)
			if err := m.fault(ctx, rc, uuid, errdefs.WithPublic(err, "The instance ended by itself: "+reason)); err != nil {
				log.Warn().Err(err).Msg("reason not stored")
			}
			if err := m.tellEnd(ctx, rc, row, reason); err != nil {
				log.Warn().Err(err).Msg("end of the guest not recorded")
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

// The events of a guest's own end. They stand before compute_stop_instance in the
// action that follows it.
const (
	eventGuestOff     = "guest_powered_off"
	eventGuestCrashed = "guest_crashed"
)

// tellEnd records how the guest has ended where its user reads it: the API shows a
// fault only of a server in error. A crash is a failed event with the reason.
func (m *Manager) tellEnd(ctx context.Context, rc messaging.RequestContext, row *objects.Object, reason string) error {
	uuid, event, failure := row.String("uuid"), eventGuestOff, ""
	if driver.PowerState(row.Int("power_state")) == driver.PowerCrashed {
		event, failure = eventGuestCrashed, "The instance ended by itself: "+reason
	}
	if err := m.dep.Conductor.EventStart(ctx, rc, uuid, event); err != nil {
		return err
	}
	return m.dep.Conductor.EventFinish(ctx, rc, uuid, event, failure, failure)
}

// compare reads the row and writes the power state and, where something must
// be done, the task that the API would have set; all under the lock.
func (m *Manager) compare(ctx context.Context, rc messaging.RequestContext, uuid string) (row *objects.Object, act syncAction, why string, err error) {
	unlock, err := m.locks.Lock(ctx, uuid)
	if err != nil {
		return nil, syncNothing, "", err
	}
	defer unlock()
	row, err = m.dep.Conductor.GetInstance(ctx, rc, uuid, "metadata", "system_metadata", "info_cache", "flavor")
	if err != nil {
		return nil, syncNothing, "", err
	}
	log := m.instanceLog(rc, row)
	if other := row.String("host"); other != m.opt.Host {
		log.Warn().Str("other", other).Msg("guest of an instance of another host")
		return row, syncNothing, "", nil
	}
	real, why, err := m.real(ctx, uuid)
	if err != nil || !row.IsNull("task_state") {
		return row, syncNothing, "", err
	}
	act = m.decide(row, real)
	fields, action := map[string]any{"power_state": int(real)}, ""
	switch act {
	case syncStop:
		fields["task_state"], action = taskPoweringOff, "stop"
	case syncDelete:
		fields["task_state"], action = taskDeleting, "delete"
	case syncNothing, syncWarn:
		if real == driver.PowerState(row.Int("power_state")) {
			return row, act, why, nil
		}
	}
	if err := m.save(ctx, rc, row, fields, Expect{TaskState: []string{noTask}}); err != nil || action == "" {
		return row, act, why, err
	}
	// Without the action the event joins the instance's latest one.
	if err := m.dep.Conductor.ActionStart(ctx, rc, uuid, action); err != nil {
		log.Warn().Err(err).Msg("action not recorded")
	}
	return row, act, why, nil
}
