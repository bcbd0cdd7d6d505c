package network

import (
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
)

// ipRange is an allocation pool: addresses from First to Last, both included.
type ipRange struct{ First, Last netip.Addr }

// String is as Neutron writes it in errors.
func (r ipRange) String() string { return r.First.String() + "-" + r.Last.String() }

func (r ipRange) contains(a netip.Addr) bool {
	return r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// lastOf is the highest address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// hostAddress reports whether a can be given to a host of the network: not the
// network's own address, nor the broadcast address of IPv4.
func hostAddress(p netip.Prefix, a netip.Addr) bool {
	if !p.Contains(a) {
		return false
	}
	if a.BitLen()-p.Bits() < 2 {
		return true
	}
	return a != p.Masked().Addr() && (a.Is6() || a != lastOf(p))
}

// poolsOf is what a subnet without pools of its own gives out: everything but
// the gateway.
func poolsOf(p netip.Prefix, gateway netip.Addr) []ipRange {
	first, last := p.Masked().Addr(), lastOf(p)
	if first.BitLen()-p.Bits() >= 2 {
		first = first.Next()
		if last.Is4() {
			last = last.Prev()
		}
	}
	whole := ipRange{first, last}
	if !gateway.IsValid() || !whole.contains(gateway) {
		return []ipRange{whole}
	}
	var out []ipRange
	if gateway != first {
		out = append(out, ipRange{first, gateway.Prev()})
	}
	if gateway != last {
		out = append(out, ipRange{gateway.Next(), last})
	}
	return out
}

// readPools reads and checks pools whose form is right.
func readPools(cidr netip.Prefix, all []values) ([]ipRange, error) {
	out := make([]ipRange, 0, len(all))
	for _, m := range all {
		r := ipRange{netip.MustParseAddr(m.str("start")), netip.MustParseAddr(m.str("end"))}
		if r.First.Is4() != cidr.Addr().Is4() || r.Last.Is4() != cidr.Addr().Is4() || r.Last.Less(r.First) {
			return nil, fault(http.StatusBadRequest, "InvalidAllocationPool",
				"The allocation pool {'start': '%s', 'end': '%s'} is not valid.", r.First, r.Last)
		}
		if !hostAddress(cidr, r.First) || !hostAddress(cidr, r.Last) {
			return nil, fault(http.StatusBadRequest, "OutOfBoundsAllocationPool",
				"The allocation pool %s spans beyond the subnet cidr %s.", r, cidr)
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b ipRange) int { return a.First.Compare(b.First) })
	for i := 1; i < len(out); i++ {
		if !out[i-1].Last.Less(out[i].First) {
			return nil, conflict("OverlappingAllocationPools", "Found overlapping allocation pools: %s %s for subnet %s.",
				out[i-1], out[i], cidr)
		}
	}
	return out, nil
}

// fixedIP is one address of a port.
type fixedIP struct {
	Subnet  string
	Address netip.Addr
}

// eui64 is the address that follows from a MAC in a /64.
func eui64(p netip.Prefix, mac string) netip.Addr {
	m, err := net.ParseMAC(mac)
	if err != nil || len(m) != 6 {
		return netip.Addr{}
	}
	b := p.Masked().Addr().As16()
	copy(b[8:], []byte{m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
	return netip.AddrFrom16(b)
}

// taken are the addresses of a subnet that ports have.
func (st *state) taken(subnetID string) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for p := range st.ports.all() {
		for _, ip := range p.IPs {
			if ip.Subnet == subnetID {
				out[ip.Address] = true
			}
		}
	}
	return out
}

// window is among how many of the next free addresses one is chosen at random,
// so that an address which was just given back is not the next one given.
const window = 10

// pick chooses a free address of the pools.
func (s *subnet) pick(taken map[netip.Addr]bool) (netip.Addr, bool) {
	var free []netip.Addr
	for _, r := range s.Pools {
		for a := r.First; a.IsValid() && r.contains(a) && len(free) < window; a = a.Next() {
			if !taken[a] {
				free = append(free, a)
			}
		}
	}
	if len(free) == 0 {
		return netip.Addr{}, false
	}
	return free[rand.IntN(len(free))], true //nolint:gosec // a spread, no secret
}

// allocation is the search for the addresses of one port.
type allocation struct {
	st      *state
	network *network
	subnets []*subnet
	mac     string
	// router says that the port is a router's: it gets no automatic addresses.
	router bool
	keep   []fixedIP // what the port has now; free to itself
	got    []fixedIP
}

func (a *allocation) free(s *subnet) map[netip.Addr]bool {
	t := a.st.taken(s.ID)
	for _, ip := range a.keep {
		if ip.Subnet == s.ID {
			delete(t, ip.Address)
		}
	}
	for _, ip := range a.got {
		if ip.Subnet == s.ID {
			t[ip.Address] = true
		}
	}
	return t
}

// wish takes what was asked for: by address, by subnet, or both. Addresses that
// are named come first, so that none of them is chosen for another wish.
func (a *allocation) wish(all []values) error {
	out := make([][]fixedIP, len(all))
	for _, named := range []bool{true, false} {
		for i, w := range all {
			if (w.str("ip_address") != "") != named {
				continue
			}
			n := len(a.got)
			if err := a.one(w); err != nil {
				return err
			}
			out[i] = slices.Clone(a.got[n:])
		}
	}
	a.got = slices.Concat(out...)
	return nil
}

func (a *allocation) one(w values) error {
	id, text := w.str("subnet_id"), w.str("ip_address")
	if id == "" && text == "" {
		return invalid("IP allocation requires subnet_id or ip_address")
	}
	var sub *subnet
	if id != "" {
		i := slices.IndexFunc(a.subnets, func(s *subnet) bool { return s.ID == id })
		if i < 0 {
			if s, ok := a.st.subnets.get(id); ok {
				return invalid("Failed to create port on network %s, because fixed_ips included invalid subnet %s", a.network.ID, s.ID)
			}
			return subnetResource.missing(id)
		}
		sub = a.subnets[i]
	}
	if text == "" {
		return a.any(sub)
	}
	addr := netip.MustParseAddr(text)
	if sub == nil {
		i := slices.IndexFunc(a.subnets, func(s *subnet) bool { return hostAddress(s.CIDR, addr) })
		if i < 0 {
			return fault(http.StatusBadRequest, "InvalidIpForNetwork",
				"IP address %s is not a valid IP for any of the subnets on the specified network.", addr)
		}
		sub = a.subnets[i]
	} else if !hostAddress(sub.CIDR, addr) && (!a.router || addr != sub.Gateway) {
		return fault(http.StatusBadRequest, "InvalidIpForSubnet", "IP address %s is not a valid IP for the specified subnet.", addr)
	}
	return a.this(sub, addr)
}

// this takes one address.
func (a *allocation) this(sub *subnet, addr netip.Addr) error {
	if sub.automatic() && !a.router && addr != eui64(sub.CIDR, a.mac) {
		return fault(http.StatusBadRequest, "AllocationOnAutoAddressSubnet", "IPv6 address %s cannot be directly assigned to a port "+
			"on subnet %s as the subnet is configured for automatic addresses", addr, sub.ID)
	}
	if a.free(sub)[addr] {
		return conflict("IpAddressAlreadyAllocated", "IP address %s already allocated in subnet %s", addr, sub.ID)
	}
	a.got = append(a.got, fixedIP{sub.ID, addr})
	return nil
}

// any takes some address of a subnet.
func (a *allocation) any(sub *subnet) error {
	if sub.automatic() && !a.router {
		a.got = append(a.got, fixedIP{sub.ID, eui64(sub.CIDR, a.mac)})
		return nil
	}
	addr, ok := sub.pick(a.free(sub))
	if !ok {
		return a.exhausted()
	}
	a.got = append(a.got, fixedIP{sub.ID, addr})
	return nil
}

func (a *allocation) exhausted() error {
	return conflict("IpAddressGenerationFailure", "No more IP addresses available on network %s.", a.network.ID)
}

// some takes one address of each version that the network has.
func (a *allocation) some() error {
	for _, is4 := range []bool{true, false} {
		asked, ok := false, false
		for _, sub := range a.subnets {
			if sub.CIDR.Addr().Is4() != is4 || sub.automatic() && !a.router {
				continue
			}
			asked = true
			var addr netip.Addr
			if addr, ok = sub.pick(a.free(sub)); ok {
				a.got = append(a.got, fixedIP{sub.ID, addr})
				break
			}
		}
		if asked && !ok {
			return a.exhausted()
		}
	}
	return nil
}

// automatic adds the addresses that follow from the MAC, but for routers.
func (a *allocation) automatic() {
	for _, sub := range a.subnets {
		if !sub.automatic() || a.router || slices.ContainsFunc(a.got, func(ip fixedIP) bool { return ip.Subnet == sub.ID }) {
			continue
		}
		a.got = append(a.got, fixedIP{sub.ID, eui64(sub.CIDR, a.mac)})
	}
}

// joinAutomatic gives the ports of a network their addresses in a new subnet
// with automatic ones.
func (st *state) joinAutomatic(sub *subnet) error {
	if !sub.automatic() {
		return nil
	}
	for _, p := range st.ports.where(func(p *port) bool { return p.Network == sub.Network && !p.routed() }) {
		c := *p
		c.IPs = append(slices.Clone(p.IPs), fixedIP{sub.ID, eui64(sub.CIDR, p.MAC)})
		st.bumped(&c.base)
		st.ports.put(&c)
	}
	return nil
}
