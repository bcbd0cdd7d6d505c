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
	"github.com/gantry-project/gantry/internal/logging"
	"github.com/gantry-project/gantry/internal/undo"
)

// buildEvent is the action event of a build. The two underscores are Nova's:
// the name of the decorated function there is _do_build_and_run_instance.
const buildEvent = "_do_build_and_run_instance"

// build is one build_and_run_instance.
type build struct {
	*op
	m    *Manager
	args buildArgs
	// owned says that the row is ours: in task spawning, set by us.
	owned bool
	// unclean says that something of the instance could not be removed.
	unclean bool
	vifs    objects.NetworkInfo
}

// buildAndRunInstance takes a build and returns at once; the rest happens in
// the background. A message that comes again is dropped.
func (m *Manager) buildAndRunInstance(ctx context.Context, o *op) (any, error) {
	b := &build{op: o, m: m}
	b.args.err = b.args.decode(o) // told when the build can end in order
	if host := o.inst.String("host"); host != "" && host != m.opt.Host {
		o.log.Warn().Str("other", host).Msg("build of an instance of another host")
		return nil, nil
	}
	// The number of the try tells a reschedule that came back from a message
	// that came twice.
	if !m.active.once(fmt.Sprintf("%s/%s/%d", o.uuid(), o.rc.RequestID(), b.args.tries())) {
		o.log.Warn().Msg("build message came again")
		return nil, nil
	}
	m.goBackground(ctx, b.run)
	return nil, nil
}

// run is the shell of a build: registered, so that a delete can cancel it;
// locked; one of few at a time; inside its event.
func (b *build) run(ctx context.Context) {
	began, m := time.Now(), b.m
	ctx, end, ok := m.active.begin(ctx, b.uuid(), kindBuild)
	if !ok {
		b.log.Warn().Msg("a build of the instance is under way")
		return
	}
	ok = false
	event := *b.op
	event.name = buildEvent
	leave := m.running.begin(&event)
	var err error
	defer func() { leave(); m.observe("build", err, time.Since(began)) }()
	defer func() {
		if end() && ok {
			m.networkChanged(context.WithoutCancel(ctx), b.rc.Elevated(), b.inst)
		}
	}()
	unlock, err := m.locks.Lock(ctx, b.uuid())
	if err != nil {
		b.settle(ctx, because(ctx, err))
		return
	}
	defer unlock()
	free, err := m.builds.take(ctx)
	if err != nil {
		b.settle(ctx, err)
		return
	}
	defer free()
	finish, err := m.startEvent(ctx, wrapE, &event)
	if err == nil {
		err = b.attempt(ctx)
	}
	err = because(ctx, err)
	b.settle(ctx, err)
	ok = err == nil
	// Like nova-compute: a build that ended in a reschedule or in an orderly
	// failure is no failure of the event.
	m.afterwards(ctx, wrapE, &event, nil, finish)
	b.log.Info().Dur(logging.Took, time.Since(began)).Bool("ok", ok).Msg("build ended")
}

// attempt makes the instance and leaves nothing behind when it fails.
func (b *build) attempt(ctx context.Context) (err error) {
	var steps undo.Stack
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("build %s: panic: %v", b.uuid(), p)
		}
		if err == nil {
			return
		}
		err = because(ctx, err)
		if left := steps.Unwind(ctx); left != nil {
			// What could not be cleaned up must not be built elsewhere, and
			// stays ours: the user's delete tries again.
			b.unclean = true
			v := abort
			if judge(err) == silent {
				v = silent
			}
			err = judged(v, fmt.Errorf("%w; clean-up: %w", err, left))
		}
	}()
	b.m.notify(ctx, b.rc, b.inst, messaging.PriorityInfo, "create.start", map[string]any{"image_name": b.args.image.Name})
	if _, err := b.m.dep.Driver.Info(ctx, driver.InstanceUUID(b.uuid())); err == nil {
		return judged(abort, fmt.Errorf("build %s: its guest is here: %w", b.uuid(), errdefs.ErrAlreadyExists))
	}
	if err := b.args.refuse(b.inst); err != nil {
		return err
	}
	if err := b.claim(ctx, &steps); err != nil {
		return err
	}
	net := b.allocate(ctx)
	steps.Push("network", net.undo)
	if err := b.m.spawn(ctx, b.op, b.request(net)); err != nil {
		return err
	}
	b.vifs = net.vifs
	steps.Push("guest", func(ctx context.Context) error {
		return b.m.dep.Driver.Destroy(ctx, driver.InstanceUUID(b.uuid()))
	})
	if err := b.activate(ctx); err != nil {
		return err
	}
	steps.Release()
	return nil
}

