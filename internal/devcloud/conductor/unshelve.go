package conductor

import (
	"context"
	"errors"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/scheduler"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

const (
	unshelving    = "unshelving"
	unshelveEvent = "schedule_instances"
)

// Unshelve finds a host for an offloaded instance in task unshelving and tells
// it to boot the instance from image, Glance's image as a dictionary. It
// returns when the work is taken. Where no host is found, the instance stays
// offloaded, without a task, with a fault and an event that say so.
func (c *Conductor) Unshelve(ctx context.Context, rc messaging.RequestContext, instance string, image map[string]any) error {
	return c.begin(ctx, func(ctx context.Context) {
		if err := c.unshelve(ctx, rc, instance, image); err != nil {
			c.keepShelved(ctx, rc, instance, err)
		}
	})
}

func (c *Conductor) unshelve(ctx context.Context, rc messaging.RequestContext, id string, image map[string]any) error {
	spec, err := c.o.Store.RequestSpec(ctx, id)
	if err != nil {
		return err
	}
	spec.SetClean("force_hosts", nil) // of the build: any host is as good now
	spec.SetClean("force_nodes", nil)
	spec.SetClean("num_instances", 1)
	chosen, err := c.o.Scheduler.Select(ctx, scheduler.Request{Spec: spec, Instances: []string{id}})
	if err != nil {
		return err
	}
	host := chosen[0][0]
	i, err := c.o.Store.SetInstance(ctx, id, cell.Expect{VMState: []string{"shelved_offloaded"}, TaskState: []string{unshelving}},
		map[string]any{"availability_zone": host.String("availability_zone")})
	if _, moved := errors.AsType[*cell.StateError](err); moved || errors.Is(err, errdefs.ErrNotFound) {
		c.o.Log.Info().Str(logging.Instance, id).AnErr("state", err).Msg("instance was deleted while it was scheduled")
		return c.o.Scheduler.Free(ctx, id)
	}
	if err == nil {
		t := messaging.Target{Topic: "compute", Server: host.ServiceHost(), Version: "6.0"}
		err = c.client.Cast(ctx, rc, t, "unshelve_instance", map[string]any{
			"instance": whole(i), "image": image, "filter_properties": firstTry(spec, host, 1), "node": host.Node(),
			"request_spec": spec, "accel_uuids": []string{},
		})
	}
	if err != nil {
		return errors.Join(err, c.o.Scheduler.Free(ctx, id))
	}
	c.o.Log.Info().Str(logging.Instance, id).Str(logging.Host, host.ServiceHost()).Msg("shelved instance is sent to its host")
	return nil
}

// keepShelved tells why an instance has found no host.
func (c *Conductor) keepShelved(ctx context.Context, rc messaging.RequestContext, id string, cause error) {
	log := c.o.Log.With().Str(logging.Instance, id).Str(logging.Request, rc.RequestID()).Logger()
	log.Warn().Err(cause).Msg("instance is not unshelved")
	err := errors.Join(c.failedEvent(ctx, rc, id, unshelveEvent, cause), c.fault(ctx, id, cause))
	_, saved := c.o.Store.SetInstance(ctx, id, cell.Expect{TaskState: []string{unshelving}}, map[string]any{"task_state": nil})
	if _, moved := errors.AsType[*cell.StateError](saved); moved || errors.Is(saved, errdefs.ErrNotFound) {
		saved = nil
	}
	if err := errors.Join(err, saved); err != nil {
		log.Error().Err(err).Msg("the failure of an unshelve is not written, the next start will")
	}
}
