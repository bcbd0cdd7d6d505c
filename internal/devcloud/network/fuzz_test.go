package network

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// fuzzed is a cloud with a network, an external one, and a port.
func fuzzed(t testing.TB) *fuzzCloud {
	c := newCloud(t, nil)
	net, sub := c.private()
	ext, _ := c.public()
	port := c.id("us", "ports", obj("port", `"network_id": %q`, net))
	return &fuzzCloud{c, strings.NewReplacer("NET", net, "SUB", sub, "EXT", ext, "PORT", port)}
}

type fuzzCloud struct {
	*cloud

	fill *strings.Replacer
}

// try sends anything; an answer of the server's fault is a failure of the test.
func (c *fuzzCloud) try(t *testing.T, token, method, path, body string) {
	t.Helper()
	u, err := url.Parse("http://cloud/v2.0/" + c.fill.Replace(path))
	if err != nil {
		return
	}
	r, err := http.NewRequestWithContext(t.Context(), method, u.String(), strings.NewReader(c.fill.Replace(body)))
	if err != nil {
		return
	}
	r.RequestURI = u.RequestURI()
	r.Header.Set("X-Auth-Token", token)
	w := httptest.NewRecorder()
	c.s.Handler().ServeHTTP(w, r)
	if w.Code >= http.StatusInternalServerError {
		t.Errorf("%s %s %q: %d %s", method, u, body, w.Code, w.Body)
	}
}

// FuzzAPI: nothing that is sent is the server's fault.
func FuzzAPI(f *testing.F) {
	for _, body := range []string{
		`{"network": {"name": "x", "mtu": 1}}`, `{"port": {"network_id": "NET", "fixed_ips": [{"ip_address": "10.0.0.9"}]}}`,
		`{"subnet": {"network_id": "NET", "ip_version": 6, "cidr": "::/64", "allocation_pools": [{"start": "::1", "end": "::2"}]}}`,
		`{"security_group_rule": {"security_group_id": "x", "direction": "ingress", "port_range_min": ""}}`,
		`{"router": {"external_gateway_info": {"network_id": 1}, "routes": [{}]}}`, `{"floatingip": {"floating_network_id": "EXT", "port_id": null}}`,
		`{"subnetpool": {"name": "x", "prefixes": ["::/0", "10.0.0.0/8"], "max_prefixlen": 999}}`, `{"prefixes": ["0.0.0.0/0", 5]}`, `{"addresses": null}`,
		`{"subnet": {"network_id": "NET", "ip_version": 4, "subnetpool_id": "NET", "prefixlen": -1, "use_default_subnetpool": 1}}`,
		`{"rbac_policy": {"object_type": "network", "object_id": "NET", "action": "access_as_shared", "target_tenant": "*"}}`,
		`{"address_group": {"addresses": ["1.2.3.4/33"]}}`, `{"address_scope": {"ip_version": 4, "shared": 7}}`,
		`{"port": {"network_id": "NET", "extra_dhcp_opts": [{"opt_name": 5, "opt_value": {}}]}}`, `{"router": {"routes": [{"destination": "::/0", "nexthop": "1"}]}}`,
		`{"quota": {"network": 1e99}}`, `{"tags": [1]}`, `{"ports": [{"port": null}]}`, `[]`, ``,
	} {
		for _, path := range []string{
			"networks", "ports", "subnets", "security-group-rules", "routers", "floatingips", "quotas/x", "networks/NET/tags",
			"subnetpools", "subnetpools/NET/add_prefixes", "rbac-policies", "address-groups", "address-groups/NET/add_addresses", "address-scopes",
			"routers/NET/add_extraroutes", "auto-allocated-topology",
		} {
			f.Add("us", "POST", path, body)
			f.Add("admin", "PUT", path+"/NET", body)
		}
	}
	c := fuzzed(f)
	f.Fuzz(func(t *testing.T, token, method, path, body string) { c.try(t, token, method, path, body) })
}
