package recovery

import (
	"context"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// Conductor is the slice of Nova's conductor that recovery uses.
type Conductor interface {
	// InstancesByHost is InstanceList.get_by_host.
	InstancesByHost(ctx context.Context, rc messaging.RequestContext, host string, attrs ...string) ([]*objects.Object, error)
	// InstancesByFilters is InstanceList.get_by_filters.
	InstancesByFilters(ctx context.Context, rc messaging.RequestContext, filters map[string]any, attrs ...string) ([]*objects.Object, error)
	// GetInstance is Instance.get_by_uuid.
	GetInstance(ctx context.Context, rc messaging.RequestContext, uuid string, attrs ...string) (*objects.Object, error)
	// SaveInstance is Instance.save of the changed fields.
	SaveInstance(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, expect compute.Expect) error
	// DestroyInstance is Instance.destroy.
	DestroyInstance(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	// CreateFault is InstanceFault.create for this host.
	CreateFault(ctx context.Context, rc messaging.RequestContext, uuid string, code int, message, details string) error
	// CleanConsoleAuths is ConsoleAuthToken.clean_console_auths_for_instance.
	CleanConsoleAuths(ctx context.Context, rc messaging.RequestContext, uuid string) error
	// MigrationsByFilters is MigrationList.get_by_filters.
	MigrationsByFilters(ctx context.Context, rc messaging.RequestContext, filters map[string]any) ([]*objects.Object, error)
	// SaveMigration is Migration.save of the changed fields.
	SaveMigration(ctx context.Context, rc messaging.RequestContext, migration *objects.Object) error
}

// Operations are the verbs of the compute service that recovery runs again
// (compute.Manager). Each does what the message of the same name does, events,
// faults and states included, and returns when it is done.
type Operations interface {
	Terminate(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	Stop(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	Start(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	Unpause(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	Resume(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	Unrescue(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	Offload(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	AbandonMove(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	ConfirmMove(ctx context.Context, rc messaging.RequestContext, inst, mig *objects.Object) error
	Reboot(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, kind driver.RebootType) error
}

// Ports frees the network of an abandoned build (compute.Ports).
type Ports interface {
	Deallocate(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, known objects.NetworkInfo) error
}

// Tracker forgets an abandoned build and its allocation (compute.Tracker).
type Tracker interface {
	Drop(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
}

// Allocations is what recovery reads and changes in placement.
type Allocations interface {
	// Consumers lists who holds resources of the provider. A provider that
	// does not exist has none.
	Consumers(ctx context.Context, provider string) ([]string, error)
	// RemoveProvider takes the provider out of the consumer's allocation and
	// leaves the rest of it. Nothing there is success.
	RemoveProvider(ctx context.Context, consumer, provider string) error
}

// Deps is everything that New needs.
type Deps struct {
	Driver      driver.ComputeDriver
	Conductor   Conductor
	Operations  Operations
	Ports       Ports
	Tracker     Tracker
	Allocations Allocations
}

// Options of a recovery.
type Options struct {
	// Host is the name of this compute service.
	Host string
	// Provider returns the UUID of this host's resource provider, which is known
	// when Run is called.
	Provider func() string
	// ResumeGuests is resume_guests_state_on_host_boot: start what the row
	// says runs and does not.
	ResumeGuests bool
}
