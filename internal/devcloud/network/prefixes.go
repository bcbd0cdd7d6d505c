package network

import (
	"net/netip"
	"slices"
)

// Sets of addresses as lists of prefixes: sorted, without overlaps, and with
// neighbours joined where that makes a prefix.

// compact makes such a list.
func compact(all []netip.Prefix) []netip.Prefix {
	all = slices.Clone(all)
	slices.SortFunc(all, netip.Prefix.Compare)
	var out []netip.Prefix
	for _, p := range all {
		if n := len(out); n > 0 && out[n-1].Overlaps(p) {
			continue // the wider one comes first
		}
		out = append(out, p)
		for len(out) > 1 {
			joined, ok := join(out[len(out)-2], out[len(out)-1])
			if !ok {
				break
			}
			out = append(out[:len(out)-2], joined)
		}
	}
	return out
}

// join makes one prefix of two halves.
func join(a, b netip.Prefix) (netip.Prefix, bool) {
	if a.Bits() != b.Bits() || a.Bits() == 0 || a.Addr().Is4() != b.Addr().Is4() {
		return netip.Prefix{}, false
	}
	wide := netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked()
	return wide, a != b && wide.Addr() == a.Addr() && wide.Contains(b.Addr())
}

// covered reports whether all of p is in one prefix of a compact list.
func covered(list []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(list, func(l netip.Prefix) bool { return l.Bits() <= p.Bits() && l.Contains(p.Addr()) })
}

// halves splits a prefix that is no single address.
func halves(p netip.Prefix) (lower, upper netip.Prefix) {
	lower = netip.PrefixFrom(p.Addr(), p.Bits()+1)
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	a, _ := netip.AddrFromSlice(b)
	return lower, netip.PrefixFrom(a, p.Bits()+1)
}

// without removes prefixes from a list.
func without(list, gone []netip.Prefix) []netip.Prefix {
	for _, g := range gone {
		var left []netip.Prefix
		for _, p := range list {
			left = append(left, minus(p, g)...)
		}
		list = left
	}
	return compact(list)
}

// minus is what is left of p without g.
func minus(p, g netip.Prefix) []netip.Prefix {
	switch {
	case !p.Overlaps(g):
		return []netip.Prefix{p}
	case g.Bits() <= p.Bits():
		return nil
	}
	lower, upper := halves(p)
	return append(minus(lower, g), minus(upper, g)...)
}
