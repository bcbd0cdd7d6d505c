package fabric

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/firewall"
)

// SetGroup makes a group's members those given. Connections with those who are
// none any more end.
func (f *Fabric) SetGroup(ctx context.Context, g Group) error {
	s, done, err := f.open(ctx)
	if err != nil {
		return fmt.Errorf("set group %s: %w", g.ID, err)
	}
	defer done()
	if g.Absent {
		delete(f.groups, g.ID)
		four, six := f.setName(g.ID, false), f.setName(g.ID, true)
		err = f.filters(s).DropSets(s.ns, f.setPrefix(), func(name string) bool { return name != four && name != six })
	} else {
		gone := slices.DeleteFunc(slices.Clone(f.groups[g.ID]), func(m netip.Prefix) bool { return slices.Contains(g.Members, m) })
		f.groups[g.ID] = g.Members
		if err = f.fillSets(s, []string{g.ID}); err == nil {
			err = firewall.Cut(s.ns, f.lostMembers(g.ID, gone))
		}
	}
	if err != nil {
		return fmt.Errorf("set group %s: %w", g.ID, err)
	}
	return nil
}

// fillSets makes the sets of groups.
func (f *Fabric) fillSets(s *session, ids []string) error {
	for _, v6 := range []bool{false, true} {
		sets := map[string][]netip.Prefix{}
		for _, id := range ids {
			sets[f.setName(id, v6)] = f.groups[id]
		}
		if err := f.filters(s).Sets(s.ns, v6, sets); err != nil {
			return err
		}
	}
	return nil
}

// setPrefix is how names of this cloud's sets begin; a set's name is short.
func (f *Fabric) setPrefix() string {
	sum := sha256.Sum256([]byte(f.o.Cloud))
	return "gantry" + hex.EncodeToString(sum[:3]) + "-"
}

func (f *Fabric) setName(group string, v6 bool) string {
	sum := sha256.Sum256([]byte(group))
	version := "4"
	if v6 {
		version = "6"
	}
	return f.setPrefix() + version + hex.EncodeToString(sum[:8])
}

// SetPorts filters devices, whether they are there or not. When it returns,
// devices of those names are filtered from their first frame on. A refusal
// changes nothing for any of them. Without br_netfilter it is
// errdefs.ErrUnsupported. Many at once cost little more than one.
func (f *Fabric) SetPorts(ctx context.Context, ports ...Port) error {
	var ids []string
	for _, p := range ports {
		if err := p.check(); err != nil {
			return err
		}
		ids = append(ids, p.ID)
	}
	s, done, err := f.open(ctx)
	if err == nil {
		defer done()
		err = f.setPorts(ctx, s, ports)
	}
	if err != nil {
		return fmt.Errorf("set ports %s: %w", strings.Join(ids, " "), err)
	}
	return nil
}

func (f *Fabric) setPorts(ctx context.Context, s *session, ports []Port) error {
	c := firewall.Change{Dispatch: f.chain("sg", "")}
	groups := map[string]bool{}
	for _, p := range ports {
		if !p.Absent {
			for _, id := range p.groups() {
				groups[id] = true
			}
		}
	}
	if err := f.fillSets(s, slices.Sorted(maps.Keys(groups))); err != nil {
		return err
	}
	var lost []firewall.Lost
	for _, p := range ports {
		old, known := f.ports[p.ID]
		switch {
		case p.Absent && !known:
		case p.Absent:
			c.Gone = append(c.Gone, old.port)
			lost = append(lost, f.lost(old, nil)...)
			delete(f.ports, p.ID)
			delete(f.marks, old.port.Mark)
		default:
			now := filtered{p.Network, f.wanted(p)}
			f.ports[p.ID] = now
			if c.Fill = append(c.Fill, now.port); !known {
				c.Added = append(c.Added, now.port)
			} else {
				lost = append(lost, f.lost(old, &now)...)
			}
		}
	}
	if len(c.Gone) == 0 && len(c.Fill) == 0 {
		return nil
	}
	if c.All = f.allPorts(); !f.looked {
		c.Fresh, c.Fill = true, c.All
	}
	if err := f.change(ctx, s, c); err != nil {
		return err
	}
	return firewall.Cut(s.ns, lost)
}

