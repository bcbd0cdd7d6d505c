package network

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// zone is the name of the one availability zone.
const zone = "nova"

// MTUs: what a network has unless it was sent, and the most it can have.
const (
	defaultMTU = 1500
	mostMTU    = 65535
	leastIPv6  = 1280
)

var networkResource = resource{
	name: "network", plural: "networks", path: "networks", bulk: true,
	missing: func(id string) error { return notFound("NetworkNotFound", "Network %s could not be found.", id) },
	attrs: standard(
		attr{name: "name", post: true, put: true, def: "", check: text(255), filter: true, sort: true},
		attr{name: "subnets"},
		attr{name: "admin_state_up", post: true, put: true, def: true, check: boolean, filter: true, sort: true},
		attr{name: "status", filter: true, sort: true},
		attr{name: "shared", post: true, put: true, def: false, check: boolean, who: adminOnly, filter: true},
		attr{name: "availability_zones"},
		attr{name: "availability_zone_hints", post: true, def: []any{}, check: zoneHints, sort: true},
		attr{name: "ipv4_address_scope"},
		attr{name: "ipv6_address_scope"},
		attr{name: "router:external", post: true, put: true, def: false, check: boolean, who: adminOnly, filter: true},
		attr{name: "is_default", post: true, put: true, def: false, check: boolean, who: adminOnly, filter: true},
		attr{name: "port_security_enabled", post: true, put: true, def: true, check: boolean},
		attr{name: "mtu", post: true, put: true, def: 0, check: mtuOf, filter: true, sort: true},
		attr{name: "provider:network_type", post: true, put: true, unset: true, check: text(32), who: adminOnly, admin: true, filter: true},
		attr{name: "provider:physical_network", post: true, put: true, unset: true, check: orNull(text(64)), who: adminOnly, admin: true, filter: true},
		attr{name: "provider:segmentation_id", post: true, put: true, unset: true, check: orNull(integer), who: adminOnly, admin: true, filter: true},
	),
}

func mtuOf(v any) (any, error) {
	n, err := integer(v)
	if err != nil {
		return nil, err
	}
	if m, ok := n.(int); !ok || m < 0 {
		return nil, because("'%s' is too small - must be at least '0'", py(v))
	}
	return n, nil
}

type network struct {
	base

	sharing

	Up, Shared, External, Default, PortSecurity bool
	// ExternalTo are the projects that it is external to, or everybody; nil is
	// everybody, too.
	ExternalTo []string `json:",omitempty"`
	MTU        int
	ZoneHints  []string `json:",omitempty"`
}

func (s *Service) networkRoutes() {
	s.route(&networkResource, verbs{
		list: s.listNetworks, show: s.showNetwork, create: s.createNetworks, update: s.updateNetwork, remove: s.deleteNetwork,
	})
}

// sees reports whether the caller may know of the network.
func (n *network) sees(c *rest.Caller) bool {
	return c.Owns(n.Project) || n.sharedWith(c.ProjectID) || n.External && n.externalTo(c.ProjectID)
}

// sharedWith reports whether a project may use it as its own.
func (n *network) sharedWith(project string) bool { return n.Shared || n.reaches(project) }

// externalTo reports whether a project may lead routers to it.
func (n *network) externalTo(project string) bool {
	return n.External && (n.ExternalTo == nil || project == n.Project || sharing{n.ExternalTo}.reaches(project))
}

// network finds one that the caller sees.
func (st *state) network(c *rest.Caller, id string) (*network, error) {
	n, ok := st.networks.get(id)
	if !ok || !n.sees(c) {
		return nil, networkResource.missing(id)
	}
	return n, nil
}

func (st *state) subnetsOf(networkID string) []*subnet {
	return st.subnets.where(func(s *subnet) bool { return s.Network == networkID })
}

func (st *state) networkView(c *rest.Caller, n *network) map[string]any {
	return st.networkViewOf(c, n, st.subnetsOf(n.ID))
}

