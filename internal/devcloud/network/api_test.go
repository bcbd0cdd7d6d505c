package network

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestRefusals: what is wrong is refused in Neutron's words, and nothing has
// changed then. NET, SUB, ROUTER and THEIRS stand for things that exist.
func TestRefusals(t *testing.T) {
	c := newCloud(t, nil)
	net, sub := c.private()
	ext, _ := c.public()
	router := c.id("us", "routers", obj("router", `"name": "r"`))
	foreign := c.id("them", "networks", obj("network", `"name": "theirs"`))
	group := c.id("us", "security-groups", obj("security_group", `"name": "web"`))
	fill := strings.NewReplacer("NET", net, "SUB", sub, "EXT", ext, "ROUTER", router, "THEIRS", foreign, "NOBODY", nobody, "GROUP", group)
	c.until("the port of DHCP is up", func() bool {
		ports := c.list("admin", "ports")
		return len(ports) == 1 && ports[0]["status"] == "ACTIVE"
	})
	before := dump(c)
	for _, test := range []struct {
		token, method, path, body string
		status                    int
		kind, message             string
	}{
		{"us", "POST", "networks", "", 400, "HTTPBadRequest", "Unable to find 'network' in request body"},
		{"us", "POST", "networks", "{", 400, "HTTPBadRequest", "Body contains invalid data"},
		{"us", "POST", "networks", `{"network": []}`, 400, "HTTPBadRequest", "Object 'network' contains invalid data"},
		{"us", "POST", "networks", `{"networks": []}`, 400, "HTTPBadRequest", "Resources required"},
		{"us", "POST", "networks", `{"network": {"name": 1}}`, 400, "HTTPBadRequest", "Invalid input for name. Reason: '1' is not a valid string."},
		{"us", "POST", "networks", `{"network": {"zz": 1}}`, 400, "HTTPBadRequest", "Unrecognized attribute(s) 'zz'"},
		{"us", "POST", "networks", `{"network": {"status": "x"}}`, 400, "HTTPBadRequest", "Attribute 'status' not allowed in POST"},
		{"us", "POST", "networks", `{"network": {"admin_state_up": "maybe"}}`, 400, "InvalidInput", "Invalid input for operation: 'maybe' cannot be converted to boolean."},
		{"us", "POST", "networks", `{"network": {"shared": true}}`, 403, "PolicyNotAuthorized", "(rule:create_network and rule:create_network:shared) is disallowed by policy"},
		{"us", "POST", "networks", `{"network": {"tenant_id": "x"}}`, 400, "HTTPBadRequest", "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request requires admin or advsvc privileges"},
		{"reader", "POST", "networks", `{"network": {}}`, 403, "PolicyNotAuthorized", "rule:create_network is disallowed by policy"},
		{"reader", "DELETE", "networks/NET", "", 403, "PolicyNotAuthorized", "rule:delete_network is disallowed by policy"},
		{"us", "PUT", "networks/THEIRS", `{"network": {"name": "q"}}`, 404, "NetworkNotFound", "Network THEIRS could not be found."},
		{"us", "PUT", "networks/EXT", `{"network": {"name": "q"}}`, 403, "PolicyNotAuthorized", "rule:update_network is disallowed by policy"},
		{"us", "PUT", "networks/NET", `{"network": {"id": "q"}}`, 400, "HTTPBadRequest", "Cannot update read-only attribute id"},
		{"us", "DELETE", "networks/NET", `{}`, 400, "HTTPBadRequest", "Request body is not supported in DELETE."},
		{"us", "GET", "networks?zz=1", "", 400, "HTTPBadRequest", "['zz'] is invalid attribute for filtering"},
		{"us", "GET", "networks?limit=x", "", 400, "BadRequest", "Bad limit request: Limit must be an integer 0 or greater and not 'x'."},
		{"us", "GET", "networks?limit=1&marker=zz", "", 404, "NetworkNotFound", "Network zz could not be found."},
		{"us", "GET", "networks?sort_key=name", "", 400, "HTTPBadRequest", "The number of sort_keys and sort_dirs must be same"},
		{"us", "GET", "nothing", "", 404, "HTTPNotFound", "The resource could not be found."},

		{"us", "POST", "subnets", `{"subnet": {}}`, 400, "HTTPBadRequest", "Failed to parse request. Required attribute 'ip_version' not specified"},
		{"us", "POST", "subnets", `{"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "10.0.0.128/25"}}`, 400, "InvalidInput", "Invalid input for operation: Requested subnet with cidr: 10.0.0.128/25 for network: NET overlaps with another subnet."},
		{"us", "POST", "subnets", `{"subnet": {"network_id": "NET", "ip_version": 6, "cidr": "10.1.0.0/24"}}`, 400, "InvalidInput", "Invalid input for operation: cidr '10.1.0.0/24' does not match the ip_version '6'."},
		{"us", "POST", "subnets", `{"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "zz"}}`, 400, "InvalidInput", "Invalid input for operation: zz is not in a CIDR format."},
		{"us", "POST", "subnets", `{"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "10.1.0.0/24", "allocation_pools": [{"start": "10.1.0.9", "end": "10.1.0.5"}]}}`, 400, "InvalidAllocationPool", "The allocation pool {'start': '10.1.0.9', 'end': '10.1.0.5'} is not valid."},
		{"us", "POST", "subnets", `{"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "10.1.0.0/24", "gateway_ip": "10.1.0.1", "allocation_pools": [{"start": "10.1.0.1", "end": "10.1.0.5"}]}}`, 409, "GatewayConflictWithAllocationPools", "Gateway ip 10.1.0.1 conflicts with allocation pool 10.1.0.1-10.1.0.5."},
		{"us", "POST", "subnets", `{"subnet": {"network_id": "THEIRS", "ip_version": 4, "cidr": "10.1.0.0/24"}}`, 404, "NetworkNotFound", "Network THEIRS could not be found."},
		{"us", "POST", "subnets", `{"subnet": {"network_id": "EXT", "ip_version": 4, "cidr": "10.1.0.0/24"}}`, 404, "HTTPNotFound", "The resource could not be found."},
		{"us", "DELETE", "subnets/NOBODY", "", 404, "SubnetNotFound", "Subnet NOBODY could not be found."},

		{"us", "POST", "ports", `{"port": {"network_id": "NET", "fixed_ips": [{"ip_address": "10.99.0.1"}]}}`, 400, "InvalidIpForNetwork", "IP address 10.99.0.1 is not a valid IP for any of the subnets on the specified network."},
		{"us", "POST", "ports", `{"port": {"network_id": "NET", "fixed_ips": [{"ip_address": "10.99.0.1", "subnet_id": "SUB"}]}}`, 400, "InvalidIpForSubnet", "IP address 10.99.0.1 is not a valid IP for the specified subnet."},
		{"us", "POST", "ports", `{"port": {"network_id": "NET", "binding:host_id": "cmp1"}}`, 403, "PolicyNotAuthorized", "(rule:create_port and rule:create_port:binding:host_id) is disallowed by policy"},
		{"us", "POST", "ports", `{"port": {"network_id": "NET", "security_groups": ["NOBODY"]}}`, 404, "SecurityGroupNotFound", "Security group NOBODY does not exist"},
		{"us", "POST", "ports", `{"port": {"network_id": "NET", "port_security_enabled": false, "allowed_address_pairs": [{"ip_address": "10.0.0.9"}]}}`, 409, "AddressPairAndPortSecurityRequired", "Port Security must be enabled in order to have allowed address pairs on a port."},
		{"us", "POST", "ports", `{"port": {"network_id": "EXT"}}`, 404, "HTTPNotFound", "The resource could not be found."},
		{"us", "POST", "ports", `{"ports": [{"network_id": "NET"}, {"network_id": "NET", "mac_address": "zz"}]}`, 400, "HTTPBadRequest", "Invalid input for mac_address. Reason: 'zz' is not a valid MAC address."},
		{"us", "POST", "ports", `{"ports": [{"network_id": "NET"}, {"network_id": "NOBODY"}]}`, 404, "NetworkNotFound", "Network NOBODY could not be found."},

		{"us", "POST", "security-groups", `{"security_group": {"name": "default"}}`, 409, "SecurityGroupDefaultAlreadyExists", "Default security group already exists."},
		{"us", "POST", "security-group-rules", `{"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "port_range_min": 1, "port_range_max": 2}}`, 400, "SecurityGroupProtocolRequiredWithPorts", "Must also specify protocol if port range is given."},
		{"us", "POST", "security-group-rules", `{"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "protocol": "tcp", "port_range_min": 9, "port_range_max": 2}}`, 400, "SecurityGroupInvalidPortRange", "For TCP/UDP protocols, port_range_min must be <= port_range_max"},
		{"us", "POST", "security-group-rules", `{"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "protocol": "icmp", "port_range_min": 300}}`, 400, "SecurityGroupInvalidIcmpValue", "Invalid value for ICMP type (port_range_min) 300. It must be 0 to 255."},
		{"us", "POST", "security-group-rules", `{"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "remote_ip_prefix": "fd00::/8"}}`, 400, "SecurityGroupRuleParameterConflict", "Conflicting value ethertype IPv4 for CIDR fd00::/8"},
		{"them", "POST", "security-group-rules", `{"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress"}}`, 404, "SecurityGroupNotFound", "Security group GROUP does not exist"},

		{"us", "POST", "routers", `{"router": {"external_gateway_info": {"network_id": "NET"}}}`, 400, "BadRequest", "Bad router request: Network NET is not an external network."},
		{"us", "POST", "routers", `{"router": {"external_gateway_info": {"network_id": "EXT", "enable_snat": false}}}`, 403, "PolicyNotAuthorized", "(rule:create_router and (rule:create_router:external_gateway_info and (rule:create_router:external_gateway_info:network_id and rule:create_router:external_gateway_info:enable_snat))) is disallowed by policy"},
		{"us", "PUT", "routers/ROUTER/add_router_interface", `{}`, 400, "BadRequest", "Bad router request: Either subnet_id or port_id must be specified."},
		{"them", "PUT", "routers/ROUTER/add_router_interface", `{"subnet_id": "SUB"}`, 404, "RouterNotFound", "Router ROUTER could not be found"},
		{"us", "PUT", "routers/ROUTER/remove_router_interface", `{"subnet_id": "SUB"}`, 404, "RouterInterfaceNotFoundForSubnet", "Router ROUTER has no interface on subnet SUB"},
		{"us", "POST", "floatingips", `{"floatingip": {"floating_network_id": "NET"}}`, 400, "BadRequest", "Bad floatingip request: Network NET is not a valid external network."},
		{"us", "POST", "floatingips", `{"floatingip": {"floating_network_id": "EXT", "floating_ip_address": "172.24.4.9"}}`, 403, "PolicyNotAuthorized", "(rule:create_floatingip and rule:create_floatingip:floating_ip_address) is disallowed by policy"},
		{"us", "PUT", "quotas/x", `{"quota": {"network": 1}}`, 403, "PolicyNotAuthorized", "rule:update_quota is disallowed by policy"},
		{"admin", "PUT", "quotas/x", `{"quota": {"network": -5}}`, 400, "HTTPBadRequest", "Invalid input for network. Reason: '-5' is too small - must be at least '-1'."},
		{"admin", "DELETE", "quotas/x", "", 404, "TenantQuotaNotFound", "Quota for tenant x could not be found."},
		{"us", "PUT", "networks/NET/tags", `{"tags": ["a", "a"]}`, 400, "InvalidInput", "Invalid input for operation: Duplicate items in the list: 'a'."},
		{"us", "GET", "agents/NOBODY", "", 404, "AgentNotFound", "Agent NOBODY could not be found."},
	} {
		a := c.refused(test.status, test.kind, test.token, test.method, "/v2.0/"+fill.Replace(test.path), fill.Replace(test.body))
		if want := fill.Replace(test.message); a.message() != want {
			t.Errorf("%s %s %s: %q, want %q", test.method, test.path, test.body, a.message(), want)
		}
	}
	if after := dump(c); after != before {
		t.Errorf("refused requests have changed something:\n%s\nbefore:\n%s", after, before)
	}
}

