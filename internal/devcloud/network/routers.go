package network

import (
	"context"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// mostRoutes is of one router (max_routes).
const mostRoutes = 30

var routerResource = resource{
	name: "router", plural: "routers", path: "routers",
	missing: func(id string) error { return notFound("RouterNotFound", "Router %s could not be found", id) },
	attrs: standard(
		attr{name: "name", post: true, put: true, def: "", check: text(255), filter: true, sort: true},
		attr{name: "admin_state_up", post: true, put: true, def: true, check: boolean, filter: true, sort: true},
		attr{name: "status", sort: true},
		attr{name: "external_gateway_info", post: true, put: true, check: gatewayInfo},
		attr{name: "availability_zones"},
		attr{name: "availability_zone_hints", post: true, def: []any{}, check: zoneHints},
		attr{name: "routes", put: true, unset: true, check: hostRoutes},
		attr{name: "ha", post: true, put: true, unset: true, check: orNull(boolean), who: adminOnly, admin: true},
		attr{name: "distributed", post: true, put: true, unset: true, check: orNull(boolean), who: adminOnly, admin: true},
		attr{name: "flavor_id", post: true, unset: true, check: noFlavor, sort: true},
	),
}

func noFlavor(v any) (any, error) {
	if v == nil {
		return nil, nil //nolint:nilnil // null is a value: no flavor
	}
	return nil, notFound("FlavorNotFound", "Flavor %s could not be found.", py(v))
}

// gatewayInfo checks the form of external_gateway_info; an empty one is null.
func gatewayInfo(v any) (any, error) {
	if m, ok := v.(map[string]any); v == nil || ok && len(m) == 0 {
		return nil, nil //nolint:nilnil // null is a value: no gateway
	}
	m, err := object(v)
	if err != nil {
		return nil, err
	}
	info, _ := m.(map[string]any)
	for k := range info {
		if k != "network_id" && k != "enable_snat" && k != "external_fixed_ips" {
			return nil, because("Unexpected keys supplied: %s", k)
		}
	}
	if _, has := info["network_id"]; !has {
		return nil, because("Validation of dictionary's keys failed. Expected keys: {'network_id'} Provided keys: %s", repr(info))
	}
	if _, err := uuidOf(info["network_id"]); err != nil {
		return nil, err
	}
	if snat, has := info["enable_snat"]; has {
		if info["enable_snat"], err = boolean(snat); err != nil {
			return nil, err
		}
	}
	if ips, has := info["external_fixed_ips"]; has && ips != nil {
		if info["external_fixed_ips"], err = fixedIPs(ips); err != nil {
			return nil, err
		}
	}
	return info, nil
}

type router struct {
	base

	Up        bool
	SNAT      bool
	Gateway   string      `json:",omitempty"` // port
	Routes    []HostRoute `json:",omitempty"`
	ZoneHints []string    `json:",omitempty"`
}

func (s *Service) routerRoutes() {
	s.route(&routerResource, verbs{
		list: s.listRouters, show: s.showRouter, create: s.createRouter, update: s.updateRouter, remove: s.deleteRouter,
	})
	s.api.Handle("PUT /v2.0/routers/{id}/add_router_interface", s.addInterface)
	s.api.Handle("PUT /v2.0/routers/{id}/remove_router_interface", s.removeInterface)
	s.extraRoutes()
}

func (st *state) router(c *rest.Caller, id string) (*router, error) {
	r, ok := st.routers.get(id)
	if !ok || !c.Owns(r.Project) {
		return nil, routerResource.missing(id)
	}
	return r, nil
}

// interfacesOf are the ports inside of a router.
func (st *state) interfacesOf(routerID string) []*port {
	return st.ports.where(func(p *port) bool { return p.DeviceID == routerID && p.Owner == ownerInterface })
}

func (st *state) routerView(r *router) map[string]any {
	zones := []string{}
	var gateway any
	if p, ok := st.ports.get(r.Gateway); ok {
		zones = append(zones, zone)
		ips := make([]map[string]string, len(p.IPs))
		for i, ip := range p.IPs {
			ips[i] = map[string]string{"subnet_id": ip.Subnet, "ip_address": ip.Address.String()}
		}
		gateway = map[string]any{"network_id": p.Network, "external_fixed_ips": ips, "enable_snat": r.SNAT}
	} else if len(st.interfacesOf(r.ID)) > 0 {
		zones = append(zones, zone)
	}
	return r.standardView(map[string]any{
		"name": r.Name, "admin_state_up": r.Up, "status": "ACTIVE", "external_gateway_info": gateway, "availability_zones": zones,
		"availability_zone_hints": orEmpty(r.ZoneHints), "routes": routesView(r.Routes), "ha": false, "distributed": false, "flavor_id": nil,
	})
}

func (s *Service) listRouters(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		all := st.routers.where(func(one *router) bool { return r.Caller.Owns(one.Project) })
		res, err = list(r, &routerResource, all, st.routerView)
		return err
	})
	return res, err
}

