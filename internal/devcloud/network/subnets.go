package network

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// ipv6Modes are the values of ipv6_ra_mode and ipv6_address_mode.
var ipv6Modes = []string{modeStateful, modeStateless, modeSLAAC}

const (
	modeStateful  = "dhcpv6-stateful"
	modeStateless = "dhcpv6-stateless"
	modeSLAAC     = "slaac"
)

// mostNameservers and mostHostRoutes are of one subnet (max_dns_nameservers,
// max_subnet_host_routes).
const (
	mostNameservers = 5
	mostHostRoutes  = 20
)

var subnetResource = resource{
	name: "subnet", plural: "subnets", path: "subnets", bulk: true,
	missing: func(id string) error { return notFound("SubnetNotFound", "Subnet %s could not be found.", id) },
	attrs: standard(
		attr{name: "name", post: true, put: true, def: "", check: text(255), filter: true, sort: true},
		attr{name: "ip_version", post: true, must: true, check: ipVersion, filter: true, sort: true},
		attr{name: "network_id", post: true, must: true, check: uuidOf, filter: true, sort: true},
		attr{name: "subnetpool_id", post: true, unset: true, check: orNull(uuidOf), filter: true, sort: true},
		attr{name: "prefixlen", post: true, unset: true, check: orNull(integer)},
		attr{name: "cidr", post: true, unset: true, check: orNull(cidrOf), filter: true, sort: true},
		attr{name: "gateway_ip", post: true, put: true, unset: true, check: orNull(ipOf), filter: true, sort: true},
		attr{name: "allocation_pools", post: true, put: true, unset: true, check: pools},
		attr{name: "dns_nameservers", post: true, put: true, unset: true, check: nameservers},
		attr{name: "host_routes", post: true, put: true, unset: true, check: hostRoutes},
		attr{name: "enable_dhcp", post: true, put: true, def: true, check: boolean, filter: true, sort: true},
		attr{name: "ipv6_ra_mode", post: true, unset: true, check: orNull(oneOf(ipv6Modes...)), filter: true, sort: true},
		attr{name: "ipv6_address_mode", post: true, unset: true, check: orNull(oneOf(ipv6Modes...)), filter: true, sort: true},
		attr{name: "shared", filter: true},
		attr{name: "service_types", post: true, put: true, unset: true, check: serviceTypes},
		attr{name: "use_default_subnetpool", post: true, unset: true, check: boolean},
	),
}

func ipVersion(v any) (any, error) {
	n, err := integer(v)
	if err != nil {
		return nil, err
	}
	if n != 4 && n != 6 {
		return nil, because("%s is not in valid_values", py(v))
	}
	return n, nil
}

type subnet struct {
	base

	Network     string
	CIDR        netip.Prefix
	Gateway     netip.Addr // zero: none
	Pools       []ipRange
	DNS         []netip.Addr `json:",omitempty"`
	Routes      []HostRoute  `json:",omitempty"`
	DHCP        bool
	RAMode      string `json:",omitempty"`
	AddressMode string `json:",omitempty"`
	// Pool is the subnet pool that CIDR comes from.
	Pool string `json:",omitempty"`
	// Types are the owners of ports that get addresses of it; empty: all.
	Types []string `json:",omitempty"`
}

func (s *subnet) version() int {
	if s.CIDR.Addr().Is6() {
		return 6
	}
	return 4
}

// automatic reports whether ports get an address that follows from their MAC.
func (s *subnet) automatic() bool {
	return s.AddressMode == modeSLAAC || s.AddressMode == modeStateless
}

func (s *Service) subnetRoutes() {
	s.route(&subnetResource, verbs{
		list: s.listSubnets, show: s.showSubnet, create: s.createSubnets, update: s.updateSubnet, remove: s.deleteSubnet,
	})
}

// subnet finds one that the caller sees: its own, and those of networks that are
// shared; those of external networks are the owner's only.
func (st *state) subnet(c *rest.Caller, id string) (*subnet, error) {
	s, ok := st.subnets.get(id)
	if !ok || !st.seesSubnet(c, s) {
		return nil, subnetResource.missing(id)
	}
	return s, nil
}

