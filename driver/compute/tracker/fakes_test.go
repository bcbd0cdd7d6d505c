package tracker

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/driver/placement"
)

var (
	_ Conductor = (*conductor.Client)(nil)
	_ Reporter  = (*placement.Reporter)(nil)
)

var errAway = errors.New("not there")

const nodeUUID = "edbb9790-3560-4864-9006-583d6dd61bbd"

// cloud is a small control plane: the compute_nodes table, instances, one
// provider and allocations.
type cloud struct {
	mu          sync.Mutex
	nodes       []*objects.Object
	instances   map[string]*objects.Object
	allocations map[string][]string // consumer to providers
	provider    placement.Wanted
	syncs       int
	saves       [][]string // fields of each ComputeNode.save
	released    []string
	migrations  []*objects.Object
	fail        map[string]error
	listing     func() // runs while a list is being read
}

func newCloud() *cloud {
	return &cloud{instances: map[string]*objects.Object{}, allocations: map[string][]string{}, fail: map[string]error{}}
}

func clone(o *objects.Object) *objects.Object {
	raw, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	out := &objects.Object{}
	if err := json.Unmarshal(raw, out); err != nil {
		panic(err)
	}
	out.ResetChanges()
	return out
}

func notFound() error { return messaging.NovaError("ComputeHostNotFound", 404, "not found") }

func (c *cloud) find(match func(*objects.Object) bool) (*objects.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fail["node"]; err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		if match(n) {
			return clone(n), nil
		}
	}
	return nil, notFound()
}

func (c *cloud) GetComputeNode(_ context.Context, _ messaging.RequestContext, host, node string) (*objects.Object, error) {
	return c.find(func(o *objects.Object) bool {
		return o.String("host") == host && o.String("hypervisor_hostname") == node
	})
}

func (c *cloud) ClassAction(_ context.Context, _ messaging.RequestContext, object, method string, args []any, _ map[string]any, out any) error {
	if object != "ComputeNode" || method != "get_by_uuid" {
		return errors.New("unknown method " + method)
	}
	n, err := c.find(func(o *objects.Object) bool { return o.String("uuid") == args[0] })
	if err != nil {
		return err
	}
	raw, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

func (c *cloud) CreateComputeNode(_ context.Context, _ messaging.RequestContext, node *objects.Object) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fail["create"]; err != nil {
		return err
	}
	node.ResetChanges()
	node.SetClean("id", 5)
	node.SetClean("mapped", 0)
	for _, f := range []string{"free_ram_mb", "free_disk_gb", "running_vms", "current_workload", "metrics"} {
		node.SetClean(f, nil)
	}
	c.nodes = append(c.nodes, clone(node))
	return nil
}

func (c *cloud) SaveComputeNode(_ context.Context, _ messaging.RequestContext, node *objects.Object) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fail["save"]; err != nil {
		return err
	}
	for i, n := range c.nodes {
		if n.String("uuid") == node.String("uuid") {
			c.saves = append(c.saves, node.Changes())
			node.ResetChanges()
			c.nodes[i] = clone(node)
			return nil
		}
	}
	return notFound()
}

func (c *cloud) InstancesByNode(_ context.Context, _ messaging.RequestContext, host, node string, _ ...string) ([]*objects.Object, error) {
	c.mu.Lock()
	if err := c.fail["list"]; err != nil {
		c.mu.Unlock()
		return nil, err
	}
	var out []*objects.Object
	for _, inst := range c.instances {
		if inst.String("host") == host && inst.String("node") == node && !inst.Bool("deleted") {
			out = append(out, clone(inst))
		}
	}
	c.mu.Unlock()
	if c.listing != nil {
		c.listing()
	}
	return out, nil
}

func (c *cloud) GetInstance(_ context.Context, rc messaging.RequestContext, uuid string, _ ...string) (*objects.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fail["get"]; err != nil {
		return nil, err
	}
	inst := c.instances[uuid]
	if inst == nil || inst.Bool("deleted") && rc.String("read_deleted") != "yes" {
		return nil, messaging.NovaError("InstanceNotFound", 404, "no %s", uuid)
	}
	return clone(inst), nil
}

// Placement.

func (c *cloud) Reconcile(_ context.Context, want placement.Wanted) (placement.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fail["sync"]; err != nil {
		return placement.Result{}, err
	}
	c.provider = want
	c.syncs++
	return placement.Result{}, nil
}

