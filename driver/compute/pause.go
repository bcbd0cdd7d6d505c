package compute

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Unpause lets a paused instance go on as unpause_instance does.
func (m *Manager) Unpause(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	_, err := m.perform(ctx, wrapXREF|wrapLock, m.own(rc, "unpause_instance", inst), (*Manager).unpauseInstance)
	return err
}

func (m *Manager) pauseInstance(ctx context.Context, o *op) (any, error) {
	return nil, m.hold(ctx, o, "pause", verbPause, driver.Pauser.Pause)
}

func (m *Manager) unpauseInstance(ctx context.Context, o *op) (any, error) {
	return nil, m.hold(ctx, o, "unpause", verbUnpause, driver.Pauser.Unpause)
}

func (m *Manager) hold(ctx context.Context, o *op, name string, v verb, do func(driver.Pauser, context.Context, driver.InstanceUUID) error) error {
	p, ok := m.dep.Driver.(driver.Pauser)
	if !ok {
		return fmt.Errorf("%s %s: %w", name, o.uuid(), errdefs.ErrUnsupported)
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, name+".start", nil)
	if err := do(p, ctx, driver.InstanceUUID(o.uuid())); err != nil {
		return fmt.Errorf("%s %s: %w", name, o.uuid(), err)
	}
	if err := m.arrive(ctx, o, transitionOf(v), nil); err != nil {
		return err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, name+".end", nil)
	return nil
}
