package network

import (
	"context"
	"net/http"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

var floatingResource = resource{
	name: "floatingip", plural: "floatingips", path: "floatingips",
	missing: func(id string) error {
		return notFound("FloatingIPNotFound", "Floating IP %s could not be found", id)
	},
	attrs: standard(
		attr{name: "floating_ip_address", post: true, check: orNull(ipOf), who: adminOnly, filter: true, sort: true},
		attr{name: "subnet_id", post: true, check: orNull(uuidOf)},
		attr{name: "floating_network_id", post: true, must: true, check: uuidOf, filter: true, sort: true},
		attr{name: "router_id", filter: true, sort: true},
		attr{name: "port_id", post: true, put: true, check: orNull(uuidOf), filter: true},
		attr{name: "fixed_ip_address", post: true, put: true, check: orNull(ipOf), filter: true, sort: true},
		attr{name: "status", filter: true, sort: true},
		attr{name: "port_details"},
	),
}

type floating struct {
	base

	Network string
	Address netip.Addr
	// OwnPort holds the address in the external network.
	OwnPort string
	Status  string
	// Port, Fixed and Router are set together: what it stands for.
	Port   string     `json:",omitempty"`
	Fixed  netip.Addr `json:",omitzero"`
	Router string     `json:",omitempty"`
}

func (s *Service) floatingRoutes() {
	s.route(&floatingResource, verbs{
		list: s.listFloating, show: s.showFloating, create: s.createFloating, update: s.updateFloating, remove: s.deleteFloating,
	})
}

func (st *state) floating(c *rest.Caller, id string) (*floating, error) {
	f, ok := st.floatings.get(id)
	if !ok || !c.Owns(f.Project) {
		return nil, floatingResource.missing(id)
	}
	return f, nil
}

func (st *state) floatingView(f *floating) map[string]any {
	v := map[string]any{
		"floating_ip_address": f.Address.String(), "floating_network_id": f.Network, "router_id": orNil(f.Router),
		"port_id": orNil(f.Port), "fixed_ip_address": nil, "status": f.Status, "port_details": nil,
	}
	if f.Fixed.IsValid() {
		v["fixed_ip_address"] = f.Fixed.String()
	}
	if p, ok := st.ports.get(f.Port); ok {
		v["port_details"] = map[string]any{
			"name": p.Name, "network_id": p.Network, "mac_address": p.MAC, "admin_state_up": p.Up, "status": p.Status,
			"device_id": p.DeviceID, "device_owner": p.Owner,
		}
	}
	return f.standardView(v)
}

func (s *Service) listFloating(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		all := st.floatings.where(func(f *floating) bool { return r.Caller.Owns(f.Project) })
		res, err = list(r, &floatingResource, all, st.floatingView)
		return err
	})
	return res, err
}

func (s *Service) showFloating(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		f, err := st.floating(r.Caller, r.PathValue("id"))
		if err != nil {
			return err
		}
		res, err = show(r, &floatingResource, st.floatingView(f))
		return err
	})
	return res, err
}

