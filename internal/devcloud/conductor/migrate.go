package conductor

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/scheduler"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

const (
	resizePrep   = "resize_prep"
	migrateEvent = "cold_migrate"
)

// Resize finds a host for an instance in task resize_prep that is to have
// another flavor, its own host among them, and has it begin. It returns when the
// work is taken. Where no host is found the instance is what it was, with a
// fault and an event that say so. Source: nova/conductor/tasks/migrate.py.
func (c *Conductor) Resize(ctx context.Context, rc messaging.RequestContext, instance string, flavor *objects.Object) error {
	return c.begin(ctx, func(ctx context.Context) {
		if err := c.resize(ctx, rc, instance, flavor); err != nil {
			c.keepSize(ctx, rc, instance, err)
		}
	})
}

func (c *Conductor) resize(ctx context.Context, rc messaging.RequestContext, id string, flavor *objects.Object) error {
	i, err := c.o.Store.Instance(ctx, id)
	if err != nil {
		return err
	}
	spec, err := c.o.Store.RequestSpec(ctx, id)
	if err != nil {
		return err
	}
	for name, v := range map[string]any{"flavor": flavor, "force_hosts": nil, "force_nodes": nil, "ignore_hosts": nil, "num_instances": 1} {
		spec.SetClean(name, v)
	}
	mig, err := c.o.Store.CreateMigration(ctx, migrationOf(i, flavor))
	if err != nil {
		return err
	}
	holder := mig.String("uuid")
	err = c.o.Placement.Move(ctx, id, holder, "MIGRATION")
	if err == nil {
		err = c.sendResize(ctx, rc, i, spec, flavor, mig)
	}
	if err == nil {
		return nil
	}
	_, saved := c.o.Store.SaveMigration(ctx, mig.Int("id"), map[string]any{"status": "error"})
	return errors.Join(err, c.o.Placement.Move(ctx, holder, id, "INSTANCE"), saved)
}

func migrationOf(i objects.Instance, flavor *objects.Object) *objects.Object {
	m := objects.New("Migration")
	for name, v := range map[string]any{
		"uuid": uuid.NewString(), "instance_uuid": i.UUID(), "status": "pre-migrating", "migration_type": "resize",
		"source_compute": i.Host(), "source_node": i.Node(), "old_instance_type_id": i.Int("instance_type_id"),
		"new_instance_type_id": flavor.Int("id"), "user_id": i.UserID(), "project_id": i.ProjectID(),
		"hidden": false, "cross_cell_move": false,
	} {
		m.SetClean(name, v)
	}
	return m
}

func (c *Conductor) sendResize(ctx context.Context, rc messaging.RequestContext, i objects.Instance, spec objects.RequestSpec, flavor, mig *objects.Object) error {
	chosen, err := c.o.Scheduler.Select(ctx, scheduler.Request{Spec: spec, Instances: []string{i.UUID()}})
	if err != nil {
		return err
	}
	host := chosen[0][0]
	t := messaging.Target{Topic: "compute", Server: host.ServiceHost(), Version: "6.0"}
	err = c.client.Cast(ctx, rc, t, "prep_resize", map[string]any{
		"instance": whole(i), "image": map[string]any{"id": i.ImageRef()}, "flavor": flavor, "request_spec": spec,
		"filter_properties": firstTry(spec, host, 1), "node": host.Node(), "clean_shutdown": true, "migration": mig, "host_list": []any{},
	})
	if err != nil {
		return err
	}
	c.o.Log.Info().Str(logging.Instance, i.UUID()).Str(logging.Host, host.ServiceHost()).Msg("resize is sent to its host")
	return nil
}

// keepSize tells why an instance has found no host for another flavor.
func (c *Conductor) keepSize(ctx context.Context, rc messaging.RequestContext, id string, cause error) {
	log := c.o.Log.With().Str(logging.Instance, id).Str(logging.Request, rc.RequestID()).Logger()
	log.Warn().Err(cause).Msg("instance is not resized")
	err := errors.Join(c.failedEvent(ctx, rc, id, migrateEvent, cause), c.fault(ctx, id, cause))
	_, saved := c.o.Store.SetInstance(ctx, id, cell.Expect{TaskState: []string{resizePrep}}, map[string]any{"task_state": nil})
	if _, moved := errors.AsType[*cell.StateError](saved); moved || errors.Is(saved, errdefs.ErrNotFound) {
		saved = nil
	}
	if err := errors.Join(err, saved); err != nil {
		log.Error().Err(err).Msg("the failure of a resize is not written, the next start will")
	}
}

// unconfirmed is MigrationList.get_unconfirmed_by_dest_compute.
func (c *Conductor) unconfirmed(ctx context.Context, in call) (any, error) {
	window, host := in.number(0, "confirm_window"), in.text(1, "dest_compute")
	rows, err := c.o.Store.Migrations(ctx, cell.MigrationQuery{Host: host, Statuses: []string{"finished"}, ChangedBefore: time.Now().Add(-time.Duration(window) * time.Second)})
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(m *objects.Object) bool { return m.String("dest_compute") != host })
	return list("MigrationList", rows), nil
}
