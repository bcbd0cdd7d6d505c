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
	// buryAfter is how long filters of ports that are gone may stay: their
	// removal is slow, and who waits for a new port is not to wait for it.
	buryAfter = time.Second
	// repairEvery is how long it stays undone at most what somebody else has
	// undone on the host.
	repairEvery = 30 * time.Second
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
	sending map[key]bool
	waiting map[key][]chan struct{}
	devices map[string]bool // that are up; nil until they are known

	// used by run alone
	sent map[key]any
	gone map[key]bool // ports whose filters are to be removed when bury says so
	bury *time.Timer
}

func newRealiser(s *Service, f Fabric, log zerolog.Logger) *realiser {
	return &realiser{
		s: s, fabric: f, log: log, wake: make(chan struct{}, 1),
		dirty: map[key]bool{}, sending: map[key]bool{}, waiting: map[key][]chan struct{}{}, ready: map[string]bool{}, sent: map[key]any{},
		gone: map[key]bool{}, bury: time.NewTimer(buryAfter),
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
	if !r.running || !r.dirty[k] && !r.sending[k] {
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
	defer r.bury.Stop()
	repair := time.NewTicker(repairEvery)
	defer repair.Stop()
	wait := retryFirst
	for {
		select {
		case <-ctx.Done():
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), awaitMost)
			defer cancel()
			r.round(late)
			r.buryAll(late)
			return ctx.Err()
		case <-r.wake:
		case <-retry.C:
		case <-r.bury.C:
			r.buryAll(ctx)
			continue
		case <-repair.C:
			r.repair(ctx)
			continue
		}
		if r.round(ctx) {
			wait = retryFirst
			continue
		}
		retry.Reset(wait)
		wait = min(2*wait, retryMost)
	}
}

func (r *realiser) repair(ctx context.Context) {
	if r.fabric == nil {
		return
	}
	if err := r.fabric.Repair(ctx); err != nil && ctx.Err() == nil {
		r.log.Error().Err(err).Msg("networks of the host are not as they should be")
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
	for len(todo) > 0 && ctx.Err() == nil {
		n := 1
		for n < len(todo) && todo[0].kind == kindPort && todo[n].kind == kindPort {
			n++ // ports together cost little more than one
		}
		ok = r.some(ctx, todo[:n], false) && ok
		todo = todo[n:]
	}
	return ok && ctx.Err() == nil
}

// change is a plan to be sent.
type change struct {
	key
	plan   any
	absent bool
	failed error
}

// some sends the plans of keys of one kind, and reports whether nothing failed.
// Unless it is to be now, what only removes the filter of a port is for bury.
func (r *realiser) some(ctx context.Context, keys []key, now bool) bool {
	// Not marked any more before it is read: a change meanwhile marks it again.
	r.mu.Lock()
	for _, k := range keys {
		delete(r.dirty, k)
		r.sending[k] = true
	}
	r.mu.Unlock()
	var changes []*change
	for _, c := range r.changed(keys) {
		if now || !r.later(c) {
			changes = append(changes, c)
		}
	}
	if slices.ContainsFunc(changes, func(c *change) bool { return c.kind == kindGroup && c.absent }) {
		r.buryAll(ctx) // a group that is not used any more goes altogether
	}
	r.sendAll(ctx, changes)
	for _, c := range changes {
		r.note(c)
	}
	for _, k := range keys {
		if k.kind == kindPort {
			r.settle(ctx, k.id)
		}
	}
	return r.sentAll(ctx, keys, changes)
}

// sentAll lets go of who waits for keys whose plans were sent, marks what failed,
// and reports whether nothing did.
func (r *realiser) sentAll(ctx context.Context, keys []key, changes []*change) (ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ok = true
	for _, k := range keys {
		delete(r.sending, k)
		if !r.dirty[k] { // else what is waited for came meanwhile
			r.release(k)
		}
	}
	for _, c := range changes {
		if c.failed == nil {
			continue
		}
		ok = false
		r.release(c.key)
		if !r.later(c) {
			r.dirty[c.key] = true
		}
		if ctx.Err() == nil {
			r.log.Error().Err(c.failed).Str("kind", string(c.kind)).Str("id", c.id).Msg("a network of the host is not as it should be")
		}
	}
	return ok
}

// release must be called with mu held.
func (r *realiser) release(k key) {
	for _, done := range r.waiting[k] {
		close(done)
	}
	delete(r.waiting, k)
}

// later keeps the removal of a port's filter for buryAll, and reports whether it
// did.
func (r *realiser) later(c *change) bool {
	if c.kind != kindPort || !c.absent {
		return false
	}
	if len(r.gone) == 0 {
		r.bury.Reset(buryAfter)
	}
	r.gone[c.key] = true
	return true
}

// buryAll removes filters of ports that are gone, all at once.
func (r *realiser) buryAll(ctx context.Context) {
	keys := slices.Collect(maps.Keys(r.gone))
	clear(r.gone)
	r.some(ctx, keys, true)
}

// changed are the plans that are not what was sent before.
func (r *realiser) changed(keys []key) (out []*change) {
	_ = r.s.store.read(func(st *state) error { // returns nil
		for _, k := range keys {
			c := &change{key: k}
			c.plan, c.absent = st.plan(k)
			before, known := r.sent[k]
			if known && reflect.DeepEqual(before, c.plan) || !known && c.absent {
				continue
			}
			out = append(out, c)
		}
		return nil
	})
	return out
}

// note remembers a plan that was sent.
func (r *realiser) note(c *change) {
	if c.failed != nil {
		return
	}
	if r.sent[c.key] = c.plan; c.absent {
		delete(r.sent, c.key)
	}
	if c.kind == kindPort {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.ready[c.id] = true; c.absent {
			delete(r.ready, c.id)
		}
	}
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

// sendAll sends changes of one kind: ports at once, and one by one when they are
// refused, since what one makes impossible must not keep the others from being.
func (r *realiser) sendAll(ctx context.Context, changes []*change) {
	var ports []PortPlan
	for _, c := range changes {
		if p, ok := c.plan.(PortPlan); ok {
			ports = append(ports, p)
		}
	}
	if len(ports) > 1 && r.fabric != nil && r.fabric.SetPorts(ctx, ports...) == nil {
		return
	}
	for _, c := range changes {
		c.failed = r.send(ctx, c.plan)
	}
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
		return r.fabric.SetPorts(ctx, p)
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
		all = st.ports.where(func(p *port) bool { return p.Status == portActive || p.plugged() || p.Owner == ownerDHCP })
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
		case !up || !p.plugged() && p.Owner != ownerDHCP || !p.Up:
			return p, portDown
		case !ready && p.Owner != ownerDHCP:
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
