package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// fabric keeps what it is told, and has devices.
type fabric struct {
	mu      sync.Mutex
	plans   map[key]any
	syncs   int
	fails   int    // so many calls fail
	bad     string // whose plans fail
	devices map[string]bool
	seen    func(string, bool)
}

func newFabric() *fabric { return &fabric{plans: map[key]any{}, devices: map[string]bool{}} }

func (f *fabric) set(k key, plan any, absent bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if k.id == f.bad {
		return fmt.Errorf("set %s: %w", k.id, errdefs.ErrInvalid)
	}
	if f.fails > 0 {
		f.fails--
		return fmt.Errorf("set %s: %w", k.id, errdefs.ErrUnavailable)
	}
	if f.plans[k] = plan; absent {
		delete(f.plans, k)
	}
	return nil
}

func (f *fabric) SetNetwork(_ context.Context, p NetworkPlan) error {
	return f.set(key{kindNetwork, p.ID}, p, p.Absent)
}

func (f *fabric) SetGroup(_ context.Context, p GroupPlan) error {
	return f.set(key{kindGroup, p.ID}, p, p.Absent)
}

func (f *fabric) SetPorts(_ context.Context, plans ...PortPlan) error {
	var errs []error
	for _, p := range plans {
		errs = append(errs, f.set(key{kindPort, p.ID}, p, p.Absent))
	}
	return errors.Join(errs...)
}

func (f *fabric) SetRouter(_ context.Context, p RouterPlan) error {
	return f.set(key{kindRouter, p.ID}, p, p.Absent)
}

func (f *fabric) Sync(ctx context.Context, w World) error {
	f.mu.Lock()
	f.syncs++
	clear(f.plans)
	f.mu.Unlock()
	for _, p := range w.Networks {
		if err := f.SetNetwork(ctx, p); err != nil {
			return err
		}
	}
	for _, p := range w.Groups {
		if err := f.SetGroup(ctx, p); err != nil {
			return err
		}
	}
	for _, p := range w.Ports {
		if err := f.SetPorts(ctx, p); err != nil {
			return err
		}
	}
	for _, p := range w.Routers {
		if err := f.SetRouter(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (f *fabric) Repair(context.Context) error { return nil }

func (f *fabric) Watch(ctx context.Context, all func([]string), seen func(string, bool)) error {
	f.mu.Lock()
	f.seen = seen
	have := slices.Collect(maps.Keys(f.devices))
	f.mu.Unlock()
	all(have)
	<-ctx.Done()
	return ctx.Err()
}

// plug makes a device, or takes it away.
func (f *fabric) plug(device string, up bool) {
	f.mu.Lock()
	if f.devices[device] = up; !up {
		delete(f.devices, device)
	}
	seen := f.seen
	f.mu.Unlock()
	if seen != nil {
		seen(device, up)
	}
}

func (f *fabric) plan(k kind, id string) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.plans[key{k, id}]
}

func (f *fabric) all() map[key]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.plans)
}

// running waits until the fabric has heard of everything once.
func (c *cloud) running() {
	c.t.Helper()
	c.until("sync", func() bool {
		c.s.fabric.mu.Lock()
		defer c.s.fabric.mu.Unlock()
		return c.s.fabric.running
	})
}

