// Package fake is an in-memory driver that keeps the whole driver contract and
// passes drivertest, for tests of the compute service without an engine.
//
// It is a small real implementation and no recording of calls: it holds what a
// host would hold (disks, networks, processes, logs), refuses what a host would
// refuse, and undoes a failed Spawn. Knobs make single steps fail or stall and
// let a guest end by itself. It imports only the contract.
package fake

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Step names a place where the driver can be made to fail or to stall.
type Step string

// The steps, in the order in which a Spawn passes the first five.
const (
	StepImage    Step = "image"   // reading the image
	StepDisk     Step = "disk"    // making the disk
	StepNetwork  Step = "network" // after the network source has answered
	StepPlug     Step = "plug"    // making the links
	StepStart    Step = "start"   // starting the first process
	StepPrepare  Step = "prepare" // looking at what is to be spawned
	StepDestroy  Step = "destroy"
	StepOn       Step = "power on"
	StepOff      Step = "power off"
	StepReboot   Step = "reboot"
	StepPassword Step = "password"
	StepChange   Step = "change network"
	StepCapture  Step = "snapshot"
	StepRead     Step = "snapshot read" // in the middle of a snapshot's content
)

// Host is what a crash of the service does not take with it. Two drivers on
// one Host are an earlier and a later life of the service.
type Host struct {
	mu        sync.Mutex
	instances map[driver.InstanceUUID]*instance // guarded by mu
	// residue names everything that exists on the host, by owner.
	residue map[string]driver.InstanceUUID // guarded by mu
	// images are those of the image service.
	images map[string]*image // guarded by mu
}

// instance is guarded by Host.mu.
type instance struct {
	state   driver.PowerState
	reason  string
	console []byte
	viewers []*viewer
	rows    uint16
	cols    uint16
	vifs    objects.NetworkInfo
	request driver.SpawnRequest
	making  bool
	// password of root; "" is what the image has.
	password string
	boots    int
	// rescue is the request of the rescue system that runs instead, nil for none.
	rescue *driver.RescueRequest
}

// NewHost returns an empty host.
func NewHost() *Host {
	return &Host{instances: map[driver.InstanceUUID]*instance{}, residue: map[string]driver.InstanceUUID{}, images: map[string]*image{}}
}

// Residue lists what exists on the host, sorted, each entry with its owner.
func (h *Host) Residue() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]string, 0, len(h.residue))
	for what, owner := range h.residue {
		out = append(out, what+" of "+string(owner))
	}
	slices.Sort(out)
	return out
}

// Driver is the fake. It is safe for concurrent use.
type Driver struct {
	host   *Host
	events chan driver.LifecycleEvent

	mu    sync.Mutex
	fails map[Step]error         // guarded by mu; taken by the first pass
	gates map[Step]chan struct{} // guarded by mu
	seen  map[Step]chan struct{} // guarded by mu
}

var (
	_ driver.ComputeDriver     = (*Driver)(nil)
	_ driver.Recoverer         = (*Driver)(nil)
	_ driver.Preparer          = (*Driver)(nil)
	_ driver.Snapshotter       = (*Driver)(nil)
	_ driver.Pauser            = (*Driver)(nil)
	_ driver.ConsoleReader     = (*Driver)(nil)
	_ driver.PasswordSetter    = (*Driver)(nil)
	_ driver.ConsoleStreamer   = (*Driver)(nil)
	_ driver.DiagnosticsReader = (*Driver)(nil)
	_ driver.EventSource       = (*Driver)(nil)
	_ driver.ImageCacher       = (*Driver)(nil)
	_ driver.InterfaceAttacher = (*Driver)(nil)
	_ driver.Rescuer           = (*Driver)(nil)
	_ driver.Suspender         = (*Driver)(nil)
	_ driver.CrashDumper       = (*Driver)(nil)
	_ driver.Quiescer          = (*Driver)(nil)
)

// New returns a driver on a host of its own.
func New() *Driver { return On(NewHost()) }

// On returns a driver on the given host, as a service that starts again.
func On(h *Host) *Driver {
	return &Driver{
		host:   h,
		events: make(chan driver.LifecycleEvent, 64),
		fails:  map[Step]error{},
		gates:  map[Step]chan struct{}{},
		seen:   map[Step]chan struct{}{},
	}
}

// Host returns the driver's host.
func (d *Driver) Host() *Host { return d.host }

// FailNext makes the next pass of step return err.
func (d *Driver) FailNext(step Step, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails[step] = err
}

// Stall makes the next pass of step wait. entered is closed when it has come
// there; release lets it go on and may be called more than once.
func (d *Driver) Stall(step Step) (entered <-chan struct{}, release func()) {
	gate, seen := make(chan struct{}), make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gates[step], d.seen[step] = gate, seen
	return seen, sync.OnceFunc(func() { close(gate) })
}

