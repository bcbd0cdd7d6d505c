package tracker

import (
	"context"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/driver/placement"
)

// Conductor is the slice of Nova's conductor that the tracker uses. Errors are
// *messaging.RemoteError or say that no answer came.
type Conductor interface {
	// GetComputeNode is ComputeNode.get_by_host_and_nodename; the remote
	// exception ComputeHostNotFound when there is none.
	GetComputeNode(ctx context.Context, rc messaging.RequestContext, host, node string) (*objects.Object, error)
	// ClassAction runs any other class method of an object and decodes the
	// result into out.
	ClassAction(ctx context.Context, rc messaging.RequestContext, object, method string, args []any, kwargs map[string]any, out any) error
	// CreateComputeNode is ComputeNode.create. On nil node holds what the row holds.
	CreateComputeNode(ctx context.Context, rc messaging.RequestContext, node *objects.Object) error
	// SaveComputeNode is ComputeNode.save of the changed fields. On nil the
	// updates are merged and the marks cleared.
	SaveComputeNode(ctx context.Context, rc messaging.RequestContext, node *objects.Object) error
	// InstancesByNode is InstanceList.get_by_host_and_node.
	InstancesByNode(ctx context.Context, rc messaging.RequestContext, host, node string, attrs ...string) ([]*objects.Object, error)
	// GetInstance is Instance.get_by_uuid.
	GetInstance(ctx context.Context, rc messaging.RequestContext, uuid string, attrs ...string) (*objects.Object, error)
	// MigrationsInProgress is MigrationList.get_in_progress_and_error.
	MigrationsInProgress(ctx context.Context, rc messaging.RequestContext, host, node string) ([]*objects.Object, error)
}

// Reporter is the slice of placement.Reporter that the tracker uses. Errors
// carry classes of internal/errdefs.
type Reporter interface {
	// Reconcile makes the host's provider agree and writes only what differs.
	Reconcile(ctx context.Context, w placement.Wanted) (placement.Result, error)
	// Allocations returns what a consumer holds. Nothing is no error.
	Allocations(ctx context.Context, consumer string) (placement.Allocation, error)
	// Consumers returns who holds resources of the provider.
	Consumers(ctx context.Context, provider string) ([]string, error)
	// DeleteAllocations removes what a consumer holds. Nothing is success.
	DeleteAllocations(ctx context.Context, consumer string) error
	// HealAllocation does the same unless somebody changes it meanwhile,
	// which is errdefs.ErrConflict.
	HealAllocation(ctx context.Context, consumer string) error
	// MoveAllocations gives what one consumer holds to another.
	MoveAllocations(ctx context.Context, from, to string) error
	// RemoveProvider takes one provider out of what a consumer holds.
	RemoveProvider(ctx context.Context, consumer, provider string) error
}

// Driver is the slice of the driver that the tracker asks.
type Driver interface {
	Resources(ctx context.Context) (driver.Resources, error)
	Instances(ctx context.Context) ([]driver.InstanceUUID, error)
}

// Deps is everything that New needs.
type Deps struct {
	Driver    Driver
	Conductor Conductor
	Reporter  Reporter
}
