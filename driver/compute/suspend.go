package compute

import (
	"context"
	"fmt"
	"maps"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// suspendInstance puts the guest aside. Whatever fails leaves it running.
func (m *Manager) suspendInstance(ctx context.Context, o *op) (any, error) {
	s, ok := m.dep.Driver.(driver.Suspender)
	if !ok {
		return nil, notSupported("Suspending an instance")
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "suspend.start", nil)
	if err := s.Suspend(ctx, driver.InstanceUUID(o.uuid())); err != nil {
		return nil, fmt.Errorf("suspend %s: %w", o.uuid(), err)
	}
	if err := failpoint.Hit("compute.suspend.done"); err != nil {
		return nil, err
	}
	if err := m.arrive(ctx, o, transition{expect: []string{taskSuspending}, to: vmSuspended}, nil); err != nil {
		return nil, err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "suspend.end", nil)
	return nil, nil
}

// Resume lets a suspended instance go on as resume_instance does.
func (m *Manager) Resume(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	_, err := m.perform(ctx, wrapXREF|wrapLock, m.own(rc, "resume_instance", inst), (*Manager).resumeInstance)
	return err
}

// resumeInstance lets the guest go on. One that is not suspended any more, by a
// reboot of the host, is started.
func (m *Manager) resumeInstance(ctx context.Context, o *op) (any, error) {
	s, ok := m.dep.Driver.(driver.Suspender)
	if !ok {
		return nil, notSupported("Resuming an instance")
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "resume.start", nil)
	vifs, err := m.network(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := s.Resume(ctx, driver.PowerOnRequest{UUID: driver.InstanceUUID(o.uuid()), VIFs: vifs}); err != nil {
		return nil, fmt.Errorf("resume %s: %w", o.uuid(), err)
	}
	if err := failpoint.Hit("compute.resume.done"); err != nil {
		return nil, err
	}
	fields := map[string]any{}
	if meta := o.inst.Strings("system_metadata"); meta[oldVMState] != "" { // a stock compute has suspended it
		meta = maps.Clone(meta)
		delete(meta, oldVMState)
		fields["system_metadata"] = meta
	}
	if err := m.arrive(ctx, o, transition{expect: []string{taskResuming}, to: vmActive}, fields); err != nil {
		return nil, err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "resume.end", nil)
	return nil, nil
}
