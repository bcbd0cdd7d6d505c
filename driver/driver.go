// Package driver is the contract between the compute service, which speaks
// Nova's words and owns an instance's life in the control plane, and whatever
// realises instances on this host.
//
// The required core is ComputeDriver. Abilities beyond it are small optional
// interfaces (Recoverer, Preparer, Snapshotter, InterfaceAttacher, Pauser, PasswordSetter, Migrator, Rescuer, Suspender, CrashDumper, Quiescer,
// ConsoleReader, ConsoleStreamer, EventSource and others);
// Capabilities must agree with them, and the suite in drivertest checks it.
//
// An instance is known by its UUID and by nothing else. The words of the back
// end (container, layer, cgroup) never leave an implementation. Every method
// may be called from any goroutine; calls for one instance are serialised by
// the caller except where a method says otherwise.
//
// Errors belong to the classes of internal/errdefs; an error that a tenant may
// read carries an errdefs.Public text. Allowed imports of ours: driver/objects
// and internal/errdefs.
package driver

import (
	"context"
	"io"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
)

// InstanceUUID identifies an instance, in the canonical form of RFC 9562.
type InstanceUUID string

// ComputeDriver is what every driver must do.
type ComputeDriver interface {
	// Spawn makes the instance exist and run.
	//
	// On nil the first process runs with its console captured. On error,
	// cancellation included, the host is as before and the same UUID may be
	// spawned again. A present instance is errdefs.ErrAlreadyExists.
	// errdefs.ErrInvalid says that the image or flavor can never boot here,
	// errdefs.ErrExhausted that this host lacks room.
	Spawn(ctx context.Context, req SpawnRequest) error

	// Destroy leaves nothing of the instance: process, namespaces, links,
	// disk, log, record. An absent instance is success. It may run while a
	// Spawn of the same instance is failing.
	Destroy(ctx context.Context, uuid InstanceUUID) error

	// Info reports the present state. errdefs.ErrNotFound if absent.
	Info(ctx context.Context, uuid InstanceUUID) (Info, error)

	// Instances lists all instances that exist on this host, in no order.
	Instances(ctx context.Context) ([]InstanceUUID, error)

	// PowerOn starts a stopped instance with its disk as it was left. A
	// running one is success.
	PowerOn(ctx context.Context, req PowerOnRequest) error

	// PowerOff stops the instance. With a positive Timeout it asks the guest
	// to stop, repeats that each RetryInterval, and kills it when Timeout has
	// passed; with zero it kills at once. A stopped instance is success.
	PowerOff(ctx context.Context, uuid InstanceUUID, opts PowerOffOptions) error

	// Reboot stops and starts the instance; its disk, addresses and network
	// namespace survive. A soft reboot that the guest ignores becomes hard.
	Reboot(ctx context.Context, req RebootRequest) error

	// Resources reports what this host has: totals, not free amounts. Equal
	// hosts give equal values.
	Resources(ctx context.Context) (Resources, error)

	// Capabilities are constant for the life of the driver.
	Capabilities() Capabilities
}

// Recoverer is a driver whose instances outlive the service.
type Recoverer interface {
	// Recover adopts what an earlier process left: running instances keep
	// running, half-made ones are removed, and the result lists what is here
	// now. Called once, before any other method.
	Recover(ctx context.Context) ([]InstanceUUID, error)
	// Plug makes the host's network match vifs for an existing instance. It
	// is idempotent.
	Plug(ctx context.Context, uuid InstanceUUID, vifs objects.NetworkInfo) error
}

// Preparer can do in advance what a Spawn may be refused for, so that an
// instance is not destroyed for a successor that can never be.
type Preparer interface {
	// Prepare fetches the image of req and checks image, flavor and files as
	// Spawn does, with its errors. It leaves nothing but the image on the host;
	// an instance of the same UUID may exist and is not touched. Network and
	// Events of req are not used.
	Prepare(ctx context.Context, req SpawnRequest) error
}

// Snapshotter can make an image of an instance.
type Snapshotter interface {
	// Snapshot opens a consistent image of the disk of a running, stopped or
	// paused instance. The instance may be stopped for at most a moment; it is
	// in its earlier state when Snapshot returns. The caller reads Content to
	// its end or closes it early; either way Close removes what is temporary. cred
	// may read the instance's image, which a driver may need for it.
	Snapshot(ctx context.Context, cred Credentials, uuid InstanceUUID) (SnapshotImage, error)
}

