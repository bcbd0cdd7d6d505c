package compute

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// resizeInstance is the source's part of a move: the disk gets ready to go, and
// the row names the other host. Whatever fails leaves the instance as it was.
func (m *Manager) resizeInstance(ctx context.Context, o *op) (any, error) {
	v, err := m.moveOf(ctx, o)
	if v == nil || v.driver == nil {
		return nil, err
	}
	if err == nil {
		err = v.working(ctx, v.send)
	}
	if err == nil || ctx.Err() != nil || gone(err) || stale(err) {
		return nil, err
	}
	return nil, v.stayHere(context.WithoutCancel(ctx), err)
}

// send goes resize_prep, resize_migrating, resize_migrated.
func (v *move) send(ctx context.Context) error {
	m, o := v.m, v.op
	clean := true
	var flavor *objects.Object
	if err := errors.Join(o.arg("clean_shutdown", &clean), o.arg("instance_type", &flavor), o.arg("flavor", &flavor)); err != nil {
		return err
	}
	if flavor == nil {
		flavor = o.inst.Object("new_flavor")
	}
	if flavor == nil || flavor.Name != "Flavor" {
		return fmt.Errorf("resize %s: no flavor: %w", o.uuid(), errdefs.ErrInvalid)
	}
	if err := m.save(ctx, o.rc, o.inst, map[string]any{"task_state": taskResizeMigrating}, Expect{TaskState: []string{taskResizePrep}}); err != nil {
		return err
	}
	if err := v.setStatus(ctx, "migrating"); err != nil {
		return err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "resize.start", nil)
	if err := failpoint.Hit("compute.resize_instance.begun"); err != nil {
		return err
	}
	peer := ""
	if v.moved() {
		peer = o.inst.Strings("system_metadata")[movePeer]
		if peer == "" {
			return messaging.NovaError("MigrationError", 500, "Migration error: the other host cannot take instances of this one")
		}
	}
	info, err := v.driver.MigrateDiskAndPowerOff(ctx, driver.MigrateRequest{
		UUID: driver.InstanceUUID(o.uuid()), Peer: peer, Old: flavorOf(o.inst), New: pinned(flavorFrom(flavor), v.topology("new")), Off: m.patience(o.inst, clean),
	})
	if err != nil {
		return resizeError(fmt.Errorf("migrate disk of %s: %w", o.uuid(), err))
	}
	if err := failpoint.Hit("compute.resize_instance.offered"); err != nil {
		return err
	}
	if err := v.setStatus(ctx, "post-migrating"); err != nil {
		return err
	}
	before := o.inst.Clone()
	err = m.save(ctx, o.rc, o.inst, map[string]any{
		"host": v.mig.DestCompute(), "node": v.mig.DestNode(), "old_flavor": o.inst.Object("flavor"), "task_state": taskResizeMigrated,
	}, Expect{TaskState: []string{taskResizeMigrating}})
	if err != nil {
		return err
	}
	if err := failpoint.Hit("compute.resize_instance.departed"); err != nil {
		return err
	}
	if err := v.cast(ctx, v.mig.DestCompute(), "finish_resize", map[string]any{"disk_info": info, "image": v.pass("image")}); err != nil {
		back := map[string]any{"host": before.Get("host"), "node": before.Get("node"), "old_flavor": nil, "task_state": taskResizeMigrating}
		return errors.Join(err, m.save(context.WithoutCancel(ctx), o.rc, o.inst, back, Expect{TaskState: []string{taskResizeMigrated}}))
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "resize.end", nil)
	return nil
}

// stayHere ends a move before the instance has left: it is what it was, with
// its allocation. cause, which may be nil, is returned.
func (v *move) stayHere(ctx context.Context, cause error) error {
	err := v.driver.FinishRevertMigration(ctx, driver.RevertMigrationRequest{
		UUID: driver.InstanceUUID(v.uuid()), Flavor: flavorOf(v.inst), VIFs: cachedNetwork(v.inst),
		PowerOn: v.wasRunning(), Off: v.m.patience(v.inst, true),
	})
	if err != nil {
		err = errors.Join(fmt.Errorf("resume %s: %w", v.uuid(), err), v.m.setError(ctx, v.op))
	}
	task := v.inst.String("task_state")
	err = errors.Join(cause, err, v.m.dep.Tracker.RevertMove(ctx, v.rc, v.inst, v.mig.Object))
	saved := v.m.save(ctx, v.rc, v.inst, v.settledFields(map[string]any{"task_state": nil}), Expect{TaskState: []string{task}})
	if gone(saved) || stale(saved) {
		saved = nil
	}
	err = errors.Join(err, saved, v.setStatus(ctx, "error"))
	v.m.dep.Tracker.CountMove(v.inst, v.mig.Object)
	return err
}

