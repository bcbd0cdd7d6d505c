package tracker

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Options are Nova's settings of the same names.
type Options struct {
	// Host is the name of this compute service, MyIP the address in its record.
	Host, MyIP string
	// StatePath is the folder of the identity file.
	StatePath string
	// The allocation ratios; 0 means not configured. The initial ones are for
	// a host that placement does not know yet.
	CPURatio, RAMRatio, DiskRatio                      float64
	InitialCPURatio, InitialRAMRatio, InitialDiskRatio float64
	// ReservedCPUs, ReservedMemoryMB and ReservedDiskMB are kept for the host.
	ReservedCPUs, ReservedMemoryMB, ReservedDiskMB int64
	// CountFailedBuilds is off when
	// consecutive_build_service_disable_threshold is 0.
	CountFailedBuilds bool
	// SaveDelay is how long changes of usage are collected before Run writes
	// them; 0 means one second.
	SaveDelay time.Duration
}

// DefaultOptions returns Nova's defaults of Zed.
func DefaultOptions() Options {
	return Options{
		InitialCPURatio: 16, InitialRAMRatio: 1.5, InitialDiskRatio: 1,
		ReservedMemoryMB: 512, CountFailedBuilds: true,
	}
}

// Tracker is the resource tracker of one host with one node. Identify and Init
// come first; after them everything is safe for concurrent use.
type Tracker struct {
	deps Deps
	opts Options
	log  zerolog.Logger

	// changed wakes Run.
	changed chan struct{}
	// The order of locks is surveying, writing or syncing, mu. Those that are
	// held over calls are channels, so that waiting ends with a context.
	surveying chan struct{} // one survey at a time
	syncing   chan struct{} // one change of placement at a time
	writing   chan struct{} // guards row
	row       *objects.Object
	surveyed  bool // guarded by surveying; one has ended well

	mu        sync.Mutex
	id        string              // guarded by mu; UUID of node and provider
	resources driver.Resources    // guarded by mu; as the last survey found them
	used      map[string]usage    // guarded by mu; by instance UUID
	told      cpuList             // guarded by mu; processors of instances' own that the record says are taken
	claims    map[string]struct{} // guarded by mu; of used, those that no list has shown yet
	dropped   map[string]struct{} // guarded by mu; forgotten while a list is being read, nil otherwise
	failed    int                 // guarded by mu; consecutive failed builds
	disabled  bool                // guarded by mu
}

var _ compute.Tracker = (*Tracker)(nil)

// New returns a tracker that knows nothing yet.
func New(deps Deps, opts Options, log zerolog.Logger) *Tracker {
	if opts.SaveDelay <= 0 {
		opts.SaveDelay = time.Second
	}
	return &Tracker{
		deps: deps, opts: opts, log: log,
		changed:   make(chan struct{}, 1),
		surveying: make(chan struct{}, 1),
		syncing:   make(chan struct{}, 1),
		writing:   make(chan struct{}, 1),
		used:      map[string]usage{},
		claims:    map[string]struct{}{},
	}
}

// NodeUUID returns the UUID of the compute node record and of the resource
// provider; "" before Identify.
func (t *Tracker) NodeUUID() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.id
}

// Node returns the hypervisor host name; "" before Identify.
func (t *Tracker) Node() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.resources.Node
}

// SetDisabled records whether the service is disabled, without telling
// placement: the next survey does.
func (t *Tracker) SetDisabled(disabled bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.disabled = disabled
}

// SetHostEnabled implements compute.Tracker.
func (t *Tracker) SetHostEnabled(ctx context.Context, _ messaging.RequestContext, enabled bool) error {
	t.SetDisabled(!enabled)
	if t.NodeUUID() == "" {
		return nil // Init will say it
	}
	return t.syncProvider(ctx)
}

// BuildEnded implements compute.Tracker.
func (t *Tracker) BuildEnded(_ context.Context, _ string, failed bool) {
	if !t.opts.CountFailedBuilds {
		return
	}
	t.mu.Lock()
	before := t.failed
	if failed {
		t.failed++
	} else {
		t.failed = 0
	}
	now := t.failed
	t.mu.Unlock()
	if now != before {
		t.touch()
	}
}

// Run writes changes of usage to the compute node record until ctx ends, and
// returns nil. Changes are collected for SaveDelay, so that a burst of builds
// costs one write; those of processors of an instance's own are written at once.
// What cannot be written waits for the next change or survey.
func (t *Tracker) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.changed:
		}
		if !t.collect(ctx) {
			return nil
		}
		if err := t.saveNode(ctx); err != nil && ctx.Err() == nil {
			t.log.Warn().Err(err).Msg("compute node record is not up to date until the next survey")
		}
	}
}

// collect waits for more changes, and no longer once processors are others:
// for memory and disk the scheduler goes by placement, for those by the record.
// It reports false when ctx has ended.
func (t *Tracker) collect(ctx context.Context) bool {
	timer := time.NewTimer(t.opts.SaveDelay)
	defer timer.Stop()
	for !t.repinned() {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-t.changed:
		}
	}
	return true
}

// repinned tells whether others than the record says are taken.
func (t *Tracker) repinned() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return takenOf(t.used) != t.told
}

// touch asks Run to write.
func (t *Tracker) touch() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// view copies what the record and placement are made of.
func (t *Tracker) view() snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	return snapshot{t.resources, maps.Clone(t.used), t.failed}
}

// hold takes one of the channel locks.
func hold(ctx context.Context, lock chan struct{}) (release func(), err error) {
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// saveNode writes the record if something in it changed.
func (t *Tracker) saveNode(ctx context.Context) error {
	release, err := hold(ctx, t.writing)
	if err != nil {
		return err
	}
	defer release()
	return t.saveNodeHeld(ctx)
}

func (t *Tracker) saveNodeHeld(ctx context.Context) error {
	if t.row == nil {
		return fmt.Errorf("save compute node: no record yet: %w", errdefs.ErrConflict)
	}
	v := t.view()
	apply(t.row, nodeFields(t.opts, v, false))
	if len(t.row.Changes()) == 0 {
		t.noteTold(v)
		return nil
	}
	err := t.deps.Conductor.SaveComputeNode(ctx, messaging.AdminContext(), t.row)
	if messaging.IsRemote(err, "ComputeHostNotFound") {
		return fmt.Errorf("save compute node %s: the record was deleted; restart gantry to make it again: %w", t.row.String("uuid"), err)
	}
	if err != nil {
		return fmt.Errorf("save compute node %s: %w", t.row.String("uuid"), err)
	}
	t.row.ResetChanges()
	t.noteTold(v)
	return nil
}

// noteTold keeps which processors the record says are taken.
func (t *Tracker) noteTold(v snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told = takenOf(v.used)
}

// syncProvider makes placement agree.
func (t *Tracker) syncProvider(ctx context.Context) error {
	release, err := hold(ctx, t.syncing)
	if err != nil {
		return err
	}
	defer release()
	t.mu.Lock()
	want := wanted(t.opts, t.id, t.resources, t.disabled)
	t.mu.Unlock()
	res, err := t.deps.Reporter.Reconcile(ctx, want)
	if err != nil {
		return err
	}
	if res.Changed() {
		t.log.Info().Bool("created", res.Created).Bool("inventories", res.Inventories).Bool("traits", res.Traits).
			Strs("unknown_traits", res.Unknown).Msg("resource provider brought into agreement")
	}
	return nil
}
