package periodic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

const (
	vmBuilding    = "building"
	vmSoftDeleted = "soft-delete"
	vmError       = "error"
	vmShelved     = "shelved"
	vmResized     = "resized"
	vmRescued     = "rescued"

	taskDeleting     = "deleting"
	taskSoftDeleting = "soft-deleting"
	taskResizeFinish = "resize_finish"

	consoleTokenInterval = 300 * time.Second
)

// off is the spacing of a task that does not run.
const off = -1

// tasks is what the tasks have in common.
type tasks struct {
	Deps
	set Settings
	// toHeal are the instances whose info cache waits for its turn. Only the
	// heal task touches it.
	toHeal []string
}

// NewTasks returns the tasks of a compute host, with Nova's names. There is
// none for reboot_timeout: a reboot here ends by itself.
func NewTasks(deps Deps, set Settings) []Task {
	t := &tasks{Deps: deps, set: set}
	return []Task{
		{Name: "update_available_resource", Spacing: set.UpdateResourcesInterval, Run: deps.Tracker.UpdateAvailableResource},
		{Name: "_sync_power_states", Spacing: set.SyncPowerStateInterval, AtStart: true, Run: t.syncPowerStates},
		{Name: "_heal_instance_info_cache", Spacing: set.HealInstanceInfoCacheInterval, Run: t.healInfoCache},
		{
			Name: "_cleanup_running_deleted_instances", Spacing: unless(set.RunningDeletedInstanceAction == RunningDeletedNoop,
				set.RunningDeletedInstancePollInterval), AtStart: true, Run: t.cleanupRunningDeleted,
		},
		{Name: "_run_pending_deletes", Spacing: set.InstanceDeleteInterval, Run: t.runPendingDeletes},
		{
			Name: "_sync_scheduler_instance_info", Spacing: unless(deps.Schedulers == nil || !set.TrackInstanceChanges, set.SchedulerSyncInterval),
			Run: t.syncScheduler,
		},
		{Name: "_cleanup_expired_console_auth_tokens", Spacing: consoleTokenInterval, Run: t.cleanConsoleTokens},
		{
			Name: "_reclaim_queued_deletes", Spacing: unless(set.ReclaimInstanceInterval <= 0, set.ReclaimInstanceInterval),
			Run: t.reclaimQueuedDeletes,
		},
		{
			Name: "_poll_shelved_instances", Spacing: unless(set.ShelvedOffloadTime <= 0, set.ShelvedPollInterval),
			Run: t.offloadShelved,
		},
		{Name: "_poll_unconfirmed_resizes", Spacing: unless(set.ResizeConfirmWindow <= 0, 0), Run: t.confirmResizes},
		{Name: "_poll_rescued_instances", Spacing: unless(set.RescueTimeout <= 0, 0), Run: t.endRescues},
		{Name: "_run_image_cache_manager_pass", Spacing: unless(deps.Images == nil, set.ImageCacheInterval), Run: t.pruneImages},
		{Name: "_check_instance_build_time", Spacing: unless(set.InstanceBuildTimeout <= 0, 0), Run: t.checkBuildTime},
	}
}

// unless is the interval, or off.
func unless(not bool, spacing time.Duration) time.Duration {
	if not {
		return off
	}
	return spacing
}

// here lists the instances of this host, whatever else an answer may hold.
func (t *tasks) here(ctx context.Context) ([]*objects.Object, error) {
	list, err := t.Conductor.InstancesByHost(ctx, messaging.AdminContext(), t.set.Host)
	if err != nil {
		return nil, fmt.Errorf("list instances of %s: %w", t.set.Host, err)
	}
	ours := list[:0]
	for _, inst := range list {
		if inst.String("host") == t.set.Host {
			ours = append(ours, inst)
		}
	}
	return ours, nil
}

