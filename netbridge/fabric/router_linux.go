package fabric

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/firewall"
	"github.com/gantry-project/gantry/netbridge/link"
)

// SetRouter makes a router, or removes it. The bridges of its interfaces have
// to be there (errdefs.ErrNotFound).
func (f *Fabric) SetRouter(ctx context.Context, r Router) error {
	if err := r.check(); err != nil {
		return err
	}
	s, done, err := f.open(ctx)
	if err != nil {
		return fmt.Errorf("set router %s: %w", r.ID, err)
	}
	defer done()
	if r.Absent || r.Down {
		err = f.removeRouter(s, r.ID)
	} else {
		err = f.makeRouter(ctx, s, r)
	}
	if err != nil {
		return fmt.Errorf("set router %s: %w", r.ID, err)
	}
	return nil
}

func (r Router) check() error {
	bad := func(what string) error { return fmt.Errorf("set router %q: %s: %w", r.ID, what, errdefs.ErrInvalid) }
	if r.ID == "" || !validName("q"+r.ID[:min(len(r.ID), 8)]) {
		return bad("id")
	}
	for _, i := range r.interfaces() {
		if len(i.ID) < 11 || !validName(i.Device) || !validName(i.Bridge) || !validName(i.tap()) {
			return bad(fmt.Sprintf("interface %q: device %q in bridge %q", i.ID, i.Device, i.Bridge))
		}
		if slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return !p.IsValid() }) {
			return bad("interface " + i.ID + ": address")
		}
	}
	for _, fl := range r.Floating {
		if !fl.Outside.Is4() || !fl.Fixed.Is4() {
			return bad("floating address")
		}
	}
	return nil
}

// tap is the end in the bridge, named as Neutron's interface driver does.
func (i Interface) tap() string { return "tap" + i.ID[:11] }

// interfaces are all, the gateway included, with the addresses they have.
func (r Router) interfaces() []Interface {
	all := slices.Clone(r.Interfaces)
	if r.Gateway == nil {
		return all
	}
	gw := r.Gateway.Interface
	gw.Addresses = slices.Clone(gw.Addresses)
	for _, fl := range r.Floating {
		gw.Addresses = append(gw.Addresses, netip.PrefixFrom(fl.Outside, 32))
	}
	return append(all, gw)
}

func (f *Fabric) makeRouter(ctx context.Context, s *session, r Router) error {
	ns, err := f.openPin(r.ID)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := sysctl(ns, [2]string{"ipv4/ip_forward", "1"}, [2]string{"ipv6/conf/all/forwarding", "1"}, [2]string{"ipv6/conf/default/accept_ra", "0"}); err != nil {
		return err
	}
	in, err := link.Open(ns, nil)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := tidy(in, r); err != nil {
		return err
	}
	for _, i := range r.interfaces() {
		if err := f.makeInterface(s, in, ns, i); err != nil {
			return fmt.Errorf("interface %s: %w", i.ID, err)
		}
	}
	if err := setRoutes(in, r); err != nil {
		return err
	}
	if err := firewall.Set(ns, false, r.chains()...); err != nil {
		return err
	}
	if err := f.serveLeases(ctx, in, ns, r); err != nil {
		return err
	}
	return f.serveMetadata(ctx, in, ns, r.ID)
}

