package compute

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// Reboot restarts an instance as reboot_instance does.
func (m *Manager) Reboot(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, kind driver.RebootType) error {
	_, err := m.perform(ctx, wrapXREF|wrapLock, m.own(rc, "reboot_instance", inst), func(m *Manager, ctx context.Context, o *op) (any, error) {
		return nil, m.reboot(ctx, o, kind)
	})
	return err
}

func (m *Manager) rebootInstance(ctx context.Context, o *op) (any, error) {
	kind := driver.RebootHard
	if err := o.arg("reboot_type", &kind); err != nil {
		return nil, err
	}
	return nil, m.reboot(ctx, o, kind)
}

// reboot goes from the API's task through reboot_started to none. Nova saves
// reboot_pending first; both are left by the same compare-and-swap, so one
// save does.
func (m *Manager) reboot(ctx context.Context, o *op, kind driver.RebootType) error {
	t := transitionOf(verbRebootHard)
	if kind == driver.RebootSoft {
		t = transitionOf(verbRebootSoft)
	}
	if o.inst.String("vm_state") == vmRescued {
		t.to = vmRescued
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "reboot.start", nil)
	vifs, err := m.network(ctx, o)
	if err != nil {
		return err
	}
	state, err := m.power(ctx, o)
	if err == nil {
		err = m.ownSystem(ctx, o)
	}
	if err != nil {
		return err
	}
	started := map[string]any{"task_state": t.task, "power_state": int(state)}
	if err := m.save(ctx, o.rc, o.inst, started, Expect{TaskState: t.expect}); err != nil {
		return err
	}
	err = m.dep.Driver.Reboot(ctx, driver.RebootRequest{
		UUID: driver.InstanceUUID(o.uuid()), Type: kind, VIFs: vifs, Off: m.patience(o.inst, true),
	})
	if err != nil {
		if err = m.rebootFailed(ctx, o, err); err != nil {
			return err
		}
	}
	// Nova checks no task here. With the check a delete that came meanwhile wins.
	t.expect = []string{t.task}
	if err := m.arrive(ctx, o, t, nil); err != nil {
		return err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "reboot.end", nil)
	return nil
}

// rebootFailed makes a fault of a reboot that left the guest running, and an
// error of one that did not.
func (m *Manager) rebootFailed(ctx context.Context, o *op, err error) error {
	err = fmt.Errorf("reboot %s: %w", o.uuid(), err)
	if ctx.Err() != nil {
		return err
	}
	if state, e := m.power(ctx, o); e == nil && state == driver.PowerRunning {
		o.log.Warn().Err(err).Msg("reboot failed, the guest runs on")
		m.notifyFailure(ctx, o, "reboot.error", err)
		return m.fault(ctx, o.rc, o.uuid(), err)
	}
	return errors.Join(err, m.setError(ctx, o))
}