// syncPowerStates brings rows and guests into agreement, one by one. An
// instance that cannot be asked does not keep the others from it.
func (t *tasks) syncPowerStates(ctx context.Context) error {
	list, err := t.here(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, inst := range list {
		if !inst.IsNull("task_state") || ctx.Err() != nil {
			continue
		}
		if err := t.Manager.SyncPowerState(ctx, inst); err != nil {
			errs = append(errs, fmt.Errorf("instance %s: %w", inst.String("uuid"), err))
		}
	}
	return errors.Join(errs...)
}

// healInfoCache refreshes the info cache of the next instance in turn.
func (t *tasks) healInfoCache(ctx context.Context) error {
	if len(t.toHeal) == 0 {
		list, err := t.here(ctx)
		if err != nil {
			return err
		}
		for _, inst := range list {
			t.toHeal = append(t.toHeal, inst.String("uuid"))
		}
	}
	for len(t.toHeal) > 0 {
		uuid := t.toHeal[0]
		t.toHeal = t.toHeal[1:]
		if healed, err := t.healOne(ctx, uuid); healed || err != nil {
			return err
		}
	}
	return nil
}

// healOne refreshes one instance and its links; false says that it is not the time for it.
func (t *tasks) healOne(ctx context.Context, uuid string) (bool, error) {
	if t.Manager.Busy(uuid) {
		return false, nil
	}
	unlock, err := t.Manager.Lock(ctx, uuid)
	if err != nil {
		return false, err
	}
	defer unlock()
	rc := messaging.AdminContext()
	inst, err := t.Conductor.GetInstance(ctx, rc, uuid, "system_metadata", "info_cache", "flavor")
	if messaging.IsRemote(err, "InstanceNotFound") {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if inst.String("host") != t.set.Host || inst.String("vm_state") == vmBuilding || inst.String("task_state") == taskDeleting {
		return false, nil
	}
	vifs, err := t.network(ctx, rc, inst)
	if err != nil {
		return false, fmt.Errorf("refresh network of instance %s: %w", uuid, err)
	}
	return true, t.replug(ctx, inst, vifs)
}

// network reads and saves what Neutron says. While nothing is under way, ports
// that are found bound to another host, or to none, are this host's again
// (nova/compute/manager.py, _require_nw_info_update).
func (t *tasks) network(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) (objects.NetworkInfo, error) {
	if inst.IsNull("task_state") {
		return t.Ports.Allocate(ctx, rc, compute.AllocateRequest{Instance: inst, Rebind: true})
	}
	return t.Ports.Refresh(ctx, rc, inst)
}

// replug makes the links of an instance what Neutron says, where something has
// taken them away or a port has gone without a word. Work under way does that
// by itself.
func (t *tasks) replug(ctx context.Context, inst *objects.Object, vifs objects.NetworkInfo) error {
	a, ok := t.Driver.(driver.InterfaceAttacher)
	if !ok || !inst.IsNull("task_state") {
		return nil
	}
	// what was before is what a failed change leads back to; a damaged cache is none
	before, err := objects.ParseNetworkInfo(inst.Object("info_cache").String("network_info"))
	if err != nil {
		before = vifs
	}
	err = a.ChangeNetwork(ctx, driver.NetworkChange{UUID: driver.InstanceUUID(inst.String("uuid")), Before: before, After: vifs})
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("links of instance %s: %w", inst.String("uuid"), err)
	}
	return nil
}

// syncScheduler names the instances of this host to the schedulers.
func (t *tasks) syncScheduler(ctx context.Context) error {
	list, err := t.here(ctx)
	if err != nil {
		return err
	}
	uuids := make([]string, len(list))
	for i, inst := range list {
		uuids[i] = inst.String("uuid")
	}
	t.Schedulers.Sync(ctx, messaging.AdminContext(), uuids)
	return nil
}

func (t *tasks) pruneImages(ctx context.Context) error {
	_, err := t.Images.PruneImages(ctx, t.set.ImageCache)
	return err
}

func (t *tasks) cleanConsoleTokens(ctx context.Context) error {
	return t.Conductor.CleanExpiredConsoleAuths(ctx, messaging.AdminContext())
}

// checkBuildTime sets error on builds that take too long. The work itself is
// not stopped: it finds out when it saves.
func (t *tasks) checkBuildTime(ctx context.Context) error {
	rc := messaging.AdminContext()
	list, err := t.Conductor.InstancesByFilters(ctx, rc, map[string]any{"vm_state": vmBuilding, "host": t.set.Host})
	if err != nil {
		return fmt.Errorf("list builds: %w", err)
	}
	var errs []error
	for _, inst := range list {
		if inst.String("host") != t.set.Host || inst.String("vm_state") != vmBuilding || !older(inst.Time("created_at"), t.set.InstanceBuildTimeout) {
			continue
		}
		inst.Set("vm_state", vmError)
		if err := t.Conductor.SaveInstance(ctx, rc, inst, compute.Expect{VMState: []string{vmBuilding}}); err != nil {
			errs = append(errs, lost(err))
			continue
		}
		t.Log.Warn().Str(logging.Instance, inst.String("uuid")).Msg("build took too long, instance set to error")
	}
	return errors.Join(errs...)
}

// older reports whether at is more than d ago. The zero time is not: what was
// never dated is no reason to act.
func older(at time.Time, d time.Duration) bool { return !at.IsZero() && time.Since(at) > d }

// lost drops the errors that say that somebody else was faster.
func lost(err error) error {
	if messaging.IsRemote(err, "InstanceNotFound", "UnexpectedTaskStateError", "UnexpectedDeletingTaskStateError", "UnexpectedVMStateError") {
		return nil
	}
	return err
}
