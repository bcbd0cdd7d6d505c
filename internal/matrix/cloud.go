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
		{"identity answers as Keystone", []string{diff + "identity", diff + "identity-wide"}, "but for functional/differential/testdata/accepted.txt; so the next lines"},
		{"images answer as Glance", []string{diff + "images", diff + "images-wide"}, ""},
		{"compute answers as Nova", []string{diff + "compute-general", diff + "flavors", diff + "keypairs", diff + "servers"}, ""},
		{"networks answer as Neutron", []string{diff + "network"}, ""},
		{"placement answers as Placement", []string{diff + "placement"}, ""},
		{"malformed requests never end in a 5xx or a panic", []string{"internal/devcloud/placement:FuzzAPI", "internal/devcloud/identity:FuzzAPI", "internal/devcloud/images:FuzzAPI", "internal/devcloud/compute:FuzzRequests", "internal/devcloud/network:FuzzAPI"}, "each service by itself"},
		{"routers, NAT and floating IPs on the host", []string{"netbridge/fabric:Test.*"}, "IPv4"},
		{"security groups, default deny, checked sources", []string{"netbridge/fabric:Test.*"}, "with iptables' nft back end"},
		{"metadata at 169.254.169.254 through a router, OpenStack and EC2 form, with the proxy's signature", []string{cloud + "TestMetadata", "netbridge/fabric:TestMetadataThroughARouter", "internal/devcloud/metadata:Test.*", "internal/devcloud/network:TestInstanceBehind"}, ""},
		{"DHCP by routers: a guest is told its own address, and no other guest anything", []string{cloud + "TestMetadata", "netbridge/fabric:TestGuestsAreToldTheirAddresses", "netbridge/dhcp:Test.*", "netbridge/dhcp:FuzzAnswer", "internal/devcloud/network:TestLeaseAt"}, "IPv4"},
		{"metadata and DHCP in networks without a router; router advertisements and DHCPv6", nil, "instances have their addresses before they start"},
		{"gophercloud's acceptance tests", []string{"functional/acceptance:TestGophercloudsAcceptanceTestsPass"}, "but for functional/acceptance/excluded.txt"},
		{"Horizon", nil, ""},
		{"Terraform's provider: apply, no changes in a second plan, change, destroy without a rest", []string{"functional/terraform:TestALifeOfResources"}, "no part of `make test`: `make terraform` runs it where Terraform and its provider are; passed with Terraform 1.11.4 and the provider's source of 2026-07-16 (after 3.4)"},
		{"with a certificate all services are TLS, for the stock client too", []string{cloud + "TestWithACertificateAllIsTLS"}, ""},
	}
}