// dump is all that there is.
func dump(c *cloud) string {
	var w strings.Builder
	for _, path := range []string{"networks", "subnets", "ports", "security-groups", "routers", "floatingips", "quotas"} {
		fmt.Fprintln(&w, path, c.list("admin", path))
	}
	return w.String()
}

func TestWithoutTokenNothingIsTold(t *testing.T) {
	c := newCloud(t, nil)
	a := c.ask("", "GET", "/v2.0/networks", "")
	if a.status != http.StatusUnauthorized || fmt.Sprint(a.body["error"]) != "map[code:401 message:The request you have made requires authentication. title:Unauthorized]" {
		t.Errorf("%d %v", a.status, a.body)
	}
	if a := c.ask("", "GET", "/", ""); a.status != http.StatusOK {
		t.Errorf("versions: %d", a.status)
	}
}

// TestTenantsDoNotSeeOneAnother but what is shared, and what leads out.
func TestTenantsDoNotSeeOneAnother(t *testing.T) {
	c := newCloud(t, nil)
	net, sub := c.private()
	ext, _ := c.public()
	shared := c.id("admin", "networks", obj("network", `"shared": true`))
	port := c.id("us", "ports", obj("port", `"network_id": %q`, net))
	router := c.id("us", "routers", obj("router", ``))
	group := c.id("us", "security-groups", obj("security_group", `"name": "g"`))
	fip := c.id("us", "floatingips", obj("floatingip", `"floating_network_id": %q`, ext))
	for path, kind := range map[string]string{
		"networks/" + net: "NetworkNotFound", "subnets/" + sub: "SubnetNotFound", "ports/" + port: "PortNotFound",
		"routers/" + router: "RouterNotFound", "security-groups/" + group: "SecurityGroupNotFound", "floatingips/" + fip: "FloatingIPNotFound",
	} {
		c.refused(404, kind, "them", "GET", "/v2.0/"+path, "")
		c.refused(404, kind, "them", "DELETE", "/v2.0/"+path, "")
		c.must("reader", "GET", "/v2.0/"+path, "")
	}
	var seen []any
	for _, n := range c.list("them", "networks") {
		seen = append(seen, n["id"])
	}
	if len(seen) != 2 || !slices.Contains(seen, any(ext)) || !slices.Contains(seen, any(shared)) {
		t.Errorf("they see networks %v", seen)
	}
	for _, path := range []string{"subnets", "ports", "routers", "floatingips"} {
		if all := c.list("them", path); len(all) > 0 {
			t.Errorf("they see %s: %v", path, all)
		}
	}
	if n := c.must("us", "GET", "/v2.0/networks/"+net, ""); n["provider:network_type"] != nil {
		t.Error("a tenant sees provider attributes")
	}
	if p := c.must("us", "GET", "/v2.0/ports/"+port, ""); p["binding:host_id"] != nil || p["binding:vif_type"] != nil {
		t.Error("a tenant sees the binding")
	}
}