// claim reserves the room and makes the row ours. Nova saves the row four
// times until here; as nothing but these saves touches the row meanwhile, one
// compare-and-swap from the scheduler's state to spawning is the same.
func (b *build) claim(ctx context.Context, steps *undo.Stack) error {
	release, err := b.m.dep.Tracker.Claim(ctx, b.rc, b.inst, ClaimRequest{
		Node: b.args.node, Limits: b.args.limits,
		Took: func(topology *objects.Object) { b.inst.Set("numa_topology", topology) },
	})
	if err != nil {
		return judged(reschedule, fmt.Errorf("claim for %s on node %s: %w", b.uuid(), b.args.node, err))
	}
	steps.Push("claim", func(ctx context.Context) error { release(ctx); return nil })
	meta := b.inst.Strings("system_metadata")
	meta["boot_roles"] = joinRoles(b.rc.Roles())
	err = b.m.save(ctx, b.rc, b.inst, map[string]any{
		"vm_state": vmBuilding, "task_state": taskSpawning,
		"host": b.m.opt.Host, "node": b.args.node, "launched_on": b.m.opt.Host,
		"system_metadata": meta, "root_device_name": rootDevice,
	}, Expect{VMState: []string{vmBuilding}, TaskState: []string{taskScheduling, noTask}})
	if messaging.IsRemote(err, "UnexpectedTaskStateError", "UnexpectedVMStateError") {
		// Somebody else builds it, or has built it: not ours to touch.
		return judged(silent, err)
	}
	b.owned = err == nil
	return err
}

// activate tells Nova that the instance runs.
func (b *build) activate(ctx context.Context) error {
	info, err := b.m.dep.Driver.Info(ctx, driver.InstanceUUID(b.uuid()))
	if err != nil {
		return fmt.Errorf("state of %s after spawn: %w", b.uuid(), err)
	}
	fields := map[string]any{
		"power_state": int(info.State), "vm_state": vmActive, "task_state": nil, "launched_at": time.Now(),
	}
	if b.inst.String("config_drive") == "" && b.m.wantsDrive(b.inst, b.args.image) {
		fields["config_drive"] = "True" // nova/virt/configdrive.py, update_instance
	}
	if meta := b.inst.Strings("system_metadata"); meta[networkAllocated] != "" {
		delete(meta, networkAllocated)
		fields["system_metadata"] = meta
	}
	if err := b.m.save(ctx, b.rc, b.inst, fields, Expect{TaskState: []string{taskSpawning}}); err != nil {
		return err
	}
	if b.m.dep.Scheduler != nil {
		b.m.dep.Scheduler.InstanceUpdated(ctx, b.rc, b.inst)
	}
	return nil
}

// settle decides what becomes of the instance (nova-wire 6.7) and counts.
func (b *build) settle(ctx context.Context, err error) {
	ctx = context.WithoutCancel(ctx)
	if err == nil {
		b.m.dep.Tracker.BuildEnded(ctx, b.args.node, false)
		b.m.notify(ctx, b.rc, b.inst, messaging.PriorityInfo, "create.end", map[string]any{"message": "Success", "fixed_ips": fixedIPs(b.vifs)})
		return
	}
	v := judge(err)
	b.log.Warn().Err(err).Stringer("verdict", v).Msg("build failed")
	if v == reschedule && !b.args.mayRetry() {
		v = abort
	}
	var told error
	switch v {
	case silent:
		told = b.giveUp(ctx, err)
	case reschedule:
		if told = b.reschedule(ctx, err); told != nil && !gone(told) {
			told = errors.Join(told, b.fail(ctx, err))
		}
	case abort:
		told = b.fail(ctx, err)
	}
	if told != nil && !gone(told) {
		b.log.Error().Err(told).Msg("the end of the build could not be told, recovery will")
	}
	if v != silent {
		b.m.dep.Tracker.BuildEnded(ctx, b.args.node, true)
	}
	b.m.notifyFailure(ctx, b.op, "create.error", err)
}

// giveUp is the end of a build whose instance is going away. A delete that
// runs drops the allocation itself; a row that is gone has nobody to do it.
func (b *build) giveUp(ctx context.Context, err error) error {
	if messaging.IsRemote(err, "InstanceNotFound") {
		return b.m.dep.Tracker.Drop(ctx, b.rc, b.inst)
	}
	return nil
}

// expected is the state that the row is in, as far as this build knows.
func (b *build) expected() Expect {
	if b.owned {
		return Expect{TaskState: []string{taskSpawning}}
	}
	return Expect{VMState: []string{vmBuilding}, TaskState: []string{taskScheduling, noTask}}
}

