package recovery

import (
	"context"
	"errors"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/logging"
)

// moves settles the moves that have cut off this host as the one that the
// instance comes from: confirmations are completed, and instances that nobody
// goes on with are brought back. settled are the instances that settle has
// judged. Failures are logged: the same is tried at the next start.
func (r *Recovery) moves(ctx context.Context, settled []*objects.Object) {
	rc := messaging.AdminContext()
	mine := map[string]struct{}{}
	for _, inst := range settled {
		if inst.String("host") == r.opts.Host {
			mine[inst.String("uuid")] = struct{}{}
		}
	}
	if err := errors.Join(r.confirmations(ctx, rc), r.departed(ctx, rc, mine)); err != nil {
		r.log.Warn().Err(err).Msg("moves to other hosts cannot be looked at and stay")
	}
}

// confirmations completes those that the end of the service has cut off: Nova
// lets nobody ask for them again.
func (r *Recovery) confirmations(ctx context.Context, rc messaging.RequestContext) error {
	list, err := r.deps.Conductor.MigrationsByFilters(ctx, rc, map[string]any{
		"source_compute": r.opts.Host, "status": []string{"confirming"},
	})
	if err != nil {
		return err
	}
	for _, mig := range list {
		uuid := mig.String("instance_uuid")
		log := r.log.With().Str(logging.Instance, uuid).Logger()
		inst, err := r.read(ctx, rc, uuid)
		if err == nil {
			err = r.deps.Operations.ConfirmMove(ctx, rc, inst, mig)
		}
		if err != nil {
			log.Error().Err(err).Msg("confirmation of a resize cannot be completed")
			continue
		}
		log.Info().Msg("confirmation of a resize completed")
	}
	return nil
}

// departed brings back instances that have left this host and have not begun on
// another one: the message that would go on with them may be lost with the
// service. It tells from the row whether the other host has them; the save of the
// row decides if both try.
func (r *Recovery) departed(ctx context.Context, rc messaging.RequestContext, mine map[string]struct{}) error {
	guests, err := r.deps.Driver.Instances(ctx)
	if err != nil {
		return err
	}
	for _, id := range guests {
		uuid := string(id)
		if _, ours := mine[uuid]; ours {
			continue
		}
		log := r.log.With().Str(logging.Instance, uuid).Logger()
		inst, err := r.read(ctx, rc, uuid)
		if messaging.IsRemote(err, "InstanceNotFound") {
			continue // deleted, or not of Nova
		}
		if err == nil {
			err = r.bringBack(ctx, rc, inst)
		}
		if err != nil {
			log.Error().Err(err).Msg("instance of another host cannot be settled")
		}
	}
	return nil
}

func (r *Recovery) read(ctx context.Context, rc messaging.RequestContext, uuid string) (*objects.Object, error) {
	return r.deps.Conductor.GetInstance(ctx, rc, uuid, "info_cache", "metadata", "system_metadata", "flavor")
}

// bringBack judges an instance of which there is a guest here and whose row names
// another host.
func (r *Recovery) bringBack(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	expect := map[string][]string{
		taskResizeMigrated:  {"post-migrating"},
		taskResizeReverting: {"reverted", "error"},
	}[inst.String("task_state")]
	if inst.String("host") == r.opts.Host || expect == nil {
		return nil
	}
	list, err := r.deps.Conductor.MigrationsByFilters(ctx, rc, map[string]any{
		"instance_uuid": inst.String("uuid"), "source_compute": r.opts.Host, "status": expect,
	})
	if err != nil || len(list) == 0 {
		return err
	}
	r.log.Info().Str(logging.Instance, inst.String("uuid")).Str("task_state", inst.String("task_state")).Msg("instance that was to move comes back")
	return r.abandonMove(ctx, rc, inst)
}
