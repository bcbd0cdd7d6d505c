package network

import (
	"fmt"
	"slices"
	"testing"
)

func ips(p map[string]any) (out []string) {
	all, _ := p["fixed_ips"].([]any)
	for _, i := range all {
		m, _ := i.(map[string]any)
		out = append(out, fmt.Sprint(m["ip_address"]))
	}
	return out
}

func TestAddressesAreGivenOnceAndGivenBack(t *testing.T) {
	c := newCloud(t, nil)
	net := c.id("us", "networks", obj("network", ``))
	c.id("us", "subnets", obj("subnet", `"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/29"`, net))
	var got []string
	var last string
	for range 4 { // .2 to .5; .1 is the gateway's, .6 the DHCP server's
		p := c.must("us", "POST", "/v2.0/ports", obj("port", `"network_id": %q`, net))
		got = append(got, ips(p)...)
		last, _ = p["id"].(string)
	}
	slices.Sort(got)
	if fmt.Sprint(got) != "[10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5]" {
		t.Errorf("addresses %v", got)
	}
	c.refused(409, "IpAddressGenerationFailure", "us", "POST", "/v2.0/ports", obj("port", `"network_id": %q`, net))
	c.ask("us", "DELETE", "/v2.0/ports/"+last, "")
	c.id("us", "ports", obj("port", `"network_id": %q`, net))
}

func TestAskedForAddresses(t *testing.T) {
	c := newCloud(t, nil)
	net, sub := c.private()
	six := c.id("us", "subnets", obj("subnet", `"network_id": %q, "ip_version": 6, "cidr": "fd00:1::/64", "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"`, net))
	p := c.must("us", "POST", "/v2.0/ports", obj("port", `"network_id": %q, "mac_address": "fa:16:3e:01:02:03", "fixed_ips": [{"ip_address": "10.0.0.77"}]`, net))
	if got := fmt.Sprint(ips(p)); got != "[10.0.0.77 fd00:1::f816:3eff:fe01:203]" {
		t.Errorf("addresses %v", got)
	}
	a := c.refused(409, "IpAddressAlreadyAllocated", "us", "POST", "/v2.0/ports", obj("port", `"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.77"}]`, net))
	if want := "IP address 10.0.0.77 already allocated in subnet " + sub; a.message() != want {
		t.Error(a.message())
	}
	c.refused(400, "AllocationOnAutoAddressSubnet", "us", "POST", "/v2.0/ports", obj("port", `"network_id": %q, "fixed_ips": [{"ip_address": "fd00:1::5"}]`, net))
	for _, same := range []string{"fa:16:3e:01:02:03", "FA:16:3E:01:02:03"} {
		c.refused(409, "MacAddressInUse", "us", "POST", "/v2.0/ports", obj("port", `"network_id": %q, "mac_address": %q`, net, same))
		other := c.id("us", "ports", obj("port", `"network_id": %q`, net))
		c.refused(409, "MacAddressInUse", "admin", "PUT", "/v2.0/ports/"+other, obj("port", `"mac_address": %q`, same))
		c.ask("us", "DELETE", "/v2.0/ports/"+other, "")
	}
	// a port keeps its own address when it is asked for again
	p = c.must("us", "PUT", "/v2.0/ports/"+fmt.Sprint(p["id"]), obj("port", `"fixed_ips": [{"ip_address": "10.0.0.77"}, {"subnet_id": %q, "ip_address": "10.0.0.78"}]`, sub))
	if got := fmt.Sprint(ips(p)); got != "[10.0.0.77 10.0.0.78 fd00:1::f816:3eff:fe01:203]" {
		t.Errorf("addresses %v", got)
	}
	c.refused(409, "SubnetInUse", "us", "DELETE", "/v2.0/subnets/"+sub, "")
	c.ask("us", "DELETE", "/v2.0/subnets/"+six, "") // automatic addresses do not hold it
	if got := fmt.Sprint(ips(c.must("us", "GET", "/v2.0/ports/"+fmt.Sprint(p["id"]), ""))); got != "[10.0.0.77 10.0.0.78]" {
		t.Errorf("addresses %v", got)
	}
	if n := len(c.list("us", "ports?fixed_ips=ip_address%3D10.0.0.78")); n != 1 {
		t.Errorf("%d ports have it", n)
	}
	c.refused(409, "NetworkInUse", "us", "DELETE", "/v2.0/networks/"+net, "")
}

