package conductor_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	client "github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/conductor/conductortest"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/inproc"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/conductor"
	"github.com/gantry-project/gantry/internal/devcloud/placement"
	"github.com/gantry-project/gantry/internal/devcloud/scheduler"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// world is a conductor with the ways in which a test makes and sees rows.
type world interface {
	addInstance(i *objects.Object) *objects.Object
	update(uuid string, change func(objects.Instance))
	instance(uuid string) *objects.Object
	addAction(uuid, action, request string)
	events(uuid string) []conductortest.Event
	faults(uuid string) []objects.InstanceFault
	networkInfo(uuid string) string
	addBlockDevice(o *objects.Object) *objects.Object
	addMigration(o *objects.Object) *objects.Object
	addGroup(o *objects.Object)
	updateService(host, binary string, change func(objects.Service))
	deleteService(host, binary string)
}

// fake is conductortest's.
type fake struct{ *conductortest.Conductor }

func (f fake) addInstance(i *objects.Object) *objects.Object   { return f.AddInstance(i) }
func (f fake) update(id string, change func(objects.Instance)) { f.Update(id, change) }
func (f fake) instance(id string) *objects.Object              { return f.Instance(id) }
func (f fake) addAction(id, action, request string)            { f.AddAction(id, action, request) }
func (f fake) events(id string) []conductortest.Event          { return f.Events(id) }
func (f fake) faults(id string) []objects.InstanceFault        { return f.Faults(id) }
func (f fake) networkInfo(id string) string                    { return f.NetworkInfo(id) }
func (f fake) addBlockDevice(o *objects.Object) *objects.Object {
	return f.AddBlockDevice(o)
}
func (f fake) addMigration(o *objects.Object) *objects.Object { return f.AddMigration(o) }
func (f fake) addGroup(o *objects.Object)                     { f.AddGroup(o) }
func (f fake) updateService(host, binary string, change func(objects.Service)) {
	f.UpdateService(host, binary, change)
}
func (f fake) deleteService(host, binary string) { f.DeleteService(host, binary) }

// real is ours.
type real struct {
	t      *testing.T
	store  *cell.Store
	groups *groups
}

func (r real) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r real) addInstance(i *objects.Object) *objects.Object {
	out, err := r.store.CreateInstances(r.t.Context(), cell.Create{Instances: []cell.NewInstance{{Instance: objects.Instance{Object: i}}}})
	r.must(err)
	return out[0].Clone()
}

func (r real) update(id string, change func(objects.Instance)) {
	_, err := r.store.UpdateInstance(r.t.Context(), id, cell.Expect{}, func(i objects.Instance) error { change(i); return nil })
	r.must(err)
}

func (r real) instance(id string) *objects.Object {
	i, err := r.store.AnyInstance(r.t.Context(), id)
	r.must(err)
	return i.Clone()
}

func (r real) addAction(id, action, request string) {
	_, err := r.store.StartAction(r.t.Context(), id, cell.Actor{Action: action, RequestID: request})
	r.must(err)
}

func (r real) events(id string) (out []conductortest.Event) {
	all, err := r.store.Actions(r.t.Context(), id, cell.ActionQuery{})
	r.must(err)
	for n := range all {
		a, events, err := r.store.Action(r.t.Context(), id, all[len(all)-1-n].String("request_id"))
		r.must(err)
		for m := range events {
			e := events[len(events)-1-m]
			out = append(out, conductortest.Event{
				Action: a.String("action"), Name: e.String("event"), Host: e.String("host"), Result: e.String("result"),
				Details: e.String("details"), Traceback: e.String("traceback"),
			})
		}
	}
	return out
}

func (r real) faults(id string) (out []objects.InstanceFault) {
	all, err := r.store.Faults(r.t.Context(), id)
	r.must(err)
	for n := range all {
		out = append(out, objects.InstanceFault{Object: all[len(all)-1-n]})
	}
	return out
}

func (r real) networkInfo(id string) string {
	return objects.Instance{Object: r.instance(id)}.InfoCache().String("network_info")
}

func (r real) addBlockDevice(o *objects.Object) *objects.Object {
	out, err := r.store.CreateBlockDevice(r.t.Context(), o)
	r.must(err)
	return out
}

func (r real) addMigration(o *objects.Object) *objects.Object {
	out, err := r.store.CreateMigration(r.t.Context(), o)
	r.must(err)
	return out
}

func (r real) addGroup(o *objects.Object) { r.groups.add(objects.InstanceGroup{Object: o.Clone()}) }

func (r real) service(host, binary string) objects.Service {
	all, err := r.store.Services(r.t.Context(), cell.ServiceQuery{Host: host, Binary: binary})
	r.must(err)
	return all[0]
}

func (r real) updateService(host, binary string, change func(objects.Service)) {
	s := objects.Service{Object: r.service(host, binary).Clone()}
	change(s)
	_, err := r.store.SaveService(r.t.Context(), s.ID(), map[string]any{"disabled": s.Disabled()})
	r.must(err)
}

func (r real) deleteService(host, binary string) {
	r.must(r.store.DestroyService(r.t.Context(), r.service(host, binary).ID()))
}

