package network

import (
	"context"
	"crypto/rand"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// The owners of ports that mean something here (neutron_lib/constants.py).
const (
	ownerDHCP      = "network:dhcp"
	ownerInterface = "network:router_interface"
	ownerGateway   = "network:router_gateway"
	ownerFloating  = "network:floatingip"
	ownersNetwork  = "network:"
	ownersCompute  = "compute:"
)

// The states of a port.
const (
	portDown   = "DOWN"
	portActive = "ACTIVE"
)

// vnicTypes are what binding:vnic_type accepts; only "normal" can be bound.
var vnicTypes = []string{
	"normal", "direct", "macvtap", "baremetal", "direct-physical", "virtio-forwarder", "smart-nic", "vdpa",
	"accelerator-direct", "accelerator-direct-physical", "remote-managed",
}

var portResource = resource{
	name: "port", plural: "ports", path: "ports", bulk: true,
	missing: func(id string) error { return notFound("PortNotFound", "Port %s could not be found.", id) },
	attrs: standard(
		attr{name: "name", post: true, put: true, def: "", check: text(255), filter: true, sort: true},
		attr{name: "network_id", post: true, must: true, check: uuidOf, filter: true, sort: true},
		attr{name: "admin_state_up", post: true, put: true, def: true, check: boolean, filter: true, sort: true},
		attr{name: "mac_address", post: true, put: true, unset: true, check: macOf, who: networkOwner, filter: true, sort: true},
		attr{name: "fixed_ips", post: true, put: true, unset: true, check: fixedIPs, who: networkOwner, filter: true},
		attr{name: "device_id", post: true, put: true, def: "", check: text(255), filter: true, sort: true},
		attr{name: "device_owner", post: true, put: true, def: "", check: text(255), filter: true, sort: true},
		attr{name: "status", filter: true, sort: true},
		attr{name: "port_security_enabled", post: true, put: true, unset: true, check: boolean, who: networkOwner},
		attr{name: "binding:vnic_type", post: true, put: true, def: "normal", check: oneOf(vnicTypes...)},
		attr{name: "binding:host_id", post: true, put: true, unset: true, check: orNull(text(255)), who: adminOnly, admin: true, filter: true},
		attr{name: "binding:profile", post: true, put: true, unset: true, check: orNull(object), who: adminOnly, admin: true},
		attr{name: "binding:vif_type", admin: true},
		attr{name: "binding:vif_details", admin: true},
		attr{name: "allowed_address_pairs", post: true, put: true, unset: true, check: addressPairs, who: networkOwner},
		attr{name: "security_groups", post: true, put: true, unset: true, check: uuids, filter: true},
		attr{name: "extra_dhcp_opts", post: true, put: true, unset: true, check: dhcpOptions},
	),
}

type port struct {
	base

	Network  string
	Up       bool
	MAC      string
	IPs      []fixedIP `json:",omitempty"`
	DeviceID string    `json:",omitempty"`
	Owner    string    `json:",omitempty"`
	Status   string
	Secure   bool
	Groups   []string      `json:",omitempty"`
	Pairs    []addressPair `json:",omitempty"`
	Options  []dhcpOption  `json:",omitempty"`
	binding
}

func (p *port) inSubnet(id string) bool {
	return slices.ContainsFunc(p.IPs, func(ip fixedIP) bool { return ip.Subnet == id })
}

func (p *port) holds(subnetID string, a netip.Addr) bool {
	return slices.Contains(p.IPs, fixedIP{subnetID, a})
}

// routed reports whether it is a router's.
func (p *port) routed() bool { return p.Owner == ownerInterface || p.Owner == ownerGateway }

// ofServer reports whether Nova is told of its changes.
func (p *port) ofServer() bool {
	return strings.HasPrefix(p.Owner, ownersCompute) && isUUID(p.DeviceID)
}

func (s *Service) portRoutes() {
	s.route(&portResource, verbs{
		list: s.listPorts, show: s.showPort, create: s.createPorts, update: s.updatePort, remove: s.deletePort,
	})
}

// port finds one that the caller sees: its own, and those on its networks.
func (st *state) port(c *rest.Caller, id string) (*port, error) {
	p, ok := st.ports.get(id)
	if !ok || !st.seesPort(c, p) {
		return nil, portResource.missing(id)
	}
	return p, nil
}

func (st *state) seesPort(c *rest.Caller, p *port) bool {
	n, ok := st.networks.get(p.Network)
	return c.Owns(p.Project) || ok && c.Owns(n.Project)
}

func (p *port) view() map[string]any {
	ips := make([]map[string]string, len(p.IPs))
	for i, ip := range p.IPs {
		ips[i] = map[string]string{"subnet_id": ip.Subnet, "ip_address": ip.Address.String()}
	}
	pairs := make([]map[string]string, len(p.Pairs))
	for i, a := range p.Pairs {
		pairs[i] = map[string]string{"mac_address": a.MAC, "ip_address": a.IP}
	}
	v := map[string]any{
		"name": p.Name, "network_id": p.Network, "admin_state_up": p.Up, "mac_address": p.MAC, "fixed_ips": ips,
		"device_id": p.DeviceID, "device_owner": p.Owner, "status": p.Status, "port_security_enabled": p.Secure,
		"allowed_address_pairs": pairs, "security_groups": orEmpty(p.Groups), "extra_dhcp_opts": optionsView(p.Options),
	}
	p.binding.view(v)
	return p.standardView(v)
}

// matchesIPs is the filter fixed_ips=ip_address=A, subnet_id=S or
// ip_address_substr=T: each kind must be met by one of its values.
func matchesIPs(v map[string]any, wishes []string) bool {
	ips, _ := v["fixed_ips"].([]map[string]string)
	met := map[string]bool{}
	for _, w := range wishes {
		key, value, _ := strings.Cut(w, "=")
		met[key] = met[key] || slices.ContainsFunc(ips, func(ip map[string]string) bool {
			if key == "ip_address_substr" {
				return strings.Contains(ip["ip_address"], value)
			}
			return ip[key] == value
		})
	}
	for _, ok := range met {
		if !ok {
			return false
		}
	}
	return true
}

func (s *Service) listPorts(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	for _, w := range r.Params()["fixed_ips"] {
		key, _, ok := strings.Cut(w, "=")
		if !ok || key != "ip_address" && key != "subnet_id" && key != "ip_address_substr" {
			return nil, invalid("'%s' is not of the form <key>=[value]", w)
		}
	}
	// What clients filter by most is looked at before views are made.
	device, network := r.Params()["device_id"], r.Params()["network_id"]
	err = s.store.read(func(st *state) error {
		all := st.ports.where(func(p *port) bool {
			return (device == nil || slices.Contains(device, p.DeviceID)) &&
				(network == nil || slices.Contains(network, p.Network)) && st.seesPort(r.Caller, p)
		})
		res, err = list(r, &portResource, all, (*port).view)
		return err
	})
	return res, err
}

func (s *Service) showPort(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		p, err := st.port(r.Caller, r.PathValue("id"))
		if err != nil {
			return err
		}
		res, err = show(r, &portResource, p.view())
		return err
	})
	return res, err
}