// TestBinding is what the compute service asks and reads (driver/neutron).
func TestBinding(t *testing.T) {
	c := newCloud(t, nil)
	net, _ := c.private()
	p := c.must("admin", "POST", "/v2.0/ports", instance(net, nobody))
	details := fmt.Sprint(p["binding:vif_details"])
	if p["binding:vif_type"] != "bridge" || details != "map[bound_drivers:map[0:linuxbridge] connectivity:l2 port_filter:true]" {
		t.Errorf("bound as %v with %v", p["binding:vif_type"], details)
	}
	if groups, _ := p["security_groups"].([]any); len(groups) != 1 || p["project_id"] != ours {
		t.Errorf("groups %v of project %v", groups, p["project_id"])
	}
	for _, test := range []struct{ host, vnic, want string }{
		{"elsewhere", "normal", "binding_failed"},
		{here, "direct", "binding_failed"},
	} {
		p := c.must("admin", "POST", "/v2.0/ports", obj("port", `"network_id": %q, "binding:host_id": %q, "binding:vnic_type": %q`, net, test.host, test.vnic))
		if p["binding:vif_type"] != test.want || p["status"] != "DOWN" {
			t.Errorf("%s on %s: %v, %v", test.vnic, test.host, p["binding:vif_type"], p["status"])
		}
	}
	id := fmt.Sprint(p["id"])
	p = c.must("admin", "PUT", "/v2.0/ports/"+id, obj("port", `"device_id": "", "device_owner": "", "binding:host_id": null, "binding:profile": {}`))
	if p["binding:vif_type"] != "unbound" || p["status"] != "DOWN" || p["binding:host_id"] != "" {
		t.Errorf("given back: %v", p)
	}
}

func TestDefaultGroup(t *testing.T) {
	c := newCloud(t, nil)
	groups := c.list("us", "security-groups")
	if len(groups) != 1 || groups[0]["name"] != "default" {
		t.Fatalf("groups %v", groups)
	}
	id := groups[0]["id"]
	var got []string
	rules, _ := groups[0]["security_group_rules"].([]any)
	for _, r := range rules {
		m, _ := r.(map[string]any)
		got = append(got, fmt.Sprint(m["direction"], " ", m["ethertype"], " ", m["remote_group_id"] == id, " ", m["protocol"]))
	}
	slices.Sort(got)
	if fmt.Sprint(got) != "[egress IPv4 false <nil> egress IPv6 false <nil> ingress IPv4 true <nil> ingress IPv6 true <nil>]" {
		t.Errorf("rules %v", got)
	}
	c.refused(409, "SecurityGroupCannotRemoveDefault", "us", "DELETE", "/v2.0/security-groups/"+fmt.Sprint(id), "")
	if n := len(c.list("us", "security-groups")); n != 1 {
		t.Errorf("%d groups", n)
	}
}

func TestRulesThatAreTheSame(t *testing.T) {
	c := newCloud(t, nil)
	g := c.id("us", "security-groups", obj("security_group", `"name": "g"`))
	add := func(more string) answer {
		return c.ask("us", "POST", "/v2.0/security-group-rules", obj("security_group_rule", `"security_group_id": %q, %s`, g, more))
	}
	for _, test := range []struct {
		rule   string
		status int
	}{
		{`"direction": "ingress"`, 201},
		{`"direction": "ingress", "remote_ip_prefix": "0.0.0.0/0"`, 409},
		{`"direction": "egress"`, 409},
		{`"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22`, 201},
		{`"direction": "ingress", "protocol": 6, "port_range_min": "22", "port_range_max": 22`, 409},
		{`"direction": "ingress", "ethertype": "ipv6", "protocol": "icmpv6"`, 201},
		{`"direction": "ingress", "ethertype": "IPv6", "protocol": "icmp"`, 409},
		{`"direction": "ingress", "protocol": 47`, 201},
		{`"direction": "ingress", "remote_ip_prefix": "10.0.0.8"`, 201},
		{fmt.Sprintf(`"direction": "ingress", "remote_group_id": %q`, g), 201},
	} {
		if a := add(test.rule); a.status != test.status {
			t.Errorf("%s: %d %v, want %d", test.rule, a.status, a.body, test.status)
		}
	}
	a := c.ask("us", "POST", "/v2.0/security-group-rules", fmt.Sprintf(
		`{"security_group_rules": [{"security_group_id": %[1]q, "direction": "ingress", "protocol": "udp"}, {"security_group_id": %[1]q, "direction": "ingress", "protocol": "udp"}]}`, g))
	if a.kind() != "DuplicateSecurityGroupRuleInPost" {
		t.Errorf("twice in one: %v", a.body)
	}
}

func TestAvailability(t *testing.T) {
	c := newCloud(t, nil)
	net, _ := c.private()
	c.id("us", "subnets", obj("subnet", `"network_id": %q, "ip_version": 6, "cidr": "fd00:1::/64"`, net))
	c.id("us", "ports", obj("port", `"network_id": %q`, net))
	for query, want := range map[string]string{
		"?ip_version=4": "2 of 253, 1 subnets", "?ip_version=6": "2 of 18446744073709551615, 1 subnets", "": "4 of 18446744073709551868, 2 subnets",
	} {
		all := c.list("admin", "network-ip-availabilities"+query)
		if len(all) != 1 {
			t.Fatalf("%s: %v", query, all)
		}
		subnets, _ := all[0]["subnet_ip_availability"].([]any)
		if got := fmt.Sprintf("%v of %v, %d subnets", all[0]["used_ips"], all[0]["total_ips"], len(subnets)); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
	if all := c.list("us", "network-ip-availabilities"); len(all) != 0 {
		t.Errorf("a tenant sees %v", all)
	}
}
