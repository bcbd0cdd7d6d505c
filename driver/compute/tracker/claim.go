package tracker

import (
	"context"
	"fmt"
	"sync"

	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Claim implements compute.Tracker.
func (t *Tracker) Claim(ctx context.Context, _ messaging.RequestContext, inst *objects.Object, req compute.ClaimRequest) (func(context.Context), error) {
	return t.claim(ctx, inst, inst.Object("flavor"), inst.String("uuid"), usageOf(inst), req)
}

// claim reserves what is wanted for an instance with a flavor under a key of the
// account.
func (t *Tracker) claim(ctx context.Context, inst, flavor *objects.Object, key string, want usage, req compute.ClaimRequest) (func(context.Context), error) {
	uuid := inst.String("uuid")
	if node := t.Node(); req.Node != "" && req.Node != node {
		return nil, fmt.Errorf("claim for instance %s: node %q is not of this host: %w", uuid, req.Node, errdefs.ErrInvalid)
	}
	lim, err := parseLimits(req.Limits)
	if err != nil {
		return nil, fmt.Errorf("claim for instance %s: %w", uuid, err)
	}
	if err := t.allocated(ctx, uuid); err != nil {
		return nil, fmt.Errorf("claim for instance %s: %w", uuid, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	others := sum(t.opts, t.used)
	if mine, again := t.used[key]; again {
		others.vcpus -= mine.vcpus
		others.memoryMB -= mine.memoryMB
		others.diskMB -= mine.diskMB
	}
	if err := fit(want, t.resources, others, lim); err != nil {
		return nil, fmt.Errorf("instance %s: %w", uuid, err)
	}
	want.pins = ""
	topology, err := t.pin(key, inst, flavor, &want)
	if err != nil {
		return nil, fmt.Errorf("instance %s: %w", uuid, err)
	}
	if topology != nil && req.Took != nil {
		req.Took(topology)
	}
	t.used[key] = want
	t.claims[key] = struct{}{}
	delete(t.dropped, key)
	t.touch()
	release := sync.OnceFunc(func() { t.forget(key) })
	return func(context.Context) { release() }, nil
}

// allocated refuses an instance for which placement holds nothing on this host:
// its message did not come through the scheduler. When placement cannot be
// asked the instance is let in, for the scheduler could ask.
func (t *Tracker) allocated(ctx context.Context, uuid string) error {
	held, err := t.deps.Reporter.Allocations(ctx, uuid)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t.log.Warn().Err(err).Str(logging.Instance, uuid).Msg("allocation cannot be checked, claim goes on without")
		return nil
	}
	id := t.NodeUUID()
	if _, ok := held.Providers[id]; !ok {
		return errdefs.WithPublic(
			fmt.Errorf("no allocation on provider %s: %w", id, errdefs.ErrExhausted),
			"Insufficient compute resources: nothing is allocated for the instance on this host.")
	}
	return nil
}

// Update counts an instance as its row is now.
func (t *Tracker) Update(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	t.count(inst)
	return nil
}

func (t *Tracker) count(inst *objects.Object) {
	uuid := inst.String("uuid")
	if released(inst.String("vm_state")) {
		t.forget(uuid)
		return
	}
	now := usageOf(inst)
	t.mu.Lock()
	_, claimed := t.claims[uuid]
	before, known := t.used[uuid]
	if !inst.Has("numa_topology") {
		now.pins = before.pins
	}
	if inst.Has("host") && inst.String("host") != t.opts.Host && !claimed {
		t.mu.Unlock()
		if known {
			t.forget(uuid)
		}
		return
	}
	t.used[uuid] = now
	t.mu.Unlock()
	if !known || before != now {
		t.touch()
	}
}

// Drop implements compute.Tracker. The usage goes first: the host must never
// count more than placement does.
func (t *Tracker) Drop(ctx context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	uuid := inst.String("uuid")
	t.forget(uuid)
	return t.deps.Reporter.DeleteAllocations(ctx, uuid)
}

// forget takes an instance out of the account, also out of a list that is
// being read at this moment.
func (t *Tracker) forget(uuid string) {
	t.mu.Lock()
	_, known := t.used[uuid]
	delete(t.used, uuid)
	delete(t.claims, uuid)
	if t.dropped != nil {
		t.dropped[uuid] = struct{}{}
	}
	t.mu.Unlock()
	if known {
		t.touch()
	}
}
