package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// packets is the filter of one IP version. A packet from one port to another
// passes the chains of both.
func (c Change) packets(v6 bool, gone []string) string {
	var s script
	s.add("*filter")
	added := c.Added
	if c.Fresh {
		s.add(":"+c.Dispatch, "- [0:0]")
		s.add(":"+inside(c.Dispatch), "- [0:0]")
		added = c.All
	}
	for _, p := range c.Fill {
		s.add(":"+p.ingress(), "- [0:0]")
		s.add(":"+p.egress(), "- [0:0]")
	}
	for _, id := range gone {
		s.add(":"+ingressPrefix+id, "- [0:0]")
		s.add(":"+egressPrefix+id, "- [0:0]")
	}
	if c.Fresh {
		// What belongs to a connection passes before all ports are gone through,
		// so that it costs the same with many. Cut ends connections.
		for _, chain := range []string{c.Dispatch, inside(c.Dispatch)} {
			s.add("-A", chain, "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN")
		}
	}
	jump := func(verb string, p Port) {
		s.add(verb, c.Dispatch, "-m physdev --physdev-is-bridged --physdev-in", p.Device, "-j", p.egress())
		s.add(verb, c.Dispatch, "-m physdev --physdev-is-bridged --physdev-out", p.Device, "-j", p.ingress())
		s.add(verb, inside(c.Dispatch), "-m physdev --physdev-in", p.Device, "-j", p.egress())
	}
	for _, p := range added {
		jump("-A", p)
	}
	if !c.Fresh {
		for _, p := range c.Gone {
			jump("-D", p)
		}
	}
	for _, p := range c.Fill {
		p.packets(&s, v6, true)
		p.packets(&s, v6, false)
	}
	for _, id := range gone {
		s.add("-X", ingressPrefix+id)
		s.add("-X", egressPrefix+id)
	}
	s.add("COMMIT")
	return s.String()
}

func (p Port) packets(s *script, v6, ingress bool) {
	chain := p.egress()
	if ingress {
		chain = p.ingress()
	}
	pass := func(words ...string) { s.add(slices.Concat([]string{"-A", chain}, words, []string{"-j", "RETURN"})...) }
	drop := func(words ...string) { s.add(slices.Concat([]string{"-A", chain}, words, []string{"-j", "DROP"})...) }
	switch {
	case p.Down:
		drop()
		return
	case p.Open:
		pass()
		return
	}
	if v6 && !ingress {
		p.neighbours(pass, drop)
	}
	always(v6, ingress, pass, drop)
	drop("-m", "conntrack", "--ctstate", "INVALID")
	for _, r := range p.Rules {
		if r.IPv6 == v6 && r.Ingress == ingress {
			pass(r.match()...)
		}
	}
	drop()
}

// Messages of neighbour discovery (RFC 4861).
const (
	routerSolicit    = "133"
	routerAdvert     = "134"
	neighbourSolicit = "135"
	neighbourAdvert  = "136"
	redirect         = "137"
)

// neighbours lets a guest say of its own addresses only that they are its own,
// or are to be. Messages are looked at where they stand without extension
// headers, and are dropped with some: nobody needs them (RFC 6980). It is no
// router to others.
func (p Port) neighbours(pass, drop func(...string)) {
	kind := func(t string) []string { return []string{"-p", "ipv6-icmp", "-m", "icmp6", "--icmpv6-type", t} }
	nobody := []string{"-s", "::/128"}
	for _, a := range p.neighbourhood() {
		target := []string{"-m", "u32", "--u32", targetIn(a)}
		pass(slices.Concat(kind(neighbourAdvert), target)...)
		pass(slices.Concat(nobody, kind(neighbourSolicit), target)...)
	}
	drop(kind(neighbourAdvert)...)
	pass(slices.Concat(nobody, kind(routerSolicit))...)
	pass(slices.Concat(nobody, kind("143"))...) // who joins a group to find out (RFC 3590)
	drop(nobody...)
	drop(kind(routerAdvert)...)
	drop(kind(redirect)...)
}

// neighbourhood are the addresses of IPv6 that a guest may call its own.
func (p Port) neighbourhood() []netip.Prefix {
	var own []netip.Prefix
	for _, src := range p.Sources {
		if src.Address.Addr().Is6() {
			own = append(own, src.Address.Masked())
		}
		if local, ok := linkLocal(src.MAC); ok {
			own = append(own, netip.PrefixFrom(netip.MustParseAddr(local), 128))
		}
	}
	slices.SortFunc(own, netip.Prefix.Compare)
	return slices.Compact(own)
}

// targetIn matches messages without extension headers whose target is in a
// network: it follows 8 bytes of ICMPv6 and 40 of IPv6.
func targetIn(p netip.Prefix) string {
	const word, target = 32, 48
	out := "4>>8&0xFF=58"
	b := p.Addr().As16()
	for i := 0; i*word < p.Bits(); i++ {
		bits := min(word, p.Bits()-i*word)
		mask := ^uint32(0) << (word - bits)
		out += fmt.Sprintf("&&%d&0x%x=0x%x", target+i*word/8, mask, binary.BigEndian.Uint32(b[i*4:])&mask)
	}
	return out
}

// always are packets without which a guest has no network, and those that would
// make it a server of networks to others (neutron/agent/linux/iptables_firewall.py).
func always(v6, ingress bool, pass, drop func(...string)) {
	if !v6 {
		if ingress {
			pass("-p", "udp", "--sport", "67", "--dport", "68")
		} else {
			pass("-p", "udp", "--sport", "68", "--dport", "67")
			drop("-p", "udp", "--sport", "67", "--dport", "68")
		}
		return
	}
	types := []string{"130", "131", "132", routerSolicit, neighbourSolicit}
	if ingress {
		types = []string{"130", "131", "132", routerAdvert, neighbourSolicit, neighbourAdvert}
	}
	for _, t := range types {
		pass("-p", "ipv6-icmp", "-m", "icmp6", "--icmpv6-type", t)
	}
	if ingress {
		pass("-p", "udp", "--sport", "547", "--dport", "546")
		return
	}
	pass("-p", "udp", "--sport", "546", "--dport", "547")
	drop("-p", "udp", "--sport", "547", "--dport", "546")
}

// match is what iptables compares.
func (r Rule) match() []string {
	var w []string
	side, set := "-d", "dst"
	if r.Ingress {
		side, set = "-s", "src"
	}
	if r.Remote.IsValid() {
		w = append(w, side, r.Remote.Masked().String())
	}
	if r.Protocol != 0 {
		w = append(w, "-p", strconv.Itoa(r.Protocol))
	}
	if r.First >= 0 || r.Last >= 0 {
		w = append(w, r.ports()...)
	}
	if r.Set != "" {
		w = append(w, "-m", "set", "--match-set", r.Set, set)
	}
	return w
}

func (r Rule) ports() []string {
	const icmp, icmp6 = 1, 58
	if r.Protocol != icmp && r.Protocol != icmp6 {
		ports := strconv.Itoa(r.First)
		if r.Last != r.First {
			ports += ":" + strconv.Itoa(r.Last)
		}
		return []string{"-m", "multiport", "--dports", ports}
	}
	kind := strconv.Itoa(r.First)
	if r.Last >= 0 {
		kind += "/" + strconv.Itoa(r.Last)
	}
	if r.Protocol == icmp {
		return []string{"-m", "icmp", "--icmp-type", kind}
	}
	return []string{"-m", "icmp6", "--icmpv6-type", kind}
}
