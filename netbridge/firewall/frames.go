package firewall

import (
	"net"
	"net/netip"
	"slices"
)

// frames is the check of the addresses that frames come from.
func (c Change) frames(gone []string) string {
	var s script
	s.add("*nat")
	added := c.Added
	if c.Fresh {
		s.add(":" + c.Dispatch + " RETURN")
		added = c.All
	}
	for _, p := range c.Fill {
		s.add(":"+p.egress(), "RETURN")
	}
	for _, id := range gone {
		s.add(":"+egressPrefix+id, "RETURN")
	}
	for _, p := range added {
		s.add("-A", c.Dispatch, "-i", p.Device, "-j", p.egress())
	}
	if !c.Fresh {
		for _, p := range c.Gone {
			s.add("-D", c.Dispatch, "-i", p.Device, "-j", p.egress())
		}
	}
	for _, p := range c.Fill {
		p.frames(&s)
	}
	for _, id := range gone {
		s.add("-X", egressPrefix+id)
	}
	s.add("COMMIT")
	return s.String()
}

func (p Port) frames(s *script) {
	pass := func(words ...string) {
		s.add(slices.Concat([]string{"-A", p.egress()}, words, []string{"-j", "RETURN"})...)
	}
	switch {
	case p.Down:
		s.add("-A", p.egress(), "-j", "DROP")
		return
	case p.Open:
		pass()
		return
	}
	macs := map[string]bool{}
	for _, src := range p.Sources {
		a := src.Address.Masked().String()
		if src.Address.Addr().Is4() {
			pass("-p", "ARP", "-s", src.MAC, "--arp-ip-src", a, "--arp-mac-src", src.MAC)
			// whether it is free (RFC 5227), which is nobody else's to ask
			pass("-p", "ARP", "-s", src.MAC, "--arp-ip-src", "0.0.0.0", "--arp-mac-src", src.MAC, "--arp-ip-dst", a)
			pass("-p", "IPv4", "-s", src.MAC, "--ip-src", a)
		} else {
			pass("-p", "IPv6", "-s", src.MAC, "--ip6-src", a)
		}
		if macs[src.MAC] {
			continue
		}
		macs[src.MAC] = true
		// asking for an address (RFC 2131)
		pass("-p", "IPv4", "-s", src.MAC, "--ip-src", "0.0.0.0", "--ip-proto", "udp", "--ip-sport", "68", "--ip-dport", "67")
		// neighbour discovery, without an address and from the one that follows
		// from the MAC; what it may say is for the rules of packets
		pass("-p", "IPv6", "-s", src.MAC, "--ip6-src", "::/128", "--ip6-proto", "ipv6-icmp")
		if local, ok := linkLocal(src.MAC); ok {
			pass("-p", "IPv6", "-s", src.MAC, "--ip6-src", local+"/128")
		}
	}
	s.add("-A", p.egress(), "-j", "DROP")
}

// linkLocal is the IPv6 address that a guest makes of its MAC.
func linkLocal(mac string) (string, bool) {
	m, err := net.ParseMAC(mac)
	if err != nil || len(m) != 6 {
		return "", false
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]}).String(), true
}
