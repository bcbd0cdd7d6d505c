package network

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// TestModesOfIPv6: what routers say, and what guests are told by DHCPv6.
func TestModesOfIPv6(t *testing.T) {
	for _, c := range []struct{ modes, advert, lease string }{
		{`, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"`, "false false [fd00::/64] [] own", "none"},
		{`, "ipv6_ra_mode": "dhcpv6-stateless", "ipv6_address_mode": "dhcpv6-stateless"`, "false true [fd00::/64] [] own", "[] own"},
		{`, "ipv6_ra_mode": "dhcpv6-stateful", "ipv6_address_mode": "dhcpv6-stateful"`, "true false [] [fd00::/64] none", "[its] own"},
		{`, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac", "dns_nameservers": ["fd53::1"]`, "false false [fd00::/64] [] [fd53::1]", "none"},
		{`, "ipv6_address_mode": "dhcpv6-stateful"`, "none", "[its] own"},
		{``, "none", "none"},
	} {
		t.Run(c.modes, func(t *testing.T) {
			f := newFabric()
			cl := newCloud(t, f)
			cl.running()
			net := cl.id("us", "networks", obj("network", ``))
			sub := cl.id("us", "subnets", obj("subnet", `"network_id": %q, "ip_version": 6, "cidr": "fd00::/64", "gateway_ip": "fd00::1"%s`, net, c.modes))
			router := cl.id("us", "routers", obj("router", ``))
			cl.must("us", "PUT", "/v2.0/routers/"+router+"/add_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, sub))
			serving := cl.list("us", "ports?device_owner=network:dhcp")[0]
			own := func(dns []netip.Addr) string {
				switch {
				case len(dns) == 0:
					return "none"
				case dns[0].String() == ips(serving)[0]:
					return "own"
				}
				return fmt.Sprint(dns)
			}
			cl.until(c.advert, func() bool {
				r, _ := f.plan(kindRouter, router).(RouterPlan)
				if len(r.Interfaces) == 0 {
					return false
				}
				a := r.Interfaces[0].Advert
				return a == nil && c.advert == "none" || a != nil && c.advert == fmt.Sprint(a.Managed, a.Other, a.Autonomous, a.OnLink, " ", own(a.DNS))
			})
			port := cl.must("admin", "POST", "/v2.0/ports", instance(net, nobody))
			l, err := cl.s.Lease6At(t.Context(), fmt.Sprint(serving["id"]), fmt.Sprint(port["mac_address"]))
			got := "none"
			if err == nil {
				if got = fmt.Sprint(l.Addresses, " ", own(l.DNS)); len(l.Addresses) == 1 && l.Addresses[0].String() == ips(port)[0] {
					got = "[its] " + own(l.DNS)
				}
			} else if !errors.Is(err, errdefs.ErrNotFound) {
				t.Fatal(err)
			}
			if got != c.lease {
				t.Errorf("lease %q, want %q", got, c.lease)
			}
		})
	}
}
