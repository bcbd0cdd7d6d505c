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
	// Server is the address of the router's interface on which it asked.
	Server netip.Addr
	// Address is the port's, with the length of its subnet.
	Address netip.Prefix
	// Gateway is the zero Addr for none.
	Gateway  netip.Addr
	DNS      []netip.Addr
	Routes   []HostRoute
	MTU      int
	HostName string
}

// LeaseAt returns what the instance with a MAC is told on an interface of a
// router, by the interface's port. A MAC that no port of an instance in the
// network has, or none with an address of a subnet with DHCP that the interface
// is in, is errdefs.ErrNotFound.
func (s *Service) LeaseAt(_ context.Context, routerPort, mac string) (l Lease, err error) {
	err = s.store.read(func(st *state) error {
		at, ok := st.ports.get(routerPort)
		if !ok {
			return fmt.Errorf("lease at port %s: %w", routerPort, errdefs.ErrNotFound)
		}
		for p := range st.ports.all() {
			if p.Network == at.Network && p.MAC == mac && p.plugged() && p.Up {
				if l, ok = st.lease(at, p); ok {
					return nil
				}
			}
		}
		return fmt.Errorf("lease of %s at port %s: %w", mac, routerPort, errdefs.ErrNotFound)
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
			DNS: sub.DNS, Routes: sub.Routes, HostName: st.portPlan(p.ID).HostName,
		}
		if n, ok := st.networks.get(p.Network); ok {
			l.MTU = n.MTU
		}
		return l, true
	}
	return l, false
}
