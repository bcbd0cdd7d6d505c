package compute

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// unsavable are fields that arrive marked as changed and are never written
// through the instance (nova-wire: "incoming objects may already be dirty").
func unsavable() []string {
	return []string{"ec2_ids", "tags", "pci_devices", "services", "fault"}
}

// adopt takes over an instance that came with a message: the changes that the
// sender left to us stay marked, the others do not.
func adopt(inst *objects.Object) {
	changes := inst.Changes()
	inst.ResetChanges()
	for _, field := range changes {
		if !slices.Contains(unsavable(), field) {
			inst.Set(field, inst.Get(field))
		}
	}
}

// save sets fields and saves the instance under a condition; times and
// integers may be Go values. When the save fails inst is as before.
//
// A save that got no answer is tried again for Options.ConductorPatience: a
// condition that then fails because the first try had succeeded is success.
func (m *Manager) save(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, fields map[string]any, expect Expect) error {
	before := inst.Clone()
	for name, v := range fields {
		inst.Set(name, v)
	}
	err := m.dep.Conductor.SaveInstance(ctx, rc, inst, expect)
	for began := time.Now(); errors.Is(err, messaging.ErrTimeout) && time.Since(began) < m.opt.ConductorPatience; {
		if err = pause(ctx, time.Second); err != nil {
			break
		}
		err = m.dep.Conductor.SaveInstance(ctx, rc, inst, expect)
		if messaging.IsRemote(err, "UnexpectedTaskStateError", "UnexpectedVMStateError") && m.stored(ctx, rc, inst, fields) {
			inst.ResetChanges()
			err = nil
		}
	}
	if err != nil {
		*inst = *before
		names := slices.Sorted(maps.Keys(fields))
		return fmt.Errorf("save %v of instance %s: %w", names, inst.String("uuid"), err)
	}
	return nil
}

// stored reports whether the row has the wanted vm and task state.
func (m *Manager) stored(ctx context.Context, rc messaging.RequestContext, wanted *objects.Object, fields map[string]any) bool {
	row, err := m.dep.Conductor.GetInstance(ctx, rc, wanted.String("uuid"))
	if err != nil {
		return false
	}
	for _, f := range []string{"vm_state", "task_state"} {
		if _, asked := fields[f]; asked && row.String(f) != wanted.String(f) {
			return false
		}
	}
	return true
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cachedNetwork reads the info cache that came with the instance. An unset or
// damaged one is no network: Neutron knows the ports.
func cachedNetwork(inst *objects.Object) objects.NetworkInfo {
	info, err := objects.ParseNetworkInfo(inst.Object("info_cache").String("network_info"))
	if err != nil {
		return nil
	}
	return info
}
