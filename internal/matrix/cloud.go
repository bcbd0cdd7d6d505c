package matrix

func embedded() []Feature {
	const (
		cloud = "functional/cloud:"
		diff  = "functional/differential:TestAnswersAreThoseOfARealOpenStack/"
	)
	return []Feature{
		{"a tenant boots with the stock client on a new cloud", []string{cloud + "TestATenantBootsByTheStockClient"}, ""},
		{"stop, start, reboot, pause, snapshot and boot from it", []string{cloud + "TestLifeOfAServer"}, ""},
		{"kill -9 and a restart lose nothing that was answered; instances run on", []string{cloud + "TestACloudThatIsKilledLosesNothing"}, ""},
		{"tenants see nothing of one another", []string{cloud + "TestTenantsSeeNothingOfOneAnother", "internal/devcloud/compute:Test.*"}, ""},
		{"quotas hold under parallel creates", []string{cloud + "TestQuotaHoldsUnderParallelCreates"}, ""},
		{"an address without a certificate, a state in use and a bad address are refused", []string{cloud + "TestABadStartIsRefused"}, ""},
		{"identity answers as Keystone", []string{diff + "identity", diff + "identity-wide", diff + "identity-inherit"}, "but for functional/differential/testdata/accepted.txt; so the next lines"},
		{"images answer as Glance", []string{diff + "images", diff + "images-wide"}, ""},
		{"compute answers as Nova", []string{diff + "compute-general", diff + "flavors", diff + "keypairs", diff + "servers"}, ""},
		{"networks answer as Neutron", []string{diff + "network"}, ""},
		{"subnet pools, address scopes, address groups, RBAC policies, service types, atomic routes answer as Neutron", []string{diff + "network-wide", "internal/devcloud/network:Test.*"}, ""},
		{"networks, security groups and others shared with single projects (RBAC)", []string{diff + "network-wide"}, ""},
		{"DHCP options of ports", []string{"internal/devcloud/network:TestOptionsAsTheyAreTold", "netbridge/dhcp:TestOptionsOfThePortReplaceOthers"}, "IPv4"},
		{"the compute API's proxies up to 2.35, and /v2", []string{diff + "proxies", "internal/devcloud/compute:TestTheLegacyEndpointHasNoMicroversions"}, "volumes and bare metal are refused; /v2 refuses attributes that nobody knows"},
		{"what the hosts do not do is refused before anything changes", []string{"internal/devcloud/compute:TestWhatAHostCannotDoIsRefusedAndLeavesNoTask"}, ""},
		{"roles inherited by projects, catalogs restricted to endpoints", []string{"internal/devcloud/identity:TestInheritedRolesHoldBelow", "internal/devcloud/identity:TestACatalogIsRestrictedToEndpoints"}, ""},
		{"rows of deleted instances are purged", []string{"internal/devcloud/cell:TestPurgeLeavesNothingOfWhatWasDeletedLongAgo"}, ""},
		{"placement answers as Placement", []string{diff + "placement"}, ""},
		{"malformed requests never end in a 5xx or a panic", []string{"internal/devcloud/placement:FuzzAPI", "internal/devcloud/identity:FuzzAPI", "internal/devcloud/images:FuzzAPI", "internal/devcloud/compute:FuzzRequests", "internal/devcloud/network:FuzzAPI"}, "each service by itself"},
		{"routers, NAT and floating IPs on the host", []string{"netbridge/fabric:Test.*"}, "IPv4"},
		{"security groups, default deny, checked sources", []string{"netbridge/fabric:Test.*", "netbridge/firewall:Test.*"}, "with both back ends of iptables"},
		{"an instance cannot be another: forged MAC, ARP, ND, IPv4, IPv6, DHCP, DHCPv6, RA, also before the rules of its device are there", []string{"netbridge/fabric:TestAttacks", "netbridge/fabric:TestNothingGetsOutBeforeTheRules", "netbridge/fabric:TestBothBackEnds"}, ""},
		{"services of the host are not to be had from instances", []string{"netbridge/fabric:TestTheHostIsNoPartOfANetwork", "netbridge/fabric:TestTheWayOut"}, "but for echo requests"},
		{"rules, bridges and routers that another program has undone are made again, and nothing else is touched", []string{"netbridge/fabric:TestRepair"}, "within 30 seconds"},
		{"metadata at 169.254.169.254 through a router, OpenStack and EC2 form, with the proxy's signature", []string{cloud + "TestMetadata", "netbridge/fabric:TestMetadataThroughARouter", "internal/devcloud/metadata:Test.*", "internal/devcloud/network:TestInstanceBehind"}, ""},
		{"DHCP: a guest is told its own address, and no other guest anything", []string{cloud + "TestMetadata", "netbridge/fabric:TestGuestsAreToldTheirAddresses", "netbridge/dhcp:Test.*", "netbridge/dhcp:FuzzAnswer", "internal/devcloud/network:TestLeaseAt"}, ""},
		{"metadata and DHCP in networks without a router", []string{"netbridge/fabric:TestWithoutARouter", "internal/devcloud/network:TestANetworkIsServed", "internal/devcloud/network:TestLeaseAt"}, "metadata over IPv4 only"},
		{"names of the network's instances, and of the world by the host's resolvers", []string{cloud + "TestMetadata", "netbridge/fabric:TestGuestsFindNames", "netbridge/dns:Test.*", "netbridge/dns:FuzzAnswer"}, ""},
		{"IPv6: SLAAC, DHCPv6 stateful and stateless, routing between subnets", []string{"netbridge/fabric:TestRoutersAdvertise", "netbridge/fabric:TestGuestsAreToldTheirAddressesOfIPv6", "netbridge/ra:Test.*", "netbridge/dhcp6:Test.*", "internal/devcloud/network:TestModesOfIPv6"}, "no way out of the host"},
		{"gophercloud's acceptance tests", []string{"functional/acceptance:TestGophercloudsAcceptanceTestsPass"}, "but for functional/acceptance/excluded.txt"},
		{"Horizon", []string{"functional/dashboard:TestATenantsWalk", "functional/dashboard:TestAnOperatorsWalk", "functional/dashboard:TestATenantsChanges"}, "Debian's package in headless Chromium; no interactive console"},
		{"Terraform's provider: apply, no changes in a second plan, change, destroy without a rest", []string{"functional/terraform:TestALifeOfResources"}, "no part of `make test`: `make terraform` runs it where Terraform and its provider are; passed with Terraform 1.11.4 and the provider's source of 2026-07-16 (after 3.4)"},
		{"with a certificate all services are TLS, for the stock client too", []string{cloud + "TestWithACertificateAllIsTLS"}, ""},
	}
}
