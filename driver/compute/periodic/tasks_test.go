package periodic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/keylock"
)

var (
	_ Manager    = (*compute.Manager)(nil)
	_ Conductor  = (*conductor.Client)(nil)
	_ Schedulers = (*conductor.Scheduler)(nil)

	errAway = errors.New("not there")
)

// world is a host and its control plane.
type world struct {
	mu     sync.Mutex
	rows   []*objects.Object
	guests []driver.InstanceUUID
	busy   string
	fail   map[string]error // by verb, or by verb and UUID
	did    []string
	locks  keylock.Map[string]
}

func newWorld() *world { return &world{fail: map[string]error{}} }

func (w *world) do(verb, what string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did = append(w.did, strings.TrimSpace(verb+" "+what))
	if err := w.fail[verb+" "+what]; err != nil {
		return err
	}
	return w.fail[verb]
}

func (w *world) add(uuid string, fields map[string]any) *objects.Object {
	inst := objects.NewInstance().Object
	for f, v := range map[string]any{
		"uuid": uuid, "host": "cmp1", "vm_state": "active", "task_state": nil, "deleted": false, "cleaned": false,
		"system_metadata": map[string]string{"image_os": "x"},
	} {
		inst.SetClean(f, v)
	}
	for f, v := range fields {
		inst.SetClean(f, v)
	}
	w.rows = append(w.rows, inst)
	return inst
}

func (w *world) InstancesByHost(context.Context, messaging.RequestContext, string, ...string) ([]*objects.Object, error) {
	return slices.Clone(w.rows), w.fail["list"]
}

// InstancesByFilters answers everything: the tasks must not trust it.
func (w *world) InstancesByFilters(_ context.Context, rc messaging.RequestContext, filters map[string]any, _ ...string) ([]*objects.Object, error) {
	if filters["deleted"] == true && rc.String("read_deleted") != "yes" {
		return nil, errors.New("deleted rows need read_deleted")
	}
	return slices.Clone(w.rows), w.fail["list"]
}

func (w *world) GetInstance(_ context.Context, _ messaging.RequestContext, uuid string, _ ...string) (*objects.Object, error) {
	for _, row := range w.rows {
		if row.String("uuid") == uuid {
			return row, w.fail["get"]
		}
	}
	return nil, messaging.NovaError("InstanceNotFound", 404, "no")
}

func (w *world) SaveInstance(_ context.Context, _ messaging.RequestContext, inst *objects.Object, expect compute.Expect) error {
	text := inst.String("uuid")
	for _, f := range inst.Changes() {
		v := inst.Get(f)
		if f == "system_metadata" {
			v = inst.Strings(f)["clean_attempts"]
		}
		text += fmt.Sprintf(" %s=%v", f, v)
	}
	if len(expect.VMState) > 0 {
		text += fmt.Sprint(" if", expect.VMState)
	}
	inst.ResetChanges()
	return w.do("save", text)
}

func (w *world) CleanExpiredConsoleAuths(context.Context, messaging.RequestContext) error {
	return w.do("consoles", "")
}

func (w *world) Lock(ctx context.Context, uuid string) (func(), error) {
	return w.locks.Lock(ctx, uuid)
}

func (w *world) Busy(uuid string) bool { return uuid == w.busy }

func (w *world) SyncPowerState(_ context.Context, inst *objects.Object) error {
	return w.do("sync", inst.String("uuid"))
}

func (w *world) Terminate(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return w.do("terminate", inst.String("uuid"))
}

func (w *world) EndRescue(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return w.do("unrescue", inst.String("uuid"))
}

func (w *world) Offload(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	return w.do("offload", inst.String("uuid"))
}

func (w *world) ConfirmMove(_ context.Context, _ messaging.RequestContext, inst, _ *objects.Object) error {
	return w.do("confirm", inst.String("uuid"))
}

// UnconfirmedMigrations are moves of all instances, and of one that is gone.
func (w *world) UnconfirmedMigrations(_ context.Context, _ messaging.RequestContext, window time.Duration, host string) ([]*objects.Object, error) {
	if window != time.Hour || host != "cmp1" {
		return nil, fmt.Errorf("unconfirmed for %s on %s", window, host)
	}
	var out []*objects.Object
	for _, uuid := range append([]string{"gone"}, w.uuids()...) {
		mig := objects.New("Migration")
		source := "cmp1"
		if uuid == "moved" {
			source = "cmp2"
		}
		for f, v := range map[string]any{"uuid": "m-" + uuid, "instance_uuid": uuid, "source_compute": source, "status": "finished"} {
			mig.SetClean(f, v)
		}
		out = append(out, mig)
	}
	return out, w.fail["list"]
}

