package network

import (
	"context"
	"slices"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// The interfaces of routers: two verbs of their own
// (neutron/db/l3_db.py, add_router_interface and remove_router_interface).

// interfaceBody is what both verbs are sent.
type interfaceBody struct{ subnet, port string }

func readInterface(r *rest.Request) (b interfaceBody, err error) {
	body, err := bodyOf(r)
	if err != nil {
		return b, err
	}
	for name, to := range map[string]*string{"subnet_id": &b.subnet, "port_id": &b.port} {
		v, ok := body[name]
		if !ok {
			continue
		}
		if _, err := uuidOf(v); err != nil {
			return b, badRouter("'%s' is not a valid UUID", py(v))
		}
		*to = py(v)
	}
	if b == (interfaceBody{}) {
		return b, badRouter("Either subnet_id or port_id must be specified")
	}
	return b, nil
}

// interfaceView is the answer of both verbs.
func interfaceView(one *router, p *port) map[string]any {
	ids := make([]string, len(p.IPs))
	for i, ip := range p.IPs {
		ids[i] = ip.Subnet
	}
	return map[string]any{
		"id": one.ID, "tenant_id": one.Project, "port_id": p.ID, "network_id": p.Network, "subnet_id": ids[len(ids)-1], "subnet_ids": ids,
	}
}

func (s *Service) addInterface(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	var view map[string]any
	err := s.write(ctx, func(st *state) error {
		one, err := st.ownRouter(r, "add_router_interface")
		if err != nil {
			return err
		}
		b, err := readInterface(r)
		if err != nil {
			return err
		}
		if b.port != "" && b.subnet != "" {
			return badRouter("Cannot specify both subnet-id and port-id")
		}
		var p *port
		if b.port != "" {
			p, err = st.interfaceByPort(r.Caller, one, b.port, s.o.Host)
		} else {
			p, err = st.interfaceBySubnet(r.Caller, one, b.subnet, s.o.Host)
		}
		if err != nil {
			return err
		}
		changed := *one
		st.bumped(&changed.base)
		st.routers.put(&changed)
		view = interfaceView(one, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(view)
}

// free refuses a subnet that a router leads to already, or one that overlaps.
func (st *state) joinable(one *router, sub *subnet) error {
	for _, p := range st.portsOf(one) {
		for _, ip := range p.IPs {
			if ip.Subnet == sub.ID {
				return badRouter("Router already has a port on subnet %s", sub.ID)
			}
			if other, ok := st.subnets.get(ip.Subnet); ok && other.CIDR.Overlaps(sub.CIDR) {
				return badRouter("Cidr %s of subnet %s overlaps with cidr %s of subnet %s", sub.CIDR, sub.ID, other.CIDR, other.ID)
			}
		}
	}
	return nil
}

// portsOf are all ports of a router.
func (st *state) portsOf(one *router) []*port {
	ports := st.interfacesOf(one.ID)
	if gw, ok := st.ports.get(one.Gateway); ok {
		ports = append(ports, gw)
	}
	return ports
}

func (st *state) interfaceBySubnet(c *rest.Caller, one *router, id, host string) (*port, error) {
	sub, err := st.subnet(c, id)
	if err != nil {
		return nil, err
	}
	if !sub.Gateway.IsValid() {
		return nil, badRouter("Subnet for router interface must have a gateway IP")
	}
	if err := st.joinable(one, sub); err != nil {
		return nil, err
	}
	n, ok := st.networks.get(sub.Network)
	if !ok {
		return nil, subnetResource.missing(id)
	}
	p := &port{Network: n.ID, Up: true, DeviceID: one.ID, Owner: ownerInterface, binding: binding{VNIC: "normal", Host: host}}
	p.Project = one.Project
	ask := values{"fixed_ips": []any{map[string]any{"subnet_id": sub.ID, "ip_address": sub.Gateway.String()}}}
	if err := st.addPort(c, p, n, ask, host); err != nil {
		return nil, err
	}
	p.Status = portActive
	return p, nil
}

func (st *state) interfaceByPort(c *rest.Caller, one *router, id, host string) (*port, error) {
	given, err := st.port(c, id)
	switch {
	case err != nil:
		return nil, err
	case given.DeviceID != "":
		return nil, conflict("PortInUse", "Unable to complete operation on port %s for network %s. Port already has an attached device %s.",
			given.ID, given.Network, given.DeviceID)
	case len(given.IPs) == 0:
		return nil, badRouter("Router port must have at least one fixed IP")
	}
	for _, ip := range given.IPs {
		if sub, ok := st.subnets.get(ip.Subnet); ok {
			if err := st.joinable(one, sub); err != nil {
				return nil, err
			}
		}
	}
	p := *given
	p.DeviceID, p.Owner, p.Status, p.Secure, p.Groups, p.Pairs = one.ID, ownerInterface, portActive, false, nil, nil
	p.bind(values{"binding:host_id": host}, host)
	st.bumped(&p.base)
	st.ports.put(&p)
	return &p, nil
}

func (s *Service) removeInterface(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	var view map[string]any
	err := s.write(ctx, func(st *state) error {
		one, err := st.ownRouter(r, "remove_router_interface")
		if err != nil {
			return err
		}
		b, err := readInterface(r)
		if err != nil {
			return err
		}
		p, err := st.findInterface(r.Caller, one, b)
		if err != nil {
			return err
		}
		for _, ip := range p.IPs {
			if st.floatingNeeds(one, ip.Subnet) {
				return conflict("RouterInterfaceInUseByFloatingIP", "Router interface for subnet %s on router %s cannot be deleted, "+
					"as it is required by one or more floating IPs.", ip.Subnet, one.ID)
			}
			if sub, ok := st.subnets.get(ip.Subnet); ok && slices.ContainsFunc(one.Routes, func(h HostRoute) bool { return sub.CIDR.Contains(h.Via) }) {
				return conflict("RouterInterfaceInUseByRoute", "Router interface for subnet %s on router %s cannot be deleted, "+
					"as it is required by one or more routes.", ip.Subnet, one.ID)
			}
		}
		view = interfaceView(one, p)
		st.ports.del(p.ID)
		changed := *one
		st.bumped(&changed.base)
		st.routers.put(&changed)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(view)
}

func (st *state) findInterface(c *rest.Caller, one *router, b interfaceBody) (*port, error) {
	if b.port != "" {
		p, ok := st.ports.get(b.port)
		if !ok || p.DeviceID != one.ID || p.Owner != ownerInterface {
			return nil, notFound("RouterInterfaceNotFound", "Router %s does not have an interface with id %s", one.ID, b.port)
		}
		if b.subnet != "" && !p.inSubnet(b.subnet) {
			return nil, fault(400, "SubnetMismatchForPort", "Subnet on port %s does not match the requested subnet %s.", p.ID, b.subnet)
		}
		return p, nil
	}
	if _, err := st.subnet(c, b.subnet); err != nil {
		return nil, err
	}
	for _, p := range st.interfacesOf(one.ID) {
		if p.inSubnet(b.subnet) {
			return p, nil
		}
	}
	return nil, notFound("RouterInterfaceNotFoundForSubnet", "Router %s has no interface on subnet %s", one.ID, b.subnet)
}