func TestPlansAreWhatTheAPISays(t *testing.T) {
	f := newFabric()
	c := newCloud(t, f)
	c.running()
	net, sub, ext, router := c.routed()
	port := c.must("admin", "POST", "/v2.0/ports", instance(net, nobody))
	id, mac, ip := fmt.Sprint(port["id"]), fmt.Sprint(port["mac_address"]), netip.MustParseAddr(ips(port)[0])
	// The answer to a binding comes after the filter is in place.
	plan, ok := f.plan(kindPort, id).(PortPlan)
	if !ok {
		t.Fatal("the port is bound and the fabric does not know")
	}
	if len(plan.Rules) != 4 {
		t.Errorf("rules %v", plan.Rules)
	}
	plan.Rules = nil
	want := PortPlan{
		ID: id, Device: "tap" + id[:11], NetworkID: net, Bridge: "brq" + net[:11], MAC: mac, Addresses: []netip.Addr{ip},
		HostName: "host-10-0-0-" + fmt.Sprint(ip.As4()[3]), Sources: []Source{{mac, netip.PrefixFrom(ip, 32)}},
	}
	if !reflect.DeepEqual(plan, want) {
		t.Errorf("port\n%+v, want\n%+v", plan, want)
	}
	groups, _ := port["security_groups"].([]any)
	g, _ := f.plan(kindGroup, fmt.Sprint(groups[0])).(GroupPlan)
	if !slices.Equal(g.Members, []netip.Prefix{netip.PrefixFrom(ip, 32)}) {
		t.Errorf("members %v", g.Members)
	}
	fip := c.must("us", "POST", "/v2.0/floatingips", obj("floatingip", `"floating_network_id": %q, "port_id": %q`, ext, id))
	c.until("router with a floating address", func() bool {
		r, _ := f.plan(kindRouter, router).(RouterPlan)
		return r.Gateway != nil && r.Gateway.SNAT && len(r.Interfaces) == 1 && r.Interfaces[0].Addresses[0].String() == "10.0.0.1/24" &&
			slices.Equal(r.Gateway.NextHops, []netip.Addr{netip.MustParseAddr("172.24.4.1")}) &&
			slices.Equal(r.Floating, []FloatingAddress{{netip.MustParseAddr(fmt.Sprint(fip["floating_ip_address"])), ip}})
	})
	n, _ := f.plan(kindNetwork, net).(NetworkPlan)
	if n.Bridge != "brq"+net[:11] || n.External || len(n.Subnets) != 1 || n.Subnets[0].ID != sub || n.MTU != 1500 {
		t.Errorf("network %+v", n)
	}
	c.ask("admin", "DELETE", "/v2.0/ports/"+id, "")
	c.until("port to be gone", func() bool { return f.plan(kindPort, id) == nil })
}

func TestAPortIsActiveWhileItsDeviceIsThere(t *testing.T) {
	f := newFabric()
	c := newCloud(t, f)
	c.running()
	net, _ := c.private()
	id := c.id("admin", "ports", instance(net, nobody))
	status := func() any { return c.must("us", "GET", "/v2.0/ports/"+id, "")["status"] }
	if status() != "DOWN" {
		t.Errorf("without a device: %v", status())
	}
	f.plug("tap"+id[:11], true)
	c.until("ACTIVE", func() bool { return status() == "ACTIVE" })
	c.until("network-vif-plugged", func() bool { return c.nova.told(VIFPlugged, id) })
	f.plug("tap"+id[:11], false)
	c.until("DOWN", func() bool { return status() == "DOWN" })
	c.until("network-vif-unplugged", func() bool { return c.nova.told(VIFUnplugged, id) })
}

func TestADeviceBeforeItsPort(t *testing.T) {
	f := newFabric()
	c := newCloud(t, f)
	c.running()
	net, _ := c.private()
	id := c.id("us", "ports", obj("port", `"network_id": %q, "device_id": %q, "device_owner": "compute:nova"`, net, nobody))
	f.plug("tap"+id[:11], true)
	c.must("admin", "PUT", "/v2.0/ports/"+id, obj("port", `"binding:host_id": %q`, here))
	c.until("ACTIVE", func() bool { return c.must("us", "GET", "/v2.0/ports/"+id, "")["status"] == "ACTIVE" })
}