func (w *world) uuids() (out []string) {
	for _, row := range w.rows {
		out = append(out, row.String("uuid"))
	}
	return out
}

func (w *world) SaveMigration(_ context.Context, _ messaging.RequestContext, mig *objects.Object) error {
	return w.do("migration", mig.String("instance_uuid")+" "+mig.String("status"))
}

func (w *world) Instances(context.Context) ([]driver.InstanceUUID, error) {
	return w.guests, w.fail["guests"]
}

func (w *world) Destroy(_ context.Context, uuid driver.InstanceUUID) error {
	return w.do("destroy", string(uuid))
}

func (w *world) PowerOff(_ context.Context, uuid driver.InstanceUUID, _ driver.PowerOffOptions) error {
	return w.do("poweroff", string(uuid))
}

func (w *world) Refresh(_ context.Context, _ messaging.RequestContext, inst *objects.Object) (objects.NetworkInfo, error) {
	return nil, w.do("refresh", inst.String("uuid"))
}

func (w *world) Allocate(_ context.Context, _ messaging.RequestContext, req compute.AllocateRequest) (objects.NetworkInfo, error) {
	if !req.Rebind {
		return nil, errors.New("healing makes no ports")
	}
	return nil, w.do("rebind", req.Instance.String("uuid"))
}

func (w *world) UpdateAvailableResource(context.Context) error { return w.do("survey", "") }

func (w *world) Sync(_ context.Context, _ messaging.RequestContext, uuids []string) {
	_ = w.do("tell", strings.Join(uuids, ","))
}

// task returns the named task of the world.
func (w *world) task(t *testing.T, name string, set Settings) Task {
	t.Helper()
	deps := Deps{Conductor: w, Manager: w, Driver: w, Ports: w, Tracker: w, Schedulers: w, Log: zerolog.Nop()}
	for _, task := range NewTasks(deps, set) {
		if task.Name == name {
			return task
		}
	}
	t.Fatalf("no task %s", name)
	return Task{}
}

// expect runs the task and compares what was done.
func (w *world) expect(t *testing.T, task Task, failure error, want ...string) {
	t.Helper()
	w.did = nil
	if err := task.Run(t.Context()); !errors.Is(err, failure) {
		t.Errorf("%s = %v", task.Name, err)
	}
	if !slices.Equal(w.did, want) {
		t.Errorf("%s did %q, want %q", task.Name, w.did, want)
	}
}

func TestTasksThatRun(t *testing.T) {
	w := newWorld()
	names := func(set Settings) []string {
		deps := Deps{Conductor: w, Manager: w, Driver: w, Ports: w, Tracker: w, Log: zerolog.Nop()}
		return NewScheduler(zerolog.Nop(), Options{}, NewTasks(deps, set)...).Names()
	}
	set := DefaultSettings("cmp1")
	want := []string{
		"update_available_resource", "_sync_power_states", "_heal_instance_info_cache", "_cleanup_running_deleted_instances",
		"_run_pending_deletes", "_cleanup_expired_console_auth_tokens",
	}
	if got := names(set); !slices.Equal(got, want) {
		t.Errorf("by default %q", got)
	}
	set.HealInstanceInfoCacheInterval, set.RunningDeletedInstanceAction = -1, RunningDeletedNoop
	set.ReclaimInstanceInterval, set.InstanceBuildTimeout = time.Hour, time.Hour
	want = []string{
		"update_available_resource", "_sync_power_states", "_run_pending_deletes", "_cleanup_expired_console_auth_tokens",
		"_reclaim_queued_deletes", "_check_instance_build_time",
	}
	if got := names(set); !slices.Equal(got, want) {
		t.Errorf("set otherwise %q", got)
	}
}

func TestSyncPowerStates(t *testing.T) {
	w := newWorld()
	w.add("a", nil)
	w.add("busy", map[string]any{"task_state": "rebooting"})
	w.add("theirs", map[string]any{"host": "cmp2"})
	w.add("b", nil)
	task := w.task(t, "_sync_power_states", DefaultSettings("cmp1"))
	w.expect(t, task, nil, "sync a", "sync b")
	w.fail["sync a"] = errAway
	w.expect(t, task, errAway, "sync a", "sync b")
	w.fail["list"] = errAway
	w.expect(t, task, errAway)
}

