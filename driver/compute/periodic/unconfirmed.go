package periodic

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/logging"
)

// confirmResizes confirms moves to this host that nobody has confirmed or
// reverted in time. What can never be confirmed any more becomes an error, what
// is only busy waits for the next look.
func (t *tasks) confirmResizes(ctx context.Context) error {
	rc := messaging.AdminContext()
	list, err := t.Conductor.UnconfirmedMigrations(ctx, rc, t.set.ResizeConfirmWindow, t.set.Host)
	if err != nil {
		return fmt.Errorf("list unconfirmed migrations to %s: %w", t.set.Host, err)
	}
	var errs []error
	for _, mig := range list {
		if err := t.confirmResize(ctx, rc, mig); lost(err) != nil {
			errs = append(errs, fmt.Errorf("confirm migration %s: %w", mig.String("uuid"), err))
		}
	}
	return errors.Join(errs...)
}

func (t *tasks) confirmResize(ctx context.Context, rc messaging.RequestContext, mig *objects.Object) error {
	uuid := mig.String("instance_uuid")
	log := t.Log.With().Str(logging.Instance, uuid).Logger()
	inst, err := t.Conductor.GetInstance(ctx, rc, uuid, "metadata", "system_metadata", "info_cache", "flavor")
	if err != nil && !messaging.IsRemote(err, "InstanceNotFound") {
		return err
	}
	reason := ""
	switch {
	case err != nil:
		reason = "the instance is gone"
	case inst.String("task_state") == taskDeleting, inst.String("task_state") == taskSoftDeleting, inst.String("task_state") == taskResizeFinish:
		return nil
	case inst.String("vm_state") != vmResized || !inst.IsNull("task_state"):
		reason = "the instance is not resized any more"
	case mig.String("source_compute") != t.set.Host:
		return nil // the other host's to confirm
	}
	if reason != "" {
		log.Warn().Str("reason", reason).Msg("migration cannot be confirmed")
		mig.ResetChanges()
		mig.Set("status", "error")
		return t.Conductor.SaveMigration(ctx, rc, mig)
	}
	log.Info().Msg("resize is confirmed: its time is over")
	return t.Manager.ConfirmMove(ctx, rc, inst, mig)
}
