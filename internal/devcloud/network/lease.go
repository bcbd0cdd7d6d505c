package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Lease is what a guest is told that asks by DHCP (IPv4).
type Lease struct {
	// Server is the address at which it asked.
	Server netip.Addr
	// Address is the port's, with the length of its subnet.
	Address netip.Prefix
	// Gateway is the zero Addr for none.
	Gateway netip.Addr
	// DNS are the name servers of the subnet, or Server.
	DNS []netip.Addr
	// Routes are those of the subnet, and the way to the metadata if no router
	// has the gateway.
	Routes   []HostRoute
	MTU      int
	HostName string
	// Options replace what would be told otherwise, by their codes; an empty one
	// is not told at all.
	Options map[byte][]byte
}

// Domain is what follows the names of hosts (neutron/conf/common.py, dns_domain).
const Domain = "openstacklocal"

// metadata is where guests ask who they are.
func metadata() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254, 169, 254}), 32)
}

// LeaseAt returns what the instance with a MAC is told where its network is
// served, by the port that serves it. A MAC that no port of an instance in the
// network has, or none with an address of a subnet with DHCP that is served, is
// errdefs.ErrNotFound.
func (s *Service) LeaseAt(_ context.Context, serving, mac string) (l Lease, err error) {
	err = s.store.read(func(st *state) error {
		at, ok := st.ports.get(serving)
		if !ok {
			return fmt.Errorf("lease at port %s: %w", serving, errdefs.ErrNotFound)
		}
		for p := range st.ports.all() {
			if p.Network == at.Network && p.MAC == mac && p.plugged() && p.Up {
				if l, ok = st.lease(at, p); ok {
					return nil
				}
			}
		}
		return fmt.Errorf("lease of %s at port %s: %w", mac, serving, errdefs.ErrNotFound)
	})
	return l, err
}

// lease is of the first address of p in a subnet that at is in, too.
func (st *state) lease(at, p *port) (l Lease, ok bool) {
	for _, ip := range p.IPs {
		sub, ok := st.subnets.get(ip.Subnet)
		server := slices.IndexFunc(at.IPs, func(own fixedIP) bool { return own.Subnet == ip.Subnet })
		if !ok || server < 0 || !sub.DHCP || !ip.Address.Is4() {
			continue
		}
		l = Lease{
			Server: at.IPs[server].Address, Address: netip.PrefixFrom(ip.Address, sub.CIDR.Bits()), Gateway: sub.Gateway,
			DNS: sub.DNS, Routes: slices.Clone(sub.Routes), HostName: hostName(ip.Address), Options: p.told(),
		}
		if len(l.DNS) == 0 {
			l.DNS = []netip.Addr{l.Server}
		}
		if !st.ports.has(func(r *port) bool { return r.Owner == ownerInterface && r.holds(sub.ID, sub.Gateway) }) {
			l.Routes = append(l.Routes, HostRoute{To: metadata(), Via: l.Server})
		}
		if n, ok := st.networks.get(p.Network); ok {
			l.MTU = n.MTU
		}
		return l, true
	}
	return l, false
}

// Lease6 is what a guest is told that asks by DHCPv6.
type Lease6 struct {
	// Addresses are the port's; none where they follow from the MAC.
	Addresses []netip.Addr
	DNS       []netip.Addr
}

// Lease6At is LeaseAt for IPv6: of subnets whose addresses, or the rest of what
// guests need, are told by DHCPv6.
func (s *Service) Lease6At(_ context.Context, serving, mac string) (l Lease6, err error) {
	err = s.store.read(func(st *state) error {
		found := false
		if at, ok := st.ports.get(serving); ok {
			for p := range st.ports.all() {
				if p.Network == at.Network && p.MAC == mac && p.plugged() && p.Up {
					l, found = st.lease6(p)
				}
			}
		}
		if !found {
			return fmt.Errorf("lease of %s at port %s: %w", mac, serving, errdefs.ErrNotFound)
		}
		return nil
	})
	return l, err
}

func (st *state) lease6(p *port) (l Lease6, ok bool) {
	for _, ip := range p.IPs {
		sub, known := st.subnets.get(ip.Subnet)
		if !known || !sub.DHCP || sub.AddressMode != modeStateful && sub.AddressMode != modeStateless {
			continue
		}
		if sub.AddressMode == modeStateful {
			l.Addresses = append(l.Addresses, ip.Address)
		}
		l.DNS, ok = append(l.DNS, st.nameServers(sub)...), true
	}
	return l, ok
}

// nameServers are those of a subnet, or who serves it.
func (st *state) nameServers(sub *subnet) []netip.Addr {
	if len(sub.DNS) > 0 {
		return sub.DNS
	}
	if p := st.servingPort(sub.Network); p != nil {
		for _, ip := range p.IPs {
			if ip.Subnet == sub.ID {
				return []netip.Addr{ip.Address}
			}
		}
	}
	return nil
}
