package network

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// The port on which guests of a network find DHCP, names and metadata, as
// Neutron's DHCP agent makes it: one for each network that has a subnet with
// DHCP, with an address in each of those (neutron/agent/linux/dhcp.py,
// DeviceManager.setup_dhcp_port; neutron_lib/plugins/utils.py,
// get_dhcp_agent_device_id). host is the one host there is.

// serveTouched keeps these ports as they should be after a transaction.
func (st *state) serveTouched(host string) {
	seen := map[string]bool{}
	each(&st.networks, func(n *network) { seen[n.ID] = true })
	each(&st.subnets, func(s *subnet) { seen[s.Network] = true })
	each(&st.ports, func(p *port) {
		if p.Owner == ownerDHCP {
			seen[p.Network] = true
		}
	})
	for id := range seen {
		st.serve(id, host)
	}
}

// serve makes the port of a network, changes it, or takes it away.
func (st *state) serve(id, host string) {
	old := st.servingPort(id)
	n, ok := st.networks.get(id)
	if !ok {
		return // its ports went with it
	}
	mac := st.newMAC(id)
	var ips []fixedIP
	if old != nil {
		mac = old.MAC
		for _, ip := range old.IPs {
			if sub, ok := st.subnets.get(ip.Subnet); ok && sub.DHCP {
				ips = append(ips, ip)
			}
		}
	}
	for _, sub := range st.subnetsOf(id) {
		if !sub.DHCP || slices.ContainsFunc(ips, func(ip fixedIP) bool { return ip.Subnet == sub.ID }) {
			continue
		}
		if a, ok := st.servingAddress(sub, mac); ok {
			ips = append(ips, fixedIP{sub.ID, a})
		}
	}
	switch {
	case len(ips) == 0 && old != nil:
		st.ports.del(old.ID)
	case len(ips) == 0 || old != nil && slices.Equal(old.IPs, ips):
	case old != nil:
		p := *old
		p.IPs = ips
		st.bumped(&p.base)
		st.ports.put(&p)
	default:
		st.ports.put(st.newServingPort(n, mac, ips, host))
	}
}

func (st *state) newServingPort(n *network, mac string, ips []fixedIP, host string) *port {
	name, _, _ := strings.Cut(host, ".")
	empty := ""
	p := &port{
		Network: n.ID, Up: true, MAC: mac, IPs: ips, Owner: ownerDHCP, Status: portDown,
		DeviceID: "dhcp" + uuid.NewSHA1(uuid.NameSpaceDNS, []byte(name)).String() + "-" + n.ID,
		binding:  binding{VNIC: "normal", Host: host, VIF: vifBridge},
	}
	p.ID, p.Project, p.Description, p.Revision = uuid.NewString(), n.Project, &empty, 1
	st.made(&p.base)
	return p
}

// servingPort is nil if a network has none.
func (st *state) servingPort(network string) *port {
	for p := range st.ports.all() {
		if p.Network == network && p.Owner == ownerDHCP {
			return p
		}
	}
	return nil
}

// servingAddress is the last free address of IPv4, since those that are asked
// for by name are mostly among the first; of IPv6 one like those of other
// ports. None is left: the subnet is not served.
func (st *state) servingAddress(sub *subnet, mac string) (netip.Addr, bool) {
	if sub.automatic() {
		return eui64(sub.CIDR, mac), true
	}
	taken := st.taken(sub.ID)
	if sub.CIDR.Addr().Is6() {
		return sub.pick(taken)
	}
	for _, r := range slices.Backward(sub.Pools) {
		for a := r.Last; a.IsValid() && r.contains(a); a = a.Prev() {
			if !taken[a] {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// servingInterface is the device of a network's serving port; nil: none.
//
// A gateway of IPv4 that no port has belongs to it, too, so that guests whose
// way to the metadata leads there find it without a router. It forwards nothing.
func (st *state) servingInterface(network string) *RouterInterface {
	p := st.servingPort(network)
	n, ok := st.networks.get(network)
	if p == nil || !ok || !p.Up || len(p.IPs) == 0 {
		return nil
	}
	i := st.routerInterface(p, "ns-")
	for _, sub := range st.subnetsOf(network) {
		if p.inSubnet(sub.ID) && !n.External && sub.Gateway.Is4() && sub.CIDR.Contains(sub.Gateway) && !st.claimed(network, sub.Gateway) {
			i.Addresses = append(i.Addresses, netip.PrefixFrom(sub.Gateway, sub.CIDR.Bits()))
		}
	}
	return &i
}

// claimed reports whether a port of a network may send from an address.
func (st *state) claimed(network string, a netip.Addr) bool {
	for p := range st.ports.all() {
		if p.Network == network && slices.ContainsFunc(p.sources(), func(s Source) bool { return s.Address.Contains(a) }) {
			return true
		}
	}
	return false
}

// isGateway reports whether a port may send from the gateway of a subnet.
func (st *state) isGateway(p *port) bool {
	from := p.sources()
	return slices.ContainsFunc(st.subnetsOf(p.Network), func(sub *subnet) bool {
		return sub.Gateway.Is4() && slices.ContainsFunc(from, func(s Source) bool { return s.Address.Contains(sub.Gateway) })
	})
}
