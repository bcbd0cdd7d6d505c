package local_test

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/drivertest"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// run runs a command in the guest and returns its output and exit code.
func (r *rig) run(t *testing.T, uuid driver.InstanceUUID, args ...string) (string, int) {
	t.Helper()
	pr, pw, err := os.Pipe()
	check(t, err)
	defer pr.Close()
	s, err := r.engine.Exec(t.Context(), engine.ContainerID(uuid), engine.ExecRequest{Args: args, Stdio: [3]*os.File{nil, pw, pw}})
	check(t, errors.Join(err, pw.Close()))
	out := string(must(io.ReadAll(pr))(t))
	return out, must(r.engine.ExecWait(t.Context(), engine.ContainerID(uuid), s.ID))(t).Code
}

// portOn is a port of a network of its own with the given addresses; the last
// byte of the first decides its MAC address.
func portOn(t *testing.T, network string, addresses ...string) objects.VIF {
	v := port(t)[0]
	v.Network.ID = network + "-1111-4222-8333-444444444444"
	v.Network.Subnets = nil
	for _, a := range addresses {
		p := netip.MustParsePrefix(a)
		s := objects.VIFSubnet{CIDR: p.Masked(), Version: 4, IPs: []objects.VIFIP{{Address: p.Addr().String(), Type: "fixed", Version: 4}}}
		if p.Addr().Is6() {
			s.Version, s.IPs[0].Version = 6, 6
		}
		v.Network.Subnets = append(v.Network.Subnets, s)
	}
	return v
}

func (r *rig) change(t *testing.T, uuid driver.InstanceUUID, before, after objects.NetworkInfo) {
	t.Helper()
	check(t, r.driver.ChangeNetwork(t.Context(), driver.NetworkChange{UUID: uuid, Before: before, After: after}))
}

// TestHotPlugCarriesTraffic: two running guests get interfaces in one network
// and reach each other over them, in IPv4 and IPv6; one that goes takes nothing
// with it.
func TestHotPlugCarriesTraffic(t *testing.T) {
	r := newRig(t)
	var uuids []driver.InstanceUUID
	for range 2 {
		req := request()
		req.Network = drivertest.Ready(port(t))
		check(t, r.driver.Spawn(t.Context(), req))
		uuids = append(uuids, req.UUID)
	}
	first := must(r.plugger.Stats(t.Context(), string(uuids[0])))(t)
	one := objects.NetworkInfo{port(t)[0]}
	one[0].ID, one[0].Address = first[0].ID, first[0].MAC
	a := append(slices.Clone(one), portOn(t, "dddddddd", "10.50.0.5/24", "fd00:50::5/64"))
	r.change(t, uuids[0], one, a)
	r.change(t, uuids[1], nil, objects.NetworkInfo{portOn(t, "dddddddd", "10.50.0.6/24", "fd00:50::6/64")})
	for _, to := range []string{"10.50.0.6", "fd00:50::6"} {
		if out, code := r.run(t, uuids[0], "busybox", "ping", "-c", "3", "-W", "5", to); code != 0 {
			links, _ := r.run(t, uuids[0], "ip", "addr")
			t.Fatalf("ping %s: %d\n%s\n%s", to, code, out, links)
		}
	}
	out, _ := r.run(t, uuids[0], "ip", "-o", "addr")
	if !strings.Contains(out, "eth1    inet 10.50.0.5/24") || !strings.Contains(out, "eth0    inet 10.0.0.5/24") {
		t.Errorf("addresses inside:\n%s", out)
	}
	// the first interface goes: the second has its name still, and its traffic
	r.change(t, uuids[0], a, a[1:])
	if out, code := r.run(t, uuids[0], "busybox", "ping", "-c", "1", "-W", "5", "-I", "eth1", "10.50.0.6"); code != 0 {
		t.Errorf("ping after the first interface went: %s", out)
	}
	// and it keeps it over a reboot of either kind, and over stop and start
	for _, kind := range []driver.RebootType{driver.RebootSoft, driver.RebootHard} {
		check(t, r.driver.Reboot(t.Context(), driver.RebootRequest{UUID: uuids[0], Type: kind, VIFs: a[1:]}))
	}
	check(t, r.driver.PowerOff(t.Context(), uuids[0], driver.PowerOffOptions{}))
	check(t, r.driver.PowerOn(t.Context(), driver.PowerOnRequest{UUID: uuids[0], VIFs: a[1:]}))
	if out, code := r.run(t, uuids[0], "busybox", "ping", "-c", "1", "-W", "5", "-I", "eth1", "10.50.0.6"); code != 0 {
		t.Errorf("ping after restarts: %s", out)
	}
	for _, uuid := range uuids {
		check(t, r.driver.Destroy(t.Context(), uuid))
	}
}

