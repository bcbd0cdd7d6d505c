package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/undo"
)

// evacuation is a rebuild_instance with recreate: an instance whose host is
// dead comes to life here, from its image; what it had written is lost with the
// other host. That host removes its guest when it is there again
// (recovery.Discard).
type evacuation struct {
	*rebuild
	node   string
	limits json.RawMessage
	// host and hostNode are what the row names before.
	host, hostNode, topology any
	// ours says that the row names this host, written by us.
	ours bool
}

// evacuate leaves an instance that cannot come here where it was, without the
// allocation that the scheduler has made for this host.
func (r *rebuild) evacuate(ctx context.Context) error {
	m := r.m
	e := &evacuation{rebuild: r, host: r.inst.Get("host"), hostNode: r.inst.Get("node")}
	if r.inst.String("host") == m.opt.Host {
		return fmt.Errorf("evacuate %s: it is of this host: %w", r.uuid(), errdefs.ErrConflict)
	}
	work, end, ok := m.active.begin(ctx, r.uuid(), kindBuild)
	if !ok {
		return fmt.Errorf("evacuate %s: a build is under way: %w", r.uuid(), errdefs.ErrConflict)
	}
	err := because(work, e.run(work))
	if end() && err == nil {
		m.networkChanged(context.WithoutCancel(ctx), r.rc.Elevated(), r.inst)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	after := context.WithoutCancel(ctx)
	m.notifyFailure(after, r.op, "rebuild.error", err)
	return errors.Join(err, e.giveUp(after, err))
}

func (e *evacuation) decode() error {
	var shared *bool
	e.limits = json.RawMessage("null")
	if err := errors.Join(e.arg("scheduled_node", &e.node), e.arg("limits", &e.limits), e.arg("on_shared_storage", &shared)); err != nil {
		return err
	}
	if shared != nil && *shared {
		return messaging.NovaError("InvalidSharedStorage", 500, "The disk of the instance is not on storage that this host shares.")
	}
	if e.args.image == nil || *e.args.image == "" {
		image := e.inst.String("image_ref") // the API names none
		e.args.image = &image
	}
	return e.args.refuse(e.inst)
}

// run goes rebuilding, rebuild_spawning, none, and leaves no guest when it fails.
func (e *evacuation) run(ctx context.Context) (err error) {
	m, o, id := e.m, e.op, driver.InstanceUUID(e.uuid())
	if _, err := m.dep.Driver.Info(ctx, id); err == nil {
		return fmt.Errorf("evacuate %s: a guest of it is here: %w", e.uuid(), errdefs.ErrAlreadyExists)
	}
	if err := e.decode(); err != nil {
		return err
	}
	if m.dep.Images == nil {
		return notSupported("Evacuating an instance to this host")
	}
	img, err := e.image(ctx)
	if err != nil {
		return err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "rebuild.start", map[string]any{"image_name": img.Name})
	down := o.inst.String("vm_state") == vmStopped
	if e.args.target != nil {
		down = *e.args.target == vmStopped
	}
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(because(ctx, err), steps.Unwind(ctx))
		}
	}()
	if err := e.claim(ctx, &steps); err != nil {
		return err
	}
	req := m.spawnRequest(o, img, networkFunc(func(ctx context.Context) (objects.NetworkInfo, error) {
		return m.dep.Ports.Allocate(ctx, o.rc, AllocateRequest{Instance: o.inst.Clone(), Rebind: true})
	}))
	req.AdminPassword, req.Files = e.args.password, e.args.files
	if err := m.spawn(ctx, o, req); err != nil {
		return err
	}
	steps.Push("guest", func(ctx context.Context) error { return m.dep.Driver.Destroy(ctx, id) })
	if err := e.activate(ctx, down); err != nil {
		return err
	}
	steps.Release()
	if m.dep.Scheduler != nil {
		m.dep.Scheduler.InstanceUpdated(ctx, o.rc, o.inst)
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "rebuild.end", map[string]any{"image_name": img.Name})
	return e.done(ctx)
}

// claim reserves the room and makes the row ours.
func (e *evacuation) claim(ctx context.Context, steps *undo.Stack) error {
	m, o := e.m, e.op
	if err := m.loadProcessors(ctx, o); err != nil {
		return err
	}
	e.topology = o.inst.Get("numa_topology")
	release, err := m.dep.Tracker.Claim(ctx, o.rc, o.inst, ClaimRequest{
		Node: e.node, Limits: orNull(e.limits),
		Took: func(topology *objects.Object) { o.inst.Set("numa_topology", topology) },
	})
	if err != nil {
		return fmt.Errorf("claim for %s on node %s: %w", o.uuid(), e.node, err)
	}
	steps.Push("claim", func(ctx context.Context) error { release(ctx); return nil })
	fields := map[string]any{"task_state": taskRebuildSpawning, "host": m.opt.Host}
	if e.node != "" {
		fields["node"] = e.node
	}
	err = m.save(ctx, o.rc, o.inst, fields, Expect{TaskState: []string{taskRebuilding}})
	e.ours = err == nil
	return err
}

// done tells the other host, by the migration, that the instance has left it.
func (e *evacuation) done(ctx context.Context) error {
	mig, err := e.migration()
	if err != nil || mig == nil {
		return err
	}
	mig.ResetChanges()
	mig.Set("status", "done")
	return e.m.dep.Conductor.SaveMigration(ctx, e.rc, mig)
}

// giveUp makes the row what it was. One that somebody else has taken meanwhile
// keeps what it has.
func (e *evacuation) giveUp(ctx context.Context, cause error) error {
	err := e.m.dep.Tracker.Leave(ctx, e.rc, e.inst)
	if !e.ours || gone(cause) {
		return err
	}
	back := map[string]any{"host": e.host, "node": e.hostNode, "task_state": nil}
	if e.topology != nil {
		back["numa_topology"] = e.topology
	}
	saved := e.m.save(ctx, e.rc, e.inst, back, Expect{TaskState: []string{taskRebuildSpawning}})
	if gone(saved) || stale(saved) {
		saved = nil
	}
	return errors.Join(err, saved)
}