func (s *Service) showRouter(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		one, err := st.router(r.Caller, r.PathValue("id"))
		if err != nil {
			return err
		}
		res, err = show(r, &routerResource, st.routerView(one))
		return err
	})
	return res, err
}

func (s *Service) createRouter(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, bulk, err := routerResource.parse(r)
	if err != nil {
		return nil, err
	}
	var view map[string]any
	err = s.write(ctx, func(st *state) error {
		v := all[0]
		if err := routerPolicy(r.Caller, "create", v); err != nil {
			return err
		}
		project, err := owner(r.Caller, v)
		if err != nil {
			return err
		}
		if err := st.room(project, "router", st.countOf(project, "router")+1); err != nil {
			return err
		}
		one := &router{ZoneHints: v.strs("availability_zone_hints"), SNAT: true}
		one.ID, one.Project, one.Revision = uuid.NewString(), project, 1
		st.made(&one.base)
		if err := one.set(v); err != nil {
			return err
		}
		st.routers.put(one)
		if one, err = st.setGateway(r.Caller, one, v, s.o.Host); err != nil {
			return err
		}
		view = st.routerView(one)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return created(r, &routerResource, bulk, []map[string]any{view})
}

// routerPolicy is mayWrite, with the parts of external_gateway_info that only
// administrators may send.
func routerPolicy(c *rest.Caller, verb string, v values) error {
	if err := routerResource.mayWrite(c, verb, v, ""); err != nil || c.Admin() {
		return err
	}
	info, _ := v["external_gateway_info"].(map[string]any)
	rule := "rule:" + verb + "_router:external_gateway_info"
	parts := []string{rule + ":network_id"}
	for _, k := range []string{"enable_snat", "external_fixed_ips"} {
		if _, ok := info[k]; ok {
			parts = append(parts, rule+":"+k)
		}
	}
	if len(parts) == 1 {
		return nil
	}
	return denied("(rule:" + verb + "_router and (" + rule + " and (" + strings.Join(parts, " and ") + ")))")
}

func (r *router) set(v values) error {
	v.setStr("name", &r.Name)
	if d, ok := v["description"].(string); ok {
		r.Description = &d
	}
	v.setFlag("admin_state_up", &r.Up)
	if v.flag("ha") || v.flag("distributed") {
		return fault(http.StatusBadRequest, "BadRequest", "Bad router request: Only routers that are neither distributed nor highly available are supported.")
	}
	return nil
}

func (s *Service) updateRouter(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, _, err := routerResource.parse(r)
	if err != nil {
		return nil, err
	}
	var view map[string]any
	err = s.write(ctx, func(st *state) error {
		old, err := st.ownRouter(r, "update_router")
		if err != nil {
			return err
		}
		if err := routerPolicy(r.Caller, "update", all[0]); err != nil {
			return err
		}
		one := *old
		if err := one.set(all[0]); err != nil {
			return err
		}
		if len(all[0]) > 0 {
			st.bumped(&one.base)
		}
		st.routers.put(&one)
		now := &one
		if all[0].has("external_gateway_info") {
			if now, err = st.setGateway(r.Caller, now, all[0], s.o.Host); err != nil {
				return err
			}
		}
		if now, err = st.setRoutes(now, all[0]); err != nil {
			return err
		}
		view = st.routerView(now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return show(r, &routerResource, view)
}

// ownRouter finds the router of the path, which the caller may change.
func (st *state) ownRouter(r *rest.Request, rule string) (*router, error) {
	one, err := st.router(r.Caller, r.PathValue("id"))
	switch {
	case err != nil:
		return nil, err
	case !r.Caller.Member():
		return nil, denied("rule:" + rule)
	}
	return one, ifMatch(r, one.Revision)
}

// setGateway connects a router to an external network, or cuts it off.
//
// Source: neutron/db/l3_db.py, _update_router_gw_info.
func (st *state) setGateway(c *rest.Caller, old *router, v values, host string) (*router, error) {
	info, _ := v["external_gateway_info"].(map[string]any)
	want := values(info)
	one := *old
	if want.has("enable_snat") {
		one.SNAT = want.flag("enable_snat")
	} else if info != nil && old.Gateway == "" {
		one.SNAT = true
	}
	now, has := st.ports.get(old.Gateway)
	if has && (info == nil || want.str("network_id") != now.Network) {
		if st.floatings.has(func(f *floating) bool { return f.Router == old.ID }) {
			return nil, conflict("RouterExternalGatewayInUseByFloatingIp", "Gateway cannot be updated for router %s, "+
				"since a gateway to external network %s is required by one or more floating IPs.", old.ID, now.Network)
		}
		st.ports.del(now.ID)
		one.Gateway, has = "", false
	}
	st.routers.put(&one)
	if info == nil {
		return &one, nil
	}
	n, err := st.network(c, want.str("network_id"))
	if err != nil {
		return nil, err
	}
	if !n.External || !c.Admin() && !n.externalTo(one.Project) {
		return nil, badRouter("Network %s is not an external network.", n.ID)
	}
	if has && !want.has("external_fixed_ips") {
		return &one, nil
	}
	ask := values{}
	if ips, ok := info["external_fixed_ips"].([]any); ok && len(ips) > 0 {
		if has && sameOutside(now, ips) {
			return &one, nil
		}
		ask["fixed_ips"] = ips
	}
	if has {
		moved := *now
		if err := st.address(&moved, n, ask); err != nil {
			return nil, err
		}
		st.bumped(&moved.base)
		st.ports.put(&moved)
		return &one, nil
	}
	if len(st.subnetsOf(n.ID)) == 0 {
		return nil, badRouter("Cannot add gateway to router %s: network %s has no subnets.", one.ID, n.ID)
	}
	p := &port{Network: n.ID, Up: true, DeviceID: one.ID, Owner: ownerGateway, binding: binding{VNIC: "normal", Host: host}}
	if err := st.addPort(c, p, n, ask, host); err != nil {
		return nil, err
	}
	p.Status = portActive
	one.Gateway = p.ID
	st.bumped(&one.base)
	st.routers.put(&one)
	return &one, nil
}

// sameOutside reports whether addresses that are asked for change nothing of a
// gateway: they name its subnets and its addresses, all of them and no other. One
// of a subnet that it has, without an address, is no second one, as in Neutron.
func sameOutside(gateway *port, asked []any) bool {
	type set = map[string]bool
	subnets, addresses, askedSubnets, askedAddresses := set{}, set{}, set{}, set{}
	for _, ip := range gateway.IPs {
		subnets[ip.Subnet], addresses[ip.Address.String()] = true, true
	}
	for _, v := range asked {
		ip, _ := v.(map[string]any)
		if s, ok := ip["subnet_id"].(string); ok {
			askedSubnets[s] = true
		}
		if a, ok := ip["ip_address"].(string); ok {
			askedAddresses[a] = true
		}
	}
	return maps.Equal(subnets, askedSubnets) && maps.Equal(addresses, askedAddresses)
}

// badRouter is BadRequest of a router.
func badRouter(format string, args ...any) error {
	e := fault(http.StatusBadRequest, "BadRequest", format, args...)
	e.Message = "Bad router request: " + strings.TrimSuffix(e.Message, ".") + "."
	return e
}

// setRoutes checks and takes over the routes that were sent.
func (st *state) setRoutes(old *router, v values) (*router, error) {
	if !v.has("routes") {
		return old, nil
	}
	all := v.maps("routes")
	if len(all) > mostRoutes {
		return nil, fault(http.StatusBadRequest, "RoutesExhausted",
			"Unable to complete operation for %s. The number of routes exceeds the maximum %d.", old.ID, mostRoutes)
	}
	ports := st.interfacesOf(old.ID)
	if gw, ok := st.ports.get(old.Gateway); ok {
		ports = append(ports, gw)
	}
	one := *old
	one.Routes = nil
	for _, m := range all {
		h := routeOf(m)
		wrong := func(why string) error {
			return fault(http.StatusBadRequest, "InvalidRoutes", "Invalid format for routes: %s, %s", repr(v["routes"]), why)
		}
		switch {
		case !st.connected(ports, h.Via):
			return nil, wrong("the nexthop is not connected with router")
		case slices.ContainsFunc(ports, func(p *port) bool {
			return slices.ContainsFunc(p.IPs, func(ip fixedIP) bool { return ip.Address == h.Via })
		}):
			return nil, wrong("the nexthop is used by router")
		}
		one.Routes = append(one.Routes, h)
	}
	st.routers.put(&one)
	return &one, nil
}

// connected reports whether an address is in a subnet of one of the ports.
func (st *state) connected(ports []*port, a netip.Addr) bool {
	for _, p := range ports {
		for _, ip := range p.IPs {
			if sub, ok := st.subnets.get(ip.Subnet); ok && sub.CIDR.Contains(a) {
				return true
			}
		}
	}
	return false
}

func (s *Service) deleteRouter(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := noBody(r); err != nil {
		return nil, err
	}
	err := s.write(ctx, func(st *state) error {
		one, err := st.ownRouter(r, "delete_router")
		if err != nil {
			return err
		}
		var left []string
		for _, p := range st.interfacesOf(one.ID) {
			left = append(left, p.ID)
		}
		if len(left) > 0 {
			return conflict("RouterInUse", "Router %s has ports still attached: %s", one.ID, strings.Join(left, ", "))
		}
		if one.Gateway != "" {
			st.ports.del(one.Gateway)
		}
		st.routers.del(one.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}
