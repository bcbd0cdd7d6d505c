package network

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestInstanceBehind(t *testing.T) {
	c := newCloud(t, nil)
	net, _, _, router := c.routed()
	port := c.must("admin", "POST", "/v2.0/ports", instance(net, nobody))
	address := netip.MustParseAddr(fmt.Sprint(ips(port)[0]))
	device, project, err := c.s.InstanceBehind(t.Context(), router, address)
	if err != nil || device != port["device_id"] || project != port["project_id"] || device == "" {
		t.Errorf("found %s of %s, %v; want %v", device, project, err, port)
	}
	if in, of, err := c.s.InstanceIn(t.Context(), net, address); err != nil || in != device || of != project {
		t.Errorf("in the network: %s of %s, %v", in, of, err)
	}
	if _, _, err := c.s.InstanceIn(t.Context(), nobody, address); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("in another network: %v", err)
	}
	named := map[string]string{}
	for _, h := range c.s.Hosts(t.Context(), net) {
		named[h.Addresses[0].String()] = h.Instance
	}
	if want := map[string]string{"10.0.0.1": "", "10.0.0.254": "", address.String(): device}; !maps.Equal(named, want) {
		t.Errorf("hosts %v, want %v", named, want)
	}
	for what, ask := range map[string]struct {
		router  string
		address netip.Addr
	}{
		"another router":       {nobody, address},
		"no router":            {"", address},
		"nobody's address":     {router, netip.MustParseAddr("10.0.0.250")},
		"the router's address": {router, netip.MustParseAddr("10.0.0.1")},
	} {
		if _, _, err := c.s.InstanceBehind(t.Context(), ask.router, ask.address); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if a := c.ask("admin", "DELETE", "/v2.0/ports/"+fmt.Sprint(port["id"]), ""); a.status != 204 {
		t.Fatalf("delete port: %v", a)
	}
	if _, _, err := c.s.InstanceBehind(t.Context(), router, address); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("after the port is gone: %v", err)
	}
}

func TestLeaseAt(t *testing.T) {
	c := newCloud(t, nil)
	net, sub, _, router := c.routed()
	c.must("us", "PUT", "/v2.0/subnets/"+sub, obj("subnet", `"dns_nameservers": ["192.0.2.53"], "host_routes": [{"destination": "192.0.2.0/24", "nexthop": "10.0.0.9"}]`))
	port := c.must("admin", "POST", "/v2.0/ports", instance(net, nobody))
	at, mac := fmt.Sprint(c.list("us", "ports?device_owner=network:dhcp&network_id="+net)[0]["id"]), fmt.Sprint(port["mac_address"])
	address := netip.MustParseAddr(fmt.Sprint(ips(port)[0]))
	l, err := c.s.LeaseAt(t.Context(), at, mac)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%v %v %v %v %v %v", l.Server, l.Address.Addr() == address, l.Gateway, l.DNS, l.Routes, l.HostName)
	want := fmt.Sprintf("10.0.0.254 true 10.0.0.1 [192.0.2.53] [{192.0.2.0/24 10.0.0.9}] host-%s", strings.ReplaceAll(address.String(), ".", "-"))
	if got != want || l.MTU == 0 || l.Address.Bits() == 32 {
		t.Errorf("got %s (%+v), want %s", got, l, want)
	}
	for what, ask := range map[string][2]string{
		"another's MAC": {at, "fa:16:3e:ff:ff:ff"}, "no such port": {nobody, mac}, "the router's own": {at, fmt.Sprint(c.list("us", "ports?device_id="+router)[0]["mac_address"])},
	} {
		if l, err := c.s.LeaseAt(t.Context(), ask[0], ask[1]); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s: %+v, %v", what, l, err)
		}
	}
	// Without a router the way to the metadata is told, and without name
	// servers of its own the one that answers here.
	c.must("us", "PUT", "/v2.0/routers/"+router+"/remove_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, sub))
	c.must("us", "PUT", "/v2.0/subnets/"+sub, obj("subnet", `"dns_nameservers": [], "gateway_ip": null, "host_routes": []`))
	l, err = c.s.LeaseAt(t.Context(), at, mac)
	if got := fmt.Sprint(l.Gateway.IsValid(), l.DNS, l.Routes); err != nil || got != "false [10.0.0.254] [{169.254.169.254/32 10.0.0.254}]" {
		t.Errorf("isolated: %s, %v", got, err)
	}
	c.must("us", "PUT", "/v2.0/subnets/"+sub, obj("subnet", `"enable_dhcp": %t`, false))
	if l, err := c.s.LeaseAt(t.Context(), at, mac); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("without DHCP: %+v, %v", l, err)
	}
}
