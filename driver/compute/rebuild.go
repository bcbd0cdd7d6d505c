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
)

// rebuild is one rebuild_instance: another guest from an image in the place of
// the instance's, with its name, ports and size.
type rebuild struct {
	*op
	m    *Manager
	args rebuildArgs
	// begun says that the old guest is not what it was any more.
	begun bool
	vifs  objects.NetworkInfo
}

// rebuildArgs are the arguments of rebuild_instance that count here.
type rebuildArgs struct {
	image, origImage  *string
	origMeta          map[string]string
	password          string
	files             []driver.File
	recreate          bool
	preserveEphemeral bool
	accelerators      []string
	target            *string // vm state at the end, since 6.2
}

// decode reads what can be read, whatever else is wrong: the old image is to
// be given back.
func (a *rebuildArgs) decode(o *op) error {
	var files [][2]string
	var errs []error
	for name, v := range map[string]any{
		"image_ref": &a.image, "orig_image_ref": &a.origImage, "orig_sys_metadata": &a.origMeta, "new_pass": &a.password,
		"injected_files": &files, "recreate": &a.recreate, "preserve_ephemeral": &a.preserveEphemeral,
		"accel_uuids": &a.accelerators, "target_state": &a.target,
	} {
		errs = append(errs, o.arg(name, v))
	}
	var err error
	a.files, err = decodeFiles(files)
	return errors.Join(append(errs, err)...)
}

// refuse names what the request demands and this service cannot do.
func (a *rebuildArgs) refuse(inst *objects.Object) error {
	switch {
	case a.preserveEphemeral:
		return messaging.NovaError("PreserveEphemeralNotSupported", 400, "The current driver does not support preserving ephemeral partitions.")
	case a.image == nil || *a.image == "":
		return notSupported("Rebuilding an instance from a volume")
	case len(a.accelerators) > 0:
		return notSupported("Rebuilding an instance with accelerators")
	case len(inst.Object("trusted_certs").StringList("ids")) > 0:
		return notSupported("Rebuilding from an image with trusted certificates")
	}
	return nil
}

// rebuildInstance replaces the guest. What is wrong with the request or the
// image is found before anything is touched: the instance then runs on and has
// its old image in the row again, which the API had overwritten. A failure
// after that is vm state error with no guest; another rebuild may follow.
func (m *Manager) rebuildInstance(ctx context.Context, o *op) (_ any, err error) {
	r := &rebuild{op: o, m: m}
	err = r.args.decode(o)
	switch host := o.inst.String("host"); {
	case err == nil && r.args.recreate:
		return nil, r.evacuate(ctx)
	case host != m.opt.Host:
		return nil, messaging.NovaError("InstanceNotFound", 404, "Instance %s could not be found.", o.uuid())
	}
	work, end, ok := m.active.begin(ctx, o.uuid(), kindBuild)
	if !ok {
		return nil, fmt.Errorf("rebuild %s: a build is under way: %w", o.uuid(), errdefs.ErrConflict)
	}
	defer func() {
		if end() && err == nil {
			m.networkChanged(context.WithoutCancel(ctx), o.rc.Elevated(), o.inst)
		}
	}()
	if err == nil {
		err = because(work, r.run(work))
	}
	if err == nil || gone(err) || ctx.Err() != nil {
		return nil, err
	}
	m.notifyFailure(ctx, o, "rebuild.error", err)
	if r.begun {
		return nil, errors.Join(err, m.setError(ctx, o))
	}
	return nil, errors.Join(err, r.giveBack(ctx))
}

// run goes rebuilding, rebuild_spawning, none. There are no volumes to map in
// between.
func (r *rebuild) run(ctx context.Context) error {
	m, o := r.m, r.op
	if err := r.args.refuse(o.inst); err != nil {
		return err
	}
	req, err := r.prepare(ctx)
	if err != nil {
		return err
	}
	more := map[string]any{"image_name": req.Image.Name}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "rebuild.start", more)
	before := o.inst.String("vm_state")
	if err := r.clear(ctx); err != nil {
		return err
	}
	if err := m.spawn(ctx, o, req); err != nil {
		return err
	}
	down := before == vmStopped
	if r.args.target != nil {
		down = *r.args.target == vmStopped
	}
	if err := r.activate(ctx, down); err != nil {
		return err
	}
	if m.dep.Scheduler != nil {
		m.dep.Scheduler.InstanceUpdated(ctx, o.rc, o.inst)
	}
	more["fixed_ips"] = fixedIPs(r.vifs)
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "rebuild.end", more)
	return nil
}