func (s *Service) createFloating(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, bulk, err := floatingResource.parse(r)
	if err != nil {
		return nil, err
	}
	var view map[string]any
	err = s.write(ctx, func(st *state) error {
		f, err := st.newFloating(r.Caller, all[0], s.o.Host)
		if err != nil {
			return err
		}
		view = st.floatingView(f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return created(r, &floatingResource, bulk, []map[string]any{view})
}

func badFloating(format string, args ...any) error {
	e := fault(http.StatusBadRequest, "BadRequest", format, args...)
	e.Message = "Bad floatingip request: " + e.Message + "."
	return e
}

// newFloating takes an address of an external network for a project.
//
// Source: neutron/db/l3_db.py, _create_floatingip.
func (st *state) newFloating(c *rest.Caller, v values, host string) (*floating, error) {
	if err := floatingResource.mayWrite(c, "create", v, ""); err != nil {
		return nil, err
	}
	project, err := owner(c, v)
	if err != nil {
		return nil, err
	}
	if err := st.room(project, "floatingip", st.countOf(project, "floatingip")+1); err != nil {
		return nil, err
	}
	n, err := st.network(c, v.str("floating_network_id"))
	if err != nil {
		return nil, err
	}
	if !n.External || !c.Admin() && !n.externalTo(project) {
		return nil, badFloating("Network %s is not a valid external network", n.ID)
	}
	ask := map[string]any{}
	for from, to := range map[string]string{"floating_ip_address": "ip_address", "subnet_id": "subnet_id"} {
		if s := v.str(from); s != "" {
			ask[to] = s
		}
	}
	wish := values{}
	if len(ask) > 0 {
		wish["fixed_ips"] = []any{ask}
	}
	f := &floating{Network: n.ID, Status: portDown}
	f.ID, f.Project = uuid.NewString(), project
	st.made(&f.base)
	p := &port{Network: n.ID, Up: true, DeviceID: f.ID, Owner: ownerFloating, binding: binding{VNIC: "normal"}}
	if err := st.addPort(c, p, n, wish, host); err != nil {
		return nil, err
	}
	p.Status = "N/A"
	if f.Address = p.firstIPv4(); !f.Address.IsValid() {
		return nil, fault(http.StatusBadRequest, "ExternalIpAddressExhausted", "Unable to find any IP address on external network %s.", n.ID)
	}
	f.OwnPort = p.ID
	return f, st.associate(c, f, v)
}

func (p *port) firstIPv4() netip.Addr {
	for _, ip := range p.IPs {
		if ip.Address.Is4() {
			return ip.Address
		}
	}
	return netip.Addr{}
}

// associate says what a floating address stands for, as far as that was sent,
// and puts the record. f is a copy of its own.
//
// Source: neutron/db/l3_db.py, _check_and_get_fip_assoc.
func (st *state) associate(c *rest.Caller, f *floating, v values) error {
	d, ok := v["description"].(string)
	if ok || f.Description == nil {
		f.Description = &d
	}
	id := v.str("port_id")
	if id == "" && v.str("fixed_ip_address") != "" {
		return badFloating("fixed_ip_address cannot be specified without a port_id")
	}
	if !v.has("port_id") {
		st.floatings.put(f)
		return nil
	}
	before := f.Port
	f.Port, f.Fixed, f.Router = "", netip.Addr{}, ""
	if id != "" {
		p, err := st.port(c, id)
		if err != nil {
			return err
		}
		if err := st.standFor(f, p, v.str("fixed_ip_address")); err != nil {
			return err
		}
	}
	f.Status = portDown
	if f.Port != "" {
		f.Status = portActive
	}
	st.floatings.put(f)
	for _, one := range []string{before, f.Port} {
		if p, ok := st.ports.get(one); ok && p.ofServer() {
			st.tell(NetworkChanged, p)
		}
	}
	return nil
}

// standFor chooses the fixed address and the router.
func (st *state) standFor(f *floating, p *port, fixed string) error {
	var found []fixedIP
	for _, ip := range p.IPs {
		if ip.Address.Is4() && (fixed == "" || ip.Address.String() == fixed) {
			found = append(found, ip)
		}
	}
	switch {
	case len(found) == 0 && fixed != "":
		return badFloating("Port %s does not have fixed ip %s", p.ID, fixed)
	case len(found) == 0:
		return badFloating("Cannot add floating IP to port %s that has no fixed IPv4 addresses", p.ID)
	case len(found) > 1:
		return badFloating("Port %s has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a floating IP", p.ID)
	}
	ip := found[0]
	if st.floatings.has(func(o *floating) bool {
		return o.ID != f.ID && o.Port == p.ID && o.Fixed == ip.Address && o.Network == f.Network
	}) {
		return conflict("FloatingIPPortAlreadyAssociated", "Cannot associate floating IP %s (%s) with port %s using fixed IP %s, "+
			"as that fixed IP already has a floating IP on external network %s.", f.Address, f.ID, p.ID, ip.Address, f.Network)
	}
	for _, one := range st.routers.where(func(*router) bool { return true }) {
		gw, ok := st.ports.get(one.Gateway)
		if !ok || gw.Network != f.Network {
			continue
		}
		for _, i := range st.interfacesOf(one.ID) {
			if i.inSubnet(ip.Subnet) {
				f.Port, f.Fixed, f.Router = p.ID, ip.Address, one.ID
				return nil
			}
		}
	}
	return notFound("ExternalGatewayForFloatingIPNotFound", "External network %s is not reachable from subnet %s.  "+
		"Therefore, cannot associate Port %s with a Floating IP.", f.Network, ip.Subnet, p.ID)
}

func (s *Service) updateFloating(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, _, err := floatingResource.parse(r)
	if err != nil {
		return nil, err
	}
	var view map[string]any
	err = s.write(ctx, func(st *state) error {
		old, err := st.ownFloating(r, "update_floatingip")
		if err != nil {
			return err
		}
		f := *old
		if len(all[0]) > 0 {
			st.bumped(&f.base)
		}
		if err := st.associate(r.Caller, &f, all[0]); err != nil {
			return err
		}
		view = st.floatingView(&f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return show(r, &floatingResource, view)
}

// ownFloating finds the floating IP of the path, which the caller may change.
func (st *state) ownFloating(r *rest.Request, rule string) (*floating, error) {
	f, err := st.floating(r.Caller, r.PathValue("id"))
	switch {
	case err != nil:
		return nil, err
	case !r.Caller.Member():
		return nil, denied("rule:" + rule)
	}
	return f, ifMatch(r, f.Revision)
}

func (s *Service) deleteFloating(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := noBody(r); err != nil {
		return nil, err
	}
	err := s.write(ctx, func(st *state) error {
		f, err := st.ownFloating(r, "delete_floatingip")
		if err != nil {
			return err
		}
		if p, ok := st.ports.get(f.Port); ok && p.ofServer() {
			st.tell(NetworkChanged, p)
		}
		st.ports.del(f.OwnPort)
		st.floatings.del(f.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

// forgetFloating lets go of the floating addresses of a port that is removed
// (now is nil) or has lost the address they stood for.
func (st *state) forgetFloating(old, now *port) {
	for _, f := range st.floatings.where(func(f *floating) bool { return f.Port == old.ID }) {
		if now != nil && slices.ContainsFunc(now.IPs, func(ip fixedIP) bool { return ip.Address == f.Fixed }) {
			continue
		}
		free := *f
		free.Port, free.Fixed, free.Router, free.Status = "", netip.Addr{}, "", portDown
		st.bumped(&free.base)
		st.floatings.put(&free)
	}
}

// floatingNeeds reports whether a floating address goes through the router into
// the subnet.
func (st *state) floatingNeeds(one *router, subnetID string) bool {
	return st.floatings.has(func(f *floating) bool {
		p, ok := st.ports.get(f.Port)
		return ok && f.Router == one.ID && p.holds(subnetID, f.Fixed)
	})
}
