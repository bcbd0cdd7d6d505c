package compute

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// waiters are the network-vif-plugged events that somebody expects. The zero
// value is ready. An event that nobody has registered for is not remembered:
// Expect comes before the plug that causes it.
type waiters struct {
	mu sync.Mutex
	m  map[driver.InstanceUUID][]*expectation // guarded by mu
}

// expectation is one registered wait.
type expectation struct {
	w    *waiters
	uuid driver.InstanceUUID
	// pending are the ports without an answer; err is the first failure.
	pending map[string]struct{} // guarded by w.mu
	err     error               // guarded by w.mu
	closed  bool                // guarded by w.mu
	done    chan struct{}       // closed when pending is empty or err is set

	timeout time.Duration
	fatal   bool
	log     zerolog.Logger
}

// eventWaiter is the driver.EventWaiter of one build.
type eventWaiter struct {
	m   *Manager
	log zerolog.Logger
}

// Expect registers the events of the ports.
func (e eventWaiter) Expect(uuid driver.InstanceUUID, portIDs []string) driver.Expectation {
	x := &expectation{
		w: &e.m.waiters, uuid: uuid, pending: map[string]struct{}{}, done: make(chan struct{}),
		timeout: e.m.opt.VIFPluggingTimeout, fatal: e.m.opt.VIFPluggingFatal, log: e.log,
	}
	for _, id := range portIDs {
		x.pending[id] = struct{}{}
	}
	if len(x.pending) > 0 && x.timeout > 0 {
		x.w.add(x)
	}
	return x
}

func (w *waiters) add(x *expectation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.m == nil {
		w.m = map[driver.InstanceUUID][]*expectation{}
	}
	w.m[x.uuid] = append(w.m[x.uuid], x)
}

// deliver hands an event to those who expect it and reports whether there are any.
func (w *waiters) deliver(uuid driver.InstanceUUID, port string, failed bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := false
	for _, x := range w.m[uuid] {
		if _, ok := x.pending[port]; !ok {
			continue
		}
		found = true
		delete(x.pending, port)
		if failed {
			x.end(fmt.Errorf("plug of port %s failed: %w", port, errdefs.ErrUnavailable))
		}
		if len(x.pending) == 0 {
			x.end(nil)
		}
	}
	return found
}

// drop ends all waits for the instance.
func (w *waiters) drop(uuid driver.InstanceUUID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.m[uuid] {
		x.end(errDeleted)
	}
}

// end must be called with w.mu held.
func (x *expectation) end(err error) {
	if !x.closed {
		x.closed, x.err = true, err
		close(x.done)
	}
}

// Wait waits for the events; see driver.Expectation.
func (x *expectation) Wait(ctx context.Context) error {
	defer x.Cancel()
	if len(x.missing()) == 0 && !x.ended() || x.timeout <= 0 {
		return nil
	}
	timer := time.NewTimer(x.timeout)
	defer timer.Stop()
	select {
	case <-x.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return x.inVain(fmt.Errorf("no network-vif-plugged event for ports %v within %s: %w", x.missing(), x.timeout, errdefs.ErrUnavailable))
	}
	x.w.mu.Lock()
	err := x.err
	x.w.mu.Unlock()
	if err == nil || gone(err) {
		return err
	}
	return x.inVain(err)
}

// inVain is the end of a wait whose events did not come.
func (x *expectation) inVain(err error) error {
	if !x.fatal {
		x.log.Warn().Err(err).Msg("going on without a plugged port: vif_plugging_is_fatal is off")
		return nil
	}
	return judged(abort, errdefs.WithPublic(err, "Virtual Interface creation failed"))
}

func (x *expectation) ended() bool {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	return x.closed
}

func (x *expectation) missing() []string {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	out := make([]string, 0, len(x.pending))
	for id := range x.pending {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// Cancel forgets the wait.
func (x *expectation) Cancel() {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	rest := slices.DeleteFunc(x.w.m[x.uuid], func(other *expectation) bool { return other == x })
	if len(rest) == 0 {
		delete(x.w.m, x.uuid)
	} else {
		x.w.m[x.uuid] = rest
	}
}

// externalInstanceEvent is what Neutron and others tell of an instance.
func (m *Manager) externalInstanceEvent(ctx context.Context, o *op) (any, error) {
	var instances, events []*objects.Object
	if err := o.arg("instances", &instances); err != nil {
		return nil, err
	}
	if err := o.arg("events", &events); err != nil {
		return nil, err
	}
	for _, ev := range events {
		i := slices.IndexFunc(instances, func(inst *objects.Object) bool {
			return inst.String("uuid") == ev.String("instance_uuid")
		})
		if i < 0 || instances[i].String("host") != m.opt.Host {
			o.log.Warn().Str(logging.Instance, ev.String("instance_uuid")).Msg("event for an instance of another host")
			continue
		}
		m.event(ctx, o.rc, instances[i], ev)
	}
	return nil, nil
}

func (m *Manager) event(ctx context.Context, rc messaging.RequestContext, inst, ev *objects.Object) {
	log := m.instanceLog(rc, inst).With().Str(logging.Step, ev.String("name")).Str(logging.Port, ev.String("tag")).Logger()
	uuid := driver.InstanceUUID(inst.String("uuid"))
	switch ev.String("name") {
	case "network-vif-plugged":
		if !m.waiters.deliver(uuid, ev.String("tag"), ev.String("status") == "failed") {
			log.Debug().Msg("event that nobody waits for")
		}
	case "network-changed", "network-vif-deleted":
		m.networkChanged(ctx, rc, inst)
	default:
		log.Debug().Msg("event without an effect here")
	}
}

// refreshes are the network refreshes under way, at most one per instance; a
// change that comes meanwhile makes one more.
type refreshes struct {
	mu sync.Mutex
	m  map[string]bool // guarded by mu; true asks for one more
}

// want reports whether the caller has to start the refresh.
func (r *refreshes) want(uuid string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = map[string]bool{}
	}
	_, running := r.m[uuid]
	r.m[uuid] = running
	return !running
}

// more reports whether another change came, and forgets it.
func (r *refreshes) more(uuid string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	again := r.m[uuid]
	if again {
		r.m[uuid] = false
	} else {
		delete(r.m, uuid)
	}
	return again
}

// networkChanged refreshes the info cache and the guest, in the background. During a build
// it waits for the end of the build; during a delete it is pointless.
func (m *Manager) networkChanged(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) {
	uuid := inst.String("uuid")
	if inst.String("task_state") == taskDeleting || m.active.running(uuid, kindDelete) || m.active.postpone(uuid) || !m.refresh.want(uuid) {
		return
	}
	m.goBackground(ctx, func(ctx context.Context) {
		for again := true; again; again = m.refresh.more(uuid) {
			if err := m.followNetwork(ctx, rc, inst); err != nil && !gone(err) {
				log := m.instanceLog(rc, inst)
				log.Warn().Err(err).Msg("network of the instance could not be refreshed, the periodic task will")
			}
		}
	})
}
