package compute

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// The interfaces of this file are what the manager needs from its
// surroundings. Implementations live in driver/conductor, driver/neutron,
// driver/compute/tracker and glance; internal/daemon puts them together.
//
// Everywhere inst is an Instance object that the manager owns: an
// implementation may set fields of it only where its method says so, and keeps
// no reference after it returns. Errors are *messaging.RemoteError (conductor)
// or carry a class of internal/errdefs.

// Conductor is the slice of Nova's conductor that the manager uses. Each
// method is one RPC in the context rc of the caller of the operation.
type Conductor interface {
	// GetInstance is Instance.get_by_uuid with the given expected_attrs
	// (none: the default joins).
	GetInstance(ctx context.Context, rc messaging.RequestContext, uuid string, attrs ...string) (*objects.Object, error)
	// SaveInstance is Instance.save of the changed fields and nothing else.
	// On nil the answer's updates are merged into inst and its marks cleared.
	// The remote exceptions InstanceNotFound, UnexpectedTaskStateError and
	// UnexpectedDeletingTaskStateError are the interesting ones.
	SaveInstance(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, expect Expect) error
	// DestroyInstance is Instance.destroy.
	DestroyInstance(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error

	// EventStart is InstanceActionEvent.event_start for this host.
	EventStart(ctx context.Context, rc messaging.RequestContext, uuid, event string) error
	// EventFinish is InstanceActionEvent.event_finish_with_failure. An empty
	// failure means success; otherwise it is the text for exc_val, and trace
	// goes into exc_tb (never empty on failure: it is what marks an error).
	EventFinish(ctx context.Context, rc messaging.RequestContext, uuid, event, failure, trace string) error
	// ActionStart is InstanceAction.action_start, for work that nobody asked
	// for through the API.
	ActionStart(ctx context.Context, rc messaging.RequestContext, uuid, action string) error
	// CreateFault is InstanceFault.create for this host. message has at most
	// 255 characters.
	CreateFault(ctx context.Context, rc messaging.RequestContext, uuid string, code int, message, details string) error

	// GetComputeNode is ComputeNode.get_by_host_and_nodename; the remote
	// exception ComputeHostNotFound if there is none.
	GetComputeNode(ctx context.Context, rc messaging.RequestContext, host, node string) (*objects.Object, error)
	// SaveMigration is Migration.save of the changed fields.
	SaveMigration(ctx context.Context, rc messaging.RequestContext, migration *objects.Object) error
	// CleanConsoleAuths is ConsoleAuthToken.clean_console_auths_for_instance.
	CleanConsoleAuths(ctx context.Context, rc messaging.RequestContext, uuid string) error
	// AuthorizeConsole is ConsoleAuthToken.authorize: it sets token and id of a
	// new ConsoleAuthToken, which is good for ttl.
	AuthorizeConsole(ctx context.Context, rc messaging.RequestContext, token *objects.Object, ttl time.Duration) error

	// BuildInstances casts compute_task.build_instances: the reschedule of a
	// failed build. args are its keyword arguments, complete.
	BuildInstances(ctx context.Context, rc messaging.RequestContext, args map[string]any) error
	// MigrateServer casts compute_task.migrate_server: the reschedule of a
	// resize. args are its keyword arguments, complete.
	MigrateServer(ctx context.Context, rc messaging.RequestContext, args map[string]any) error
	// MigrationsByFilters is MigrationList.get_by_filters.
	MigrationsByFilters(ctx context.Context, rc messaging.RequestContext, filters map[string]any) ([]*objects.Object, error)
}

// Expect is the compare-and-swap of Instance.save: the states that the stored
// row must be in, the empty string for null. The zero value means no check.
type Expect = conductor.Expect

// ClaimRequest says where a build wants to go.
type ClaimRequest struct {
	// Node is the hypervisor host name that the scheduler chose.
	Node string
	// Limits is the scheduler's limits argument, null or a dictionary.
	Limits json.RawMessage
	// Took, if not nil, is given the InstanceNUMATopology of an instance that
	// gets processors of its own, before the claim returns. It is for the row.
	Took func(topology *objects.Object)
}

// Tracker is the resource tracker.
type Tracker interface {
	// Claim tests that the host has room for inst's flavor (and, where it can
	// be read, that placement holds an allocation for it) and reserves the
	// room under the tracker's lock. From nil on the usage counts, also while
	// the row in the database does not yet name this host; the manager saves
	// host, node and launched_on itself right after it.
	//
	// release gives the room back after a failed build. It is idempotent, is
	// given a context of its own and deletes no allocation. A claim that is
	// never released becomes the instance's ordinary usage.
	//
	// errdefs.ErrExhausted says no room (ComputeResourcesUnavailable: the
	// build is rescheduled), errdefs.ErrInvalid an unknown node.
	Claim(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, req ClaimRequest) (release func(context.Context), err error)
	// Drop forgets inst's usage and deletes its allocation in placement. An
	// unknown instance or allocation is success. Called at the end of a
	// delete and of every failed build.
	Drop(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
	// BuildEnded counts consecutive failed builds (stats.failed_builds); a
	// success sets the counter to 0.
	BuildEnded(ctx context.Context, node string, failed bool)
	// SetHostEnabled removes or adds the trait COMPUTE_STATUS_DISABLED of the
	// host's provider.
	SetHostEnabled(ctx context.Context, rc messaging.RequestContext, enabled bool) error
	Mover
}

// Mover is the part of a resource tracker that resizes and migrations need.
// While a move is under way its host counts an instance twice: as it is, and as
// it may have to be.
type Mover interface {
	// ClaimMove reserves room for inst with its new_flavor, on the host that it
	// goes to; see Claim for the errors. release gives that back.
	ClaimMove(ctx context.Context, rc messaging.RequestContext, inst, migration *objects.Object, req ClaimRequest) (release func(context.Context), err error)
	// CountMove counts the instance and its move anew, as they are now.
	CountMove(inst, migration *objects.Object)
	// RevertMove gives the instance in placement what the migration holds, and
	// nothing else. A migration that holds nothing is success.
	RevertMove(ctx context.Context, rc messaging.RequestContext, inst, migration *objects.Object) error
	// DropMove deletes what the migration holds in placement.
	DropMove(ctx context.Context, rc messaging.RequestContext, migration *objects.Object) error
	// Leave takes this host out of what the instance holds in placement, and
	// forgets its usage here: an evacuation to this host has failed.
	Leave(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error
}

// Peers are the compute services of other hosts, and this one: a move goes from
// host to host by casts.
type Peers interface {
	Cast(ctx context.Context, rc messaging.RequestContext, host, method string, args map[string]any) error
}

// AllocateRequest asks for the ports of a new instance.
type AllocateRequest struct {
	// Instance has uuid, project_id, availability_zone, hostname and
	// security_groups. It gets device_metadata where interfaces have tags; the row
	// has it then too.
	Instance *objects.Object
	// Networks is the NetworkRequestList of the build, nil for none given.
	Networks *objects.Object
	// SecurityGroups are names or ids.
	SecurityGroups []string
	// Rebind says that the ports exist since a try on another host and are to
	// be bound to this one (system_metadata.network_allocated).
	Rebind bool
}

// Ports is the instance's network in Neutron and its rows in Nova
// (VirtualInterface, InstanceInfoCache), which an implementation keeps in step.
type Ports interface {
	// Allocate creates or adopts, binds and records the ports. On error
	// nothing is left: created ports are deleted, given ones unbound.
	// errdefs.ErrInvalid, ErrExhausted and ErrForbidden are the request's
	// fault; all errors end the build without a reschedule.
	Allocate(ctx context.Context, rc messaging.RequestContext, req AllocateRequest) (objects.NetworkInfo, error)
	// Deallocate deletes the ports that Nova created for the instance, unbinds
	// the user's, and empties rows and info cache. Nothing there is success.
	Deallocate(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, known objects.NetworkInfo) error
	// Refresh reads the network from Neutron, saves the info cache and returns it.
	Refresh(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) (objects.NetworkInfo, error)
	// Cached is the network as the info cache has it now, whatever came with a
	// message.
	Cached(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) (objects.NetworkInfo, error)

	// Attach creates or adopts, binds and records one more port and returns the
	// whole network, the new port last. On error nothing of it is left. An error
	// that Nova has a name for is, or holds, that exception.
	Attach(ctx context.Context, rc messaging.RequestContext, req AttachRequest) (objects.NetworkInfo, error)
	// Detach takes a port of known from the instance: it is deleted, or unbound if
	// it is the user's, and out of rows and info cache. One that is gone is success.
	Detach(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, known objects.NetworkInfo, port string) error
	// AddAddress gives the instance's port on the network one more fixed address,
	// RemoveAddress takes one away; both return the whole network.
	AddAddress(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, network string) (objects.NetworkInfo, error)
	RemoveAddress(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, address string) (objects.NetworkInfo, error)
}

// AttachRequest asks for one more port. All strings may be empty: then it is
// the one network that the project has.
type AttachRequest struct {
	Instance *objects.Object
	// NetworkID or PortID say what, Address wants a certain fixed address, Tag is
	// the device tag.
	NetworkID, PortID, Address, Tag string
}

// ImageStore is where snapshots go, and where images are asked for.
type ImageStore interface {
	// StatImage describes an image that can be booted. errdefs.ErrNotFound:
	// there is none, it has no data, or the user may not see it.
	StatImage(ctx context.Context, cred driver.Credentials, imageID string) (driver.Image, error)
	// SetFormats sets disk and container format and adds properties. It must
	// come before Upload.
	SetFormats(ctx context.Context, cred driver.Credentials, imageID, disk, container string, properties map[string]string) error
	// Upload stores the content and returns when the image is active.
	// errdefs.ErrNotFound: the user has deleted the image meanwhile.
	Upload(ctx context.Context, cred driver.Credentials, imageID string, content io.Reader) error
	// Delete removes the image. A missing one is success.
	Delete(ctx context.Context, cred driver.Credentials, imageID string) error
	// Backups lists the backups of the given type that were made of the
	// instance and that the user may see, newest first; those of one second are
	// in no order.
	Backups(ctx context.Context, cred driver.Credentials, instance, backupType string) ([]Backup, error)
	// Active reports whether the image is complete. errdefs.ErrNotFound if absent.
	Active(ctx context.Context, cred driver.Credentials, imageID string) (bool, error)
}

// Backup is an image that a backup made, or is about to fill.
type Backup struct {
	ID string
	// Created is when its record was made, in whole seconds.
	Created time.Time
	// Active says that the image is complete.
	Active bool
}

// Scheduler is told of this host's instances (fan-out on scheduler_fanout,
// version 4.2). Failures are not reported: the scheduler reads the database
// when it was not told.
type Scheduler interface {
	InstanceUpdated(ctx context.Context, rc messaging.RequestContext, inst *objects.Object)
	InstanceDeleted(ctx context.Context, rc messaging.RequestContext, uuid string)
}

// Notifier sends notifications, for example the unversioned event
// compute.instance.create.end; messaging.Notifier is one.
type Notifier interface {
	// Enabled reports whether Notify sends anything.
	Enabled() bool
	// Notify returns when the broker has the event.
	Notify(ctx context.Context, rc messaging.RequestContext, p messaging.Priority, event string, payload any) error
}

var (
	_ Conductor = (*conductor.Client)(nil)
	_ Scheduler = (*conductor.Scheduler)(nil)
	_ Notifier  = (*messaging.Notifier)(nil)
)

// Consoles are where proxies reach the consoles of this host's instances.
type Consoles interface {
	// Serve says where a proxy reaches a console, and keeps it there for as long
	// as a token is good. errdefs.ErrUnsupported: that kind is not served here;
	// errdefs.ErrConflict: the instance does not run; errdefs.ErrNotFound: it is
	// not here; errdefs.ErrExhausted: too many.
	Serve(ctx context.Context, uuid string, kind ConsoleKind) (host string, port int, err error)
	// Serves reports whether the console of that instance is at that port.
	Serves(uuid string, kind ConsoleKind, port int) bool
	// Drop ends the consoles of an instance.
	Drop(uuid string)
}

// ConsoleKind is a protocol of consoles, in the words of Nova's API.
type ConsoleKind string

// The kinds that a container has.
const (
	ConsoleVNC    ConsoleKind = "vnc"
	ConsoleSerial ConsoleKind = "serial"
)

// Deps is everything that New needs. Scheduler, Images and Consoles may be nil,
// and Peers where no instance is resized or moved. Notifier has the unversioned
// notifications and Versioned the versioned ones; nil is nobody to tell.
type Deps struct {
	Driver    driver.ComputeDriver
	Conductor Conductor
	Tracker   Tracker
	Ports     Ports
	Images    ImageStore
	Scheduler Scheduler
	Notifier  Notifier
	Versioned Notifier
	Peers     Peers
	Consoles  Consoles
}