// SnapshotImage is an image under way to the image service.
type SnapshotImage struct {
	// DiskFormat and ContainerFormat in Glance's words ("raw", "docker").
	DiskFormat, ContainerFormat string
	// Properties to add to the image.
	Properties map[string]string
	// Content streams the image once.
	Content io.ReadCloser
}

// ImageCacher keeps images on this host for boots to come.
type ImageCacher interface {
	// CacheImage sees to it that the image is here and reports whether it had to
	// be fetched. errdefs.ErrNotFound: there is no such image, it has no data, or
	// the user may not see it.
	CacheImage(ctx context.Context, cred Credentials, imageID string) (fetched bool, err error)
	// PruneImages removes images that no instance has as the limits say, those
	// first that were used least recently. What a boot or a download under way
	// needs stays.
	PruneImages(ctx context.Context, limits CacheLimits) (Pruned, error)
}

// CacheLimits say which unused images go.
type CacheLimits struct {
	// KeepFor is how long an image stays after its last use; 0 removes every
	// unused one.
	KeepFor time.Duration
	// MaxBytes is what all images together may take on the disk; unused ones
	// beyond it go whatever their age. 0 is no bound.
	MaxBytes int64
}

// Pruned is what PruneImages has removed.
type Pruned struct {
	Images int
	Bytes  int64
}

// InterfaceAttacher can change the network of an instance that exists, be it
// running, paused or stopped: the guest sees interfaces come and go, and
// addresses change, while it runs.
type InterfaceAttacher interface {
	// ChangeNetwork takes the instance from one network to another: ports that
	// After has and Before has not are plugged, those of Before that After lacks
	// are unplugged, and the rest gets the addresses and routes that it should
	// have. An interface that stays keeps its name and its traffic. A stopped
	// instance starts with After.
	//
	// A port of After that cannot be plugged here, now or ever
	// (errdefs.ErrUnavailable, ErrUnsupported, ErrInvalid, ErrConflict), changes
	// nothing. On any other error the host has Before again as far as it can be
	// had. The same change twice is success. errdefs.ErrNotFound if the instance
	// is absent.
	ChangeNetwork(ctx context.Context, change NetworkChange) error
}

// NetworkChange is a new network for an instance. VIFs stand in the order of
// the interfaces: the default route of the first counts.
type NetworkChange struct {
	UUID          InstanceUUID
	Before, After objects.NetworkInfo
}

// Pauser can hold an instance's processes still in memory.
type Pauser interface {
	// Pause and Unpause are idempotent. errdefs.ErrConflict if not running.
	Pause(ctx context.Context, uuid InstanceUUID) error
	Unpause(ctx context.Context, uuid InstanceUUID) error
}

// PasswordSetter can change a password of a guest that runs.
type PasswordSetter interface {
	// SetPassword makes password the one of an account of the guest, "root" if
	// user is empty. Other accounts and the session of whoever is logged in stay
	// as they are. errdefs.ErrInvalid: such a password or user name cannot be;
	// errdefs.ErrConflict: the instance does not run; errdefs.ErrUnsupported: the
	// guest has no such account, or keeps no passwords where they can be changed.
	SetPassword(ctx context.Context, uuid InstanceUUID, user, password string) error
}

// ConsoleReader keeps what instances write to their console.
type ConsoleReader interface {
	// ConsoleOutput returns the last lines lines, or all that is kept when
	// lines is negative. A stopped instance's output stays readable.
	ConsoleOutput(ctx context.Context, uuid InstanceUUID, lines int) ([]byte, error)
}

// DiagnosticsReader can describe the use of an instance.
type DiagnosticsReader interface {
	Diagnostics(ctx context.Context, uuid InstanceUUID) (Diagnostics, error)
}

// EventSource tells of changes that nobody asked for, such as a guest that
// ended. Events may be late or repeated: the receiver asks Info for the truth.
type EventSource interface {
	// Events returns one channel for the life of the driver.
	Events() <-chan LifecycleEvent
}

// LifecycleEvent says that the power state of an instance may have changed.
type LifecycleEvent struct {
	UUID InstanceUUID
	// Reason is for the log and the fault: "exited with status 3", "killed: out of memory".
	Reason string
}

