package compute

import (
	"context"
	"errors"
	"maps"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// AbandonMove ends a resize that the end of the service has cut off: the
// instance is what it was before, with its flavor and its allocation, and the
// migration is in error, or reverted if that is what was under way. So does a
// move between two hosts: where the instance goes to, nothing of it is left and
// the other host is told; where it comes from, it is brought back, unless the
// other host has begun with it. Each step is idempotent.
func (m *Manager) AbandonMove(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	_, err := m.perform(ctx, wrapX|wrapR|wrapF, m.own(rc, "finish_revert_resize", inst), (*Manager).abandonMove)
	return err
}

// ConfirmMove confirms a finished resize whose source is this host, as
// confirm_resize does.
func (m *Manager) ConfirmMove(ctx context.Context, rc messaging.RequestContext, inst, mig *objects.Object) error {
	o := m.own(rc, "confirm_resize", inst)
	o.mig = mig
	_, err := m.perform(ctx, wrapX|wrapF|wrapLock, o, func(m *Manager, ctx context.Context, o *op) (any, error) {
		v, err := m.moveOf(ctx, o)
		if err == nil {
			err = v.setStatus(ctx, "confirming") // as the API does
		}
		if err != nil {
			return nil, err
		}
		return m.confirmResize(ctx, o)
	})
	return err
}

func (m *Manager) abandonMove(ctx context.Context, o *op) (any, error) {
	task := o.inst.String("task_state")
	if err := m.findMove(ctx, o, task == taskResizeReverting); err != nil {
		return nil, err
	}
	if o.mig == nil {
		return nil, m.save(ctx, o.rc, o.inst, map[string]any{"task_state": nil}, Expect{TaskState: []string{task}})
	}
	v, err := m.moveOf(ctx, o)
	if err != nil {
		return nil, err
	}
	if task == taskResizePrep || task == taskResizeMigrating {
		if meta := o.inst.Strings("system_metadata"); meta[oldVMState] == "" { // nobody has touched it yet
			known := map[string]string{oldVMState: o.inst.String("vm_state")}
			maps.Copy(known, meta)
			o.inst.SetClean("system_metadata", known)
		}
		return nil, v.stayHere(ctx, nil)
	}
	back := v.abandonHere
	if v.moved() && v.mig.DestCompute() == m.opt.Host {
		back = v.abandonThere
	}
	err = back(ctx, task)
	switch {
	case gone(err), stale(err):
		return nil, nil // somebody else's from here on
	case err != nil && ctx.Err() == nil:
		err = errors.Join(err, m.setError(ctx, o))
	}
	return nil, err
}

// abandonThere sends an instance back to the host that it comes from.
func (v *move) abandonThere(ctx context.Context, task string) error {
	if task == taskResizeReverting {
		return v.leave(ctx)
	}
	return v.turnBack(ctx, nil)
}

// abandonHere goes back on the host where the instance was.
func (v *move) abandonHere(ctx context.Context, task string) error {
	status := "reverted"
	if v.mig.Status() == "error" {
		status = "error"
	}
	if task != taskResizeReverting {
		status = "error"
		if err := v.m.save(ctx, v.rc, v.inst, map[string]any{"task_state": taskResizeReverting}, Expect{TaskState: []string{task}}); err != nil {
			return err
		}
	}
	if err := v.comeBack(ctx); err != nil {
		return err
	}
	return v.setStatus(ctx, status)
}

// findMove puts the newest migration of the instance that can be meant into o.
func (m *Manager) findMove(ctx context.Context, o *op, reverting bool) error {
	status := []string{"pre-migrating", "migrating", "post-migrating", "finished"}
	if reverting {
		status = append(status, "reverting", "reverted", "error")
	}
	list, err := m.dep.Conductor.MigrationsByFilters(ctx, o.rc.Elevated(), map[string]any{"instance_uuid": o.uuid(), "status": status})
	for _, mig := range list {
		if o.mig == nil || mig.Int("id") > o.mig.Int("id") {
			o.mig = mig
		}
	}
	return err
}