func TestHealInfoCacheTakesTurns(t *testing.T) {
	w := newWorld()
	w.add("a", nil)
	w.add("building", map[string]any{"vm_state": "building"})
	w.add("deleting", map[string]any{"task_state": "deleting"})
	w.add("theirs", map[string]any{"host": "cmp2"})
	w.add("working", map[string]any{"task_state": "resize_prep"})
	w.add("b", nil)
	w.add("c", nil)
	task := w.task(t, "_heal_instance_info_cache", DefaultSettings("cmp1"))
	w.expect(t, task, nil, "rebind a")
	w.expect(t, task, nil, "refresh working")
	w.fail["rebind b"] = errAway
	w.expect(t, task, errAway, "rebind b")
	w.busy = "c"
	w.expect(t, task, nil)
	w.expect(t, task, nil, "rebind a")
	w.rows = w.rows[:0]
	w.expect(t, task, nil)
	w.fail["list"] = errAway
	w.expect(t, task, errAway)
}

func TestCleanupRunningDeleted(t *testing.T) {
	deleted := map[string]any{"deleted": true, "deleted_at": time.Now().Add(-time.Hour)}
	w := newWorld()
	w.add("gone", deleted)
	w.add("alive", nil)
	w.add("elsewhere", deleted)
	w.add("being deleted", deleted)
	w.busy = "being deleted"
	w.guests = []driver.InstanceUUID{"gone", "alive", "being deleted", "unknown"}
	set := DefaultSettings("cmp1")
	const name = "_cleanup_running_deleted_instances"
	w.expect(t, w.task(t, name, set), nil, "destroy gone")
	for _, tt := range []struct {
		action RunningDeletedAction
		want   []string
	}{{RunningDeletedLog, nil}, {RunningDeletedShutdown, []string{"poweroff gone"}}} {
		set.RunningDeletedInstanceAction = tt.action
		w.expect(t, w.task(t, name, set), nil, tt.want...)
	}
	set = DefaultSettings("cmp1")
	set.RunningDeletedInstanceTimeout = 2 * time.Hour
	w.expect(t, w.task(t, name, set), nil)
	set.RunningDeletedInstanceTimeout = time.Minute
	w.expect(t, w.task(t, name, set), nil, "destroy gone")

	for _, verb := range []string{"list", "guests"} {
		w.fail = map[string]error{verb: errAway}
		w.expect(t, w.task(t, name, set), errAway)
	}
	w.fail, w.guests = map[string]error{}, nil
	w.expect(t, w.task(t, name, set), nil)
}

func TestRunPendingDeletes(t *testing.T) {
	w := newWorld()
	w.add("a", map[string]any{"deleted": true})
	w.add("tried", map[string]any{"deleted": true, "system_metadata": map[string]string{"clean_attempts": "3"}})
	w.add("given up", map[string]any{"deleted": true, "system_metadata": map[string]string{"clean_attempts": "5"}})
	w.add("alive", nil)
	w.add("cleaned", map[string]any{"deleted": true, "cleaned": true})
	w.add("theirs", map[string]any{"deleted": true, "host": "cmp2"})
	w.fail["destroy tried"] = errAway
	task := w.task(t, "_run_pending_deletes", DefaultSettings("cmp1"))
	w.expect(t, task, errAway, "destroy a", "save a cleaned=true system_metadata=1", "destroy tried", "save tried system_metadata=4")
	w.expect(t, task, errAway, "destroy tried", "save tried system_metadata=5")
	w.expect(t, task, nil)
	w.fail["list"] = errAway
	w.expect(t, task, errAway)
}

func TestReclaimQueuedDeletes(t *testing.T) {
	set := DefaultSettings("cmp1")
	set.ReclaimInstanceInterval = time.Hour
	old, young := time.Now().Add(-2*time.Hour), time.Now().Add(-time.Minute)
	w := newWorld()
	w.add("old", map[string]any{"vm_state": vmSoftDeleted, "deleted_at": old})
	w.add("young", map[string]any{"vm_state": vmSoftDeleted, "deleted_at": young})
	w.add("undated", map[string]any{"vm_state": vmSoftDeleted, "deleted_at": nil})
	w.add("being restored", map[string]any{"vm_state": vmSoftDeleted, "deleted_at": old, "task_state": "restoring"})
	w.add("theirs", map[string]any{"vm_state": vmSoftDeleted, "deleted_at": old, "host": "cmp2"})
	w.add("alive", map[string]any{"deleted_at": old})
	task := w.task(t, "_reclaim_queued_deletes", set)
	w.expect(t, task, nil, "terminate old")
	w.fail["terminate"] = errAway
	w.expect(t, task, errAway, "terminate old")
}