// EventWaiter is the one thing that a driver may ask of its host: to expect
// events of the control plane now and to wait for them later.
type EventWaiter interface {
	// Expect registers the network-vif-plugged events of the given ports
	// before they are plugged, so that an early event is not missed.
	Expect(uuid InstanceUUID, portIDs []string) Expectation
}

// Expectation is a registered wait. One of its methods must be called.
type Expectation interface {
	// Wait returns nil when every event has come with status completed, or
	// when waiting is switched off or not fatal. A failed event, or the
	// configured time without one, is errdefs.ErrUnavailable.
	Wait(ctx context.Context) error
	// Cancel forgets the wait. Safe after Wait.
	Cancel()
}

// NetworkSource hands over the network of a build once Neutron has allocated
// it, so that a driver can prepare the disk meanwhile.
type NetworkSource interface {
	// Wait blocks until the ports exist and are bound. Its error is the
	// allocation's and is to be returned unchanged.
	Wait(ctx context.Context) (objects.NetworkInfo, error)
}

// Flavor is the size that an instance was promised.
type Flavor struct {
	Name     string
	MemoryMB int64 // MiB
	VCPUs    int64
	RootGB   int64 // GiB; 0 means no limit asked for
	// EphemeralGB (GiB) and SwapMB (MiB) are extra disks.
	EphemeralGB, SwapMB int64
	ExtraSpecs          map[string]string
	// Processors are those of the host that the instance alone has, ascending,
	// as many as VCPUs; none lets it float over the shared ones.
	Processors []int
}

// Image is what the request says of the image to boot.
type Image struct {
	ID              string
	Name            string
	DiskFormat      string
	ContainerFormat string
	SizeBytes       int64
	// Checksum is MD5 in hex; HashAlgo and HashValue are Glance's multihash.
	Checksum, HashAlgo, HashValue string
	MinDiskGB, MinRAMMB           int64
	Properties                    map[string]string
}

// File is a file to put into the disk before the first start.
type File struct {
	Path    string
	Content []byte
}

// Credentials are what the driver may use to read the image for the user.
type Credentials struct {
	// UserToken is the token of the user who asked; it may be empty or expired.
	UserToken string
	// RequestID goes along as X-Openstack-Request-Id.
	RequestID string
}

// SpawnRequest is everything that a new instance is made from.
type SpawnRequest struct {
	UUID InstanceUUID
	// Name is Nova's internal name (instance-0000002a); Hostname the guest's.
	Name, Hostname string
	ProjectID      string
	Flavor         Flavor
	Image          Image
	Credentials    Credentials
	Network        NetworkSource
	Events         EventWaiter
	// PublicKey is the key pair's public half in OpenSSH form, or empty.
	PublicKey string
	// AdminPassword may become root's: the implementation says where it does.
	AdminPassword string
	// PasswordSet, unless nil, is called when AdminPassword has become root's:
	// once at most, and before Spawn returns.
	PasswordSet func()
	UserData    []byte
	Metadata    map[string]string
	Files       []File
	// Drive makes the files of the instance's config drive, by their paths from
	// its top; nil for none. It is called once, when the network is known; all
	// starts of the instance have these files, as a read-only tree.
	Drive func(objects.NetworkInfo) ([]File, error)
}

// PowerOnRequest starts a stopped instance.
type PowerOnRequest struct {
	UUID InstanceUUID
	// VIFs is the present network; links that are gone are made again.
	VIFs objects.NetworkInfo
}

// PowerOffOptions say how patient to be.
type PowerOffOptions struct {
	Timeout, RetryInterval time.Duration
}

// RebootType is Nova's reboot_type.
type RebootType string

// The two kinds of reboot.
const (
	RebootSoft RebootType = "SOFT"
	RebootHard RebootType = "HARD"
)

// RebootRequest restarts an instance.
type RebootRequest struct {
	UUID InstanceUUID
	Type RebootType
	VIFs objects.NetworkInfo
	// Off bounds the soft part.
	Off PowerOffOptions
}

// PowerState is Nova's numeric power state (nova/compute/power_state.py).
type PowerState int

