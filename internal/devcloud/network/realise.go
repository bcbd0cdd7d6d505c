package network

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/logging"
)

// How long after a failure the fabric is asked again, and how long the answer
// of a request waits for its port at most.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 10 * time.Second
	awaitMost  = 5 * time.Second
)

// realiser sends plans that changed to the fabric, and keeps the status of ports
// true to the devices there are.
type realiser struct {
	s      *Service
	fabric Fabric // nil: none
	log    zerolog.Logger
	wake   chan struct{}

	mu      sync.Mutex      // guards all below
	running bool            // everything was sent once, or is marked
	ready   map[string]bool // ports whose plan holds
	dirty   map[key]bool
	waiting map[key][]chan struct{}
	devices map[string]bool // that are up; nil until they are known
	sent    map[key]any     // used by run alone
}

func newRealiser(s *Service, f Fabric, log zerolog.Logger) *realiser {
	return &realiser{
		s: s, fabric: f, log: log, wake: make(chan struct{}, 1),
		dirty: map[key]bool{}, waiting: map[key][]chan struct{}{}, ready: map[string]bool{}, sent: map[key]any{},
	}
}

// mark asks for plans to be sent.
func (r *realiser) mark(keys []key) {
	if len(keys) == 0 {
		return
	}
	r.mu.Lock()
	for _, k := range keys {
		r.dirty[k] = true
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default: // it is awake
	}
}

// await returns when the plan of a port that is plugged has been sent, so that
// who asked for the binding finds the device's filter in place. It does not
// wait for a fabric that fails, nor before everything was sent once.
func (r *realiser) await(ctx context.Context, p *port) {
	if !p.plugged() {
		return
	}
	k := key{kindPort, p.ID}
	r.mu.Lock()
	if !r.running || !r.dirty[k] {
		r.mu.Unlock()
		return
	}
	done := make(chan struct{})
	r.waiting[k] = append(r.waiting[k], done)
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, awaitMost)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// run sends everything, and then what is marked, until ctx ends.
func (r *realiser) run(ctx context.Context) error {
	r.sync(ctx)
	retry := time.NewTimer(0)
	defer retry.Stop()
	wait := retryFirst
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		case <-retry.C:
		}
		if r.round(ctx) {
			wait = retryFirst
			continue
		}
		retry.Reset(wait)
		wait = min(2*wait, retryMost)
	}
}

// pause waits, and reports whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// sync sends everything. What one plan makes impossible must not keep the
// others from being: if it fails, all are marked, to be sent one by one.
func (r *realiser) sync(ctx context.Context) {
	r.mu.Lock()
	clear(r.dirty)
	r.mu.Unlock()
	var w World
	_ = r.s.store.read(func(st *state) error { // returns nil
		w = st.world()
		return nil
	})
	plans := map[key]any{}
	for _, p := range w.Networks {
		plans[key{kindNetwork, p.ID}] = p
	}
	for _, p := range w.Groups {
		plans[key{kindGroup, p.ID}] = p
	}
	for _, p := range w.Ports {
		plans[key{kindPort, p.ID}] = p
	}
	for _, p := range w.Routers {
		plans[key{kindRouter, p.ID}] = p
	}
	var err error
	if r.fabric != nil {
		err = r.fabric.Sync(ctx, w)
	}
	r.mu.Lock()
	r.running = true
	for k := range plans {
		switch {
		case err != nil:
			r.dirty[k] = true
		case k.kind == kindPort:
			r.ready[k.id] = true
		}
	}
	r.mu.Unlock()
	if err != nil {
		r.log.Error().Err(err).Msg("networks of the host are not as they should be")
		return
	}
	r.sent = plans
	for _, p := range w.Ports {
		r.settle(ctx, p.ID)
	}
}

// round sends what is marked, and reports whether nothing failed.
func (r *realiser) round(ctx context.Context) bool {
	r.mu.Lock()
	todo := slices.SortedFunc(maps.Keys(r.dirty), func(a, b key) int {
		if n := slices.Index(planned, a.kind) - slices.Index(planned, b.kind); n != 0 {
			return n
		}
		return strings.Compare(a.id, b.id)
	})
	r.mu.Unlock()
	ok := true
	for _, k := range todo {
		// Not marked any more before it is read: a change meanwhile marks it again.
		r.mu.Lock()
		delete(r.dirty, k)
		r.mu.Unlock()
		err := r.one(ctx, k)
		r.mu.Lock()
		if err != nil {
			r.dirty[k] = true
		}
		for _, done := range r.waiting[k] {
			close(done)
		}
		delete(r.waiting, k)
		r.mu.Unlock()
		if ctx.Err() != nil {
			return false
		}
		if err != nil {
			ok = false
			r.log.Error().Err(err).Str("kind", string(k.kind)).Str("id", k.id).Msg("a network of the host is not as it should be")
		}
	}
	return ok
}

