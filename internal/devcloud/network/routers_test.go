package network

import (
	"fmt"
	"testing"
)

// routed makes a private network behind a router that leads out.
func (c *cloud) routed() (net, sub, ext, router string) {
	c.t.Helper()
	net, sub = c.private()
	ext, _ = c.public()
	router = c.id("us", "routers", obj("router", `"external_gateway_info": {"network_id": %q}`, ext))
	c.must("us", "PUT", "/v2.0/routers/"+router+"/add_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, sub))
	return net, sub, ext, router
}

func TestRouter(t *testing.T) {
	c := newCloud(t, nil)
	_, sub, ext, router := c.routed()
	path := "/v2.0/routers/" + router
	ports := c.list("us", "ports?device_id="+router)
	if len(ports) != 1 || fmt.Sprint(ips(ports[0])) != "[10.0.0.1]" || ports[0]["status"] != "ACTIVE" || ports[0]["device_owner"] != ownerInterface {
		t.Errorf("interfaces %v", ports)
	}
	if all := c.list("admin", "ports?device_id="+router); len(all) != 2 {
		t.Errorf("an administrator sees %d ports, want the gateway too", len(all))
	}
	add := fmt.Sprintf(`{"subnet_id": %q}`, sub)
	if a := c.refused(400, "BadRequest", "us", "PUT", path+"/add_router_interface", add); a.message() != "Bad router request: Router already has a port on subnet "+sub+"." {
		t.Error(a.message())
	}
	c.refused(409, "ServicePortInUse", "us", "DELETE", "/v2.0/ports/"+fmt.Sprint(ports[0]["id"]), "")
	c.refused(409, "SubnetInUse", "us", "DELETE", "/v2.0/subnets/"+sub, "")
	c.refused(409, "RouterInUse", "us", "DELETE", path, "")
	c.refused(400, "InvalidRoutes", "us", "PUT", path, `{"router": {"routes": [{"destination": "10.5.0.0/24", "nexthop": "10.99.0.1"}]}}`)
	c.must("us", "PUT", path, `{"router": {"routes": [{"destination": "10.5.0.0/24", "nexthop": "10.0.0.9"}]}}`)
	c.refused(409, "RouterInterfaceInUseByRoute", "us", "PUT", path+"/remove_router_interface", add)
	c.must("us", "PUT", path, `{"router": {"routes": []}}`)
	c.must("us", "PUT", path+"/remove_router_interface", add)
	c.refused(409, "NetworkInUse", "admin", "DELETE", "/v2.0/networks/"+ext, "")
	r := c.must("us", "PUT", path, `{"router": {"external_gateway_info": null}}`)
	if r["external_gateway_info"] != nil {
		t.Errorf("gateway %v", r["external_gateway_info"])
	}
	if a := c.ask("us", "DELETE", path, ""); a.status != 204 {
		t.Errorf("delete: %v", a)
	}
	if left := c.list("admin", "ports?device_id="+router); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if a := c.ask("admin", "DELETE", "/v2.0/networks/"+ext, ""); a.status != 204 {
		t.Errorf("delete external network: %v", a)
	}
}

// TestGatewayAddresses: an entry without an address on a subnet that the gateway
// has is no second address, unless another has been named.
func TestGatewayAddresses(t *testing.T) {
	c := newCloud(t, nil)
	_, _, ext, router := c.routed()
	set := func(addresses string) []any {
		t.Helper()
		r := c.must("admin", "PUT", "/v2.0/routers/"+router, fmt.Sprintf(`{"router": {"external_gateway_info": {"network_id": %q, "external_fixed_ips": [%s]}}}`, ext, addresses))
		info, _ := r["external_gateway_info"].(map[string]any)
		all, _ := info["external_fixed_ips"].([]any)
		return all
	}
	first := set("")
	if len(first) != 1 {
		t.Fatalf("gateway %v", first)
	}
	own, _ := first[0].(map[string]any)
	both := fmt.Sprintf(`{"subnet_id": %q, "ip_address": %q}, {"subnet_id": %[1]q}`, own["subnet_id"], own["ip_address"])
	if again := set(both); fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("%v became %v", first, again)
	}
	if two := set(fmt.Sprintf(`{"subnet_id": %q}, {"subnet_id": %[1]q}`, own["subnet_id"])); len(two) != 2 {
		t.Errorf("%v became %v", first, two)
	}
}

func TestFloatingIP(t *testing.T) {
	c := newCloud(t, nil)
	net, sub, ext, router := c.routed()
	port := c.must("admin", "POST", "/v2.0/ports", instance(net, nobody))
	id := fmt.Sprint(port["id"])
	fip := c.id("us", "floatingips", obj("floatingip", `"floating_network_id": %q`, ext))
	path := "/v2.0/floatingips/" + fip
	f := c.must("us", "PUT", path, obj("floatingip", `"port_id": %q`, id))
	if f["router_id"] != router || f["fixed_ip_address"] != ips(port)[0] || f["status"] != "ACTIVE" {
		t.Errorf("associated: %v", f)
	}
	c.until("network-changed", func() bool { return c.nova.told(NetworkChanged, id) })
	c.refused(409, "FloatingIPPortAlreadyAssociated", "us", "POST", "/v2.0/floatingips", obj("floatingip", `"floating_network_id": %q, "port_id": %q`, ext, id))
	c.refused(400, "BadRequest", "us", "PUT", path, `{"floatingip": {"fixed_ip_address": "1.2.3.4"}}`)
	c.refused(409, "RouterExternalGatewayInUseByFloatingIp", "us", "PUT", "/v2.0/routers/"+router, `{"router": {"external_gateway_info": null}}`)
	c.refused(409, "RouterInterfaceInUseByFloatingIP", "us", "PUT", "/v2.0/routers/"+router+"/remove_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, sub))
	if a := c.ask("admin", "DELETE", "/v2.0/ports/"+id, ""); a.status != 204 {
		t.Fatalf("delete port: %v", a)
	}
	f = c.must("us", "GET", path, "")
	if f["port_id"] != nil || f["router_id"] != nil || f["status"] != "DOWN" {
		t.Errorf("after the port is gone: %v", f)
	}
	c.until("network-vif-deleted", func() bool { return c.nova.told(VIFDeleted, id) })
	lone := c.id("us", "networks", obj("network", ``))
	c.id("us", "subnets", obj("subnet", `"network_id": %q, "ip_version": 4, "cidr": "10.7.0.0/24"`, lone))
	other := c.id("us", "ports", obj("port", `"network_id": %q`, lone))
	c.refused(404, "ExternalGatewayForFloatingIPNotFound", "us", "PUT", path, obj("floatingip", `"port_id": %q`, other))
	if a := c.ask("us", "DELETE", path, ""); a.status != 204 {
		t.Errorf("delete: %v", a)
	}
	if left := c.list("admin", "ports?device_id="+fip); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