// TestResolverFollows: name servers come and go with their networks, until the
// guest writes its own.
func TestResolverFollows(t *testing.T) {
	r := newRig(t)
	req := request()
	one := port(t)
	req.Network = drivertest.Ready(one)
	check(t, r.driver.Spawn(t.Context(), req))
	more := portOn(t, "dddddddd", "10.50.0.5/24")
	more.Network.Subnets[0].DNS = []objects.VIFIP{{Address: "10.50.0.2", Type: "dns", Version: 4}}
	two := append(slices.Clone(one), more)
	want := func(text string) {
		t.Helper()
		if out, _ := r.run(t, req.UUID, "cat", "/etc/resolv.conf"); out != text {
			t.Errorf("resolv.conf %q, want %q", out, text)
		}
	}
	r.change(t, req.UUID, one, two)
	want("nameserver 10.0.0.2\nnameserver 10.50.0.2\n")
	r.change(t, req.UUID, two, one)
	want("nameserver 10.0.0.2\n")
	if _, code := r.run(t, req.UUID, "sh", "-c", "echo mine > /etc/resolv.conf"); code != 0 {
		t.Fatal("the guest cannot write")
	}
	r.change(t, req.UUID, one, two)
	want("mine\n")
	// a guest that puts a link there leads nothing of the host's astray
	if _, code := r.run(t, req.UUID, "sh", "-c", "rm /etc/resolv.conf; ln -s /etc/hostname /etc/resolv.conf"); code != 0 {
		t.Fatal("the guest cannot link")
	}
	r.change(t, req.UUID, two, one)
	want("web\n")
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// TestChangeCanFail fails each step of a change: the guest has what it had, and
// the next try works. A service that dies at the step leads back as well.
func TestChangeCanFail(t *testing.T) {
	r := newRig(t)
	req := request()
	one := port(t)
	req.Network = drivertest.Ready(one)
	check(t, r.driver.Spawn(t.Context(), req))
	two := append(slices.Clone(one), portOn(t, "dddddddd", "10.50.0.5/24"))
	ports := func() int { return len(must(r.plugger.Stats(t.Context(), string(req.UUID)))(t)) }
	for _, point := range []string{"interfaces.begin", "interfaces.plugged"} {
		for _, x := range []struct{ before, after objects.NetworkInfo }{{one, two}, {two, one}} {
			check(t, r.driver.Plug(t.Context(), req.UUID, x.before))
			check(t, failpoint.Set(point, "error"))
			err := r.driver.ChangeNetwork(t.Context(), driver.NetworkChange{UUID: req.UUID, Before: x.before, After: x.after})
			check(t, failpoint.Set(point, ""))
			if !errors.Is(err, failpoint.ErrInjected) || ports() != len(x.before) {
				t.Errorf("%s: %v; %d interfaces, want %d", point, err, ports(), len(x.before))
			}
			r.change(t, req.UUID, x.before, x.after)
			// the record of the control plane still has the network before
			r.again(t, 0)
			must(r.driver.Recover(t.Context()))(t)
			check(t, r.driver.Plug(t.Context(), req.UUID, x.before))
			if ports() != len(x.before) {
				t.Errorf("%s: %d interfaces after a restart, want %d", point, ports(), len(x.before))
			}
		}
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// TestBadPortsHurtNobodyElse: what cannot be plugged is refused, and neither
// this guest's other interfaces nor another guest notice.
func TestBadPortsHurtNobodyElse(t *testing.T) {
	r := newRig(t)
	neighbour := withPort(t)
	check(t, r.driver.Spawn(t.Context(), neighbour))
	req := request()
	one := objects.NetworkInfo{portOn(t, "dddddddd", "10.50.0.5/24")}
	req.Network = drivertest.Ready(one)
	check(t, r.driver.Spawn(t.Context(), req))
	look := func() string {
		out, _ := r.run(t, req.UUID, "ip", "-o", "addr")
		other, _ := r.run(t, neighbour.UUID, "ip", "-o", "addr")
		return out + other
	}
	before := look()
	for name, x := range map[string]struct {
		change func(*objects.VIF)
		class  error
	}{
		"a MAC address twice":       {func(v *objects.VIF) { v.Address = one[0].Address }, errdefs.ErrInvalid},
		"no MAC address":            {func(v *objects.VIF) { v.Address = "rm -rf" }, errdefs.ErrInvalid},
		"a group address":           {func(v *objects.VIF) { v.Address = "01:00:5e:00:00:01" }, errdefs.ErrInvalid},
		"an MTU beyond all":         {func(v *objects.VIF) { *v.Network.Meta.MTU = 1 << 20 }, errdefs.ErrInvalid},
		"an MTU below all":          {func(v *objects.VIF) { *v.Network.Meta.MTU = 1 }, errdefs.ErrInvalid},
		"an address twice":          {func(v *objects.VIF) { v.Network.Subnets = one[0].Network.Subnets }, errdefs.ErrInvalid},
		"an address that is none":   {func(v *objects.VIF) { v.Network.Subnets[0].IPs[0].Address = "10.0.0.5\nroot" }, errdefs.ErrInvalid},
		"an address of a group":     {func(v *objects.VIF) { v.Network.Subnets[0].IPs[0].Address = "224.0.0.1" }, errdefs.ErrInvalid},
		"a gateway of the other ip": {func(v *objects.VIF) { v.Network.Subnets[0].Gateway = &objects.VIFIP{Address: "fd00::1"} }, errdefs.ErrInvalid},
		"a bridge of no name":       {func(v *objects.VIF) { b := "a name of more than 15 bytes"; v.Network.Bridge = &b }, errdefs.ErrInvalid},
		"a bridge with a line":      {func(v *objects.VIF) { b := "br\nx"; v.Network.Bridge = &b }, errdefs.ErrInvalid},
		"a port of another host":    {func(v *objects.VIF) { v.Type = "binding_failed" }, errdefs.ErrUnavailable},
		"a port for a switch":       {func(v *objects.VIF) { v.Type = "vhostuser" }, errdefs.ErrUnsupported},
		"the tap of the neighbour": {func(v *objects.VIF) {
			v.ID = must(r.plugger.Stats(t.Context(), string(neighbour.UUID)))(t)[0].ID
		}, errdefs.ErrConflict},
	} {
		bad := portOn(t, "eeeeeeee", "10.60.0.5/24")
		x.change(&bad)
		err := r.driver.ChangeNetwork(t.Context(), driver.NetworkChange{UUID: req.UUID, Before: one, After: append(slices.Clone(one), bad)})
		if !errors.Is(err, x.class) {
			t.Errorf("%s: %v, want %v", name, err, x.class)
		}
		if after := look(); after != before {
			t.Errorf("%s: the guests have\n%s\nand had\n%s", name, after, before)
		}
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
	check(t, r.driver.Destroy(t.Context(), neighbour.UUID))
}
