package tracker

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// UpdateAvailableResource surveys the host: it reads the driver and the list of
// this host's instances, counts anew, and brings the record and placement up to
// date, each only where it differs. From the second success on it also heals
// allocations.
//
// When the list cannot be read nothing is changed. A failure of placement does
// not keep the record from being written, nor the other way round; all errors
// are joined.
func (t *Tracker) UpdateAvailableResource(ctx context.Context) error {
	release, err := hold(ctx, t.surveying)
	if err != nil {
		return err
	}
	defer release()
	if err := t.survey(ctx); err != nil {
		return fmt.Errorf("survey host %s: %w", t.opts.Host, err)
	}
	err = errors.Join(t.saveNode(ctx), t.syncProvider(ctx))
	if err == nil && t.surveyed {
		err = t.heal(ctx)
	}
	if err != nil {
		return fmt.Errorf("update available resource of %s: %w", t.opts.Host, err)
	}
	t.surveyed = true
	return nil
}

// survey reads the driver and the list and replaces the account.
func (t *Tracker) survey(ctx context.Context) error {
	r, err := t.deps.Driver.Resources(ctx)
	if err != nil {
		return err
	}
	if node := t.Node(); r.Node != node {
		return fmt.Errorf("node name changed from %q to %q while running: %w", node, r.Node, errdefs.ErrConflict)
	}
	t.beginList()
	list, err := t.deps.Conductor.InstancesByNode(ctx, messaging.AdminContext(), t.opts.Host, r.Node, "flavor", "numa_topology", "migration_context")
	if err != nil {
		t.endList(nil, false)
		return fmt.Errorf("list instances: %w", err)
	}
	moves, err := t.moves(ctx, r.Node, list)
	if err != nil {
		t.endList(nil, false)
		return err
	}
	t.mu.Lock()
	t.resources = r
	t.mu.Unlock()
	t.endList(list, true)
	t.countMoves(moves)
	return nil
}

// beginList starts to note what is forgotten while a list is read.
func (t *Tracker) beginList() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped = map[string]struct{}{}
}

// endList replaces the account by the list: without what was forgotten since it
// was asked for, and with the claims that it does not show yet.
func (t *Tracker) endList(list []*objects.Object, valid bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	dropped := t.dropped
	t.dropped = nil
	if !valid {
		return
	}
	used := make(map[string]usage, len(list))
	for _, inst := range list {
		uuid := inst.String("uuid")
		if _, gone := dropped[uuid]; gone || released(inst.String("vm_state")) {
			continue
		}
		used[uuid] = usageOf(inst)
		delete(t.claims, uuid)
	}
	for uuid := range t.claims {
		used[uuid] = t.used[uuid]
	}
	t.used = used
}
