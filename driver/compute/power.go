package compute

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Stop stops an instance as stop_instance with a clean shutdown does: from
// task powering-off (or none, if the guest is down) to vm_state stopped.
func (m *Manager) Stop(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	_, err := m.perform(ctx, wrapXREF|wrapLock, m.own(rc, "stop_instance", inst), (*Manager).stopInstance)
	return err
}

// Start starts an instance as start_instance does: from task powering-on to
// vm_state active.
func (m *Manager) Start(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	_, err := m.perform(ctx, wrapXREF|wrapLock, m.own(rc, "start_instance", inst), (*Manager).startInstance)
	return err
}

func (m *Manager) stopInstance(ctx context.Context, o *op) (any, error) {
	clean := true
	if err := o.arg("clean_shutdown", &clean); err != nil {
		return nil, err
	}
	return nil, m.stop(ctx, o, clean)
}

// stop ends the guest and saves that. The lock is held.
func (m *Manager) stop(ctx context.Context, o *op, clean bool) error {
	t := transitionOf(verbStop)
	if s, err := m.power(ctx, o); err == nil && s != driver.PowerRunning && s != driver.PowerPaused {
		t.expect = append(t.expect, noTask) // it is down already
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "power_off.start", nil)
	if err := m.dep.Driver.PowerOff(ctx, driver.InstanceUUID(o.uuid()), m.patience(o.inst, clean)); err != nil {
		return fmt.Errorf("stop %s: %w", o.uuid(), err)
	}
	if err := m.arrive(ctx, o, t, nil); err != nil {
		return err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "power_off.end", nil)
	return nil
}

func (m *Manager) startInstance(ctx context.Context, o *op) (any, error) {
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "power_on.start", nil)
	if err := m.powerOn(ctx, o); err != nil {
		return nil, err
	}
	fields := map[string]any{}
	meta, image := withoutShelf(o.inst)
	if image != "" { // shelved, and never offloaded
		fields["system_metadata"] = meta
	}
	if err := m.arrive(ctx, o, transitionOf(verbStart), fields); err != nil {
		return nil, err
	}
	m.dropShelfImage(ctx, o, image)
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "power_on.end", nil)
	return nil, nil
}

func (m *Manager) softDeleteInstance(ctx context.Context, o *op) (any, error) {
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "soft_delete.start", nil)
	if err := m.dep.Driver.PowerOff(ctx, driver.InstanceUUID(o.uuid()), driver.PowerOffOptions{}); err != nil {
		return nil, fmt.Errorf("soft delete %s: %w", o.uuid(), err)
	}
	if err := m.arrive(ctx, o, transitionOf(verbSoftDelete), nil); err != nil {
		return nil, err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "soft_delete.end", nil)
	return nil, nil
}

func (m *Manager) restoreInstance(ctx context.Context, o *op) (any, error) {
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "restore.start", nil)
	if err := m.powerOn(ctx, o); err != nil {
		return nil, err
	}
	if err := m.arrive(ctx, o, transitionOf(verbRestore), nil); err != nil {
		return nil, err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "restore.end", nil)
	return nil, nil
}

// powerOn starts the guest with its present network.
func (m *Manager) powerOn(ctx context.Context, o *op) error {
	vifs, err := m.network(ctx, o)
	if err == nil {
		err = m.ownSystem(ctx, o)
	}
	if err != nil {
		return err
	}
	err = m.dep.Driver.PowerOn(ctx, driver.PowerOnRequest{UUID: driver.InstanceUUID(o.uuid()), VIFs: vifs})
	if err != nil {
		return fmt.Errorf("start %s: %w", o.uuid(), err)
	}
	return nil
}

// network refreshes the network from Neutron. While Neutron is away the info
// cache has to do: an instance must not stay down for that.
func (m *Manager) network(ctx context.Context, o *op) (objects.NetworkInfo, error) {
	vifs, err := m.dep.Ports.Refresh(ctx, o.rc, o.inst)
	if err == nil || !errors.Is(err, errdefs.ErrUnavailable) {
		return vifs, err
	}
	o.log.Warn().Err(err).Msg("network read from the info cache instead of Neutron")
	if o.inst.Has("info_cache") {
		return cachedNetwork(o.inst), nil
	}
	row, err := m.dep.Conductor.GetInstance(ctx, o.rc, o.uuid(), "info_cache")
	if err != nil {
		return nil, err
	}
	return cachedNetwork(row), nil
}

// arrive ends a verb: vm and power state, no task, what else fields has.
func (m *Manager) arrive(ctx context.Context, o *op, t transition, fields map[string]any) error {
	state, err := m.power(ctx, o)
	if err != nil {
		return err
	}
	all := map[string]any{"vm_state": t.to, "power_state": int(state), "task_state": nil}
	for k, v := range fields {
		all[k] = v
	}
	return m.save(ctx, o.rc, o.inst, all, Expect{TaskState: t.expect})
}

// power asks the driver. An absent guest is an error.
func (m *Manager) power(ctx context.Context, o *op) (driver.PowerState, error) {
	info, err := m.dep.Driver.Info(ctx, driver.InstanceUUID(o.uuid()))
	if err != nil {
		return driver.PowerNoState, fmt.Errorf("state of %s: %w", o.uuid(), err)
	}
	return info.State, nil
}

// patience is how long the guest may take to stop: not at all, as long as its
// image says (os_shutdown_timeout), or as long as the host says.
func (m *Manager) patience(inst *objects.Object, clean bool) driver.PowerOffOptions {
	if !clean {
		return driver.PowerOffOptions{}
	}
	limit := m.opt.ShutdownTimeout
	if s, err := strconv.Atoi(inst.Strings("system_metadata")["image_os_shutdown_timeout"]); err == nil && s >= 0 {
		limit = time.Duration(s) * time.Second
	}
	return driver.PowerOffOptions{Timeout: limit, RetryInterval: m.opt.ShutdownRetry}
}