// The power states that exist on the wire.
const (
	PowerNoState   PowerState = 0
	PowerRunning   PowerState = 1
	PowerPaused    PowerState = 3
	PowerShutdown  PowerState = 4
	PowerCrashed   PowerState = 6
	PowerSuspended PowerState = 7
)

// String returns Nova's name of the state.
func (p PowerState) String() string {
	switch p {
	case PowerNoState:
		return "pending"
	case PowerRunning:
		return "running"
	case PowerPaused:
		return "paused"
	case PowerShutdown:
		return "shutdown"
	case PowerCrashed:
		return "crashed"
	case PowerSuspended:
		return "suspended"
	}
	return "unknown"
}

// Info is the present state of an instance.
type Info struct {
	State PowerState
	// Reason says why it is not running, for example "exited with status 1".
	Reason string
	// Rescued: what runs, or would with a start, is the system of a Rescue.
	Rescued bool
}

// Diagnostics is the use of an instance. Absent numbers are zero.
type Diagnostics struct {
	State          PowerState
	Uptime         time.Duration
	CPUTime        time.Duration
	NumCPUs        int64
	MemoryMaxBytes int64
	MemoryUsed     int64 // bytes
	NICs           []NICDiagnostics
}

// NICDiagnostics counts the traffic of one interface as the guest sees it.
type NICDiagnostics struct {
	MAC                                  string
	RxBytes, RxPackets, RxErrors, RxDrop int64
	TxBytes, TxPackets, TxErrors, TxDrop int64
}

// Resources is what the host has, for the compute node record and placement.
type Resources struct {
	// Node is the hypervisor host name.
	Node              string
	VCPUs             int64
	MemoryMB          int64 // MiB
	DiskGB            int64 // GiB of the store
	DiskFreeGB        int64 // GiB, least that is free now
	HypervisorType    string
	HypervisorVersion int64
	// CPUInfo is a JSON document or empty.
	CPUInfo string
	// Supported are triples of architecture, hypervisor type and VM mode.
	Supported []HVSpec
	// Traits are standard and CUSTOM_ traits that are true of this host and
	// follow from the driver, COMPUTE_NODE not among them.
	Traits []string
	// OwnTraits are those of which the driver alone decides, beyond what each
	// compute service decides: they are taken away where they are not in Traits.
	OwnTraits []string
	// Cells are the host's memory nodes with the processors that the operator has
	// set aside for instances; nil where instances float over all VCPUs.
	Cells  []Cell
	Uptime time.Duration
	// LoadAverage over 1, 5 and 15 minutes.
	LoadAverage [3]float64
}

// Cell is one memory node and those of its processors that instances may have,
// by the kernel's numbers, ascending.
type Cell struct {
	ID int64
	// Socket is the package of all its processors, -1 where they are of several.
	Socket   int64
	MemoryMB int64 // MiB
	PageKB   int64 // KiB
	// Shared are floated over, Dedicated given to one instance each. No processor
	// is both.
	Shared, Dedicated []int
	// Siblings are the cores, each with its threads among Shared and Dedicated.
	Siblings [][]int
}

// HVSpec is one kind of guest that can run here (nova/objects/hv_spec.py).
type HVSpec struct {
	Arch, HVType, VMMode string
}

// Capabilities say what a driver can do, as data.
type Capabilities struct {
	Recover, Snapshot, Pause, Console, Diagnostics, Events bool
	CacheImages, Prepare                                   bool
	AttachInterface                                        bool
	// SetPassword is PasswordSetter.
	SetPassword bool
	// ConsoleStream is ConsoleStreamer.
	ConsoleStream bool
	// GuestReboot: a guest that reboots itself is started again in place, with
	// its disk, addresses and console. It stays PowerRunning all the while, also
	// over an end of the service (Recoverer), and no event tells of it; one that
	// does so too often stays off, with an event that says why.
	GuestReboot bool
	// Resize and Migrate are of a Migrator.
	Resize, Migrate bool
	// ConfigDrive: SpawnRequest.Drive is heeded.
	ConfigDrive bool
	// Rescue is Rescuer, Suspend Suspender.
	Rescue, Suspend bool
	// CrashDump is CrashDumper, Quiesce Quiescer.
	CrashDump, Quiesce bool
	// Processors: Flavor.Processors is heeded. Without it such a flavor is
	// errdefs.ErrInvalid.
	Processors bool
}
