package network

import (
	"net/netip"
	"slices"
	"testing"
)

func TestSubnetsOfPools(t *testing.T) {
	c := newCloud(t, nil)
	scope := c.id("us", "address-scopes", obj("address_scope", `"name": "s", "ip_version": 4`))
	pool := c.id("us", "subnetpools", obj("subnetpool",
		`"name": "p", "prefixes": ["10.9.0.0/25", "10.9.0.128/25"], "default_prefixlen": 26, "min_prefixlen": 24, "default_quota": 192, "address_scope_id": %q`, scope))
	net := c.id("us", "networks", obj("network", ``))
	of := func(more string) string {
		return obj("subnet", `"network_id": %q, "ip_version": 4, "subnetpool_id": %q`+more, net, pool)
	}
	first := c.must("us", "POST", "/v2.0/subnets", of(``))
	if first["cidr"] != "10.9.0.0/26" || first["subnetpool_id"] != pool || first["gateway_ip"] != "10.9.0.1" {
		t.Errorf("the first: %v", first)
	}
	if s := c.must("us", "POST", "/v2.0/subnets", of(`, "cidr": "10.9.0.128/26"`)); s["cidr"] != "10.9.0.128/26" {
		t.Errorf("a wish: %v", s)
	}
	if s := c.must("us", "POST", "/v2.0/subnets", of(`, "prefixlen": 28`)); s["cidr"] != "10.9.0.64/28" {
		t.Errorf("the smallest that fits: %v", s)
	}
	if n := c.must("us", "GET", "/v2.0/networks/"+net, ""); n["ipv4_address_scope"] != scope {
		t.Errorf("network %v", n)
	}
	before := len(c.list("us", "subnets"))
	for kind, body := range map[string]string{
		"SubnetAllocationError":          of(`, "cidr": "10.9.0.128/27"`),
		"SubnetPoolQuotaExceeded":        of(`, "prefixlen": 25`),
		"MinPrefixSubnetAllocationError": of(`, "prefixlen": 20`),
		"MaxPrefixSubnetAllocationError": of(`, "prefixlen": 33`),
		"BadRequest":                     of(`, "prefixlen": 28, "cidr": "10.9.0.192/28"`),
		"NetworkSubnetPoolAffinityError": obj("subnet", `"network_id": %q, "ip_version": 4, "cidr": "10.10.0.0/24"`, net),
	} {
		if a := c.ask("us", "POST", "/v2.0/subnets", body); a.kind() != kind || a.status >= 500 {
			t.Errorf("%s: %d %s %s", body, a.status, a.kind(), a.message())
		}
	}
	c.refused(404, "SubnetPoolNotFound", "them", "GET", "/v2.0/subnetpools/"+pool, "")
	c.refused(400, "SubnetPoolDeleteError", "us", "DELETE", "/v2.0/subnetpools/"+pool, "")
	c.refused(400, "IllegalSubnetPoolPrefixUpdate", "us", "PUT", "/v2.0/subnetpools/"+pool, obj("subnetpool", `"prefixes": ["10.9.0.0/25"]`))
	c.refused(400, "IllegalSubnetPoolPrefixUpdate", "us", "PUT", "/v2.0/subnetpools/"+pool+"/remove_prefixes", `{"prefixes": ["10.9.0.128/25"]}`)
	c.refused(409, "AddressScopeInUse", "us", "DELETE", "/v2.0/address-scopes/"+scope, "")
	c.refused(409, "AddressScopePrefixConflict", "us", "POST", "/v2.0/subnetpools",
		obj("subnetpool", `"name": "q", "prefixes": ["10.9.0.0/28"], "address_scope_id": %q`, scope))
	if after := len(c.list("us", "subnets")); after != before {
		t.Errorf("%d subnets, %d before what was refused", after, before)
	}
}

func TestATopologyIsMadeOnceAndGoes(t *testing.T) {
	c := newCloud(t, nil)
	ext, _ := c.public()
	const path = "/v2.0/auto-allocated-topology/None"
	c.refused(409, "AutoAllocationFailure", "us", "GET", path, "")
	c.must("admin", "PUT", "/v2.0/networks/"+ext, obj("network", `"is_default": true`))
	c.refused(409, "AutoAllocationFailure", "us", "GET", path+"?fields=dry-run", "")
	c.id("admin", "subnetpools", obj("subnetpool", `"name": "d", "prefixes": ["10.8.0.0/16"], "default_prefixlen": 26, "is_default": true, "shared": true`))
	c.refused(403, "PolicyNotAuthorized", "reader", "GET", path, "")
	made := c.must("us", "GET", path, "")
	if again := c.must("us", "GET", path, ""); again["id"] != made["id"] {
		t.Errorf("%v, then %v", made, again)
	}
	c.refused(403, "NotAuthorized", "them", "GET", "/v2.0/auto-allocated-topology/"+ours, "")
	if routers := c.list("us", "routers"); len(routers) != 1 || routers[0]["external_gateway_info"] == nil {
		t.Errorf("routers %v", routers)
	}
	id, _ := made["id"].(string)
	port := c.id("us", "ports", obj("port", `"network_id": %q`, id))
	c.refused(409, "NetworkInUse", "us", "DELETE", path, "")
	c.must("us", "DELETE", "/v2.0/ports/"+port, "")
	c.must("us", "DELETE", path, "")
	if left := append(c.list("us", "routers"), c.list("us", "subnets")...); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestSubnetsForServices(t *testing.T) {
	c := newCloud(t, nil)
	net := c.id("us", "networks", obj("network", ``))
	c.id("us", "subnets", obj("subnet", `"network_id": %q, "ip_version": 4, "cidr": "10.7.0.0/24", "service_types": ["compute:nova"]`, net))
	c.refused(400, "InvalidSubnetServiceType", "us", "POST", "/v2.0/subnets",
		obj("subnet", `"network_id": %q, "ip_version": 4, "cidr": "10.7.1.0/24", "service_types": ["nothing"]`, net))
	for owner, want := range map[string]int{"compute:nova": 1, "": 0} {
		p := c.must("us", "POST", "/v2.0/ports", obj("port", `"network_id": %q, "device_owner": %q`, net, owner))
		if ips, _ := p["fixed_ips"].([]any); len(ips) != want {
			t.Errorf("%q: addresses %v", owner, ips)
		}
	}
}

func TestPrefixArithmetic(t *testing.T) {
	set := func(all ...string) []netip.Prefix { return prefixesOf(all) }
	if got := compact(set("10.0.1.0/24", "10.0.0.0/24", "10.0.0.128/25", "10.0.2.0/23", "fd00::/64")); !slices.Equal(got, set("10.0.0.0/22", "fd00::/64")) {
		t.Errorf("compact: %v", got)
	}
	if got := without(set("10.0.0.0/22"), set("10.0.1.0/24", "10.0.3.0/25")); !slices.Equal(got, set("10.0.0.0/24", "10.0.2.0/24", "10.0.3.128/25")) {
		t.Errorf("without: %v", got)
	}
	if got := without(set("0.0.0.0/0"), set("0.0.0.0/0")); len(got) != 0 {
		t.Errorf("nothing: %v", got)
	}
	if !covered(set("10.0.0.0/22"), netip.MustParsePrefix("10.0.3.0/24")) || covered(set("10.0.0.0/24"), netip.MustParsePrefix("10.0.0.0/22")) {
		t.Error("covered")
	}
}