// change changes the filter; a failure everything is looked at again.
func (f *Fabric) change(ctx context.Context, s *session, c firewall.Change) error {
	f.looked = false
	if err := f.filters(s).Filter(ctx, s.ns, c); err != nil {
		return err
	}
	f.looked = len(c.All) > 0 || !c.Fresh
	return nil
}

// unhook removes what leads to ports when there are none. While there are
// networks it stays, since the next port needs it again.
func (f *Fabric) unhook(ctx context.Context, s *session) error {
	if len(f.ports) > 0 || !f.looked {
		return nil
	}
	return f.change(ctx, s, firewall.Change{Dispatch: f.chain("sg", ""), Fresh: true})
}

func (p Port) check() error {
	bad := func(what string) error { return fmt.Errorf("set port %q: %s: %w", p.ID, what, errdefs.ErrInvalid) }
	if len(p.ID) < 11 || !validName(p.ID[:11]) || !validName(p.Device) && !p.Absent {
		return bad(fmt.Sprintf("device %q", p.Device))
	}
	for _, src := range p.Sources {
		if mac, err := net.ParseMAC(src.MAC); err != nil || len(mac) != 6 || !src.Address.IsValid() {
			return bad("source " + src.MAC)
		}
	}
	for _, r := range p.Rules {
		if r.Protocol < 0 || r.Protocol > 255 || r.Remote.IsValid() && r.Remote.Addr().Is6() != r.IPv6 {
			return bad(fmt.Sprintf("rule %+v", r))
		}
		const icmp, icmp6 = 1, 58
		if r.Protocol != icmp && r.Protocol != icmp6 && (r.First < 0) != (r.Last < 0) || r.First > 65535 || r.Last > 65535 || r.First > r.Last && r.Last >= 0 && r.Protocol != icmp && r.Protocol != icmp6 {
			return bad(fmt.Sprintf("rule %+v", r))
		}
	}
	return nil
}

func (p Port) groups() []string {
	ids := map[string]bool{}
	for _, r := range p.Rules {
		if r.Group != "" {
			ids[r.Group] = true
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

// wanted is the port in the firewall's words.
func (f *Fabric) wanted(p Port) firewall.Port {
	out := firewall.Port{ID: p.ID, Device: p.Device, Down: p.Down, Open: p.Open, Mark: f.portMark(p.ID)}
	for _, src := range p.Sources {
		out.Sources = append(out.Sources, firewall.Source(src))
	}
	for _, r := range p.Rules {
		rule := firewall.Rule{Ingress: r.Ingress, IPv6: r.IPv6, Protocol: r.Protocol, First: r.First, Last: r.Last, Remote: r.Remote}
		if r.Group != "" {
			rule.Set = f.setName(r.Group, r.IPv6)
		}
		out.Rules = append(out.Rules, rule)
	}
	return out
}

// allPorts are those that are filtered, in a fixed order.
func (f *Fabric) allPorts() []firewall.Port {
	out := make([]firewall.Port, 0, len(f.ports))
	for _, id := range slices.Sorted(maps.Keys(f.ports)) {
		out = append(out, f.ports[id].port)
	}
	return out
}

// syncPorts filters all ports, and nothing else any more.
func (f *Fabric) syncPorts(ctx context.Context, groups []Group, ports []Port) error {
	for _, p := range ports {
		if err := p.check(); err != nil {
			return err
		}
	}
	s, done, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer done()
	f.groups, f.ports, f.marks = map[string][]netip.Prefix{}, map[string]filtered{}, map[uint32]string{}
	for _, g := range groups {
		f.groups[g.ID] = g.Members
	}
	needed := map[string]bool{}
	for _, p := range ports {
		f.ports[p.ID] = filtered{p.Network, f.wanted(p)}
		for _, g := range p.groups() {
			needed[g] = true
		}
	}
	for id := range f.groups {
		needed[id] = true
	}
	if err := f.fillSets(s, slices.Sorted(maps.Keys(needed))); err != nil {
		return err
	}
	all := f.allPorts()
	if err := f.change(ctx, s, firewall.Change{Dispatch: f.chain("sg", ""), All: all, Fill: all, Fresh: true}); err != nil {
		return err
	}
	names := map[string]bool{}
	for id := range needed {
		names[f.setName(id, false)], names[f.setName(id, true)] = true, true
	}
	return f.filters(s).DropSets(s.ns, f.setPrefix(), func(name string) bool { return names[name] })
}
