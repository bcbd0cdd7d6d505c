package network

import (
	"fmt"
	"testing"
)

func policyBody(kind, object, action, target string) string {
	return obj("rbac_policy", `"object_type": %q, "object_id": %q, "action": %q, "target_tenant": %q`, kind, object, action, target)
}

func TestAPolicySharesWithOneProject(t *testing.T) {
	c := newCloud(t, nil)
	net, sub := c.private()
	policy := c.id("us", "rbac-policies", policyBody("network", net, "access_as_shared", theirs))
	if n := c.must("them", "GET", "/v2.0/networks/"+net, ""); n["shared"] != true {
		t.Errorf("they see %v", n)
	}
	if n := c.must("us", "GET", "/v2.0/networks/"+net, ""); n["shared"] != false {
		t.Errorf("we see %v", n)
	}
	c.must("them", "GET", "/v2.0/subnets/"+sub, "")
	c.refused(404, "RbacPolicyNotFound", "them", "DELETE", "/v2.0/rbac-policies/"+policy, "")
	c.refused(403, "PolicyNotAuthorized", "reader", "DELETE", "/v2.0/rbac-policies/"+policy, "")
	c.refused(403, "PolicyNotAuthorized", "them", "PUT", "/v2.0/networks/"+net, obj("network", `"name": "ours"`))
	port := c.id("them", "ports", obj("port", `"network_id": %q`, net))
	c.refused(409, "RbacPolicyInUse", "us", "DELETE", "/v2.0/rbac-policies/"+policy, "")
	c.must("them", "GET", "/v2.0/networks/"+net, "") // as before
	c.must("them", "DELETE", "/v2.0/ports/"+port, "")
	c.must("us", "DELETE", "/v2.0/rbac-policies/"+policy, "")
	c.refused(404, "NetworkNotFound", "them", "GET", "/v2.0/networks/"+net, "")

	c.refused(403, "PolicyNotAuthorized", "us", "POST", "/v2.0/rbac-policies", policyBody("network", net, "access_as_shared", "*"))
	c.refused(400, "InvalidInput", "them", "POST", "/v2.0/rbac-policies", policyBody("network", net, "access_as_shared", theirs))
	c.refused(400, "InvalidActionForType", "us", "POST", "/v2.0/rbac-policies", policyBody("network", net, "access_as_owner", theirs))
	c.refused(400, "InvalidInput", "us", "POST", "/v2.0/rbac-policies", policyBody("planet", net, "access_as_shared", theirs))
	for i := range 10 {
		c.id("us", "rbac-policies", policyBody("network", net, "access_as_shared", fmt.Sprint("p", i)))
	}
	c.refused(409, "OverQuota", "us", "POST", "/v2.0/rbac-policies", policyBody("network", net, "access_as_shared", theirs))
}

func TestAttributesAndPoliciesSayTheSame(t *testing.T) {
	c := newCloud(t, nil)
	net := c.id("admin", "networks", obj("network", `"shared": true, "router:external": true`))
	all := c.list("admin", "rbac-policies?object_id="+net)
	if len(all) != 2 || all[0]["target_tenant"] != "*" {
		t.Fatalf("policies %v", all)
	}
	for _, p := range all {
		c.must("admin", "DELETE", "/v2.0/rbac-policies/"+fmt.Sprint(p["id"]), "")
	}
	if n := c.must("admin", "GET", "/v2.0/networks/"+net, ""); n["shared"] != false || n["router:external"] != false {
		t.Errorf("without policies: %v", n)
	}
	c.must("admin", "PUT", "/v2.0/networks/"+net, obj("network", `"router:external": true`))
	c.must("them", "GET", "/v2.0/networks/"+net, "")
	c.must("admin", "PUT", "/v2.0/networks/"+net, obj("network", `"router:external": false`))
	if left := c.list("admin", "rbac-policies?object_id="+net); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	c.must("admin", "POST", "/v2.0/rbac-policies", policyBody("network", net, "access_as_external", theirs))
	c.must("them", "GET", "/v2.0/networks/"+net, "")
	c.refused(404, "NetworkNotFound", "us", "GET", "/v2.0/networks/"+net, "")
	c.must("admin", "DELETE", "/v2.0/networks/"+net, "")
	if left := c.list("admin", "rbac-policies?object_id="+net); len(left) != 0 {
		t.Errorf("left with the network: %v", left)
	}
}

func TestNetworksSharedBeforePoliciesGetThem(t *testing.T) {
	c := newCloud(t, nil)
	net := c.id("admin", "networks", obj("network", `"shared": true`))
	if err := c.s.write(t.Context(), func(st *state) error { st.dropPolicies(net); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := c.s.write(t.Context(), func(st *state) error { st.ensurePolicies(); return nil }); err != nil {
		t.Fatal(err)
	}
	if all := c.list("admin", "rbac-policies?object_id="+net); len(all) != 1 {
		t.Errorf("policies %v", all)
	}
	c.must("them", "GET", "/v2.0/networks/"+net, "")
}

func TestGroupsAreSharedToo(t *testing.T) {
	c := newCloud(t, nil)
	group := c.id("us", "security-groups", obj("security_group", `"name": "g"`))
	net := c.id("them", "networks", obj("network", ``))
	c.id("them", "subnets", obj("subnet", `"network_id": %q, "ip_version": 4, "cidr": "10.5.0.0/24"`, net))
	body := obj("port", `"network_id": %q, "security_groups": [%q]`, net, group)
	c.refused(404, "SecurityGroupNotFound", "them", "POST", "/v2.0/ports", body)
	policy := c.id("us", "rbac-policies", policyBody("security_group", group, "access_as_shared", theirs))
	c.id("them", "ports", body)
	c.refused(403, "PolicyNotAuthorized", "them", "DELETE", "/v2.0/security-groups/"+group, "")
	c.refused(409, "RbacPolicyInUse", "us", "DELETE", "/v2.0/rbac-policies/"+policy, "")
}