func (st *state) networkViewOf(c *rest.Caller, n *network, all []*subnet) map[string]any {
	subnets := []string{}
	var scope4, scope6 any
	for _, sub := range all {
		subnets = append(subnets, sub.ID)
		if p, ok := st.pools.get(sub.Pool); ok && p.Scope != "" {
			if sub.CIDR.Addr().Is4() {
				scope4 = p.Scope
			} else {
				scope6 = p.Scope
			}
		}
	}
	zones := []string{}
	if len(subnets) > 0 {
		zones = append(zones, zone)
	}
	v := n.standardView(map[string]any{
		"name": n.Name, "subnets": subnets, "admin_state_up": n.Up, "status": "ACTIVE", "shared": n.sharedWith(c.ProjectID), "mtu": n.MTU,
		"availability_zones": zones, "availability_zone_hints": orEmpty(n.ZoneHints), "ipv4_address_scope": scope4, "ipv6_address_scope": scope6,
		"router:external": n.External, "port_security_enabled": n.PortSecurity,
		"provider:network_type": "local", "provider:physical_network": nil, "provider:segmentation_id": nil,
	})
	if n.External {
		v["is_default"] = n.Default
	}
	return v
}

func (s *Service) listNetworks(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		subnets := map[string][]*subnet{}
		for _, sub := range st.subnets.where(func(*subnet) bool { return true }) {
			subnets[sub.Network] = append(subnets[sub.Network], sub)
		}
		all := st.networks.where(func(n *network) bool { return n.sees(r.Caller) })
		res, err = list(r, &networkResource, all, func(n *network) map[string]any { return st.networkViewOf(r.Caller, n, subnets[n.ID]) })
		return err
	})
	return res, err
}

func (s *Service) showNetwork(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		n, err := st.network(r.Caller, r.PathValue("id"))
		if err != nil {
			return err
		}
		res, err = show(r, &networkResource, st.networkView(r.Caller, n))
		return err
	})
	return res, err
}