// orphan returns the fields of a row that belongs to no host.
func orphan(more map[string]any) map[string]any {
	for _, f := range []string{"host", "node", "launched_on", "availability_zone"} {
		more[f] = nil
	}
	return more
}

// reschedule gives the instance back to the conductor for another host.
func (b *build) reschedule(ctx context.Context, cause error) error {
	fields := orphan(map[string]any{"task_state": taskScheduling})
	if meta := b.inst.Strings("system_metadata"); meta[networkAllocated] != "" {
		meta[networkAllocated] = "False"
		fields["system_metadata"] = meta
	}
	if err := b.m.save(ctx, b.rc, b.inst, fields, b.expected()); err != nil {
		return err
	}
	b.owned = false
	if err := b.m.dep.Tracker.Drop(ctx, b.rc, b.inst); err != nil {
		return err
	}
	return b.m.dep.Conductor.BuildInstances(ctx, b.rc, b.args.again(b.inst, cause))
}

// fail puts the instance into error. With no host in the row a delete is the
// API's own work; with something left here the row stays ours.
func (b *build) fail(ctx context.Context, cause error) error {
	if !b.owned {
		// Somebody else may have built it: ask before anything is told.
		if err := b.m.save(ctx, b.rc, b.inst, map[string]any{"task_state": taskSpawning}, b.expected()); err != nil {
			if messaging.IsRemote(err, "UnexpectedTaskStateError", "UnexpectedVMStateError") {
				return nil
			}
			return err
		}
		b.owned = true
	}
	// The fault comes first: who sees the error looks for it.
	text := fmt.Sprintf("Build of instance %s aborted: %s", b.uuid(), tenantText(cause))
	err := b.m.dep.Conductor.CreateFault(ctx, b.rc, b.uuid(), 500, clip(text, faultLimit), clip(cause.Error(), 16<<10))
	fields := map[string]any{"vm_state": vmError, "task_state": nil}
	if b.unclean {
		return errors.Join(err, b.m.save(ctx, b.rc, b.inst, fields, b.expected()))
	}
	orphan(fields)
	return errors.Join(err,
		b.m.save(ctx, b.rc, b.inst, fields, b.expected()),
		b.m.dep.Tracker.Drop(ctx, b.rc, b.inst))
}

// allocation is the network of a build, on its way.
type allocation struct {
	b      *build
	cancel context.CancelFunc
	done   chan struct{}
	// valid once done is closed
	inst *objects.Object
	vifs objects.NetworkInfo
	err  error
}

// devices are the tagged interfaces (Instance.device_metadata), once the network is
// there.
func (a *allocation) devices() any { return a.inst.Get("device_metadata") }

// allocate starts the allocation beside the preparation of the disk.
func (b *build) allocate(ctx context.Context) *allocation {
	ctx, cancel := context.WithCancel(ctx)
	a := &allocation{b: b, cancel: cancel, done: make(chan struct{}), inst: b.inst.Clone()}
	if b.args.noNetwork() {
		close(a.done)
		return a
	}
	go func() {
		defer close(a.done)
		defer guard(&a.err)
		a.vifs, a.err = b.m.dep.Ports.Allocate(ctx, b.rc, AllocateRequest{
			Instance: a.inst, Networks: b.args.networks, SecurityGroups: b.args.securityGroups,
			Rebind: b.inst.Strings("system_metadata")[networkAllocated] == "True",
		})
		if a.err != nil && !gone(a.err) {
			a.err = judged(abort, fmt.Errorf("network of %s: %w", b.uuid(), errdefs.WithPublic(a.err,
				errdefs.PublicText(a.err, "Failed to allocate the network(s), not rescheduling."))))
		}
	}()
	return a
}

// Wait hands the network to the driver.
func (a *allocation) Wait(ctx context.Context) (objects.NetworkInfo, error) {
	select {
	case <-a.done:
		return a.vifs, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// undo ends the allocation, if it still runs, and frees what it gave.
func (a *allocation) undo(ctx context.Context) error {
	a.cancel()
	select {
	case <-a.done:
	case <-ctx.Done():
		return fmt.Errorf("network of %s: its allocation does not end: %w", a.b.uuid(), ctx.Err())
	}
	if a.err == nil && !a.b.args.noNetwork() {
		return a.b.m.dep.Ports.Deallocate(ctx, a.b.rc, a.b.inst, a.vifs)
	}
	return nil // a failed allocation leaves nothing
}

var _ driver.NetworkSource = (*allocation)(nil)

// orNull is an argument as it came, null when it did not.
func orNull(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("null")
	}
	return raw
}
