package tracker

import (
	"context"
	"fmt"
	"slices"

	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// A move has an entry of its own in the account, under the migration's UUID: the
// size that the instance does not have now and may come to have here. Source:
// nova/compute/resource_tracker.py, _update_usage_from_migration.

// ClaimMove implements compute.Mover.
func (t *Tracker) ClaimMove(ctx context.Context, _ messaging.RequestContext, inst, migration *objects.Object, req compute.ClaimRequest) (func(context.Context), error) {
	flavor := inst.Object("new_flavor")
	return t.claim(ctx, inst, flavor, migration.String("uuid"), sizedUsage(inst, flavor, "new"), req)
}

// CountMove implements compute.Mover.
func (t *Tracker) CountMove(inst, migration *objects.Object) {
	if inst.String("host") == t.opts.Host {
		t.count(inst)
	} else {
		t.forget(inst.String("uuid"))
	}
	use, takes := moveUsage(t.opts.Host, inst, migration)
	if !takes {
		t.forget(migration.String("uuid"))
		return
	}
	t.mu.Lock()
	if !inst.Has("migration_context") {
		use.pins = t.used[migration.String("uuid")].pins
	}
	t.used[migration.String("uuid")] = use
	t.mu.Unlock()
	t.touch()
}

// RevertMove implements compute.Mover.
func (t *Tracker) RevertMove(ctx context.Context, _ messaging.RequestContext, inst, migration *objects.Object) error {
	return t.deps.Reporter.MoveAllocations(ctx, migration.String("uuid"), inst.String("uuid"))
}

// DropMove implements compute.Mover.
func (t *Tracker) DropMove(ctx context.Context, _ messaging.RequestContext, migration *objects.Object) error {
	t.forget(migration.String("uuid"))
	return t.deps.Reporter.DeleteAllocations(ctx, migration.String("uuid"))
}

// Leave implements compute.Mover.
func (t *Tracker) Leave(ctx context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	t.forget(inst.String("uuid"))
	return t.deps.Reporter.RemoveProvider(ctx, inst.String("uuid"), t.NodeUUID())
}

// sizedUsage is what a move of the instance takes with the flavor of one side.
func sizedUsage(inst, flavor *objects.Object, side string) usage {
	as := inst.Clone()
	as.SetClean("flavor", flavor)
	u := usageOf(as)
	u.move = true
	u.pins = listOf(topologyOf(inst, side).Processors())
	return u
}

// moving are the task states of an instance that is on its way; one that has
// arrived is in vm state resized.
var moving = []string{"resize_prep", "resize_migrating", "resize_migrated", "resize_finish", "resize_reverting"}

// moveUsage is what a move takes of the host beside the instance itself.
func moveUsage(host string, inst, migration *objects.Object) (usage, bool) {
	m := objects.Migration{Object: migration}
	over := slices.Contains([]string{"confirmed", "reverted", "error", "failed", "completed", "cancelled", "done", "accepted"}, m.Status())
	onTheWay := inst.String("vm_state") == "resized" || slices.Contains(moving, inst.String("task_state"))
	if over || !onTheWay || !slices.Contains([]string{"resize", "migration"}, m.MigrationType()) {
		return usage{}, false
	}
	from, to, here := m.SourceCompute() == host, m.DestCompute() == host, inst.String("host") == host
	side := "new"
	if arrived := inst.String("vm_state") == "resized" || inst.String("task_state") == "resize_finish"; arrived {
		side = "old"
	}
	switch {
	case from && to, from && !here:
	case to && !here:
		side = "new"
	default:
		return usage{}, false // the instance itself is all there is
	}
	if from && !to {
		side = "old"
	}
	other := inst.Object(side + "_flavor")
	if other == nil {
		return usage{}, false
	}
	return sizedUsage(inst, other, side), true
}

// moves reads what is under way to or from the node.
func (t *Tracker) moves(ctx context.Context, node string, list []*objects.Object) (map[string]usage, error) {
	rc := messaging.AdminContext()
	migrations, err := t.deps.Conductor.MigrationsInProgress(ctx, rc, t.opts.Host, node)
	if err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	out := map[string]usage{}
	for _, m := range migrations {
		inst, err := t.movingInstance(ctx, rc, m, list)
		if messaging.IsRemote(err, "InstanceNotFound") {
			continue
		}
		if err != nil {
			return nil, err
		}
		if use, takes := moveUsage(t.opts.Host, inst, m); takes {
			out[m.String("uuid")] = use
		}
	}
	return out, nil
}

func (t *Tracker) movingInstance(ctx context.Context, rc messaging.RequestContext, m *objects.Object, list []*objects.Object) (*objects.Object, error) {
	id := m.String("instance_uuid")
	for _, inst := range list {
		if inst.String("uuid") == id {
			return inst, nil
		}
	}
	return t.deps.Conductor.GetInstance(ctx, rc, id, "flavor", "numa_topology", "migration_context")
}

// countMoves adds what a survey has found to the account.
func (t *Tracker) countMoves(moves map[string]usage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, use := range moves {
		t.used[id] = use
		delete(t.claims, id)
	}
}