func (st *state) seesSubnet(c *rest.Caller, s *subnet) bool {
	n, ok := st.networks.get(s.Network)
	return c.Owns(s.Project) || ok && (n.sharedWith(c.ProjectID) || c.Owns(n.Project))
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (s *subnet) view() map[string]any {
	v := map[string]any{
		"name": s.Name, "network_id": s.Network, "ip_version": s.version(), "cidr": s.CIDR.String(), "subnetpool_id": orNil(s.Pool),
		"enable_dhcp": s.DHCP, "ipv6_ra_mode": orNil(s.RAMode), "ipv6_address_mode": orNil(s.AddressMode), "gateway_ip": nil,
		"service_types": orEmpty(s.Types),
	}
	if s.Gateway.IsValid() {
		v["gateway_ip"] = s.Gateway.String()
	}
	pools := make([]map[string]string, len(s.Pools))
	for i, p := range s.Pools {
		pools[i] = map[string]string{"start": p.First.String(), "end": p.Last.String()}
	}
	dns := make([]string, len(s.DNS))
	for i, d := range s.DNS {
		dns[i] = d.String()
	}
	v["allocation_pools"], v["dns_nameservers"], v["host_routes"] = pools, dns, routesView(s.Routes)
	return s.standardView(v)
}

func routesView(routes []HostRoute) []map[string]string {
	out := make([]map[string]string, len(routes))
	for i, r := range routes {
		out[i] = map[string]string{"destination": r.To.String(), "nexthop": r.Via.String()}
	}
	return out
}

func (s *Service) listSubnets(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		all := st.subnets.where(func(s *subnet) bool { return st.seesSubnet(r.Caller, s) })
		res, err = list(r, &subnetResource, all, (*subnet).view)
		return err
	})
	return res, err
}

func (s *Service) showSubnet(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		sub, err := st.subnet(r.Caller, r.PathValue("id"))
		if err != nil {
			return err
		}
		res, err = show(r, &subnetResource, sub.view())
		return err
	})
	return res, err
}

