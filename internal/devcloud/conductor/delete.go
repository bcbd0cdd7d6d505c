package conductor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// DeleteUnhosted ends an instance that no compute host has, or whose host is
// down (Nova's local delete): its ports, its allocation and its row go. From
// the first step on the row is in task state deleting, so that no host takes
// it. errdefs.ErrConflict: its host is up, which has to do it.
// errdefs.ErrNotFound: it is gone already. After any other error it may be
// called again.
func (c *Conductor) DeleteUnhosted(ctx context.Context, rc messaging.RequestContext, instance string) error {
	ctx = context.WithoutCancel(ctx) // half a delete helps nobody
	var hosted string
	i, err := c.o.Store.Instance(ctx, instance)
	if err == nil && i.Host() != "" {
		hosted = i.Host()
		var up bool
		if up, err = c.usable(ctx, hosted); up {
			err = fmt.Errorf("its host %s is up: %w", hosted, errdefs.ErrConflict)
		}
	}
	if err == nil {
		_, err = c.o.Store.UpdateInstance(ctx, instance, cell.Expect{}, func(i objects.Instance) error {
			if i.Host() != hosted {
				return fmt.Errorf("it has got a host: %w", errdefs.ErrConflict)
			}
			i.SetTaskState(deleting)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("delete instance %s: %w", instance, err)
	}
	if err := c.finishDelete(ctx, instance); err != nil {
		return err
	}
	c.o.Log.Info().Str(logging.Instance, instance).Str(logging.Request, rc.RequestID()).Msg("instance without a host is deleted")
	return nil
}

// finishDelete is the rest of a delete of an instance that no host can take any
// more. Each step may be done again.
func (c *Conductor) finishDelete(ctx context.Context, id string) error {
	err := errors.Join(c.release(ctx, id), c.o.Placement.Free(ctx, id))
	if err != nil {
		return fmt.Errorf("delete instance %s: %w", id, err)
	}
	_, err = c.o.Store.SetInstance(ctx, id, cell.Expect{}, map[string]any{
		"vm_state": "deleted", "task_state": nil, "terminated_at": time.Now(), "power_state": 0,
	})
	if err == nil {
		err = c.o.Store.DestroyInterfaces(ctx, id)
	}
	if err == nil {
		_, err = c.o.Store.DestroyInstance(ctx, id, cell.AnyHost)
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("delete instance %s: %w", id, err)
	}
	return nil
}
