package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/notification"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/undo"
)

// prepare is a prep_resize: the host that the instance goes to makes room.
type prepare struct {
	*move
	flavor  *objects.Object
	node    string
	clean   bool
	filters map[string]any
	limits  json.RawMessage
	// topology is of the claim.
	topology *objects.Object
}

// prepResize claims the room and has the host of the instance begin. What is
// wrong here is tried on the next host, if the scheduler has one; otherwise the
// instance is what it was, with a fault.
func (m *Manager) prepResize(ctx context.Context, o *op) (any, error) {
	v, err := m.moveOf(ctx, o)
	if v == nil {
		return nil, err
	}
	p := &prepare{move: v, clean: true}
	if err == nil {
		err = p.decode()
	}
	if err == nil {
		to := notification.More{NewFlavor: p.flavor}
		m.notifyWith(ctx, o.rc, o.inst, messaging.PriorityInfo, "resize.prep.start", nil, to)
		err = p.working(ctx, p.run)
		m.notifyWith(ctx, o.rc, o.inst, messaging.PriorityInfo, "resize.prep.end", map[string]any{
			"new_instance_type": p.flavor.String("name"), "new_instance_type_id": p.flavor.Int("id"),
		}, to)
	}
	if err == nil || ctx.Err() != nil || gone(err) || stale(err) {
		return nil, err
	}
	after := context.WithoutCancel(ctx)
	return nil, p.giveUp(after, err)
}

func (p *prepare) decode() error {
	var filters json.RawMessage
	err := errors.Join(p.arg("instance_type", &p.flavor), p.arg("flavor", &p.flavor), p.arg("node", &p.node),
		p.arg("clean_shutdown", &p.clean), p.arg("filter_properties", &filters))
	if err != nil {
		return err
	}
	if p.flavor == nil || p.flavor.Name != "Flavor" {
		return fmt.Errorf("prep_resize %s: no flavor: %w", p.uuid(), errdefs.ErrInvalid)
	}
	p.limits = json.RawMessage("null")
	if len(filters) == 0 {
		return nil
	}
	var known struct {
		Limits json.RawMessage `json:"limits"`
	}
	if err := json.Unmarshal(filters, &known); err != nil {
		return fmt.Errorf("argument filter_properties: %w: %w", errdefs.ErrInvalid, err)
	}
	p.limits = orNull(known.Limits)
	all, err := objects.Decode(filters)
	p.filters, _ = all.(map[string]any)
	return err
}

// refuse names what cannot be here.
func (p *prepare) refuse() error {
	from := p.inst.String("host")
	can := p.m.dep.Driver.Capabilities()
	switch {
	case from == "":
		return messaging.NovaError("MigrationError", 500, "Migration error: Instance has no source host")
	case from == p.m.opt.Host && p.flavor.Int("id") == p.inst.Int("instance_type_id"):
		return messaging.NovaError("UnableToMigrateToSelf", 400, "Unable to migrate instance (%s) to current host (%s).", p.uuid(), p.m.opt.Host)
	case from != p.m.opt.Host && !can.Migrate:
		return messaging.NovaError("MigrationError", 500, "Migration error: this host takes no instances of other hosts")
	}
	return nil
}

// refuseOther refuses an instance of another kind of hypervisor, whose host
// would hand over what this one cannot take.
func (p *prepare) refuseOther(ctx context.Context) error {
	from := p.inst.String("host")
	if from == p.m.opt.Host {
		return nil
	}
	there, err := p.m.dep.Conductor.GetComputeNode(ctx, p.rc, from, p.inst.String("node"))
	if messaging.IsRemote(err, "ComputeHostNotFound") {
		return nil // it has no say in what it is
	}
	if err != nil {
		return err
	}
	here, err := p.m.dep.Driver.Resources(ctx)
	if err != nil {
		return fmt.Errorf("resources of this host: %w", err)
	}
	if kind := there.String("hypervisor_type"); kind != here.HypervisorType {
		return messaging.NovaError("MigrationError", 500, "Migration error: the server is on a hypervisor of type %s, this host takes those of type %s", kind, here.HypervisorType)
	}
	return nil
}