func TestListsAreFilteredSortedAndCut(t *testing.T) {
	c := newCloud(t, nil)
	for i := range 5 {
		c.id("us", "networks", obj("network", `"name": "n%d", "description": %q`, i, []string{"even", "odd"}[i%2]))
	}
	names := func(path string) (out string) {
		for _, n := range c.list("us", path) {
			out += fmt.Sprint(n["name"], " ")
		}
		return out
	}
	for path, want := range map[string]string{
		"networks?sort_key=name&sort_dir=desc":                                   "n4 n3 n2 n1 n0 ",
		"networks?description=odd&sort_key=name&sort_dir=asc":                    "n1 n3 ",
		"networks?name=n1&name=n2&sort_key=name&sort_dir=asc":                    "n1 n2 ",
		"networks?admin_state_up=False":                                          "",
		"networks?sort_key=description&sort_key=name&sort_dir=desc&sort_dir=asc": "n1 n3 n0 n2 n4 ",
		"networks?sort_key=name&sort_dir=asc&limit=2":                            "n0 n1 ",
		"networks?fields=name&sort_key=name&sort_dir=asc&limit=1&shared=false":   "n0 ",
		"networks?router:external=true":                                          "",
		"networks?project_id=" + ours + "&name=n3":                               "n3 ",
		"networks?tags=none":                                                     "",
	} {
		if got := names(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	// page by page, forwards
	seen, next := "", "/v2.0/networks?limit=2&sort_key=name&sort_dir=asc"
	for pages := 0; next != "" && pages < 10; pages++ {
		a := c.ask("us", "GET", next, "")
		items, _ := a.body["networks"].([]any)
		for _, i := range items {
			n, _ := i.(map[string]any)
			seen += fmt.Sprint(n["name"], " ")
		}
		next = ""
		links, _ := a.body["networks_links"].([]any)
		for _, l := range links {
			if m, _ := l.(map[string]any); m["rel"] == "next" {
				next, _ = m["href"].(string)
				next = next[strings.Index(next, "/v2.0"):]
			}
		}
	}
	if seen != "n0 n1 n2 n3 n4 " {
		t.Errorf("pages: %q", seen)
	}
}

func TestTags(t *testing.T) {
	c := newCloud(t, nil)
	net, _ := c.private()
	c.must("us", "PUT", "/v2.0/networks/"+net+"/tags", `{"tags": ["a", "b"]}`)
	if a := c.ask("us", "PUT", "/v2.0/networks/"+net+"/tags/c", ""); a.status != http.StatusCreated {
		t.Errorf("add: %d", a.status)
	}
	if a := c.ask("us", "DELETE", "/v2.0/networks/"+net+"/tags/a", ""); a.status != http.StatusNoContent {
		t.Errorf("delete: %d", a.status)
	}
	c.refused(404, "TagNotFound", "us", "GET", "/v2.0/networks/"+net+"/tags/a", "")
	c.refused(404, "TagResourceNotFound", "them", "PUT", "/v2.0/networks/"+net+"/tags/a", "")
	c.refused(403, "PolicyNotAuthorized", "reader", "PUT", "/v2.0/networks/"+net+"/tags/a", "")
	for q, want := range map[string]int{"tags=b,c": 1, "tags=a,b": 0, "tags-any=a,b": 1, "not-tags=b,c": 0, "not-tags-any=x": 1} {
		if n := len(c.list("us", "networks?"+q)); n != want {
			t.Errorf("%s: %d, want %d", q, n, want)
		}
	}
}

func TestQuotas(t *testing.T) {
	c := newCloud(t, nil)
	c.must("admin", "PUT", "/v2.0/quotas/"+ours, `{"quota": {"network": 1}}`)
	c.id("us", "networks", obj("network", ``))
	a := c.refused(409, "OverQuota", "us", "POST", "/v2.0/networks", obj("network", ``))
	if a.message() != "Quota exceeded for resources: ['network']." {
		t.Error(a.message())
	}
	details := c.must("us", "GET", "/v2.0/quotas/"+ours+"/details.json", "")
	if got := fmt.Sprint(details["network"]); got != "map[limit:1 reserved:0 used:1]" {
		t.Error(got)
	}
	c.refused(403, "PolicyNotAuthorized", "them", "GET", "/v2.0/quotas/"+ours, "")
	if a := c.ask("admin", "DELETE", "/v2.0/quotas/"+ours, ""); a.status != http.StatusNoContent {
		t.Errorf("reset: %d", a.status)
	}
	c.id("us", "networks", obj("network", ``))
}

func TestRevisions(t *testing.T) {
	c := newCloud(t, nil)
	net, _ := c.private()
	before := c.must("us", "GET", "/v2.0/networks/"+net, "")["revision_number"]
	after := c.must("us", "PUT", "/v2.0/networks/"+net, obj("network", `"name": "new"`))["revision_number"]
	if fmt.Sprintf("%v %v", before, after) != "2 3" {
		t.Errorf("revisions %v, %v", before, after)
	}
}
