package periodic

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/logging"
)

// endRescues gives instances their own system back that were rescued long enough
// ago, which their launched_at says.
func (t *tasks) endRescues(ctx context.Context) error {
	rc := messaging.AdminContext()
	list, err := t.Conductor.InstancesByFilters(ctx, rc, map[string]any{"vm_state": vmRescued, "host": t.set.Host},
		"metadata", "system_metadata", "info_cache", "flavor")
	if err != nil {
		return fmt.Errorf("list rescued instances: %w", err)
	}
	var errs []error
	for _, inst := range list {
		if inst.String("host") != t.set.Host || inst.String("vm_state") != vmRescued || !inst.IsNull("task_state") ||
			!older(inst.Time("launched_at"), t.set.RescueTimeout) {
			continue
		}
		t.Log.Info().Str(logging.Instance, inst.String("uuid")).Msg("rescue is over: its time has passed")
		if err := t.Manager.EndRescue(ctx, rc, inst); lost(err) != nil {
			errs = append(errs, fmt.Errorf("unrescue instance %s: %w", inst.String("uuid"), err))
		}
	}
	return errors.Join(errs...)
}
