package compute

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/notification"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// rescueInstance runs another system in the instance's place. Nova sets error on
// whatever fails; here the driver leads back, and only an instance that is not
// what it was afterwards is in error.
func (m *Manager) rescueInstance(ctx context.Context, o *op) (_ any, err error) {
	r, ok := m.dep.Driver.(driver.Rescuer)
	if !ok || m.dep.Images == nil {
		return nil, notRescuable(o, errdefs.WithPublic(errdefs.ErrUnsupported, "this host does not support it"))
	}
	work, end, ok := m.active.begin(ctx, o.uuid(), kindBuild)
	if !ok {
		return nil, fmt.Errorf("rescue %s: a build is under way: %w", o.uuid(), errdefs.ErrConflict)
	}
	defer func() {
		if end() && err == nil {
			m.networkChanged(context.WithoutCancel(ctx), o.rc.Elevated(), o.inst)
		}
	}()
	return nil, because(work, m.rescue(work, o, r))
}

func (m *Manager) rescue(ctx context.Context, o *op, r driver.Rescuer) error {
	var password, ref *string
	clean := true
	if err := errors.Join(o.arg("rescue_password", &password), o.arg("rescue_image_ref", &ref), o.arg("clean_shutdown", &clean)); err != nil {
		return err
	}
	before, err := m.power(ctx, o)
	if err != nil {
		return err
	}
	vifs, err := m.network(ctx, o)
	if err != nil {
		return err
	}
	img, err := m.rescueImage(ctx, o, ref)
	if err != nil {
		return notRescuable(o, err)
	}
	if err := m.loadProcessors(ctx, o); err != nil {
		return err
	}
	req := driver.RescueRequest{
		SpawnRequest: m.spawnRequest(o, img, networkFunc(func(context.Context) (objects.NetworkInfo, error) { return vifs, nil })),
		Off:          m.patience(o.inst, clean),
	}
	if password != nil {
		req.AdminPassword = *password
	}
	more, with := map[string]any{"rescue_image_name": img.Name}, notification.More{RescueImage: img.ID}
	m.notifyWith(ctx, o.rc, o.inst, messaging.PriorityInfo, "rescue.start", more, with)
	if err := failpoint.Hit("compute.rescue.begun"); err != nil {
		return err
	}
	if err := r.Rescue(ctx, req); err != nil {
		err = fmt.Errorf("rescue %s: %w", o.uuid(), err)
		if ctx.Err() != nil {
			return err
		}
		if info, e := m.dep.Driver.Info(ctx, req.UUID); e != nil || info.Rescued || info.State != before {
			err = errors.Join(err, m.setError(ctx, o))
		}
		return notRescuable(o, err)
	}
	if err := failpoint.Hit("compute.rescue.done"); err != nil {
		return err
	}
	t := transition{expect: []string{taskRescuing}, to: vmRescued}
	if err := m.arrive(ctx, o, t, map[string]any{"launched_at": time.Now()}); err != nil {
		return err
	}
	m.notifyWith(ctx, o.rc, o.inst, messaging.PriorityInfo, "rescue.end", more, with)
	return nil
}

// rescueImage is the image that the user names, else the one that the instance's
// image is made from, else the instance's.
func (m *Manager) rescueImage(ctx context.Context, o *op, ref *string) (driver.Image, error) {
	id := cmp.Or(o.inst.Strings("system_metadata")["image_base_image_ref"], o.inst.String("image_ref"))
	if ref != nil && *ref != "" {
		id = *ref
	}
	img, err := m.dep.Images.StatImage(ctx, credentials(o.rc), id)
	if err != nil {
		return img, errdefs.WithPublic(fmt.Errorf("image of rescue %s: %w", o.uuid(), err),
			errdefs.PublicText(err, "Image "+id+" could not be read."))
	}
	return img, nil
}

func notRescuable(o *op, err error) error {
	return fmt.Errorf("%w: %w",
		messaging.NovaError("InstanceNotRescuable", 400, "Instance %s cannot be rescued: Driver Error: %s", o.uuid(), tenantText(err)), err)
}

// Unrescue runs the instance's own system again as unrescue_instance does.
func (m *Manager) Unrescue(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	_, err := m.perform(ctx, wrapXREF|wrapLock, m.own(rc, "unrescue_instance", inst), (*Manager).unrescueInstance)
	return err
}

// EndRescue unrescues an instance whose time for that is over, as Nova's periodic
// task does by the API. One that is not rescued any more, or in a task, is left
// alone.
func (m *Manager) EndRescue(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	begun := map[string]any{"task_state": taskUnrescuing}
	if err := m.save(ctx, rc, inst, begun, Expect{VMState: []string{vmRescued}, TaskState: []string{noTask}}); err != nil {
		return err
	}
	if err := m.dep.Conductor.ActionStart(ctx, rc, inst.String("uuid"), "unrescue"); err != nil {
		log := m.instanceLog(rc, inst)
		log.Warn().Err(err).Msg("action not recorded")
	}
	return m.Unrescue(ctx, rc, inst)
}

func (m *Manager) unrescueInstance(ctx context.Context, o *op) (any, error) {
	r, ok := m.dep.Driver.(driver.Rescuer)
	if !ok {
		return nil, notSupported("Unrescuing an instance")
	}
	vifs, err := m.network(ctx, o)
	if err != nil {
		return nil, err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "unrescue.start", nil)
	err = r.Unrescue(ctx, driver.UnrescueRequest{UUID: driver.InstanceUUID(o.uuid()), VIFs: vifs, PowerOn: true})
	if err != nil {
		err = fmt.Errorf("unrescue %s: %w", o.uuid(), err)
		if ctx.Err() == nil {
			err = errors.Join(err, m.setError(ctx, o))
		}
		return nil, err
	}
	if err := failpoint.Hit("compute.unrescue.done"); err != nil {
		return nil, err
	}
	if err := m.arrive(ctx, o, transition{expect: []string{taskUnrescuing}, to: vmActive}, nil); err != nil {
		return nil, err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "unrescue.end", nil)
	return nil, nil
}

// ownSystem ends a rescue that the row knows nothing of any more: somebody has
// reset the state of the instance. A start is one of the instance's own system.
func (m *Manager) ownSystem(ctx context.Context, o *op) error {
	r, ok := m.dep.Driver.(driver.Rescuer)
	if !ok || o.inst.String("vm_state") == vmRescued {
		return nil
	}
	id := driver.InstanceUUID(o.uuid())
	if info, err := m.dep.Driver.Info(ctx, id); err != nil || !info.Rescued {
		return err
	}
	return r.Unrescue(ctx, driver.UnrescueRequest{UUID: id})
}