func (p *prepare) run(ctx context.Context) (err error) {
	if err := p.refuse(); err != nil {
		return err
	}
	if err := p.refuseOther(ctx); err != nil {
		return err
	}
	before := p.inst.Clone()
	var steps undo.Stack
	defer func() {
		if err != nil {
			*p.inst = *before
			err = errors.Join(because(ctx, err), steps.Unwind(ctx))
		}
	}()
	p.inst.Set("new_flavor", p.flavor)
	release, err := p.m.dep.Tracker.ClaimMove(ctx, p.rc, p.inst, p.mig.Object, ClaimRequest{
		Node: p.node, Limits: p.limits, Took: func(topology *objects.Object) { p.topology = topology },
	})
	if err != nil {
		return fmt.Errorf("claim for resize of %s on node %s: %w", p.uuid(), p.node, err)
	}
	steps.Push("claim", func(ctx context.Context) error { release(ctx); return nil })
	meta := p.inst.Strings("system_metadata")
	meta[oldVMState] = p.inst.String("vm_state")
	delete(meta, movePeer)
	if p.inst.String("host") != p.m.opt.Host {
		id := driver.InstanceUUID(p.uuid())
		if meta[movePeer], err = p.driver.ExpectMigration(ctx, id); err != nil {
			return fmt.Errorf("expect %s: %w", p.uuid(), err)
		}
		steps.Push("expectation", func(ctx context.Context) error { return p.m.dep.Driver.Destroy(ctx, id) })
	}
	if err := failpoint.Hit("compute.prep_resize.claimed"); err != nil {
		return err
	}
	err = p.setMigration(ctx, map[string]any{
		"dest_compute": p.m.opt.Host, "dest_node": p.node, "dest_host": p.m.opt.MyIP, "status": "pre-migrating",
	})
	if err != nil {
		return err
	}
	fields := map[string]any{"new_flavor": p.flavor, "system_metadata": meta, "migration_context": p.context()}
	if err := p.m.save(ctx, p.rc, p.inst, fields, Expect{TaskState: []string{taskResizePrep}}); err != nil {
		return err
	}
	if err := p.cast(ctx, p.inst.String("host"), "resize_instance", map[string]any{
		"image": p.pass("image"), "flavor": p.flavor, "clean_shutdown": p.clean,
	}); err != nil {
		return err
	}
	steps.Release()
	return nil
}

// context is the MigrationContext: there are no devices that change with a move.
func (p *prepare) context() *objects.Object {
	c := objects.New("MigrationContext")
	c.Set("instance_uuid", p.uuid())
	c.Set("migration_id", p.mig.ID())
	for _, what := range []string{"pci_devices", "pci_requests", "resources"} {
		c.Set("new_"+what, nil)
		c.Set("old_"+what, nil)
	}
	c.Set("new_numa_topology", p.topology)
	c.Set("old_numa_topology", p.inst.Object("numa_topology"))
	return c
}

// giveUp gives the allocations back and asks for another host. A reschedule is
// the end of this operation, with a fault that tells why.
func (p *prepare) giveUp(ctx context.Context, cause error) error {
	left := p.m.dep.Tracker.RevertMove(ctx, p.rc, p.inst, p.mig.Object)
	if left != nil {
		return errors.Join(cause, left)
	}
	retry, _ := p.filters["retry"].(map[string]any)
	if len(retry) == 0 {
		return cause
	}
	retry["exc"] = []any{translate(cause).Class + ": " + tenantText(cause) + "\n"}
	err := p.m.dep.Conductor.MigrateServer(ctx, p.rc, map[string]any{
		"instance": p.inst, "scheduler_hint": map[string]any{"filter_properties": p.filters}, "live": false, "rebuild": false,
		"flavor": p.flavor, "block_migration": nil, "disk_over_commit": nil, "reservations": nil,
		"clean_shutdown": p.clean, "request_spec": p.pass("request_spec"), "host_list": p.pass("host_list"),
	})
	if err != nil {
		return errors.Join(cause, err)
	}
	p.log.Warn().Err(cause).Msg("resize goes to another host")
	err = errors.Join(p.m.fault(ctx, p.rc, p.uuid(), cause), p.setStatus(ctx, "error"))
	if err != nil {
		p.log.Warn().Err(err).Msg("reschedule of a resize not wholly told")
	}
	p.m.notifyFailure(ctx, p.op, "resize.error", cause)
	return nil
}
