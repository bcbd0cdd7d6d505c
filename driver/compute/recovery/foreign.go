package recovery

import (
	"context"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/logging"
)

// evacuated removes the guests of instances that were evacuated from this host
// while it was thought dead, and says which they are. A guest goes only when a
// finished migration and the instance's own row agree that it lives elsewhere.
func (r *Recovery) evacuated(ctx context.Context) (map[string]struct{}, error) {
	rc := messaging.AdminContext().WithReadDeleted("yes")
	migrations, err := r.deps.Conductor.MigrationsByFilters(ctx, rc, map[string]any{
		"source_compute": r.opts.Host,
		"status":         []string{"accepted", "pre-migrating", "done"},
		"migration_type": "evacuation",
	})
	if err != nil {
		return nil, err
	}
	handled := make(map[string]struct{}, len(migrations))
	for _, m := range migrations {
		uuid := m.String("instance_uuid")
		log := r.log.With().Str(logging.Instance, uuid).Logger()
		inst, err := r.deps.Conductor.GetInstance(ctx, rc, uuid)
		if err != nil {
			log.Warn().Err(err).Msg("evacuated instance cannot be read and is left as it is")
			continue
		}
		if host := inst.String("host"); host == "" || host == r.opts.Host {
			continue
		}
		handled[uuid] = struct{}{}
		if err := r.discard(ctx, rc, inst, m); err != nil {
			log.Error().Err(err).Msg("evacuated instance is not wholly removed")
			continue
		}
		log.Info().Str(logging.Host, inst.String("host")).Msg("evacuated instance removed")
	}
	return handled, nil
}

// discard removes the local copy of an evacuated instance. Its ports belong to
// the other host.
func (r *Recovery) discard(ctx context.Context, rc messaging.RequestContext, inst, migration *objects.Object) error {
	uuid := inst.String("uuid")
	if err := r.deps.Driver.Destroy(ctx, driver.InstanceUUID(uuid)); err != nil {
		return err
	}
	if err := r.deps.Allocations.RemoveProvider(ctx, uuid, r.opts.Provider()); err != nil {
		return err
	}
	migration.Set("status", "completed")
	return r.deps.Conductor.SaveMigration(ctx, rc, migration)
}

// unclaimed sets error on builds that were sent here and had not claimed the
// host yet: they hold an allocation of ours, and nobody will build them.
// Failures are logged: the same is tried at the next start.
func (r *Recovery) unclaimed(ctx context.Context, handled map[string]struct{}) {
	if r.opts.Provider() == "" {
		return
	}
	consumers, err := r.deps.Allocations.Consumers(ctx, r.opts.Provider())
	if err != nil {
		r.log.Warn().Err(err).Msg("allocations cannot be read, unclaimed builds stay")
		return
	}
	var unknown []string
	for _, c := range consumers {
		if _, ok := handled[c]; !ok {
			unknown = append(unknown, c)
		}
	}
	if len(unknown) == 0 {
		return
	}
	rc := messaging.AdminContext()
	building, err := r.deps.Conductor.InstancesByFilters(ctx, rc, map[string]any{"vm_state": vmBuilding, "uuid": unknown})
	if err != nil {
		r.log.Warn().Err(err).Msg("instances cannot be read, unclaimed builds stay")
		return
	}
	for _, inst := range building {
		if inst.String("host") != "" || inst.String("vm_state") != vmBuilding {
			continue
		}
		log := r.log.With().Str(logging.Instance, inst.String("uuid")).Logger()
		inst.Set("vm_state", vmError)
		expect := compute.Expect{VMState: []string{vmBuilding}, TaskState: []string{inst.String("task_state")}}
		inst.Set("task_state", nil)
		if err := r.deps.Conductor.SaveInstance(ctx, rc, inst, expect); err != nil {
			log.Warn().Err(err).Msg("unclaimed build cannot be set to error")
			continue
		}
		log.Info().Msg("build was interrupted before it claimed this host")
	}
}