// prepare brings and checks everything that the new guest needs.
func (r *rebuild) prepare(ctx context.Context) (driver.SpawnRequest, error) {
	none := driver.SpawnRequest{}
	p, ok := r.m.dep.Driver.(driver.Preparer)
	if !ok || r.m.dep.Images == nil {
		return none, notSupported("Rebuilding an instance")
	}
	img, err := r.image(ctx)
	if err != nil {
		return none, err
	}
	if r.vifs, err = r.m.network(ctx, r.op); err != nil {
		return none, err
	}
	if err := r.m.loadProcessors(ctx, r.op); err != nil {
		return none, err
	}
	net := func(context.Context) (objects.NetworkInfo, error) { return r.vifs, nil }
	req := r.m.spawnRequest(r.op, img, networkFunc(net))
	req.AdminPassword, req.Files = r.args.password, r.args.files
	req.Drive = r.m.driveFor(r.op, &req, nil, nil)
	if err := p.Prepare(ctx, req); err != nil {
		return none, fmt.Errorf("prepare %s: %w", r.uuid(), err)
	}
	return req, nil
}

// image describes what the new guest is made from.
func (r *rebuild) image(ctx context.Context) (driver.Image, error) {
	img, err := r.m.dep.Images.StatImage(ctx, credentials(r.rc), *r.args.image)
	if err != nil {
		return img, errdefs.WithPublic(fmt.Errorf("image of rebuild %s: %w", r.uuid(), err),
			errdefs.PublicText(err, "Image "+*r.args.image+" could not be read."))
	}
	return img, nil
}

// clear removes the old guest; its ports stay. After an error there may be none.
func (r *rebuild) clear(ctx context.Context) error {
	m, o, id := r.m, r.op, driver.InstanceUUID(r.uuid())
	state, _, err := m.real(ctx, o.uuid())
	if err != nil {
		return fmt.Errorf("state of %s: %w", o.uuid(), err)
	}
	// Whoever deletes the instance has changed its task, and wins here.
	mine := map[string]any{"task_state": taskRebuilding, "power_state": int(state)}
	if err := m.save(ctx, o.rc, o.inst, mine, Expect{TaskState: []string{taskRebuilding}}); err != nil {
		return err
	}
	r.begun = true
	if state == driver.PowerRunning {
		if err := m.dep.Driver.PowerOff(ctx, id, m.patience(o.inst, true)); err != nil {
			return fmt.Errorf("stop %s: %w", o.uuid(), err)
		}
	}
	if err := m.dep.Driver.Destroy(ctx, id); err != nil {
		return fmt.Errorf("destroy %s: %w", o.uuid(), err)
	}
	return m.save(ctx, o.rc, o.inst, map[string]any{"task_state": taskRebuildSpawning}, Expect{TaskState: []string{taskRebuilding}})
}

// activate tells Nova that the new guest runs, and stops it again where the
// instance was stopped.
func (r *rebuild) activate(ctx context.Context, down bool) error {
	m, o := r.m, r.op
	t := transition{expect: []string{taskRebuildSpawning}, to: vmActive}
	fields := map[string]any{"launched_at": time.Now()}
	if !down {
		return m.arrive(ctx, o, t, fields)
	}
	fields["task_state"] = taskPoweringOff
	if err := m.arrive(ctx, o, t, fields); err != nil {
		return err
	}
	stop := *o
	stop.name = "stop_instance"
	_, err := m.perform(ctx, wrapE, &stop, func(m *Manager, ctx context.Context, o *op) (any, error) {
		return nil, m.stop(ctx, o, false)
	})
	return err
}

// giveBack puts the image of the guest that is still there into the row again.
func (r *rebuild) giveBack(ctx context.Context) error {
	if r.args.origImage == nil || r.args.origMeta == nil {
		return nil
	}
	err := r.m.save(ctx, r.rc, r.inst,
		map[string]any{"image_ref": *r.args.origImage, "system_metadata": r.args.origMeta, "task_state": nil},
		Expect{TaskState: []string{r.inst.String("task_state")}})
	if gone(err) || messaging.IsRemote(err, "UnexpectedTaskStateError") {
		return nil // not ours any more
	}
	return err
}

// networkFunc is a network that is asked for when it is needed.
type networkFunc func(context.Context) (objects.NetworkInfo, error)

// Wait implements driver.NetworkSource.
func (f networkFunc) Wait(ctx context.Context) (objects.NetworkInfo, error) { return f(ctx) }
