package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// The keys of system_metadata that a move adds.
const (
	oldVMState = "old_vm_state"
	// movePeer is what the host that the instance goes to wants the other one
	// to know (driver.Migrator.ExpectMigration). It is no secret.
	movePeer = "gantry_move_peer"
)

// move is one step of a resize or cold migration.
type move struct {
	*op
	m      *Manager
	driver driver.Migrator
	mig    objects.Migration
}

// moved says that the move is one between two hosts.
func (v *move) moved() bool { return v.mig.SourceCompute() != v.mig.DestCompute() }

// moveOf reads what each step needs.
func (m *Manager) moveOf(ctx context.Context, o *op) (*move, error) {
	mig, err := o.migration()
	if err != nil {
		return nil, err
	}
	if mig == nil {
		return nil, fmt.Errorf("%s %s: no migration: %w", o.name, o.uuid(), errdefs.ErrInvalid)
	}
	mig.ResetChanges()
	v := &move{op: o, m: m, mig: objects.Migration{Object: mig}}
	ok := false
	if v.driver, ok = m.dep.Driver.(driver.Migrator); !ok || m.dep.Peers == nil || !m.dep.Driver.Capabilities().Resize {
		return v, notSupported("Resizing an instance")
	}
	return v, m.load(ctx, o, "flavor", "old_flavor", "new_flavor", "system_metadata", "numa_topology", "migration_context")
}

// load reads joined fields that the instance came without.
func (m *Manager) load(ctx context.Context, o *op, fields ...string) error {
	var row *objects.Object
	for _, f := range fields {
		if o.inst.Has(f) {
			continue
		}
		if row == nil {
			var err error
			if row, err = m.dep.Conductor.GetInstance(ctx, o.rc, o.uuid(), "metadata", "system_metadata", "flavor", "numa_topology", "migration_context"); err != nil {
				return err
			}
		}
		o.inst.SetClean(f, row.Get(f))
	}
	return nil
}

// setMigration saves fields of the migration.
func (v *move) setMigration(ctx context.Context, fields map[string]any) error {
	for name, value := range fields {
		v.mig.Set(name, value)
	}
	if err := v.m.dep.Conductor.SaveMigration(ctx, v.rc, v.mig.Object); err != nil {
		return fmt.Errorf("save migration %s: %w", v.mig.UUID(), err)
	}
	v.mig.ResetChanges()
	return nil
}

func (v *move) setStatus(ctx context.Context, status string) error {
	return v.setMigration(ctx, map[string]any{"status": status})
}

// wasRunning says that the instance was active before its move.
func (v *move) wasRunning() bool {
	return v.inst.Strings("system_metadata")[oldVMState] != vmStopped
}

// restState is the vm state that the instance had before its move.
func (v *move) restState() string {
	if v.wasRunning() {
		return vmActive
	}
	return vmStopped
}

// sized returns the fields of an instance that has the flavor.
func sized(flavor *objects.Object, more map[string]any) map[string]any {
	all := map[string]any{
		"instance_type_id": flavor.Int("id"), "memory_mb": flavor.Int("memory_mb"), "vcpus": flavor.Int("vcpus"),
		"root_gb": flavor.Int("root_gb"), "ephemeral_gb": flavor.Int("ephemeral_gb"), "flavor": flavor,
	}
	maps.Copy(all, more)
	return all
}

// settledFields are those of an instance whose move is over.
func (v *move) settledFields(more map[string]any) map[string]any {
	meta := v.inst.Strings("system_metadata")
	delete(meta, oldVMState)
	delete(meta, movePeer)
	all := map[string]any{"old_flavor": nil, "new_flavor": nil, "migration_context": nil, "system_metadata": meta}
	maps.Copy(all, more)
	return all
}

// cast goes on on another host, or on this one, in a message as Nova does it.
func (v *move) cast(ctx context.Context, host, method string, more map[string]any) error {
	args := map[string]any{"instance": v.inst, "migration": v.mig.Object, "request_spec": v.pass("request_spec")}
	maps.Copy(args, more)
	return v.m.dep.Peers.Cast(ctx, v.rc, host, method, args)
}

// pass is an argument as it came, null when it did not.
func (o *op) pass(name string) json.RawMessage {
	if o.req == nil {
		return json.RawMessage("null")
	}
	return orNull(o.req.Args[name])
}

// working runs a step that a delete of the instance may cut off. What the
// migration then holds in placement is given up: the delete sees to the rest.
func (v *move) working(ctx context.Context, run func(context.Context) error) error {
	work, end, ok := v.m.active.begin(ctx, v.uuid(), kindBuild)
	if !ok {
		return fmt.Errorf("%s %s: a build is under way: %w", v.name, v.uuid(), errdefs.ErrConflict)
	}
	err := because(work, run(work))
	if end() && err == nil {
		v.m.networkChanged(context.WithoutCancel(ctx), v.rc.Elevated(), v.inst)
	}
	if err != nil && gone(err) && ctx.Err() == nil {
		undo := context.WithoutCancel(ctx)
		err = errors.Join(err, v.m.dep.Tracker.DropMove(undo, v.rc, v.mig.Object), v.setStatus(undo, "error"))
	}
	return err
}

// stale says that the row is not in the state that the step expects: somebody
// else has it now, and nothing of it is to be touched.
func stale(err error) bool {
	return messaging.IsRemote(err, "UnexpectedTaskStateError", "UnexpectedVMStateError")
}

// checkSharedStorage answers check_instance_shared_storage: disks are this
// host's own.
func (m *Manager) checkSharedStorage(context.Context, *op) (any, error) { return false, nil }

// resizeError is Nova's word for a size that an instance cannot have.
func resizeError(err error) error {
	if !errors.Is(err, errdefs.ErrInvalid) {
		return err
	}
	text := "Resize error: " + errdefs.PublicText(err, "the flavor is not possible for this server.")
	return errdefs.WithPublic(fmt.Errorf("%w: %w", messaging.NovaError("ResizeError", 500, "%s", text), err), text)
}
