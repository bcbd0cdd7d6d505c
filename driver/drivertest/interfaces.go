package drivertest

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// further is one more port, without addresses but the given ones.
func (e *env) further(t *testing.T, addresses ...string) objects.VIF {
	t.Helper()
	v := e.network(t)[0]
	v.Network.Subnets = nil
	for _, a := range addresses {
		p := netip.MustParsePrefix(a)
		v.Network.Subnets = append(v.Network.Subnets, objects.VIFSubnet{
			CIDR: p.Masked(), Version: 4, IPs: []objects.VIFIP{{Address: p.Addr().String(), Type: "fixed", Version: 4}},
		})
	}
	return v
}

// attacher returns what can change interfaces, and an instance with one port;
// false when there is nothing to test.
func (e *env) attacher(t *testing.T) (driver.InterfaceAttacher, driver.InstanceUUID, objects.NetworkInfo, bool) {
	t.Helper()
	a, ok := e.d.(driver.InterfaceAttacher)
	vifs := e.network(t)
	if !ok || len(vifs) == 0 {
		return nil, "", nil, false
	}
	req := e.request(t)
	req.Network = Ready(vifs)
	e.spawned = append(e.spawned, req.UUID)
	if err := e.d.Spawn(t.Context(), req); err != nil {
		t.Fatalf("Spawn: %v", err)
	}
	return a, req.UUID, vifs, true
}

// wantPorts compares the interfaces of the instance, as its diagnostics tell.
func (e *env) wantPorts(t *testing.T, what string, uuid driver.InstanceUUID, want objects.NetworkInfo) {
	t.Helper()
	r, ok := e.d.(driver.DiagnosticsReader)
	if !ok {
		return
	}
	got, err := r.Diagnostics(t.Context(), uuid)
	if err != nil {
		t.Fatalf("Diagnostics: %v", err)
	}
	var macs, wanted []string
	for _, n := range got.NICs {
		macs = append(macs, n.MAC)
	}
	for _, v := range want {
		wanted = append(wanted, v.Address)
	}
	slices.Sort(macs)
	slices.Sort(wanted)
	if !slices.Equal(macs, wanted) {
		t.Errorf("%s: interfaces %v, want %v", what, macs, wanted)
	}
}

// Interfaces come, change and go while the guest runs, and what is changed
// outlives a reboot and a new life of the service.
func testChangeNetwork(t *testing.T, e *env) {
	a, uuid, one, ok := e.attacher(t)
	if !ok {
		return
	}
	ctx := t.Context()
	two := append(slices.Clone(one), e.further(t, "10.77.0.5/24"))
	three := append(slices.Clone(two), e.further(t))
	moved := slices.Clone(two)
	moved[1].Network.Subnets = e.further(t, "10.77.0.6/24", "10.78.0.6/24").Network.Subnets
	last := one
	for _, x := range []struct {
		what string
		to   objects.NetworkInfo
	}{
		{"a second interface", two},
		{"the same again", two},
		{"a third without addresses", three},
		{"the first two go", three[2:]},
		{"one comes back", two},
		{"other addresses", moved},
		{"all go", nil},
		{"two come at once", moved},
	} {
		if err := a.ChangeNetwork(ctx, driver.NetworkChange{UUID: uuid, Before: last, After: x.to}); err != nil {
			t.Fatalf("%s: %v", x.what, err)
		}
		last = x.to
		e.wantState(t, uuid, driver.PowerRunning)
		e.wantPorts(t, x.what, uuid, x.to)
	}
	if p, ok := e.d.(driver.Pauser); ok {
		if err := p.Pause(ctx, uuid); err != nil {
			t.Fatal(err)
		}
		if err := a.ChangeNetwork(ctx, driver.NetworkChange{UUID: uuid, Before: moved, After: two}); err != nil {
			t.Errorf("of a paused instance: %v", err)
		}
		e.wantState(t, uuid, driver.PowerPaused)
		if err := p.Unpause(ctx, uuid); err != nil {
			t.Fatal(err)
		}
		last = two
	}
	if err := e.d.Reboot(ctx, driver.RebootRequest{UUID: uuid, Type: driver.RebootHard, VIFs: last}); err != nil {
		t.Fatal(err)
	}
	e.wantPorts(t, "after a reboot", uuid, last)
	if e.h.Restart == nil {
		return
	}
	e.d = e.h.Restart(t, e.d)
	if r, ok := e.d.(driver.Recoverer); ok {
		if _, err := r.Recover(ctx); err != nil {
			t.Fatal(err)
		}
	}
	e.wantPorts(t, "in the next life", uuid, last)
	a, ok = e.d.(driver.InterfaceAttacher)
	if !ok {
		t.Fatal("the next life cannot change interfaces")
	}
	if err := a.ChangeNetwork(ctx, driver.NetworkChange{UUID: uuid, Before: last, After: one}); err != nil {
		t.Errorf("in the next life: %v", err)
	}
	e.wantPorts(t, "changed in the next life", uuid, one)
}

func testChangeNetworkStopped(t *testing.T, e *env) {
	a, uuid, one, ok := e.attacher(t)
	if !ok {
		return
	}
	ctx := t.Context()
	if err := e.d.PowerOff(ctx, uuid, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	two := append(slices.Clone(one), e.further(t, "10.77.0.5/24"))
	if err := a.ChangeNetwork(ctx, driver.NetworkChange{UUID: uuid, Before: one, After: two}); err != nil {
		t.Fatalf("ChangeNetwork of a stopped instance: %v", err)
	}
	e.wantState(t, uuid, driver.PowerShutdown)
	if err := e.d.PowerOn(ctx, driver.PowerOnRequest{UUID: uuid, VIFs: two}); err != nil {
		t.Fatal(err)
	}
	e.wantPorts(t, "after the start", uuid, two)
}

func testChangeNetworkRefused(t *testing.T, e *env) {
	a, uuid, one, ok := e.attacher(t)
	if !ok {
		return
	}
	ctx := t.Context()
	of := func(change func(*objects.VIF)) objects.NetworkInfo {
		v := e.further(t, "10.77.0.5/24")
		change(&v)
		return append(slices.Clone(one), v)
	}
	for _, x := range []struct {
		what  string
		class error
		to    objects.NetworkInfo
	}{
		{"an unbound port", errdefs.ErrUnavailable, of(func(v *objects.VIF) { v.Type = "unbound" })},
		{"a port whose binding failed", errdefs.ErrUnavailable, of(func(v *objects.VIF) { v.Type = "binding_failed" })},
		{"a port for another kind of host", errdefs.ErrUnsupported, of(func(v *objects.VIF) { v.Type = "hw_veb" })},
		{"a MAC address twice", errdefs.ErrInvalid, of(func(v *objects.VIF) { v.Address = one[0].Address })},
	} {
		held := e.h.Residue(t, e.d)
		wantClass(t, x.what, a.ChangeNetwork(ctx, driver.NetworkChange{UUID: uuid, Before: one, After: x.to}), x.class)
		e.wantState(t, uuid, driver.PowerRunning)
		e.wantPorts(t, x.what, uuid, one)
		if got := e.h.Residue(t, e.d); !slices.Equal(got, held) {
			t.Errorf("%s: left on the host:\n  before %q\n  after  %q", x.what, held, got)
		}
	}
	wantClass(t, "an absent instance", a.ChangeNetwork(ctx, driver.NetworkChange{UUID: NewUUID(), After: one}), errdefs.ErrNotFound)
}
