package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/undo"
)

// unshelve is one unshelve_instance: an offloaded instance comes to this host,
// from the image that shelving made.
type unshelve struct {
	*op
	m      *Manager
	image  *wireImage
	node   string
	limits json.RawMessage
	accel  []string
	// ours says that the row names this host, written by us.
	ours bool
}

// unshelveInstance makes the instance run here. After a failure it is offloaded
// as before, without the allocation that the scheduler has made for this host.
func (m *Manager) unshelveInstance(ctx context.Context, o *op) (any, error) {
	if _, err := m.dep.Driver.Info(ctx, driver.InstanceUUID(o.uuid())); err == nil {
		return nil, fmt.Errorf("unshelve %s: its guest is here: %w", o.uuid(), errdefs.ErrAlreadyExists)
	}
	u := &unshelve{op: o, m: m}
	err := u.decode()
	work, end, ok := m.active.begin(ctx, o.uuid(), kindBuild)
	if !ok {
		return nil, fmt.Errorf("unshelve %s: a build is under way: %w", o.uuid(), errdefs.ErrConflict)
	}
	if err == nil {
		err = because(work, u.run(work))
	}
	if end() && err == nil {
		m.networkChanged(context.WithoutCancel(ctx), o.rc.Elevated(), o.inst)
	}
	if err == nil || ctx.Err() != nil {
		return nil, err
	}
	return nil, errors.Join(err, u.giveUp(context.WithoutCancel(ctx), err))
}

func (u *unshelve) decode() error {
	var filters struct {
		Limits json.RawMessage `json:"limits"`
	}
	err := errors.Join(
		u.arg("image", &u.image), u.arg("node", &u.node), u.arg("accel_uuids", &u.accel), u.arg("filter_properties", &filters),
	)
	u.limits = orNull(filters.Limits)
	switch {
	case err != nil:
		return err
	case u.image == nil || u.image.ID == "":
		return notSupported("Unshelving an instance without an image")
	case len(u.accel) > 0:
		return notSupported("Unshelving an instance with accelerators")
	}
	return nil
}

// run goes unshelving, spawning, none, and leaves no guest when it fails. Key,
// password and files are in the image already.
func (u *unshelve) run(ctx context.Context) (err error) {
	m, o, id := u.m, u.op, driver.InstanceUUID(u.uuid())
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "unshelve.start", nil)
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(because(ctx, err), steps.Unwind(ctx))
		}
	}()
	if err := u.claim(ctx, &steps); err != nil {
		return err
	}
	req := m.spawnRequest(o, u.image.driver(), networkFunc(func(ctx context.Context) (objects.NetworkInfo, error) {
		return m.dep.Ports.Allocate(ctx, o.rc, AllocateRequest{Instance: o.inst.Clone(), Rebind: true})
	}))
	req.PublicKey = ""
	req.Drive = m.driveFor(o, &req, nil, nil)
	if err := m.dep.Driver.Spawn(ctx, req); err != nil {
		return fmt.Errorf("spawn %s: %w", o.uuid(), err)
	}
	steps.Push("guest", func(ctx context.Context) error { return m.dep.Driver.Destroy(ctx, id) })
	meta, image := withoutShelf(o.inst)
	fields := map[string]any{"launched_at": time.Now(), "system_metadata": meta}
	if err := m.arrive(ctx, o, transition{expect: []string{taskSpawning}, to: vmActive}, fields); err != nil {
		return err
	}
	steps.Release()
	if image == u.image.ID {
		m.dropShelfImage(ctx, o, image)
	}
	if m.dep.Scheduler != nil {
		m.dep.Scheduler.InstanceUpdated(ctx, o.rc, o.inst)
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, "unshelve.end", nil)
	return nil
}

// claim reserves the room and makes the row ours, in one save.
func (u *unshelve) claim(ctx context.Context, steps *undo.Stack) error {
	m, o := u.m, u.op
	release, err := m.dep.Tracker.Claim(ctx, o.rc, o.inst, ClaimRequest{
		Node: u.node, Limits: u.limits,
		Took: func(topology *objects.Object) { o.inst.Set("numa_topology", topology) },
	})
	if err != nil {
		return fmt.Errorf("claim for %s on node %s: %w", o.uuid(), u.node, err)
	}
	steps.Push("claim", func(ctx context.Context) error { release(ctx); return nil })
	err = m.save(ctx, o.rc, o.inst,
		map[string]any{"task_state": taskSpawning, "host": m.opt.Host, "node": u.node, "launched_on": m.opt.Host},
		Expect{VMState: []string{vmShelvedOffloaded}, TaskState: []string{taskUnshelving}})
	u.ours = err == nil
	return err
}

// giveUp makes the instance one without a host again. One that somebody else
// has taken meanwhile keeps what it has.
func (u *unshelve) giveUp(ctx context.Context, cause error) error {
	if !u.ours && messaging.IsRemote(cause, "UnexpectedTaskStateError", "UnexpectedVMStateError") {
		return nil
	}
	err := u.m.dep.Tracker.Drop(ctx, u.rc, u.inst)
	if !u.ours || gone(cause) {
		return err
	}
	saved := u.m.save(ctx, u.rc, u.inst, orphan(map[string]any{"task_state": nil}), Expect{TaskState: []string{taskSpawning}})
	if gone(saved) || messaging.IsRemote(saved, "UnexpectedTaskStateError") {
		saved = nil
	}
	return errors.Join(err, saved)
}