func (s *Service) createPorts(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, bulk, err := portResource.parse(r)
	if err != nil {
		return nil, err
	}
	var views []map[string]any
	var made []*port
	err = s.write(ctx, func(st *state) error {
		for _, v := range all {
			p, err := st.createPort(r.Caller, v, s.o.Host)
			if err != nil {
				return err
			}
			made = append(made, p)
			views = append(views, p.view())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, p := range made {
		s.fabric.await(ctx, p)
	}
	return created(r, &portResource, bulk, views)
}

// createPort is a POST of one, by the API. host is the one host there is.
func (st *state) createPort(c *rest.Caller, v values, host string) (*port, error) {
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
	if err := portResource.mayWrite(c, "create", v, n.Project); err != nil {
		return nil, err
	}
	if owner := v.str("device_owner"); strings.HasPrefix(owner, ownersNetwork) && !c.Owns(n.Project) {
		return nil, denied("(rule:create_port and rule:create_port:device_owner)")
	}
	if err := st.room(project, "port", st.countOf(project, "port")+1); err != nil {
		return nil, err
	}
	p := &port{Network: n.ID, Secure: n.PortSecurity, binding: binding{VNIC: "normal"}}
	p.Project = project
	return p, st.addPort(c, p, n, v, host)
}

// addPort fills and adds a new port. Its Project, Network, Secure and VNIC are
// set.
func (st *state) addPort(c *rest.Caller, p *port, n *network, v values, host string) error {
	p.ID, p.Revision, p.Status = uuid.NewString(), 1, portDown
	st.made(&p.base)
	if p.MAC = v.str("mac_address"); p.MAC == "" {
		p.MAC = st.newMAC(n.ID)
	} else if st.macUsed(n.ID, p.MAC) {
		return conflict("MacAddressInUse", "Unable to complete operation for network %s. The mac address %s is in use.", n.ID, p.MAC)
	}
	p.set(v)
	p.setOptions(v)
	if err := st.address(p, n, v); err != nil {
		return err
	}
	if err := st.secure(c, p, v, true); err != nil {
		return err
	}
	p.bind(v, host)
	st.ports.put(p)
	return nil
}

// set takes over what needs no look at others.
func (p *port) set(v values) {
	v.setStr("name", &p.Name)
	if d, ok := v["description"].(string); ok {
		p.Description = &d
	} else if p.Description == nil {
		empty := ""
		p.Description = &empty
	}
	v.setFlag("admin_state_up", &p.Up)
	v.setStr("device_id", &p.DeviceID)
	v.setStr("device_owner", &p.Owner)
}

// address gives the port its addresses: those wished for, else one of each
// version in a POST; and in any case the automatic ones.
func (st *state) address(p *port, n *network, v values) error {
	sent := v.has("fixed_ips")
	if !sent && len(p.IPs) > 0 {
		return nil
	}
	a := &allocation{st: st, network: n, subnets: st.subnetsFor(n.ID, p.Owner), mac: p.MAC, router: p.routed(), keep: p.IPs}
	if sent {
		if err := a.wish(v.maps("fixed_ips")); err != nil {
			return err
		}
	} else if err := a.some(); err != nil {
		return err
	}
	a.automatic()
	p.IPs = a.got
	return nil
}

// macUsed reports whether a port of the network has the address.
func (st *state) macUsed(networkID, mac string) bool {
	return st.ports.has(func(p *port) bool { return p.Network == networkID && p.MAC == mac })
}

// newMAC makes an address with Neutron's prefix that no port of the network has.
func (st *state) newMAC(networkID string) string {
	for {
		var b [3]byte
		_, _ = rand.Read(b[:]) // never fails
		mac := "fa:16:3e:" + hexColon(b[:])
		if !st.macUsed(networkID, mac) {
			return mac
		}
	}
}

func hexColon(b []byte) string {
	const digits = "0123456789abcdef"
	var w strings.Builder
	for i, c := range b {
		if i > 0 {
			w.WriteByte(':')
		}
		w.WriteByte(digits[c>>4])
		w.WriteByte(digits[c&15])
	}
	return w.String()
}

func (s *Service) updatePort(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, _, err := portResource.parse(r)
	if err != nil {
		return nil, err
	}
	var p *port
	err = s.write(ctx, func(st *state) error {
		old, err := st.ownPort(r, "update_port")
		if err != nil {
			return err
		}
		p, err = st.changePort(r.Caller, old, all[0], s.o.Host)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.fabric.await(ctx, p)
	return show(r, &portResource, p.view())
}

// ownPort finds the port of the path, which the caller may change.
func (st *state) ownPort(r *rest.Request, rule string) (*port, error) {
	p, err := st.port(r.Caller, r.PathValue("id"))
	switch {
	case err != nil:
		return nil, err
	case !r.Caller.Member() || !r.Caller.Owns(p.Project):
		return nil, denied("rule:" + rule)
	}
	return p, ifMatch(r, p.Revision)
}

func (st *state) changePort(c *rest.Caller, old *port, v values, host string) (*port, error) {
	n, ok := st.networks.get(old.Network)
	if !ok {
		return nil, portResource.missing(old.ID)
	}
	if err := portResource.mayWrite(c, "update", v, n.Project); err != nil {
		return nil, err
	}
	if !c.Admin() && v.has("mac_address") && v.str("mac_address") != old.MAC {
		return nil, denied("(rule:update_port and rule:update_port:mac_address)")
	}
	if owner := v.str("device_owner"); strings.HasPrefix(owner, ownersNetwork) && owner != old.Owner && !c.Owns(n.Project) {
		return nil, denied("(rule:update_port and rule:update_port:device_owner)")
	}
	p := *old
	if mac := v.str("mac_address"); mac != "" && mac != old.MAC {
		if err := st.changeMAC(&p, mac); err != nil {
			return nil, err
		}
	}
	p.set(v)
	p.setOptions(v)
	if p.routed() && v.has("fixed_ips") && old.routed() {
		return nil, fault(400, "BadRequest", "Bad port request: Fixed IPs on port %s of a router cannot be changed.", p.ID)
	}
	if err := st.address(&p, n, v); err != nil {
		return nil, err
	}
	if err := st.secure(c, &p, v, false); err != nil {
		return nil, err
	}
	p.bind(v, host)
	if p.Host != old.Host || p.VIF != old.VIF || p.DeviceID == "" && !p.routed() {
		p.Status = portDown
	}
	if len(v) > 0 {
		st.bumped(&p.base)
	}
	st.ports.put(&p)
	st.forgetFloating(old, &p)
	if p.ofServer() {
		st.tell(NetworkChanged, &p)
	}
	return &p, nil
}

// changeMAC gives an unbound port another address, and the automatic ones that
// follow from it.
func (st *state) changeMAC(p *port, mac string) error {
	if p.VIF != vifUnbound && p.VIF != vifFailed {
		return conflict("PortBound", "Unable to complete operation on port %s, port is already bound, port type: %s, old_mac %s, new_mac %s.",
			p.ID, p.VIF, p.MAC, mac)
	}
	if st.macUsed(p.Network, mac) {
		return conflict("MacAddressInUse", "Unable to complete operation for network %s. The mac address %s is in use.", p.Network, mac)
	}
	p.IPs = slices.Clone(p.IPs)
	for i, ip := range p.IPs {
		if sub, ok := st.subnets.get(ip.Subnet); ok && sub.automatic() {
			p.IPs[i].Address = eui64(sub.CIDR, mac)
		}
	}
	p.MAC = mac
	return nil
}

func (s *Service) deletePort(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := noBody(r); err != nil {
		return nil, err
	}
	err := s.write(ctx, func(st *state) error {
		p, err := st.ownPort(r, "delete_port")
		if err != nil {
			return err
		}
		if p.routed() && p.DeviceID != "" {
			if _, ok := st.routers.get(p.DeviceID); ok {
				return conflict("ServicePortInUse", "Port %s cannot be deleted directly via the port API: has device owner %s.", p.ID, p.Owner)
			}
		}
		if p.Owner == ownerFloating && st.floatings.has(func(f *floating) bool { return f.OwnPort == p.ID }) {
			return conflict("ServicePortInUse", "Port %s cannot be deleted directly via the port API: has device owner %s.", p.ID, p.Owner)
		}
		st.removePort(p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

// removePort removes a port and lets go of the floating addresses it had.
func (st *state) removePort(p *port) {
	st.forgetFloating(p, nil)
	st.ports.del(p.ID)
	if p.ofServer() {
		st.tell(VIFDeleted, p)
	}
}

// tell notes an event for Nova.
func (st *state) tell(name string, p *port) {
	st.events = append(st.events, Event{Name: name, ServerID: p.DeviceID, Tag: p.ID, Status: "completed"})
}
