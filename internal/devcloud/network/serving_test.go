package network

import (
	"fmt"
	"slices"
	"testing"
)

// serving is the addresses in the plan of what serves a network.
func (f *fabric) serving(network string) string {
	n, _ := f.plan(kindNetwork, network).(NetworkPlan)
	if n.Serving == nil {
		return "none"
	}
	return fmt.Sprint(n.Serving.Addresses)
}

func (c *cloud) served(f *fabric, network, want string) {
	c.t.Helper()
	c.until(want, func() bool { return f.serving(network) == want })
}

func TestANetworkIsServed(t *testing.T) {
	f := newFabric()
	c := newCloud(t, f)
	c.running()
	net := c.id("us", "networks", obj("network", ``))
	c.served(f, net, "none")
	sub := c.id("us", "subnets", obj("subnet", `"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"`, net))
	// Nobody has the gateway: it answers in its place.
	c.served(f, net, "[10.0.0.254/24 10.0.0.1/24]")
	all := c.list("us", "ports?device_owner=network:dhcp")
	if len(all) != 1 || all[0]["device_id"] != "dhcpebb698e7-7549-5d8b-8aa4-0762edcb459b-"+net || all[0]["tenant_id"] != ours || all[0]["port_security_enabled"] != false {
		t.Fatalf("ports %v", all)
	}
	id := fmt.Sprint(all[0]["id"])
	f.plug("tap"+id[:11], true)
	c.until("active", func() bool { return c.must("us", "GET", "/v2.0/ports/"+id, "")["status"] == "ACTIVE" })
	router := c.id("us", "routers", obj("router", ``))
	c.must("us", "PUT", "/v2.0/routers/"+router+"/add_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, sub))
	c.served(f, net, "[10.0.0.254/24]")
	c.must("us", "PUT", "/v2.0/routers/"+router+"/remove_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, sub))
	c.served(f, net, "[10.0.0.254/24 10.0.0.1/24]")
	six := c.id("us", "subnets", obj("subnet", `"network_id": %q, "ip_version": 6, "cidr": "fd00::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"`, net))
	got := ips(c.must("us", "GET", "/v2.0/ports/"+id, ""))
	if len(got) != 2 || got[0] != "10.0.0.254" {
		t.Errorf("addresses %v", got)
	}
	c.served(f, net, fmt.Sprintf("[10.0.0.254/24 %s/64 10.0.0.1/24]", got[1]))
	// A guest that may send from the gateway has it.
	guest := c.id("us", "ports", obj("port", `"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.1"}]`, net))
	c.served(f, net, fmt.Sprintf("[10.0.0.254/24 %s/64]", got[1]))
	c.ask("us", "DELETE", "/v2.0/ports/"+guest, "")
	c.ask("us", "DELETE", "/v2.0/subnets/"+six, "")
	c.served(f, net, "[10.0.0.254/24 10.0.0.1/24]")
	c.must("us", "PUT", "/v2.0/subnets/"+sub, obj("subnet", `"enable_dhcp": false`))
	c.served(f, net, "none")
	if all := c.list("us", "ports?device_owner=network:dhcp"); len(all) != 0 {
		t.Errorf("without DHCP: %v", all)
	}
	c.must("us", "PUT", "/v2.0/subnets/"+sub, obj("subnet", `"enable_dhcp": true`))
	c.served(f, net, "[10.0.0.254/24 10.0.0.1/24]")
	// Who deletes it gets another one.
	all = c.list("us", "ports?device_owner=network:dhcp")
	c.ask("us", "DELETE", fmt.Sprint("/v2.0/ports/", all[0]["id"]), "")
	if again := c.list("us", "ports?device_owner=network:dhcp"); len(again) != 1 || again[0]["id"] == all[0]["id"] {
		t.Errorf("after its deletion: %v", again)
	}
	if a := c.ask("us", "DELETE", "/v2.0/networks/"+net, ""); a.status != 204 {
		t.Errorf("delete the network: %v", a)
	}
	if all := c.list("us", "ports"); len(all) != 0 {
		t.Errorf("left: %v", all)
	}
}

// TestAFullSubnetIsNotServed: what cannot be served is made all the same.
func TestAFullSubnetIsNotServed(t *testing.T) {
	c := newCloud(t, nil)
	net := c.id("us", "networks", obj("network", ``))
	pools := `"allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.9"}]`
	sub := c.id("us", "subnets", obj("subnet", `"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24", "enable_dhcp": false, %s`, net, pools))
	p := c.id("us", "ports", obj("port", `"network_id": %q`, net))
	c.must("us", "PUT", "/v2.0/subnets/"+sub, obj("subnet", `"enable_dhcp": true`))
	all := c.list("us", "ports")
	if !slices.ContainsFunc(all, func(m map[string]any) bool { return m["id"] == p }) || len(all) != 1 {
		t.Errorf("ports %v", all)
	}
}