func (c *cloud) Allocations(_ context.Context, consumer string) (placement.Allocation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := placement.Allocation{Consumer: consumer, Providers: map[string]placement.Resources{}}
	for _, p := range c.allocations[consumer] {
		a.Providers[p] = placement.Resources{"VCPU": 1}
	}
	return a, c.fail["providers"]
}

func (c *cloud) Consumers(_ context.Context, provider string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fail["consumers"]; err != nil {
		return nil, err
	}
	var out []string
	for consumer, providers := range c.allocations {
		if slices.Contains(providers, provider) {
			out = append(out, consumer)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (c *cloud) DeleteAllocations(_ context.Context, consumer string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fail["delete"]; err != nil {
		return err
	}
	delete(c.allocations, consumer)
	return nil
}

func (c *cloud) HealAllocation(_ context.Context, consumer string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fail["release"]; err != nil {
		return err
	}
	c.released = append(c.released, consumer)
	delete(c.allocations, consumer)
	return nil
}

// host is a driver with resources and guests.
type host struct {
	res    driver.Resources
	guests []driver.InstanceUUID
	err    error
}

func (h *host) Resources(context.Context) (driver.Resources, error) { return h.res, h.err }

func (h *host) Instances(context.Context) ([]driver.InstanceUUID, error) { return h.guests, h.err }

func newHost() *host {
	return &host{res: driver.Resources{
		Node: "cmp1", VCPUs: 4, MemoryMB: 8000, DiskGB: 100, DiskFreeGB: 90, HypervisorType: "docker", HypervisorVersion: 1000,
		Supported: []driver.HVSpec{{Arch: "x86_64", HVType: "docker", VMMode: "exe"}}, Traits: []string{"COMPUTE_IMAGE_TYPE_RAW"},
	}}
}

// newTracker returns one whose identity file is in a folder of the test.
func newTracker(t *testing.T, c *cloud, h *host) *Tracker {
	t.Helper()
	opts := DefaultOptions()
	opts.Host, opts.MyIP, opts.StatePath, opts.SaveDelay = "cmp1", "192.0.2.5", t.TempDir(), time.Second
	return New(Deps{Driver: h, Conductor: c, Reporter: c}, opts, zerolog.Nop())
}

// started is a tracker after its first survey.
func started(t *testing.T, c *cloud, h *host) *Tracker {
	t.Helper()
	tr := newTracker(t, c, h)
	if err := tr.Identify(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := tr.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tr
}

// instance is an instance of 1 CPU, 512 MiB and 10 GiB.
func instance(uuid, host, vmState string) *objects.Object {
	inst := objects.NewInstance()
	flavor := objects.New("Flavor")
	for field, value := range map[string]any{"vcpus": 1, "memory_mb": 512, "root_gb": 10, "ephemeral_gb": 0, "swap": 0} {
		flavor.SetClean(field, value)
	}
	for field, value := range map[string]any{
		"uuid": uuid, "vm_state": vmState, "task_state": nil, "image_ref": "img", "project_id": "p1", "os_type": nil,
		"host": nil, "node": nil, "flavor": flavor, "deleted": false,
	} {
		inst.SetClean(field, value)
	}
	if host != "" {
		inst.SetClean("host", host)
		inst.SetClean("node", host)
	}
	return inst.Object
}

// add puts an instance with an allocation into the control plane.
func (c *cloud) add(inst *objects.Object, provider string) *objects.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instances[inst.String("uuid")] = inst
	c.allocations[inst.String("uuid")] = []string{provider}
	return inst
}

// row returns the stored compute node record.
func (c *cloud) row(t *testing.T) *objects.Object {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.nodes) != 1 {
		t.Fatalf("%d compute node records", len(c.nodes))
	}
	return clone(c.nodes[0])
}

func (c *cloud) saved() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.saves)
}

func (c *cloud) MigrationsInProgress(context.Context, messaging.RequestContext, string, string) ([]*objects.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.migrations, nil
}

func (c *cloud) MoveAllocations(_ context.Context, from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if held, ok := c.allocations[from]; ok {
		c.allocations[to] = held
		delete(c.allocations, from)
	}
	return nil
}

func (c *cloud) RemoveProvider(_ context.Context, consumer, provider string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.allocations[consumer] = slices.DeleteFunc(c.allocations[consumer], func(p string) bool { return p == provider })
	return nil
}
