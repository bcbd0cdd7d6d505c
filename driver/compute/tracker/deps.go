package tracker

import (
	"context"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
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
}

// Inventory is the wanted amount of one resource class. min_unit and step_size
// are 1 and max_unit is the total.
type Inventory struct {
	Total, Reserved int64
	// Ratio is the configured allocation ratio; 0 leaves placement's own, and
	// InitialRatio is used when placement has none yet.
	Ratio, InitialRatio float64
}

// Provider is what the host's resource provider is to look like.
type Provider struct {
	UUID, Name string
	// Inventories by resource class, complete.
	Inventories map[string]Inventory
	// Traits that are to be there. Traits that others have set stay.
	Traits []string
	// NotTraits are traits of ours that must not be there.
	NotTraits []string
}

// Reporter makes placement agree. Errors carry classes of internal/errdefs.
type Reporter interface {
	// Sync makes the provider match, creating it if need be, and writes only
	// what differs.
	Sync(ctx context.Context, want Provider) error
	// Providers returns the providers that the consumer holds resources of.
	// No allocation is an empty answer, not an error.
	Providers(ctx context.Context, consumer string) ([]string, error)
	// Consumers returns who holds resources of the provider.
	Consumers(ctx context.Context, provider string) ([]string, error)
	// DeleteAllocation removes the consumer's allocation. None is success.
	DeleteAllocation(ctx context.Context, consumer string) error
	// ReleaseAllocation does the same unless somebody changes it meanwhile,
	// which is errdefs.ErrConflict.
	ReleaseAllocation(ctx context.Context, consumer string) error
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