// finishResize is the part of the host that the instance comes to. Whatever
// fails makes the instance what it was, where it was.
func (m *Manager) finishResize(ctx context.Context, o *op) (any, error) {
	v, err := m.moveOf(ctx, o)
	if v == nil {
		return nil, err
	}
	if err == nil {
		err = v.working(ctx, v.arriveHere)
	}
	if err == nil || ctx.Err() != nil || gone(err) || stale(err) {
		return nil, err
	}
	return nil, v.turnBack(context.WithoutCancel(ctx), err)
}

// arriveHere goes resize_migrated, resize_finish, none.
func (v *move) arriveHere(ctx context.Context) error {
	m, o := v.m, v.op
	var info string
	var image *wireImage
	if err := errors.Join(o.arg("disk_info", &info), o.arg("image", &image)); err != nil {
		return err
	}
	fields := map[string]any{"task_state": taskResizeFinish}
	if o.inst.String("task_state") != taskResizeFinish || o.inst.Object("old_flavor") == nil {
		fields["old_flavor"] = o.inst.Object("flavor")
	}
	if v.mig.Int("old_instance_type_id") != v.mig.Int("new_instance_type_id") && o.inst.Object("new_flavor") != nil {
		fields = sized(o.inst.Object("new_flavor"), fields)
	}
	v.settleProcessors("new", fields)
	if err := m.save(ctx, o.rc, o.inst, fields, Expect{TaskState: []string{taskResizeMigrated, taskResizeFinish}}); err != nil {
		return err
	}
	if err := failpoint.Hit("compute.finish_resize.begun"); err != nil {
		return err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "finish_resize.start", nil)
	img := driver.Image{}
	if image != nil {
		img = image.driver()
	}
	req := m.spawnRequest(o, img, networkFunc(func(ctx context.Context) (objects.NetworkInfo, error) {
		return m.dep.Ports.Allocate(ctx, o.rc, AllocateRequest{Instance: o.inst.Clone(), Rebind: true})
	}))
	err := v.driver.FinishMigration(ctx, driver.FinishMigrationRequest{
		SpawnRequest: req, Moved: v.moved(), DiskInfo: info, Old: pinned(flavorFrom(o.inst.Object("old_flavor")), v.topology("old")),
		PowerOn: v.wasRunning(), Off: m.patience(o.inst, true),
	})
	if err != nil {
		return resizeError(fmt.Errorf("finish migration of %s: %w", o.uuid(), err))
	}
	if err := failpoint.Hit("compute.finish_resize.done"); err != nil {
		return err
	}
	if err := v.setStatus(ctx, "finished"); err != nil {
		return err
	}
	done := map[string]any{"launched_at": time.Now()}
	if err := m.arrive(ctx, o, transition{expect: []string{taskResizeFinish}, to: vmResized}, done); err != nil {
		return err
	}
	m.dep.Tracker.CountMove(o.inst, v.mig.Object)
	if m.dep.Scheduler != nil {
		m.dep.Scheduler.InstanceUpdated(ctx, o.rc, o.inst)
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "finish_resize.end", nil)
	return nil
}

// turnBack sends an instance that could not arrive back to where it was, as a
// revert does. Nova would leave it in error; here the other host still has all
// of it.
func (v *move) turnBack(ctx context.Context, cause error) error {
	v.log.Warn().Err(cause).Str("source", v.mig.SourceCompute()).Msg("the instance goes back to where it was")
	if v.moved() {
		if err := v.m.dep.Driver.Destroy(ctx, driver.InstanceUUID(v.uuid())); err != nil {
			return errors.Join(cause, err, v.m.setError(ctx, v.op))
		}
	}
	err := v.m.save(ctx, v.rc, v.inst, map[string]any{"task_state": taskResizeReverting},
		Expect{TaskState: []string{taskResizeMigrated, taskResizeFinish}})
	if gone(err) || stale(err) {
		return cause
	}
	if err == nil {
		err = v.setStatus(ctx, "error")
	}
	if err == nil {
		err = v.cast(ctx, v.mig.SourceCompute(), "finish_revert_resize", nil)
	}
	if err != nil {
		return errors.Join(cause, err, v.m.setError(ctx, v.op))
	}
	v.inst.SetClean("task_state", nil) // the other host's from here on
	v.m.dep.Tracker.CountMove(v.inst, v.mig.Object)
	return cause
}