func TestOffloadShelved(t *testing.T) {
	set := DefaultSettings("cmp1")
	set.ShelvedOffloadTime = time.Hour
	w := newWorld()
	shelve := func(uuid, at string, fields map[string]any) {
		all := map[string]any{"vm_state": vmShelved, "system_metadata": map[string]string{"shelved_at": at}}
		maps.Copy(all, fields)
		w.add(uuid, all)
	}
	ago := func(d time.Duration) string { return time.Now().UTC().Add(-d).Format("2006-01-02T15:04:05.000000") }
	old := ago(2 * time.Hour)
	shelve("old", old, nil)
	shelve("whole second", old[:19], nil)
	shelve("young", ago(time.Minute), nil)
	shelve("undated", "", nil)
	shelve("damaged", "yesterday", nil)
	shelve("busy", old, map[string]any{"task_state": "unshelving"})
	shelve("theirs", old, map[string]any{"host": "cmp2"})
	shelve("alive", old, map[string]any{"vm_state": "active"})
	task := w.task(t, "_poll_shelved_instances", set)
	w.expect(t, task, nil, "offload old", "offload whole second")
	w.fail["offload old"] = errAway
	w.expect(t, task, errAway, "offload old", "offload whole second")
}

func TestEndRescues(t *testing.T) {
	set := DefaultSettings("cmp1")
	set.RescueTimeout = time.Hour
	w := newWorld()
	old := time.Now().Add(-2 * time.Hour)
	for _, x := range []struct {
		uuid   string
		fields map[string]any
	}{
		{"old", map[string]any{"launched_at": old}},
		{"young", map[string]any{"launched_at": time.Now()}},
		{"undated", nil},
		{"busy", map[string]any{"launched_at": old, "task_state": "unrescuing"}},
		{"theirs", map[string]any{"launched_at": old, "host": "cmp2"}},
		{"alive", map[string]any{"launched_at": old, "vm_state": "active"}},
	} {
		all := map[string]any{"vm_state": vmRescued}
		maps.Copy(all, x.fields)
		w.add(x.uuid, all)
	}
	task := w.task(t, "_poll_rescued_instances", set)
	w.expect(t, task, nil, "unrescue old")
	w.fail["unrescue"] = errAway
	w.expect(t, task, errAway, "unrescue old")
	w.fail["unrescue"] = messaging.NovaError("UnexpectedTaskStateError", 409, "unrescuing")
	w.expect(t, task, nil, "unrescue old")
}

func TestConfirmResizes(t *testing.T) {
	set := DefaultSettings("cmp1")
	set.ResizeConfirmWindow = time.Hour
	w := newWorld()
	for uuid, fields := range map[string]map[string]any{
		"due": {"vm_state": vmResized}, "moved": {"vm_state": vmResized}, "alive": {}, "wrong": {"vm_state": vmError},
		"dying": {"vm_state": vmResized, "task_state": taskDeleting}, "arriving": {"task_state": taskResizeFinish},
		"reverting": {"vm_state": vmResized, "task_state": "resize_reverting"},
	} {
		w.add(uuid, fields)
	}
	slices.SortFunc(w.rows, func(a, b *objects.Object) int { return strings.Compare(a.String("uuid"), b.String("uuid")) })
	task := w.task(t, "_poll_unconfirmed_resizes", set)
	want := []string{"migration gone error", "migration alive error", "confirm due", "migration reverting error", "migration wrong error"}
	w.expect(t, task, nil, want...)
	w.fail["confirm due"] = errAway
	w.expect(t, task, errAway, want...)
	w.fail["list"] = errAway
	w.expect(t, task, errAway)
}

func TestCheckBuildTime(t *testing.T) {
	set := DefaultSettings("cmp1")
	set.InstanceBuildTimeout = time.Hour
	old := time.Now().Add(-2 * time.Hour)
	w := newWorld()
	w.add("old", map[string]any{"vm_state": vmBuilding, "created_at": old})
	w.add("young", map[string]any{"vm_state": vmBuilding, "created_at": time.Now()})
	w.add("built", map[string]any{"created_at": old})
	w.add("theirs", map[string]any{"vm_state": vmBuilding, "created_at": old, "host": "cmp2"})
	task := w.task(t, "_check_instance_build_time", set)
	w.fail["save"] = messaging.NovaError("UnexpectedVMStateError", 409, "active")
	w.expect(t, task, nil, "save old vm_state=error if[building]")
}

func TestSmallTasks(t *testing.T) {
	w := newWorld()
	w.add("a", nil)
	w.add("theirs", map[string]any{"host": "cmp2"})
	w.add("b", nil)
	set := DefaultSettings("cmp1")
	w.expect(t, w.task(t, "_sync_scheduler_instance_info", set), nil, "tell a,b")
	w.expect(t, w.task(t, "_cleanup_expired_console_auth_tokens", set), nil, "consoles")
	w.expect(t, w.task(t, "update_available_resource", set), nil, "survey")
	w.fail["list"] = errAway
	w.expect(t, w.task(t, "_sync_scheduler_instance_info", set), errAway)
}
