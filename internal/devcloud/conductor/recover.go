package conductor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// errInterrupted is why an instance was not built.
var errInterrupted = errdefs.WithPublic(fmt.Errorf("the cloud was stopped before a host had the instance: %w", errdefs.ErrAborted),
	"The build was interrupted by a restart of the cloud.")

// errHalfUnshelved is why an instance stayed offloaded.
var errHalfUnshelved = errdefs.WithPublic(fmt.Errorf("the cloud was stopped before a host had the instance: %w", errdefs.ErrAborted),
	"The unshelving was interrupted by a restart of the cloud.")

// Recover repairs what the end of an earlier process has left, as messages in
// flight are lost with it: instances that are building and belong to no host
// become ERROR with a fault, those that are being unshelved stay offloaded, deletes of instances without a host are finished,
// and allocations of deleted instances are removed. Instances that have a host
// are the host's to repair. It is called before compute hosts are heard. What
// cannot be repaired, because another service fails, is logged and left for the
// next start; a cell that cannot be read is an error.
func (c *Conductor) Recover(ctx context.Context) error {
	unhosted, err := c.o.Store.ListInstances(ctx, cell.InstanceQuery{
		Deleted: cell.LiveAndSoft, Match: map[string][]any{"host": {nil}}, Sort: []cell.SortKey{{Field: "id"}},
	})
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	for _, i := range unhosted {
		if err := c.recoverOne(ctx, i); err != nil {
			c.o.Log.Error().Err(err).Str(logging.Instance, i.UUID()).Msg("instance is not repaired")
		}
	}
	if err := c.freeOrphans(ctx); err != nil {
		c.o.Log.Error().Err(err).Msg("allocations of deleted instances are not removed")
	}
	return ctx.Err()
}

func (c *Conductor) recoverOne(ctx context.Context, i objects.Instance) error {
	switch {
	case i.TaskState() == deleting || i.VMState() == "deleted":
		c.o.Log.Warn().Str(logging.Instance, i.UUID()).Msg("an interrupted delete is finished")
		return c.finishDelete(ctx, i.UUID())
	case i.VMState() == building:
		c.bury(ctx, c.requestOf(ctx, i), i.UUID(), errInterrupted)
		return errors.Join(c.o.Placement.Free(ctx, i.UUID()), c.release(ctx, i.UUID()))
	case i.TaskState() == unshelving:
		c.keepShelved(ctx, c.requestOf(ctx, i), i.UUID(), errHalfUnshelved)
		return c.o.Placement.Free(ctx, i.UUID())
	}
	return nil
}

// requestOf is a context with the request id of the instance's first action,
// for its events.
func (c *Conductor) requestOf(ctx context.Context, i objects.Instance) messaging.RequestContext {
	rc := messaging.AdminContext()
	all, err := c.o.Store.Actions(ctx, i.UUID(), cell.ActionQuery{})
	if err != nil || len(all) == 0 {
		return rc
	}
	return withRequest(rc, all[len(all)-1].String("request_id"))
}

// freeOrphans removes the allocations at compute nodes of instances that are
// deleted. Consumers that are no instances of ours are left alone.
func (c *Conductor) freeOrphans(ctx context.Context) error {
	nodes, err := c.o.Store.ComputeNodes(ctx, cell.NodeQuery{})
	if err != nil {
		return err
	}
	for _, n := range nodes {
		consumers, err := c.o.Placement.Consumers(ctx, n.UUID())
		if err != nil {
			return fmt.Errorf("consumers of %s: %w", n.Node(), err)
		}
		for _, id := range consumers {
			i, err := c.o.Store.AnyInstance(ctx, id)
			if errors.Is(err, errdefs.ErrNotFound) || err == nil && !i.Deleted() {
				continue
			}
			if err == nil {
				c.o.Log.Warn().Str(logging.Instance, id).Msg("the allocation of a deleted instance is removed")
				err = c.o.Placement.Free(ctx, id)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func withRequest(rc messaging.RequestContext, id string) messaging.RequestContext {
	fields := rc.Fields()
	raw, err := json.Marshal(id)
	if err != nil {
		return rc
	}
	fields["request_id"] = raw
	return messaging.NewRequestContext(fields)
}
