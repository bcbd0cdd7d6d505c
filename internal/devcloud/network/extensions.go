package network

import (
	"context"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// extension is one of Neutron's API extensions.
type extension struct {
	Name        string   `json:"name"`
	Alias       string   `json:"alias"`
	Description string   `json:"description"`
	Updated     string   `json:"updated"`
	Links       []string `json:"links"`
}

// extensions are those that hold here, as Neutron describes them. Clients look
// for aliases and behave accordingly, so one that is only half true is not here.
func extensions() []extension {
	return []extension{
		{
			"agent", "agent",
			"The agent management extension.", "2013-02-03T10:00:00-00:00",
			[]string{},
		},
		{
			"Allowed Address Pairs", "allowed-address-pairs",
			"Provides allowed address pairs", "2013-07-23T10:00:00-00:00",
			[]string{},
		},
		{
			"Availability Zone", "availability_zone",
			"The availability zone extension.", "2015-01-01T10:00:00-00:00",
			[]string{},
		},
		{
			"Empty String Filtering Extension", "empty-string-filtering",
			"Allow filtering by attributes with empty string value", "2018-05-01T10:00:00-00:00",
			[]string{},
		},
		{
			"Neutron external network", "external-net",
			"Adds external network attribute to network resource.", "2013-01-14T10:00:00-00:00",
			[]string{},
		},
		{
			"Neutron Extra Route", "extraroute",
			"Extra routes configuration for L3 router", "2013-02-01T10:00:00-00:00",
			[]string{},
		},
		{
			"Filter parameters validation", "filter-validation",
			"Provides validation on filter parameters.", "2018-07-04T10:00:00-00:00",
			[]string{},
		},
		{
			"Floating IP Port Details Extension", "fip-port-details",
			"Add port_details attribute to Floating IP resource", "2018-04-09T10:00:00-00:00",
			[]string{},
		},
		{
			"IP address substring filtering", "ip-substring-filtering",
			"Provides IP address substring filtering when listing ports", "2017-11-28T09:00:00-00:00",
			[]string{},
		},
		{
			"Neutron L3 Router", "router",
			"Router abstraction for basic L3 forwarding between L2 Neutron networks and access to external networks via a NAT gateway.", "2012-07-20T10:00:00-00:00",
			[]string{},
		},
		{
			"Neutron L3 Configurable external gateway mode", "ext-gw-mode",
			"Extension of the router abstraction for specifying whether SNAT should occur on the external gateway", "2013-03-28T10:00:00-00:00",
			[]string{},
		},
		{
			"Network MTU", "net-mtu",
			"Provides MTU attribute for a network resource.", "2015-03-25T10:00:00-00:00",
			[]string{},
		},
		{
			"Network MTU (writable)", "net-mtu-writable",
			"Provides a writable MTU attribute for a network resource.", "2017-07-12T00:00:00-00:00",
			[]string{},
		},
		{
			"Network Availability Zone", "network_availability_zone",
			"Availability zone support for network.", "2015-01-01T10:00:00-00:00",
			[]string{},
		},
		{
			"Network IP Availability", "network-ip-availability",
			"Provides IP availability data for each network and subnet.", "2015-09-24T00:00:00-00:00",
			[]string{},
		},
		{
			"Pagination support", "pagination",
			"Extension that indicates that pagination is enabled.", "2016-06-12T00:00:00-00:00",
			[]string{},
		},
		{
			"Port Binding", "binding",
			"Expose port bindings of a virtual port to external application", "2014-02-03T10:00:00-00:00",
			[]string{},
		},
		{
			"Port Security", "port-security",
			"Provides port security", "2012-07-23T10:00:00-00:00",
			[]string{},
		},
		{
			"project_id field enabled", "project-id",
			"Extension that indicates that project_id field is enabled.", "2016-09-09T09:09:09-09:09",
			[]string{},
		},
		{
			"Provider Network", "provider",
			"Expose mapping of virtual networks to physical networks", "2012-09-07T10:00:00-00:00",
			[]string{},
		},
		{
			"Quota management support", "quotas",
			"Expose functions for quotas management per project", "2012-07-29T10:00:00-00:00",
			[]string{},
		},
		{
			"Quota details management support", "quota_details",
			"Expose functions for quotas usage statistics per project", "2017-02-10T10:00:00-00:00",
			[]string{},
		},
		{
			"If-Match constraints based on revision_number", "revision-if-match",
			"Extension indicating that If-Match based on revision_number is supported.", "2016-12-11T00:00:00-00:00",
			[]string{},
		},
		{
			"Resource revision numbers", "standard-attr-revisions",
			"This extension will display the revision number of neutron resources.", "2016-04-11T10:00:00-00:00",
			[]string{},
		},
		{
			"Router Availability Zone", "router_availability_zone",
			"Availability zone support for router.", "2015-01-01T10:00:00-00:00",
			[]string{},
		},
		{
			"Normalized CIDR field for security group rules", "security-groups-normalized-cidr",
			"Add new field with normalized remote_ip_prefix cidr in SG rule", "2020-07-28T10:00:00-00:00",
			[]string{},
		},
		{
			"Port filtering on security groups", "port-security-groups-filtering",
			"Provides security groups filtering when listing ports", "2018-01-09T09:00:00-00:00",
			[]string{},
		},
		{
			"security-group", "security-group",
			"The security groups extension.", "2012-10-05T10:00:00-00:00",
			[]string{},
		},
		{
			"Neutron Service Type Management", "service-type",
			"API for retrieving service providers for Neutron advanced services", "2013-01-20T00:00:00-00:00",
			[]string{},
		},
		{
			"Sorting support", "sorting",
			"Extension that indicates that sorting is enabled.", "2016-06-12T00:00:00-00:00",
			[]string{},
		},
		{
			"standard-attr-description", "standard-attr-description",
			"Extension to add descriptions to standard attributes", "2016-02-10T10:00:00-00:00",
			[]string{},
		},
		{
			"Tag support for resources with standard attribute: port, subnet, subnetpool, network, security_group, router, floatingip, policy, trunk, network_segment_range", "standard-attr-tag",
			"Enables to set tag on resources with standard attribute.", "2017-01-01T00:00:00-00:00",
			[]string{},
		},
		{
			"Resource timestamps", "standard-attr-timestamp",
			"Adds created_at and updated_at fields to all Neutron resources that have Neutron standard attributes.", "2016-09-12T10:00:00-00:00",
			[]string{},
		},
		{
			"Address group", "address-group",
			"Support address group", "2020-07-15T10:00:00-00:00",
			[]string{},
		},
		{
			"Address scope", "address-scope",
			"Address scopes extension.", "2015-07-26T10:00:00-00:00",
			[]string{},
		},
		{
			"Auto Allocated Topology Services", "auto-allocated-topology",
			"Auto Allocated Topology Services.", "2016-01-01T00:00:00-00:00",
			[]string{},
		},
		{
			"Default Subnetpools", "default-subnetpools",
			"Provides ability to mark and use a subnetpool as the default.", "2016-02-18T18:00:00-00:00",
			[]string{},
		},
		{
			"Neutron Extra DHCP options", "extra_dhcp_opt",
			"Extra options configuration for DHCP. For example PXE boot options to DHCP clients can be specified (e.g. tftp-server, server-ip-address, bootfile-name)", "2013-03-17T12:00:00-00:00",
			[]string{},
		},
		{
			"Atomically add/remove extra routes", "extraroute-atomic",
			"Edit extra routes of a router on server side by atomically adding/removing extra routes", "2019-07-10T00:00:00+00:00",
			[]string{},
		},
		{
			"Floating IP Pools Extension", "floatingip-pools",
			"Provides a floating IP pools API.", "2018-03-21T10:00:00-00:00",
			[]string{},
		},
		{
			"Add address_group type to RBAC", "rbac-address-group",
			"Add address_group type to network RBAC", "2021-01-20T00:00:00-00:00",
			[]string{},
		},
		{
			"Add address_scope type to RBAC", "rbac-address-scope",
			"Add address_scope type to RBAC", "2020-02-12T00:00:00-00:00",
			[]string{},
		},
		{
			"RBAC Policies", "rbac-policies",
			"Allows creation and modification of policies that control tenant access to resources.", "2015-06-17T12:15:12-00:00",
			[]string{},
		},
		{
			"Add security_group type to network RBAC", "rbac-security-groups",
			"Add security_group type to network RBAC", "2019-02-14T00:00:00-00:00",
			[]string{},
		},
		{
			"Add subnetpool type to RBAC", "rbac-subnetpool",
			"Add subnetpool type to RBAC", "2020-02-05T00:00:00-00:00",
			[]string{},
		},
		{
			"Remote address group id field for security group rules", "security-groups-remote-address-group",
			"Add new field of remote address group id in SG rules", "2020-08-25T10:00:00-00:00",
			[]string{},
		},
		{
			"Security group filtering on the shared field", "security-groups-shared-filtering",
			"Support filtering security groups on the shared field", "2021-10-05T09:00:00-00:00",
			[]string{},
		},
		{
			"Subnet service types", "subnet-service-types",
			"Provides ability to set the subnet service_types field", "2016-03-15T18:00:00-00:00",
			[]string{},
		},
		{
			"Subnet Allocation", "subnet_allocation",
			"Enables allocation of subnets from a subnet pool", "2015-03-30T10:00:00-00:00",
			[]string{},
		},
		{
			"Subnet Pool Prefix Operations", "subnetpool-prefix-ops",
			"Provides support for adjusting the prefix list of subnet pools", "2019-02-08T10:00:00-00:00",
			[]string{},
		},
	}
}

func (s *Service) extensionRoutes() {
	s.api.Handle("GET /v2.0/extensions", func(context.Context, *rest.Request) (*rest.Response, error) {
		return rest.OK(map[string]any{"extensions": extensions()})
	})
	s.api.Handle("GET /v2.0/extensions/{alias}", func(_ context.Context, r *rest.Request) (*rest.Response, error) {
		for _, e := range extensions() {
			if e.Alias == r.PathValue("alias") {
				return rest.OK(map[string]any{"extension": e})
			}
		}
		return nil, notFound("HTTPNotFound", "Extension with alias %s does not exist", r.PathValue("alias"))
	})
}