// TestOneBadPlanHarmsNoOther: neither at the start nor later.
func TestOneBadPlanHarmsNoOther(t *testing.T) {
	f := newFabric()
	c := &cloud{t: t, nova: &nova{}, path: t.TempDir() + "/db"}
	c.o = Options{Path: c.path, Host: here, Auth: callers, Fabric: f, Events: c.nova}
	stop := c.open()
	c.running()
	net, _ := c.private()
	bad, good := c.id("admin", "ports", instance(net, nobody)), c.id("admin", "ports", instance(net, nobody))
	status := func(id string) any { return c.must("us", "GET", "/v2.0/ports/"+id, "")["status"] }
	stop()
	f.mu.Lock()
	clear(f.plans)
	f.bad = bad
	f.mu.Unlock()
	f.plug(tapName(bad), true)
	f.plug(tapName(good), true)
	c.open()
	c.until("the good one", func() bool { return status(good) == "ACTIVE" })
	if status(bad) != "DOWN" {
		t.Errorf("without a filter: %v", status(bad))
	}
	f.mu.Lock()
	f.bad = ""
	f.mu.Unlock()
	c.until("the other one", func() bool { return status(bad) == "ACTIVE" })
}

// TestFiltersAreRemovedLater: with what they are, and at the end at the latest.
func TestFiltersAreRemovedLater(t *testing.T) {
	f := newFabric()
	c := &cloud{t: t, nova: &nova{}, path: t.TempDir() + "/db"}
	c.o = Options{Path: c.path, Host: here, Auth: callers, Fabric: f, Events: c.nova}
	stop := c.open()
	c.running()
	net, _ := c.private()
	id := c.id("admin", "ports", instance(net, nobody))
	is := func(status string) func() bool {
		return func() bool { return c.must("us", "GET", "/v2.0/ports/"+id, "")["status"] == status }
	}
	f.plug(tapName(id), true)
	c.until("ACTIVE", is("ACTIVE"))
	c.must("admin", "PUT", "/v2.0/ports/"+id, obj("port", `"binding:host_id": ""`))
	c.until("DOWN", is("DOWN"))
	c.must("admin", "PUT", "/v2.0/ports/"+id, obj("port", `"binding:host_id": %q`, here))
	c.until("ACTIVE again", is("ACTIVE"))
	if f.plan(kindPort, id) == nil {
		t.Error("ACTIVE without a filter")
	}
	other := c.id("admin", "ports", instance(net, nobody))
	c.must("admin", "DELETE", "/v2.0/ports/"+id, "")
	c.until("its filter is gone", func() bool { return f.plan(kindPort, id) == nil })
	c.must("admin", "DELETE", "/v2.0/ports/"+other, "")
	stop()
	if f.plan(kindPort, other) != nil {
		t.Error("a filter is left")
	}
}

func TestAFailingFabricIsAskedAgain(t *testing.T) {
	f := newFabric()
	f.fails = 1 // the sync of the first network below, or the network itself
	c := newCloud(t, f)
	net, _ := c.private()
	id := c.id("admin", "ports", instance(net, nobody))
	c.until("the port's plan", func() bool { return f.plan(kindPort, id) != nil && f.plan(kindNetwork, net) != nil })
}

func TestARestartSendsEverythingAgain(t *testing.T) {
	f := newFabric()
	c := &cloud{t: t, nova: &nova{}, path: t.TempDir() + "/db"}
	c.o = Options{Path: c.path, Host: here, Auth: callers, Fabric: f, Events: c.nova}
	stop := c.open()
	c.running()
	net, _, _, _ := c.routed()
	id := c.id("admin", "ports", instance(net, nobody))
	f.plug("tap"+id[:11], true)
	c.until("ACTIVE", func() bool { return c.must("us", "GET", "/v2.0/ports/"+id, "")["status"] == "ACTIVE" })
	before := dump(c)
	stop()
	plans := f.all()
	f.mu.Lock()
	clear(f.plans)
	f.mu.Unlock()
	c.open()
	c.running()
	if after := dump(c); after != before {
		t.Errorf("after the restart:\n%s\nbefore:\n%s", after, before)
	}
	if got := f.all(); !reflect.DeepEqual(got, plans) {
		t.Errorf("plans\n%v, want\n%v", got, plans)
	}
}
