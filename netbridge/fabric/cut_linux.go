package fabric

import (
	"net/netip"
	"slices"

	"github.com/gantry-project/gantry/netbridge/firewall"
)

// lost are the connections that a port may have no more when it changes from old
// to now; nil is a port that is gone.
func (f *Fabric) lost(old filtered, now *filtered) []firewall.Lost {
	zone := f.zone(old.network)
	var out []firewall.Lost
	for _, src := range old.port.Sources {
		if src.Address.Bits() != src.Address.Addr().BitLen() {
			continue // a network of others' addresses: only the port's own are cut
		}
		a := src.Address.Addr()
		if now == nil || now.port.Down && !old.port.Down || !slices.Contains(now.port.Sources, src) {
			out = append(out, firewall.Lost{Zone: zone, Address: a})
			continue
		}
		for _, r := range old.port.Rules {
			if r.IPv6 == a.Is6() && !slices.Contains(now.port.Rules, r) {
				out = append(out, firewall.Lost{Zone: zone, Address: a, Rule: &r})
			}
		}
	}
	return out
}

// lostMembers are the connections with those who are no members of a group any
// more, of ports whose rules name it.
func (f *Fabric) lostMembers(id string, gone []netip.Prefix) []firewall.Lost {
	if len(gone) == 0 {
		return nil
	}
	var out []firewall.Lost
	for _, p := range f.ports {
		for _, r := range p.port.Rules {
			if r.Set == "" || r.Set != f.setName(id, r.IPv6) {
				continue
			}
			for _, src := range p.port.Sources {
				a := src.Address.Addr()
				if a.Is6() != r.IPv6 || src.Address.Bits() != a.BitLen() {
					continue
				}
				for _, m := range gone {
					if m.Addr().Is6() == r.IPv6 {
						one := r
						one.Remote = m
						out = append(out, firewall.Lost{Zone: f.zone(p.network), Address: a, Rule: &one})
					}
				}
			}
		}
	}
	return out
}