func (s *Service) createSubnets(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, bulk, err := subnetResource.parse(r)
	if err != nil {
		return nil, err
	}
	var views []map[string]any
	err = s.write(ctx, func(st *state) error {
		for _, v := range all {
			sub, err := st.createSubnet(r.Caller, v)
			if err != nil {
				return err
			}
			views = append(views, sub.view())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return created(r, &subnetResource, bulk, views)
}

func (st *state) createSubnet(c *rest.Caller, v values) (*subnet, error) {
	n, err := st.network(c, v.str("network_id"))
	if err != nil {
		return nil, err
	}
	project, err := owner(c, v)
	switch {
	case err != nil:
		return nil, err
	case !c.Admin() && !n.sharedWith(project) && n.Project != project:
		return nil, hidden()
	}
	if err := subnetResource.mayWrite(c, "create", v, n.Project); err != nil {
		return nil, err
	}
	if err := st.room(project, "subnet", st.countOf(project, "subnet")+1); err != nil {
		return nil, err
	}
	cidr, pool, err := st.prefixFor(c, n, project, v)
	if err != nil {
		return nil, err
	}
	sub := &subnet{Network: n.ID, CIDR: cidr, Pool: pool, RAMode: v.str("ipv6_ra_mode"), AddressMode: v.str("ipv6_address_mode")}
	sub.ID, sub.Project = uuid.NewString(), project
	st.made(&sub.base)
	empty := ""
	sub.Description = &empty
	sub.DHCP = v.flag("enable_dhcp")
	if err := sub.modes(v.num("ip_version")); err != nil {
		return nil, err
	}
	if sub.version() == 6 && n.MTU < leastIPv6 {
		return nil, invalid("The network's mtu %d is smaller than the minimum of %d for IPv6", n.MTU, leastIPv6)
	}
	if err := sub.usable(); err != nil {
		return nil, err
	}
	if err := sub.set(v, true); err != nil {
		return nil, err
	}
	for _, p := range prefixes(st.subnetsOf(n.ID)) {
		if p.Overlaps(sub.CIDR) {
			return nil, invalid("Requested subnet with cidr: %s for network: %s overlaps with another subnet", sub.CIDR, n.ID)
		}
	}
	st.subnets.put(sub)
	st.touchNetwork(n.ID)
	return sub, st.joinAutomatic(sub)
}

// touchNetwork counts the revision of a network up, as changes of its subnets do.
func (st *state) touchNetwork(id string) {
	if n, ok := st.networks.get(id); ok {
		c := *n
		st.bumped(&c.base)
		st.networks.put(&c)
	}
}

// modes checks the version and the IPv6 modes.
func (s *subnet) modes(version int) error {
	if s.version() != version {
		return invalid("cidr '%s' does not match the ip_version '%d'", s.CIDR, version)
	}
	switch {
	case version == 4 && s.RAMode != "":
		return invalid("ipv6_ra_mode is not valid when ip_version is 4")
	case version == 4 && s.AddressMode != "":
		return invalid("ipv6_address_mode is not valid when ip_version is 4")
	case !s.DHCP && (s.RAMode != "" || s.AddressMode != ""):
		return invalid("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False")
	case s.RAMode != "" && s.AddressMode != "" && s.RAMode != s.AddressMode:
		return invalid("ipv6_ra_mode set to '%s' with ipv6_address_mode set to '%s' is not valid. "+
			"If both attributes are set, they must be the same value", s.RAMode, s.AddressMode)
	case (s.automatic() || s.RAMode == modeSLAAC || s.RAMode == modeStateless) && s.CIDR.Bits() != 64:
		return invalid("Invalid CIDR %s for IPv6 address mode. OpenStack uses the EUI-64 address format, "+
			"which requires the prefix to be /64", s.CIDR)
	}
	return nil
}

// usable refuses networks that DHCP cannot serve.
func (s *subnet) usable() error {
	a := s.CIDR.Addr()
	switch {
	case !s.DHCP:
		return nil
	case a.BitLen()-s.CIDR.Bits() < 2:
		return invalid("Subnet has a prefix length that is incompatible with DHCP service enabled")
	case a.IsMulticast():
		return invalid("Multicast IP subnet is not supported if enable_dhcp is True")
	case a.IsLoopback():
		return invalid("Loopback IP subnet is not supported if enable_dhcp is True")
	case a.Is4() && a.As4()[0] == 0:
		return invalid("First IP '%s' of network is not supported if enable_dhcp is True.", a)
	}
	return nil
}

// set takes over what was sent, and in a POST chooses what was not.
func (s *subnet) set(v values, create bool) error {
	v.setStr("name", &s.Name)
	if d, ok := v["description"].(string); ok {
		s.Description = &d
	}
	v.setFlag("enable_dhcp", &s.DHCP)
	if v.has("service_types") {
		s.Types = v.strs("service_types")
	}
	if err := s.setGateway(v, create); err != nil {
		return err
	}
	if err := s.setPools(v, create); err != nil {
		return err
	}
	return s.setServices(v)
}

func (s *subnet) setGateway(v values, create bool) error {
	g, sent := v["gateway_ip"]
	switch {
	case !sent && create:
		switch {
		case s.CIDR.Addr().Is6():
			s.Gateway = s.CIDR.Addr() // the anycast address of the subnet's routers
		case s.CIDR.Bits() < 32:
			s.Gateway = s.CIDR.Addr().Next()
		}
		return nil
	case !sent:
		return nil
	case g == nil:
		s.Gateway = netip.Addr{}
		return nil
	}
	gw := netip.MustParseAddr(v.str("gateway_ip"))
	if gw.Is4() != s.CIDR.Addr().Is4() {
		return invalid("gateway_ip '%s' does not match the ip_version '%d'", gw, s.version())
	}
	if gw.Is4() && s.CIDR.Contains(gw) && !hostAddress(s.CIDR, gw) {
		return invalid("Gateway is not valid on subnet")
	}
	s.Gateway = gw
	if !create && !v.has("allocation_pools") {
		return s.gatewayOutside()
	}
	return nil
}

// gatewayOutside refuses a gateway that could be given to a port.
func (s *subnet) gatewayOutside() error {
	for _, p := range s.Pools {
		if s.Gateway.IsValid() && p.contains(s.Gateway) {
			return conflict("GatewayConflictWithAllocationPools", "Gateway ip %s conflicts with allocation pool %s.", s.Gateway, p)
		}
	}
	return nil
}

func (s *subnet) setPools(v values, create bool) error {
	asked, sent := v["allocation_pools"]
	if !sent || asked == nil {
		if create {
			s.Pools = poolsOf(s.CIDR, s.Gateway)
		}
		return nil
	}
	all, err := readPools(s.CIDR, v.maps("allocation_pools"))
	if err != nil {
		return err
	}
	s.Pools = all
	return s.gatewayOutside()
}

func (s *subnet) setServices(v values) error {
	id := "new subnet"
	if s.Revision > 0 || !s.Created.Equal(s.Updated) {
		id = s.ID
	}
	if v.has("dns_nameservers") {
		servers := v.strs("dns_nameservers")
		if len(servers) > mostNameservers {
			return fault(http.StatusBadRequest, "DNSNameServersExhausted",
				"Unable to complete operation for %s. The number of DNS nameservers exceeds the limit %d.", id, mostNameservers)
		}
		s.DNS = nil
		for _, d := range servers {
			a := netip.MustParseAddr(d)
			if a.Is4() != s.CIDR.Addr().Is4() {
				return invalid("dns_nameserver '%s' does not match the ip_version '%d'", a, s.version())
			}
			s.DNS = append(s.DNS, a)
		}
	}
	if v.has("host_routes") {
		routes := v.maps("host_routes")
		if len(routes) > mostHostRoutes {
			return fault(http.StatusBadRequest, "HostRoutesExhausted",
				"Unable to complete operation for %s. The number of host routes exceeds the limit %d.", id, mostHostRoutes)
		}
		s.Routes = nil
		for _, r := range routes {
			h := routeOf(r)
			if h.Via.Is4() != s.CIDR.Addr().Is4() {
				return invalid("nexthop '%s' does not match the ip_version '%d'", h.Via, s.version())
			}
			if h.To.Addr().Is4() != s.CIDR.Addr().Is4() {
				return invalid("destination '%s' does not match the ip_version '%d'", h.To, s.version())
			}
			s.Routes = append(s.Routes, h)
		}
	}
	return nil
}

// routeOf reads what hostRoutes has checked.
func routeOf(r values) HostRoute {
	return HostRoute{To: netip.MustParsePrefix(r.str("destination")), Via: netip.MustParseAddr(r.str("nexthop"))}
}

func (s *Service) updateSubnet(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, _, err := subnetResource.parse(r)
	if err != nil {
		return nil, err
	}
	var view map[string]any
	err = s.write(ctx, func(st *state) error {
		old, err := st.ownSubnet(r, "update_subnet")
		if err != nil {
			return err
		}
		if err := subnetResource.mayWrite(r.Caller, "update", all[0], old.Project); err != nil {
			return err
		}
		sub := *old
		if err := sub.set(all[0], false); err != nil {
			return err
		}
		if err := sub.usable(); err != nil {
			return err
		}
		if err := st.gatewayFree(old, &sub); err != nil {
			return err
		}
		if len(all[0]) > 0 {
			st.bumped(&sub.base)
		}
		st.subnets.put(&sub)
		view = sub.view()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return show(r, &subnetResource, view)
}

// gatewayFree refuses to take a gateway away from a router.
func (st *state) gatewayFree(old, now *subnet) error {
	if old.Gateway == now.Gateway || !now.Gateway.IsValid() {
		return nil
	}
	for p := range st.ports.all() {
		if p.Owner == ownerInterface && old.Gateway.IsValid() && p.holds(old.ID, old.Gateway) {
			return conflict("GatewayIpInUse", "Current gateway ip %s already in use by port %s. Unable to update.", old.Gateway, p.ID)
		}
	}
	return nil
}

// ownSubnet finds the subnet of the path, which the caller may change.
func (st *state) ownSubnet(r *rest.Request, rule string) (*subnet, error) {
	s, err := st.subnet(r.Caller, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	n, ok := st.networks.get(s.Network)
	mine := r.Caller.Owns(s.Project) || ok && r.Caller.Owns(n.Project)
	if !mine || !r.Caller.Member() {
		return nil, denied("rule:" + rule)
	}
	return s, ifMatch(r, s.Revision)
}

func (s *Service) deleteSubnet(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := noBody(r); err != nil {
		return nil, err
	}
	err := s.write(ctx, func(st *state) error {
		sub, err := st.ownSubnet(r, "delete_subnet")
		if err != nil {
			return err
		}
		return st.removeSubnet(sub)
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

// removeSubnet removes one that no port needs: automatic addresses go with it.
func (st *state) removeSubnet(sub *subnet) error {
	on := st.ports.where(func(p *port) bool { return p.inSubnet(sub.ID) })
	for _, p := range on {
		if p.Owner != ownerDHCP && (!sub.automatic() || p.routed()) {
			return conflict("SubnetInUse", "Unable to complete operation on subnet %s: "+
				"One or more ports have an IP allocation from this subnet.", sub.ID)
		}
	}
	for _, p := range on {
		left := *p
		left.IPs = nil
		for _, ip := range p.IPs {
			if ip.Subnet != sub.ID {
				left.IPs = append(left.IPs, ip)
			}
		}
		st.bumped(&left.base)
		st.ports.put(&left)
	}
	st.subnets.del(sub.ID)
	st.touchNetwork(sub.Network)
	return nil
}