// groups are server groups in memory.
type groups struct {
	mu  sync.Mutex
	all []objects.InstanceGroup // +checklocks:mu
}

func (g *groups) add(o objects.InstanceGroup) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, o)
}

func (g *groups) find(match func(objects.InstanceGroup) bool) (objects.InstanceGroup, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range g.all {
		if match(o) {
			return o, nil
		}
	}
	return objects.InstanceGroup{}, errdefs.ErrNotFound
}

func (g *groups) GroupOf(_ context.Context, instance string) (objects.InstanceGroup, error) {
	return g.find(func(o objects.InstanceGroup) bool {
		for _, m := range o.Members() {
			if m == instance {
				return true
			}
		}
		return false
	})
}

func (g *groups) GroupByHint(_ context.Context, hint string) (objects.InstanceGroup, error) {
	return g.find(func(o objects.InstanceGroup) bool { return o.UUID() == hint || o.String("name") == hint })
}

// room is a placement in memory: nodes with an amount of memory each.
type room struct {
	mu    sync.Mutex
	nodes []string                    // +checklocks:mu; in order
	total map[string]int64            // +checklocks:mu; MiB by node
	held  map[string]map[string]int64 // +checklocks:mu; MiB by consumer and node
}

func newRoom() *room {
	return &room{total: map[string]int64{}, held: map[string]map[string]int64{}}
}

func (r *room) add(node string, memoryMB int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.total[node]; !known {
		r.nodes = append(r.nodes, node)
	}
	r.total[node] = memoryMB
}

func (r *room) free(node string) int64 {
	left := r.total[node]
	for _, h := range r.held {
		left -= h[node]
	}
	return left
}

func (r *room) Candidates(_ context.Context, q placement.Request) (out []placement.Candidate, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.nodes {
		if r.free(n) >= q.Resources["MEMORY_MB"] {
			out = append(out, placement.Candidate{Allocations: map[string]map[string]int64{n: q.Resources}})
		}
	}
	return out, nil
}

func (r *room) Allocate(_ context.Context, c placement.Claim) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.held[c.Consumer]
	delete(r.held, c.Consumer)
	for n, amounts := range c.Allocations {
		if r.free(n) < amounts["MEMORY_MB"] {
			if before != nil {
				r.held[c.Consumer] = before
			}
			return errdefs.ErrConflict
		}
		r.held[c.Consumer] = map[string]int64{n: amounts["MEMORY_MB"]}
	}
	return nil
}

func (r *room) Free(_ context.Context, consumer string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, consumer)
	return nil
}

func (r *room) Move(_ context.Context, from, to, _ string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if held, ok := r.held[from]; ok {
		r.held[to] = held
		delete(r.held, from)
	}
	return nil
}

func (r *room) Consumers(_ context.Context, node string) (out []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, h := range r.held {
		if h[node] > 0 {
			out = append(out, id)
		}
	}
	return out, nil
}

// at is the node where a consumer has its allocation, "" if it has none.
func (r *room) at(consumer string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range r.held[consumer] {
		return n
	}
	return ""
}

// ports notes whose networks were given back.
type ports struct {
	mu       sync.Mutex
	released []string // +checklocks:mu
	err      error    // set before use
}

func (p *ports) Release(_ context.Context, instance string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.released = append(p.released, instance)
	return p.err
}

func (p *ports) of(instance string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.released, instance)
}

// rig is our conductor with all around it.
type rig struct {
	store     *cell.Store
	room      *room
	groups    *groups
	ports     *ports
	broker    *inproc.Broker
	conductor *conductor.Conductor
	caller    messaging.Caller
	client    *client.Client
}

func newRig(t testing.TB, path string) *rig {
	t.Helper()
	store, err := cell.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{store: store, room: newRoom(), groups: &groups{}, ports: &ports{}, broker: inproc.NewBroker()}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	r.caller = messaging.NewClient(inproc.New(r.broker), messaging.ClientOptions{ResponseTimeout: 20 * time.Second, Log: zerolog.Nop()})
	r.client = client.New(r.caller, "cmp1")
	return r
}

// serve starts the conductor; it ends with the test.
func (r *rig) serve(t testing.TB) {
	t.Helper()
	log := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	var err error
	r.conductor, err = conductor.New(conductor.Options{
		Transport: inproc.New(r.broker), Host: "control", Store: r.store, Placement: r.room, Groups: r.groups, Networks: r.ports,
		Scheduler: scheduler.New(scheduler.Options{Placement: r.room, Nodes: r.store, Groups: r.groups, Log: log}), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done, ready := make(chan error, 1), make(chan struct{})
	go func() { done <- r.conductor.Serve(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, r.conductor.Close(context.WithoutCancel(ctx))); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
}

func newServed(t testing.TB) *rig {
	t.Helper()
	r := newRig(t, filepath.Join(t.TempDir(), "cell.db"))
	r.serve(t)
	return r
}

func userContext(requestID string) messaging.RequestContext {
	return messaging.NewRequestContext(map[string]json.RawMessage{
		"request_id": json.RawMessage(`"` + requestID + `"`), "project_id": json.RawMessage(`"p"`),
		"user_id": json.RawMessage(`"u"`), "read_deleted": json.RawMessage(`"no"`),
	})
}