func (s *Service) createNetworks(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, bulk, err := networkResource.parse(r)
	if err != nil {
		return nil, err
	}
	var views []map[string]any
	err = s.write(ctx, func(st *state) error {
		for _, v := range all {
			n, err := st.createNetwork(r.Caller, v)
			if err != nil {
				return err
			}
			view := st.networkView(r.Caller, n)
			view["is_default"] = n.Default // only then shown of networks that are not external
			views = append(views, view)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return created(r, &networkResource, bulk, views)
}

func (st *state) createNetwork(c *rest.Caller, v values) (*network, error) {
	if err := networkResource.mayWrite(c, "create", v, ""); err != nil {
		return nil, err
	}
	project, err := owner(c, v)
	if err != nil {
		return nil, err
	}
	if err := st.room(project, "network", st.countOf(project, "network")+1); err != nil {
		return nil, err
	}
	if err := providerOf(v); err != nil {
		return nil, err
	}
	n := &network{ZoneHints: v.strs("availability_zone_hints")}
	n.ID, n.Project, n.Revision = uuid.NewString(), project, 1
	st.made(&n.base)
	if err := n.set(v); err != nil {
		return nil, err
	}
	st.networks.put(n)
	st.followFlags(n)
	n, _ = st.networks.get(n.ID)
	st.ensureDefaultGroup(project)
	return n, nil
}

// providerOf refuses everything but what this host has: bridges of its own.
func providerOf(v values) error {
	kind, sent := v["provider:network_type"].(string)
	physical := v.str("provider:physical_network")
	switch {
	case !sent && (v["provider:physical_network"] != nil || v["provider:segmentation_id"] != nil):
		return invalid("network_type required")
	case !sent:
	case kind == "local":
		if physical != "" || v["provider:segmentation_id"] != nil {
			return invalid("provider:physical_network, provider:segmentation_id prohibited for local provider network")
		}
	case kind == "flat" || kind == "vlan":
		if physical == "" {
			return invalid("physical_network required for %s provider network", kind)
		}
		return invalid("physical_network '%s' unknown for %s provider network", physical, kind)
	default:
		return invalid("network_type value '%s' not supported", kind)
	}
	return nil
}

// set takes over what was sent.
func (n *network) set(v values) error {
	v.setStr("name", &n.Name)
	if d, ok := v["description"].(string); ok {
		n.Description = &d
	}
	v.setFlag("admin_state_up", &n.Up)
	v.setFlag("shared", &n.Shared)
	v.setFlag("router:external", &n.External)
	v.setFlag("is_default", &n.Default)
	v.setFlag("port_security_enabled", &n.PortSecurity)
	if v.has("mtu") {
		n.MTU = v.num("mtu")
	}
	if n.MTU == 0 {
		n.MTU = defaultMTU
	}
	if n.MTU > mostMTU {
		return invalid("Requested MTU is too big, maximum is %d", mostMTU)
	}
	return nil
}

func (s *Service) updateNetwork(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, _, err := networkResource.parse(r)
	if err != nil {
		return nil, err
	}
	var view map[string]any
	err = s.write(ctx, func(st *state) error {
		n, err := st.ownNetwork(r, "update_network")
		if err != nil {
			return err
		}
		if n, err = st.changeNetwork(r.Caller, n, all[0]); err != nil {
			return err
		}
		view = st.networkView(r.Caller, n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return show(r, &networkResource, view)
}

// ownNetwork finds the network of the path, which the caller may change.
func (st *state) ownNetwork(r *rest.Request, rule string) (*network, error) {
	n, err := st.network(r.Caller, r.PathValue("id"))
	switch {
	case err != nil:
		return nil, err
	case !r.Caller.Owns(n.Project) || !r.Caller.Member():
		return nil, denied("rule:" + rule)
	}
	return n, ifMatch(r, n.Revision)
}

func (st *state) changeNetwork(c *rest.Caller, old *network, v values) (*network, error) {
	if err := networkResource.mayWrite(c, "update", v, old.Project); err != nil {
		return nil, err
	}
	var provider []string
	for name := range v {
		if strings.HasPrefix(name, "provider:") {
			provider = append(provider, name)
		}
	}
	if len(provider) > 0 {
		slices.Sort(provider)
		return nil, invalid("Plugin does not support updating the following provider network attributes: %s", strings.Join(provider, ", "))
	}
	n := *old
	if err := n.set(v); err != nil {
		return nil, err
	}
	subnets := st.subnetsOf(n.ID)
	if n.MTU < leastIPv6 && slices.ContainsFunc(subnets, func(s *subnet) bool { return s.CIDR.Addr().Is6() }) {
		return nil, invalid("The requested mtu %d is smaller than the minimum of %d for IPv6", n.MTU, leastIPv6)
	}
	if old.Shared && !n.Shared {
		others := sharing{slices.DeleteFunc(slices.Clone(n.With), func(w string) bool { return w == everybody })}
		if st.ports.has(func(p *port) bool {
			return p.Network == n.ID && p.Project != "" && p.Project != n.Project && !others.reaches(p.Project)
		}) {
			return nil, conflict("InvalidSharedSetting", "Unable to reconfigure sharing settings for network %s. Multiple tenants are using it.", n.Name)
		}
	}
	if old.External && !n.External {
		if st.ports.has(func(p *port) bool {
			return p.Network == n.ID && (p.Owner == ownerGateway || p.Owner == ownerFloating)
		}) {
			return nil, conflict("ExternalNetworkInUse",
				"External network %s cannot be updated to be made non-external, since it has existing gateway ports.", n.ID)
		}
	}
	if len(v) > 0 {
		st.bumped(&n.base)
	}
	st.networks.put(&n)
	if old.Shared != n.Shared || old.External != n.External {
		st.followFlags(&n)
	}
	now, _ := st.networks.get(n.ID)
	return now, nil
}

// followFlags makes the policies say what the attributes of a network say.
func (st *state) followFlags(n *network) {
	st.setPolicy(n, asShared, n.Shared)
	switch {
	case !n.External: // no project's any more
		for _, p := range st.policies.where(func(p *policy) bool { return p.Object == n.ID && p.Action == asExternal }) {
			st.policies.del(p.ID)
		}
	case len(st.targets(n.ID, asExternal)) == 0:
		st.setPolicy(n, asExternal, true)
	}
	st.reshare(typeNetwork, n.ID)
}

func (s *Service) deleteNetwork(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := noBody(r); err != nil {
		return nil, err
	}
	err := s.write(ctx, func(st *state) error {
		n, err := st.ownNetwork(r, "delete_network")
		if err != nil {
			return err
		}
		var used []string
		for _, p := range st.ports.where(func(p *port) bool { return p.Network == n.ID }) {
			if p.Owner == ownerDHCP {
				st.ports.del(p.ID)
				continue
			}
			used = append(used, p.ID)
		}
		if len(used) > 0 {
			return conflict("NetworkInUse", "Unable to complete operation on network %s. "+
				"There are one or more ports still in use on the network, id for these ports is: %s.", n.ID, strings.Join(used, ","))
		}
		for _, sub := range st.subnetsOf(n.ID) {
			st.subnets.del(sub.ID)
		}
		st.dropPolicies(n.ID)
		for _, t := range st.topologies.where(func(t *topology) bool { return t.Network == n.ID }) {
			st.topologies.del(t.ID)
		}
		st.networks.del(n.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

// prefixes are all networks of its subnets.
func prefixes(subnets []*subnet) []netip.Prefix {
	out := make([]netip.Prefix, len(subnets))
	for i, s := range subnets {
		out[i] = s.CIDR
	}
	return out
}
