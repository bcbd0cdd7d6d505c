package fabric

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

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
	delete(f.routers, r.ID)
	if r.Absent || r.Down {
		err = f.removePin(routerPin(r.ID))
	} else if err = f.makeRouter(ctx, s, r); err == nil {
		f.routers[r.ID] = r
	}
	if err != nil {
		return fmt.Errorf("set router %s: %w", r.ID, err)
	}
	return nil
}

func (r Router) check() error {
	bad := func(what string) error { return fmt.Errorf("set router %q: %s: %w", r.ID, what, errdefs.ErrInvalid) }
	if r.ID == "" || strings.Contains(r.ID, "/") {
		return bad("id")
	}
	for _, i := range r.interfaces() {
		if what := i.wrong(); what != "" {
			return bad(what)
		}
	}
	for _, fl := range r.Floating {
		if !fl.Outside.Is4() || !fl.Fixed.Is4() {
			return bad("floating address")
		}
	}
	return nil
}

// wrong is what an interface cannot be, or "".
func (i Interface) wrong() string {
	if len(i.ID) < 11 || !validName(i.Device) || !validName(i.Bridge) || !validName(i.tap()) {
		return fmt.Sprintf("interface %q: device %q in bridge %q", i.ID, i.Device, i.Bridge)
	}
	if slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return !p.IsValid() }) {
		return "interface " + i.ID + ": address"
	}
	return ""
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
	ns, err := f.openPin(routerPin(r.ID))
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := sysctl(ns, [2]string{"ipv4/ip_forward", "1"}, [2]string{"ipv6/conf/all/forwarding", "1"}, [2]string{"ipv6/conf/default/accept_ra", "0"},
		[2]string{"ipv6/conf/default/accept_dad", "0"}); err != nil {
		return err
	}
	in, err := link.Open(ns, nil)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := tidy(in, r.interfaces()); err != nil {
		return err
	}
	for _, i := range r.interfaces() {
		if err := f.makeInterface(ctx, s, in, ns, i); err != nil {
			return fmt.Errorf("interface %s: %w", i.ID, err)
		}
	}
	if err := setRoutes(in, r); err != nil {
		return err
	}
	if err := firewall.Set(ctx, ns, false, r.chains()...); err != nil {
		return err
	}
	if err := f.advertise(ctx, in, ns, r); err != nil {
		return err
	}
	return f.serveMetadata(ctx, in, ns, routerPin(r.ID), Place{Router: r.ID})
}

// tidy brings lo up and removes devices that are not wanted.
func tidy(in *link.Conn, wanted []Interface) error {
	links, err := in.List()
	if err != nil {
		return err
	}
	for _, l := range links {
		switch {
		case l.Name == "lo" && !l.Up:
			err = in.Set(l.Index, link.Change{Up: true})
		case l.Kind == "veth" && !slices.ContainsFunc(wanted, func(i Interface) bool { return i.Device == l.Name }):
			err = in.Delete(l.Index)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *Fabric) makeInterface(ctx context.Context, s *session, in *link.Conn, ns *os.File, i Interface) error {
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
	added, err := setAddresses(in, inner.Index, i.Addresses)
	if err != nil || len(added) == 0 {
		return err
	}
	running(ctx, in, i.Device)
	running(ctx, s.host, i.tap())
	return announce(ns, inner.Index, i.MAC, added)
}

// settling is how long a device may take until packets pass, which is far less
// than a millisecond but for a host that has much to do.
const settling = time.Second

// running waits until packets pass a device, for a while at most.
func running(ctx context.Context, c *link.Conn, device string) {
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if l, err := c.ByName(device); err != nil || l.Running {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
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