// one sends one plan, unless it is what was sent before.
func (r *realiser) one(ctx context.Context, k key) error {
	var plan any
	var absent bool
	_ = r.s.store.read(func(st *state) error { // returns nil
		plan, absent = st.plan(k)
		return nil
	})
	before, known := r.sent[k]
	if known && reflect.DeepEqual(before, plan) || !known && absent {
		return nil
	}
	if err := r.send(ctx, plan); err != nil {
		return err
	}
	if r.sent[k] = plan; absent {
		delete(r.sent, k)
	}
	if k.kind == kindPort {
		r.mu.Lock()
		if r.ready[k.id] = true; absent {
			delete(r.ready, k.id)
		}
		r.mu.Unlock()
		r.settle(ctx, k.id)
	}
	return nil
}

// plan makes the plan of a key.
func (st *state) plan(k key) (plan any, absent bool) {
	switch k.kind {
	case kindNetwork:
		p := st.networkPlan(k.id)
		return p, p.Absent
	case kindGroup:
		p := st.groupPlan(k.id)
		return p, p.Absent
	case kindPort:
		p := st.portPlan(k.id)
		return p, p.Absent
	}
	p := st.routerPlan(k.id)
	return p, p.Absent
}

func (r *realiser) send(ctx context.Context, plan any) error {
	if r.fabric == nil {
		return nil
	}
	switch p := plan.(type) {
	case NetworkPlan:
		return r.fabric.SetNetwork(ctx, p)
	case GroupPlan:
		return r.fabric.SetGroup(ctx, p)
	case PortPlan:
		return r.fabric.SetPort(ctx, p)
	case RouterPlan:
		return r.fabric.SetRouter(ctx, p)
	}
	return nil
}

// watch follows the devices of the host until ctx ends.
func (r *realiser) watch(ctx context.Context) error {
	if r.fabric == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := r.fabric.Watch(ctx, func(devices []string) { r.known(ctx, devices) },
			func(device string, up bool) { r.seen(ctx, device, up) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.log.Error().Err(err).Msg("devices of the host cannot be watched")
		if !pause(ctx, wait) {
			return ctx.Err()
		}
	}
}

// known notes all devices, and settles all ports.
func (r *realiser) known(ctx context.Context, devices []string) {
	r.mu.Lock()
	r.devices = map[string]bool{}
	for _, d := range devices {
		r.devices[d] = true
	}
	r.mu.Unlock()
	var all []*port
	_ = r.s.store.read(func(st *state) error { // returns nil
		all = st.ports.where(func(p *port) bool { return p.Status == portActive || p.plugged() })
		return nil
	})
	for _, p := range all {
		r.settle(ctx, p.ID)
	}
}

// seen notes a device, and settles its port if it is one's.
func (r *realiser) seen(ctx context.Context, device string, up bool) {
	r.mu.Lock()
	if up {
		r.devices[device] = true
	} else {
		delete(r.devices, device)
	}
	r.mu.Unlock()
	if !strings.HasPrefix(device, "tap") {
		return
	}
	var found []*port
	_ = r.s.store.read(func(st *state) error { // returns nil
		found = st.ports.where(func(p *port) bool { return tapName(p.ID) == device })
		return nil
	})
	for _, p := range found {
		r.settle(ctx, p.ID)
	}
}

// settle makes the status of a port what it is, and tells Nova when that
// changes: ACTIVE is a port whose device is there, and whose plan holds. As long
// as either is not known, it stays as it was.
func (r *realiser) settle(ctx context.Context, id string) {
	r.mu.Lock()
	known := r.running && (r.fabric == nil || r.devices != nil)
	up := r.fabric == nil || r.devices[tapName(id)]
	ready := r.ready[id]
	r.mu.Unlock()
	if !known {
		return
	}
	status := func(st *state) (*port, string) {
		p, ok := st.ports.get(id)
		if !ok || p.routed() || p.Owner == ownerFloating {
			return nil, ""
		}
		switch {
		case !up || !p.plugged() || !p.Up:
			return p, portDown
		case !ready:
			return p, p.Status
		}
		return p, portActive
	}
	same := true
	_ = r.s.store.read(func(st *state) error { // returns nil
		p, want := status(st)
		same = p == nil || p.Status == want
		return nil
	})
	if same {
		return
	}
	err := r.s.write(ctx, func(st *state) error {
		old, want := status(st)
		if old == nil || old.Status == want {
			return nil
		}
		p := *old
		p.Status = want
		st.bumped(&p.base)
		st.ports.put(&p)
		if p.ofServer() && want == portActive {
			st.tell(VIFPlugged, &p)
		} else if p.ofServer() {
			st.tell(VIFUnplugged, &p)
		}
		return nil
	})
	if err != nil {
		r.log.Error().Err(err).Str(logging.Port, id).Msg("status of a port is not stored")
	}
}