// pass is called at each step.
func (d *Driver) pass(ctx context.Context, step Step) error {
	d.mu.Lock()
	gate, seen, err := d.gates[step], d.seen[step], d.fails[step]
	delete(d.gates, step)
	delete(d.seen, step)
	delete(d.fails, step)
	d.mu.Unlock()
	if gate != nil {
		close(seen)
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return ctx.Err()
}

// Exit ends a running guest, as if it had ended by itself, and tells of it.
func (d *Driver) Exit(uuid driver.InstanceUUID, state driver.PowerState, reason string) {
	d.host.mu.Lock()
	if i := d.host.instances[uuid]; i != nil {
		i.state, i.reason = state, reason
		i.hangUp()
		delete(d.host.residue, processOf(uuid))
	}
	d.host.mu.Unlock()
	d.events <- driver.LifecycleEvent{UUID: uuid, Reason: reason}
}

// Restart is a running guest's own reboot.
func (d *Driver) Restart(uuid driver.InstanceUUID) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if i := d.host.instances[uuid]; i != nil && i.state == driver.PowerRunning {
		d.host.boot(uuid, i)
	}
}

// Request returns what the instance was spawned with.
func (d *Driver) Request(uuid driver.InstanceUUID) (driver.SpawnRequest, bool) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i := d.host.instances[uuid]
	if i == nil {
		return driver.SpawnRequest{}, false
	}
	return i.request, true
}

// Boots says how often the instance has been started.
func (d *Driver) Boots(uuid driver.InstanceUUID) int {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if i := d.host.instances[uuid]; i != nil {
		return i.boots
	}
	return 0
}

// Capabilities names everything.
func (d *Driver) Capabilities() driver.Capabilities {
	return driver.Capabilities{Recover: true, Snapshot: true, Pause: true, Console: true, Diagnostics: true, Events: true, CacheImages: true, Prepare: true, SetPassword: true, ConsoleStream: true, AttachInterface: true, GuestReboot: true, Resize: true, Migrate: true, ConfigDrive: true, Rescue: true, Suspend: true, CrashDump: true, Quiesce: true, Processors: true}
}

// Resources describes a middling host.
func (d *Driver) Resources(context.Context) (driver.Resources, error) {
	return driver.Resources{
		Node: "fake-node", VCPUs: 64, MemoryMB: 256 << 10, DiskGB: 1 << 10, DiskFreeGB: 1 << 10,
		HypervisorType: "fake", HypervisorVersion: 1000000,
		Supported: []driver.HVSpec{{Arch: "x86_64", HVType: "fake", VMMode: "exe"}},
		Traits:    []string{"COMPUTE_NET_ATTACH_INTERFACE", "COMPUTE_NET_ATTACH_INTERFACE_WITH_TAG"},
		Cells:     cells(),
		Uptime:    26*time.Hour + 3*time.Minute, LoadAverage: [3]float64{0.25, 0.5, 0.75},
	}, nil
}

// given are the processors that are given to one instance each, beside the 64
// that the others share.
func given() []int { return []int{64, 65} }

func cells() []driver.Cell {
	c := driver.Cell{Socket: -1, MemoryMB: 256 << 10, PageKB: 4, Dedicated: given()}
	for cpu := range 66 {
		if cpu < 64 {
			c.Shared = append(c.Shared, cpu)
		}
		c.Siblings = append(c.Siblings, []int{cpu})
	}
	return []driver.Cell{c}
}

// Instances lists the instances in order.
func (d *Driver) Instances(context.Context) ([]driver.InstanceUUID, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	out := []driver.InstanceUUID{}
	for _, uuid := range slices.Sorted(maps.Keys(d.host.instances)) {
		if !d.host.instances[uuid].making {
			out = append(out, uuid)
		}
	}
	return out, nil
}

// Info reports the state.
func (d *Driver) Info(_ context.Context, uuid driver.InstanceUUID) (driver.Info, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("info", uuid)
	if err != nil {
		return driver.Info{}, err
	}
	return driver.Info{State: i.state, Reason: i.reason, Rescued: i.rescue != nil}, nil
}

// get must be called with mu held.
func (h *Host) get(op string, uuid driver.InstanceUUID) (*instance, error) {
	i := h.instances[uuid]
	if i == nil || i.making {
		return nil, fmt.Errorf("%s %s: %w", op, uuid, errdefs.ErrNotFound)
	}
	return i, nil
}

// boot must be called with mu held.
func (h *Host) boot(uuid driver.InstanceUUID, i *instance) {
	i.state, i.reason = driver.PowerRunning, ""
	i.boots++
	i.say(fmt.Appendf(nil, "boot %d of %s\nlogin:\n", i.boots, i.request.Hostname))
	h.residue[processOf(uuid)] = uuid
}

func processOf(uuid driver.InstanceUUID) string { return "process " + string(uuid) }
func diskOf(uuid driver.InstanceUUID) string    { return "disk " + string(uuid) }
func logOf(uuid driver.InstanceUUID) string     { return "log " + string(uuid) }
func linkOf(port string) string                 { return "link " + port }

// drop removes all that belongs to uuid and has one of the prefixes (all when
// there are none). It must be called with mu held.
func (h *Host) drop(uuid driver.InstanceUUID, prefixes ...string) {
	maps.DeleteFunc(h.residue, func(what string, owner driver.InstanceUUID) bool {
		return owner == uuid && (len(prefixes) == 0 || slices.ContainsFunc(prefixes, func(p string) bool {
			return strings.HasPrefix(what, p)
		}))
	})
}