// tidy brings lo up and removes devices that the plan does not name.
func tidy(in *link.Conn, r Router) error {
	links, err := in.List()
	if err != nil {
		return err
	}
	for _, l := range links {
		switch {
		case l.Name == "lo" && !l.Up:
			err = in.Set(l.Index, link.Change{Up: true})
		case l.Kind == "veth" && !slices.ContainsFunc(r.interfaces(), func(i Interface) bool { return i.Device == l.Name }):
			err = in.Delete(l.Index)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *Fabric) makeInterface(s *session, in *link.Conn, ns *os.File, i Interface) error {
	bridge, err := s.host.ByName(i.Bridge)
	if err != nil {
		return err
	}
	inner, err := in.ByName(i.Device)
	if errors.Is(err, errdefs.ErrNotFound) {
		if err := f.addPair(s, ns, i); err != nil {
			return err
		}
		inner, err = in.ByName(i.Device)
	}
	if err != nil {
		return err
	}
	outer, err := s.host.ByName(i.tap())
	if err != nil {
		return err
	}
	if outer.Alias != "" && outer.Alias != f.mark(i.ID) {
		return foreign(outer)
	}
	if outer.Master != bridge.Index || !outer.Up || outer.Alias == "" || outer.MTU != i.MTU {
		if err := s.host.Set(outer.Index, link.Change{Alias: f.mark(i.ID), Master: bridge.Index, MTU: i.MTU, Up: true}); err != nil {
			return err
		}
	}
	if inner.MAC != i.MAC || !inner.Up || inner.MTU != i.MTU {
		if err := in.Set(inner.Index, link.Change{MAC: i.MAC, MTU: i.MTU, Up: true}); err != nil {
			return err
		}
	}
	return setAddresses(in, inner.Index, i.Addresses)
}

// addPair makes both ends. An outer end of ours without an inner one is the
// remains of a namespace that ended.
func (f *Fabric) addPair(s *session, ns *os.File, i Interface) error {
	old, err := s.host.ByName(i.tap())
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
	case err != nil:
		return err
	case old.Alias != f.mark(i.ID):
		return foreign(old)
	default:
		if err := s.host.Delete(old.Index); err != nil {
			return err
		}
	}
	return s.host.AddVeth(link.Veth{Name: i.tap(), MTU: i.MTU, Peer: i.Device, PeerMAC: i.MAC, PeerNS: int(ns.Fd())})
}

// setRoutes makes the routes of ours those of the plan.
func setRoutes(in *link.Conn, r Router) error {
	var want []link.Route
	if r.Gateway != nil {
		gw, err := in.ByName(r.Gateway.Device)
		if err != nil {
			return err
		}
		for _, via := range r.Gateway.NextHops {
			to := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if via.Is6() {
				to = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			want = append(want, link.Route{Index: gw.Index, To: to, Via: via, Metric: routeMetric, OnLink: true})
		}
	}
	for _, route := range r.Routes {
		for _, i := range r.interfaces() {
			if !slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Contains(route.Via) }) {
				continue
			}
			l, err := in.ByName(i.Device)
			if err != nil {
				return err
			}
			want = append(want, link.Route{Index: l.Index, To: route.To, Via: route.Via, Metric: routeMetric})
			break
		}
	}
	have, err := in.Routes()
	if err != nil {
		return err
	}
	same := func(a, b link.Route) bool {
		return a.Index == b.Index && a.To == b.To && a.Via == b.Via && a.Metric == b.Metric
	}
	for _, h := range have {
		if h.Ours && !slices.ContainsFunc(want, func(w link.Route) bool { return same(h, w) }) {
			if err := in.DeleteRoute(h); err != nil {
				return err
			}
		}
	}
	for _, w := range want {
		if slices.ContainsFunc(have, func(h link.Route) bool { return h.Ours && same(h, w) }) {
			continue
		}
		if err := in.AddRoute(w); err != nil {
			return err
		}
	}
	return nil
}

// routeMetric is never 0, which IPv6 would turn into 1024.
const routeMetric = 100

// chains are the address translations of a router, as Neutron's L3 agent does
// them: floating addresses in both directions, also between instances of one
// router; everything else behind the address of the gateway.
func (r Router) chains() []firewall.Chain {
	in := firewall.Chain{Table: "nat", Hook: "PREROUTING", Name: "gantry-in"}
	out := firewall.Chain{Table: "nat", Hook: "POSTROUTING", Name: "gantry-out"}
	if r.Gateway == nil {
		return []firewall.Chain{in, out}
	}
	device := r.Gateway.Device
	for _, fl := range r.Floating {
		in.Rules = append(in.Rules, []string{"-d", fl.Outside.String() + "/32", "-j", "DNAT", "--to-destination", fl.Fixed.String()})
	}
	// Between networks of the router addresses stay, unless the way was
	// through a floating address.
	out.Rules = append(out.Rules, []string{"!", "-o", device, "-m", "conntrack", "!", "--ctstate", "DNAT", "-j", "RETURN"})
	for _, fl := range r.Floating {
		out.Rules = append(out.Rules, []string{"-s", fl.Fixed.String() + "/32", "-j", "SNAT", "--to-source", fl.Outside.String()})
	}
	if i := slices.IndexFunc(r.Gateway.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() }); i >= 0 && r.Gateway.SNAT {
		out.Rules = append(out.Rules, []string{"-o", device, "-j", "SNAT", "--to-source", r.Gateway.Addresses[i].Addr().String()})
	}
	return []firewall.Chain{in, out}
}

func (f *Fabric) removeRouter(s *session, id string) error {
	if err := errors.Join(f.doors.shut(id), f.leases.close(leaseKeys(id), nil)); err != nil {
		return err
	}
	if _, err := os.Lstat(f.pin(id)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ns, err := f.openPin(id)
	if err != nil {
		return err
	}
	defer ns.Close()
	in, err := link.Open(ns, nil)
	if err != nil {
		return err
	}
	defer in.Close()
	// The pairs end now, not when the kernel gets round to it.
	if err := tidy(in, Router{ID: id}); err != nil {
		return err
	}
	return f.unpin(id)
}
