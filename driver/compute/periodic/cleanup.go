package periodic

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/logging"
)

// cleanupRunningDeleted looks for guests whose instance is deleted. Only a row
// that says so itself counts: a guest that the answer does not name is left
// alone.
func (t *tasks) cleanupRunningDeleted(ctx context.Context) error {
	guests, err := t.Driver.Instances(ctx)
	if err != nil {
		return fmt.Errorf("list guests: %w", err)
	}
	if len(guests) == 0 {
		return nil // an empty filter would ask for everybody's
	}
	uuids := make([]string, len(guests))
	mine := make(map[string]bool, len(guests))
	for i, g := range guests {
		uuids[i], mine[string(g)] = string(g), true
	}
	rc := messaging.AdminContext().WithReadDeleted("yes")
	rows, err := t.Conductor.InstancesByFilters(ctx, rc, map[string]any{"deleted": true, "soft_deleted": false, "uuid": uuids})
	if err != nil {
		return fmt.Errorf("look up guests: %w", err)
	}
	var errs []error
	for _, row := range rows {
		uuid := row.String("uuid")
		switch {
		case !mine[uuid], !row.Bool("deleted"), t.Manager.Busy(uuid):
		case t.set.RunningDeletedInstanceTimeout > 0 && !older(row.Time("deleted_at"), t.set.RunningDeletedInstanceTimeout):
		default:
			errs = append(errs, t.dispose(ctx, uuid))
		}
	}
	return errors.Join(errs...)
}

// dispose does what running_deleted_instance_action says.
func (t *tasks) dispose(ctx context.Context, uuid string) error {
	log := t.Log.With().Str(logging.Instance, uuid).Logger()
	if t.set.RunningDeletedInstanceAction == RunningDeletedLog {
		log.Warn().Msg("a guest of a deleted instance is here")
		return nil
	}
	unlock, err := t.Manager.Lock(ctx, uuid)
	if err != nil {
		return err
	}
	defer unlock()
	if t.set.RunningDeletedInstanceAction == RunningDeletedShutdown {
		err = t.Driver.PowerOff(ctx, driver.InstanceUUID(uuid), driver.PowerOffOptions{})
	} else {
		err = t.Driver.Destroy(ctx, driver.InstanceUUID(uuid))
	}
	if err != nil {
		return fmt.Errorf("guest of deleted instance %s: %w", uuid, err)
	}
	log.Info().Str("action", string(t.set.RunningDeletedInstanceAction)).Msg("a guest of a deleted instance was here")
	return nil
}

// runPendingDeletes removes what deleted instances left on disk and notes that
// nothing is left, so that they are not looked at again.
func (t *tasks) runPendingDeletes(ctx context.Context) error {
	rc := messaging.AdminContext().WithReadDeleted("yes")
	rows, err := t.Conductor.InstancesByFilters(ctx, rc, map[string]any{
		"deleted": true, "soft_deleted": false, "host": t.set.Host, "cleaned": false,
	}, "system_metadata")
	if err != nil {
		return fmt.Errorf("list deleted instances: %w", err)
	}
	var errs []error
	for _, row := range rows {
		if !row.Bool("deleted") || row.String("host") != t.set.Host || row.Bool("cleaned") || t.Manager.Busy(row.String("uuid")) {
			continue
		}
		errs = append(errs, t.pendingDelete(ctx, rc, row))
	}
	return errors.Join(errs...)
}

// pendingDelete is one try for one row, of a bounded number.
func (t *tasks) pendingDelete(ctx context.Context, rc messaging.RequestContext, row *objects.Object) error {
	inst := objects.Instance{Object: row}
	attempts, _ := strconv.Atoi(inst.SystemMetadata()["clean_attempts"])
	if attempts >= t.set.MaxInstanceDeleteAttempts {
		return nil
	}
	unlock, err := t.Manager.Lock(ctx, inst.UUID())
	if err != nil {
		return err
	}
	defer unlock()
	failed := t.Driver.Destroy(ctx, driver.InstanceUUID(inst.UUID()))
	if failed == nil {
		inst.Set("cleaned", true)
	}
	if err := inst.PutSystemMetadata("clean_attempts", strconv.Itoa(attempts+1)); err != nil {
		return errors.Join(failed, err)
	}
	if err := t.Conductor.SaveInstance(ctx, rc, row, compute.Expect{}); err != nil {
		return errors.Join(failed, lost(err))
	}
	if failed != nil {
		return fmt.Errorf("remove what is left of instance %s: %w", inst.UUID(), failed)
	}
	return nil
}

// reclaimQueuedDeletes really deletes instances that were soft-deleted long
// enough ago.
func (t *tasks) reclaimQueuedDeletes(ctx context.Context) error {
	rc := messaging.AdminContext()
	list, err := t.Conductor.InstancesByFilters(ctx, rc, map[string]any{
		"vm_state": vmSoftDeleted, "task_state": nil, "host": t.set.Host,
	}, "metadata", "system_metadata", "info_cache", "flavor")
	if err != nil {
		return fmt.Errorf("list soft-deleted instances: %w", err)
	}
	var errs []error
	for _, inst := range list {
		if inst.String("host") != t.set.Host || inst.String("vm_state") != vmSoftDeleted || !inst.IsNull("task_state") ||
			!older(inst.Time("deleted_at"), t.set.ReclaimInstanceInterval) {
			continue
		}
		t.Log.Info().Str(logging.Instance, inst.String("uuid")).Msg("soft-deleted instance is reclaimed")
		if err := t.Manager.Terminate(ctx, rc, inst); err != nil {
			errs = append(errs, fmt.Errorf("reclaim instance %s: %w", inst.String("uuid"), err))
		}
	}
	return errors.Join(errs...)
}

// offloadShelved takes instances off the host that were shelved long enough
// ago. What says when is text that others may have written.
func (t *tasks) offloadShelved(ctx context.Context) error {
	rc := messaging.AdminContext()
	list, err := t.Conductor.InstancesByFilters(ctx, rc, map[string]any{
		"vm_state": vmShelved, "task_state": nil, "host": t.set.Host,
	}, "metadata", "system_metadata", "info_cache", "flavor")
	if err != nil {
		return fmt.Errorf("list shelved instances: %w", err)
	}
	var errs []error
	for _, inst := range list {
		if inst.String("host") != t.set.Host || inst.String("vm_state") != vmShelved || !inst.IsNull("task_state") {
			continue
		}
		at, err := time.Parse("2006-01-02T15:04:05.999999", inst.Strings("system_metadata")["shelved_at"])
		if err != nil || !older(at, t.set.ShelvedOffloadTime) {
			continue
		}
		t.Log.Info().Str(logging.Instance, inst.String("uuid")).Msg("shelved instance is offloaded")
		if err := t.Manager.Offload(ctx, rc, inst); lost(err) != nil {
			errs = append(errs, fmt.Errorf("offload instance %s: %w", inst.String("uuid"), err))
		}
	}
	return errors.Join(errs...)
}
