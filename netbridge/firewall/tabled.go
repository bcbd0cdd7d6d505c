package firewall

import (
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Offsets in headers, in bytes: of Ethernet; of ARP (RFC 826); of IPv4 and IPv6;
// of UDP.
const (
	etherFrom, etherType                          = 6, 12
	arpMAC, arpFrom, arpTo                        = 8, 14, 24
	ip4From, ip4To, ip6Next, ip6From, ip6To, ndTo = 12, 16, 6, 8, 24, 48
	portFrom, portTo                              = 0, 2
)

const (
	icmp, udp, icmp6 = unix.IPPROTO_ICMP, unix.IPPROTO_UDP, unix.IPPROTO_ICMPV6
	link             = expr.PayloadBaseLLHeader
	network          = expr.PayloadBaseNetworkHeader
	transport        = expr.PayloadBaseTransportHeader
)

func kind(t int) words { return at(link, etherType, number16(t)...) }

func ports(from, to int) words {
	return all(layer4(udp), at(transport, portFrom, append(number16(from), number16(to)...)...))
}

// frameRules is the check of the addresses that frames come from; they get the
// port's mark.
func (p Port) frameRules() []words {
	rules := []words{setMark(p.Mark)}
	pass := func(w ...words) { rules = append(rules, append(all(w...), verdict(expr.VerdictReturn)...)) }
	drop := func() { rules = append(rules, verdict(expr.VerdictDrop)) }
	switch {
	case p.Down:
		drop()
		return rules
	case p.Open:
		return rules
	}
	own := map[string]words{}
	var macs []string
	for _, src := range p.Sources {
		mac, err := net.ParseMAC(src.MAC)
		if err != nil {
			continue // was refused
		}
		from := at(link, etherFrom, mac...)
		if _, ok := own[src.MAC]; !ok {
			own[src.MAC] = from
			macs = append(macs, src.MAC)
		}
		if src.Address.Addr().Is4() {
			pass(kind(unix.ETH_P_IP), from, within(ip4From, src.Address))
		} else {
			pass(kind(unix.ETH_P_IPV6), from, within(ip6From, src.Address))
		}
	}
	nobody := netip.PrefixFrom(netip.IPv4Unspecified(), 32)
	for _, src := range p.Sources {
		if from, ok := own[src.MAC]; ok && src.Address.Addr().Is4() {
			mac, _ := net.ParseMAC(src.MAC)
			// Ethernet and IPv4, with addresses of their lengths
			said := all(kind(unix.ETH_P_ARP), from, at(network, 0, 0, 1, 8, 0, 6, 4), at(network, arpMAC, mac...))
			pass(said, within(arpFrom, src.Address))
			// whether it is free (RFC 5227), which is nobody else's to ask
			pass(said, within(arpFrom, nobody), within(arpTo, src.Address))
		}
	}
	for _, mac := range macs {
		// asking for an address (RFC 2131)
		pass(kind(unix.ETH_P_IP), own[mac], within(ip4From, nobody), ports(68, 67))
		// neighbour discovery, without an address and from the one that follows
		// from the MAC; what it may say is for the rules of packets
		pass(kind(unix.ETH_P_IPV6), own[mac], within(ip6From, netip.PrefixFrom(netip.IPv6Unspecified(), 128)), layer4(icmp6))
		if local, ok := linkLocal(mac); ok {
			pass(kind(unix.ETH_P_IPV6), own[mac], within(ip6From, netip.PrefixFrom(netip.MustParseAddr(local), 128)))
		}
	}
	drop()
	return rules
}

// packetRules is the filter of one direction, of both IP versions: what returns
// passes. The packet's mark has done its work.
func (p Port) packetRules(ingress bool) []words {
	r := &rules{list: []words{setMark(0)}}
	if p.Open {
		return r.list
	}
	// What belongs to a connection passes. Cut ends connections.
	r.pass(state(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED))
	if p.Down {
		r.drop()
		return r.list
	}
	for _, v6 := range []bool{false, true} {
		r.version = version(v6)
		if v6 && !ingress {
			p.neighbourRules(r)
		}
		r.always(v6, ingress)
		r.drop(state(expr.CtStateBitINVALID))
		for _, one := range p.Rules {
			if one.IPv6 == v6 && one.Ingress == ingress {
				r.pass(one.words())
			}
		}
	}
	r.version = nil
	r.drop()
	return r.list
}

type rules struct {
	version words
	list    []words
}

func (r *rules) pass(w ...words) { r.add(expr.VerdictReturn, w) }
func (r *rules) drop(w ...words) { r.add(expr.VerdictDrop, w) }

func (r *rules) add(k expr.VerdictKind, w []words) {
	r.list = append(r.list, all(r.version, all(w...), verdict(k)))
}

// message is one of ICMP or ICMPv6.
func message(protocol int, kind ...byte) words {
	return all(layer4(protocol), at(transport, 0, kind...))
}

// always is the function of that name, in the kernel's words.
func (r *rules) always(v6, ingress bool) {
	if !v6 {
		if ingress {
			r.pass(ports(67, 68))
		} else {
			r.pass(ports(68, 67))
			r.drop(ports(67, 68))
		}
		return
	}
	types := []byte{130, 131, 132, 133, 135}
	if ingress {
		types = []byte{130, 131, 132, 134, 135, 136}
	}
	for _, t := range types {
		r.pass(message(icmp6, t))
	}
	if ingress {
		r.pass(ports(547, 546))
		return
	}
	r.pass(ports(546, 547))
	r.drop(ports(547, 546))
}

// neighbourRules is neighbours, in the kernel's words.
func (p Port) neighbourRules(r *rules) {
	nobody := within(ip6From, netip.PrefixFrom(netip.IPv6Unspecified(), 128))
	for _, a := range p.neighbourhood() {
		target := all(at(network, ip6Next, icmp6), within(ndTo, a))
		r.pass(message(icmp6, 136), target)
		r.pass(nobody, message(icmp6, 135), target)
	}
	r.drop(message(icmp6, 136))
	r.pass(nobody, message(icmp6, 133))
	r.pass(nobody, message(icmp6, 143)) // who joins a group to find out (RFC 3590)
	r.drop(nobody)
	r.drop(message(icmp6, 134))
	r.drop(message(icmp6, 137))
}

// words is what a rule compares.
func (r Rule) words() words {
	var w words
	offset, length := uint32(ip4To), 4
	switch {
	case r.IPv6 && r.Ingress:
		offset, length = ip6From, 16
	case r.IPv6:
		offset, length = ip6To, 16
	case r.Ingress:
		offset = ip4From
	}
	if r.Remote.IsValid() {
		w = append(w, within(offset, r.Remote)...)
	}
	if r.Protocol != 0 {
		w = append(w, layer4(r.Protocol)...)
	}
	if r.First >= 0 || r.Last >= 0 {
		w = append(w, r.portWords()...)
	}
	if r.Set != "" {
		w = append(w, lookup(load(network, offset, length), r.Set, false)...)
	}
	return w
}

func (r Rule) portWords() words {
	if r.Protocol != icmp && r.Protocol != icmp6 {
		if r.First == r.Last {
			return at(transport, portTo, number16(r.First)...)
		}
		return words{
			load(transport, portTo, 2),
			&expr.Range{Op: expr.CmpOpEq, Register: register, FromData: number16(r.First), ToData: number16(r.Last)},
		}
	}
	w := at(transport, 0, byte(r.First)) //nolint:gosec // checked
	if r.Last >= 0 {
		w = slices.Concat(w, at(transport, 1, byte(r.Last))) //nolint:gosec // checked
	}
	return w
}
