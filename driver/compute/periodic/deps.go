package periodic

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// Conductor is the slice of Nova's conductor that the tasks use.
type Conductor interface {
	// InstancesByHost is InstanceList.get_by_host.
	InstancesByHost(ctx context.Context, rc messaging.RequestContext, host string, attrs ...string) ([]*objects.Object, error)
	// InstancesByFilters is InstanceList.get_by_filters. Deleted rows come
	// only with a filter deleted and an rc that reads them.
	InstancesByFilters(ctx context.Context, rc messaging.RequestContext, filters map[string]any, attrs ...string) ([]*objects.Object, error)
	// GetInstance is Instance.get_by_uuid.
	GetInstance(ctx context.Context, rc messaging.RequestContext, uuid string, attrs ...string) (*objects.Object, error)
	// SaveInstance is Instance.save of the changed fields.
	SaveInstance(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, expect compute.Expect) error
	// UnconfirmedMigrations is MigrationList.get_unconfirmed_by_dest_compute.
	UnconfirmedMigrations(ctx context.Context, rc messaging.RequestContext, window time.Duration, host string) ([]*objects.Object, error)
	// SaveMigration is Migration.save of the changed fields.
	SaveMigration(ctx context.Context, rc messaging.RequestContext, migration *objects.Object) error
	// CleanExpiredConsoleAuths is ConsoleAuthToken.clean_expired_console_auths.
	CleanExpiredConsoleAuths(ctx context.Context, rc messaging.RequestContext) error
}

// Manager is the slice of compute.Manager that the tasks use.
type Manager interface {
	// Lock waits for the lock of an instance.
	Lock(ctx context.Context, uuid string) (unlock func(), err error)
	// Busy reports whether a build, delete or snapshot of it is under way.
	Busy(uuid string) bool
	// SyncPowerState brings row and guest into agreement. It takes the lock.
	SyncPowerState(ctx context.Context, inst *objects.Object) error
	// Terminate deletes the instance. It takes the lock.
	Terminate(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	// Offload takes a shelved instance off the host. It takes the lock.
	Offload(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	// EndRescue unrescues a rescued instance. It takes the lock.
	EndRescue(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	// ConfirmMove confirms a finished resize on this host. It takes the lock.
	ConfirmMove(ctx context.Context, rc messaging.RequestContext, inst, mig *objects.Object) error
}

// Driver is the slice of the driver that the tasks use.
type Driver interface {
	Instances(ctx context.Context) ([]driver.InstanceUUID, error)
	Destroy(ctx context.Context, uuid driver.InstanceUUID) error
	PowerOff(ctx context.Context, uuid driver.InstanceUUID, opts driver.PowerOffOptions) error
}

// Images removes images that nothing needs (driver.ImageCacher).
type Images interface {
	PruneImages(ctx context.Context, limits driver.CacheLimits) (driver.Pruned, error)
}

// Ports refreshes info caches, and binds ports to this host (compute.Ports).
type Ports interface {
	Allocate(ctx context.Context, rc messaging.RequestContext, req compute.AllocateRequest) (objects.NetworkInfo, error)
	Refresh(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) (objects.NetworkInfo, error)
}

// Tracker surveys the host (tracker.Tracker).
type Tracker interface {
	UpdateAvailableResource(ctx context.Context) error
}

// Schedulers are told which instances are here (conductor.Scheduler).
type Schedulers interface {
	Sync(ctx context.Context, rc messaging.RequestContext, uuids []string)
}

// Deps is everything that NewTasks needs. Schedulers and Images may be nil.
type Deps struct {
	Conductor  Conductor
	Manager    Manager
	Driver     Driver
	Ports      Ports
	Tracker    Tracker
	Schedulers Schedulers
	Images     Images
	Log        zerolog.Logger
}

// RunningDeletedAction says what becomes of the guest of a deleted instance.
type RunningDeletedAction string

// The values of running_deleted_instance_action.
const (
	RunningDeletedNoop     RunningDeletedAction = "noop"
	RunningDeletedLog      RunningDeletedAction = "log"
	RunningDeletedShutdown RunningDeletedAction = "shutdown"
	RunningDeletedReap     RunningDeletedAction = "reap"
)

// Settings are Nova's options of the same names. Intervals follow
// Task.Spacing: 0 is every minute, negative is off.
type Settings struct {
	// Host is the name of this compute service.
	Host string

	UpdateResourcesInterval       time.Duration
	SyncPowerStateInterval        time.Duration
	HealInstanceInfoCacheInterval time.Duration
	SchedulerSyncInterval         time.Duration
	InstanceDeleteInterval        time.Duration
	MaxInstanceDeleteAttempts     int

	RunningDeletedInstanceAction       RunningDeletedAction
	RunningDeletedInstancePollInterval time.Duration
	// RunningDeletedInstanceTimeout is how long a row must have been deleted.
	RunningDeletedInstanceTimeout time.Duration

	// ReclaimInstanceInterval is how long a soft-deleted instance is kept and
	// how often that is looked at; 0 means for ever.
	ReclaimInstanceInterval time.Duration
	// ShelvedOffloadTime is how long a shelved instance keeps its place, looked
	// at each ShelvedPollInterval; 0 (it never has one) and negative (for ever)
	// leave nothing to do.
	ShelvedOffloadTime, ShelvedPollInterval time.Duration
	// ResizeConfirmWindow is how long a resize waits for its confirmation before
	// it is given; 0 means for ever.
	ResizeConfirmWindow time.Duration
	// RescueTimeout is how long an instance stays rescued; 0 means for ever.
	RescueTimeout time.Duration
	// InstanceBuildTimeout is how long a build may take; 0 means for ever.
	InstanceBuildTimeout time.Duration
	// ImageCacheInterval is manager_interval of [image_cache], and ImageCache
	// what may stay.
	ImageCacheInterval time.Duration
	ImageCache         driver.CacheLimits
	// TrackInstanceChanges is that of [filter_scheduler].
	TrackInstanceChanges bool
}

// DefaultSettings returns Nova's defaults of Zed.
func DefaultSettings(host string) Settings {
	return Settings{
		Host:                               host,
		SyncPowerStateInterval:             600 * time.Second,
		HealInstanceInfoCacheInterval:      60 * time.Second,
		SchedulerSyncInterval:              120 * time.Second,
		ShelvedPollInterval:                3600 * time.Second,
		InstanceDeleteInterval:             300 * time.Second,
		MaxInstanceDeleteAttempts:          5,
		RunningDeletedInstanceAction:       RunningDeletedReap,
		RunningDeletedInstancePollInterval: 1800 * time.Second,
		ImageCacheInterval:                 2400 * time.Second,
		ImageCache:                         driver.CacheLimits{KeepFor: 24 * time.Hour},
		TrackInstanceChanges:               true,
	}
}
