package fabric

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/firewall"
	"github.com/gantry-project/gantry/netbridge/link"
)

// SetNetwork makes the bridge of a network, or removes it with whatever hangs
// on it. A device of that name that is not this cloud's is errdefs.ErrConflict,
// unless it is a bridge that nobody has marked: then somebody has plugged
// before, and it is taken over.
func (f *Fabric) SetNetwork(ctx context.Context, n Network) error {
	if err := n.check(); err != nil {
		return err
	}
	s, done, err := f.open(ctx)
	if err != nil {
		return fmt.Errorf("set network %s: %w", n.ID, err)
	}
	defer done()
	delete(f.networks, n.ID)
	if n.Absent {
		err = f.removeNetwork(ctx, s, n)
	} else if err = f.makeNetwork(ctx, s, n); err == nil {
		f.networks[n.ID] = n
	}
	if err != nil {
		return fmt.Errorf("set network %s: %w", n.ID, err)
	}
	return nil
}

// check refuses what cannot be, before anything has changed.
func (n Network) check() error {
	bad := func(what string) error { return fmt.Errorf("set network %q: %s: %w", n.ID, what, errdefs.ErrInvalid) }
	switch {
	case n.ID == "" || strings.Contains(n.ID, "/"):
		return bad("id")
	case !validName(n.Bridge):
		return bad(fmt.Sprintf("bridge name %q", n.Bridge))
	case n.MTU < 0 || n.MTU > 65535:
		return bad(fmt.Sprintf("mtu %d", n.MTU))
	}
	for _, g := range n.Gateways {
		if !g.IsValid() {
			return bad("gateway address")
		}
	}
	if n.Serving != nil && n.Serving.wrong() != "" {
		return bad(n.Serving.wrong())
	}
	return nil
}

// validName follows dev_valid_name of Linux net/core/dev.c, less '%'.
func validName(name string) bool {
	if name == "" || len(name) > 15 || name == "." || name == ".." {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '/' || c == ':' || c == '%' {
			return false
		}
	}
	return true
}

// makeNetwork makes the bridge and marks it, then the firewall, and only then
// lets anything through.
func (f *Fabric) makeNetwork(ctx context.Context, s *session, n Network) error {
	l, err := f.ensureBridge(s, n)
	if err != nil {
		return err
	}
	var ch link.Change
	if l.MTU != n.MTU {
		ch.MTU = n.MTU
	}
	if l.Alias == "" {
		ch.Alias = f.mark(n.ID)
	}
	if mac := f.mac(n.ID); len(n.Gateways) > 0 && l.MAC != mac {
		ch.MAC = mac // else it is that of some port, and changes with them
	}
	if ch != (link.Change{}) {
		if err := s.host.Set(l.Index, ch); err != nil {
			return err
		}
	}
	if len(n.Gateways) > 0 {
		if err := sysctl(s.ns, [2]string{"ipv4/ip_forward", "1"}); err != nil {
			return err
		}
	}
	if err := f.setChains(ctx, s, n); err != nil {
		return err
	}
	if l.Up == n.Down {
		if err := s.host.Set(l.Index, link.Change{Up: !n.Down, Down: n.Down}); err != nil {
			return err
		}
	}
	if _, err := setAddresses(s.host, l.Index, n.Gateways); err != nil {
		return err
	}
	return f.serve(ctx, s, n)
}

func (f *Fabric) ensureBridge(s *session, n Network) (link.Link, error) {
	l, err := s.host.ByName(n.Bridge)
	if errors.Is(err, errdefs.ErrNotFound) {
		if err := s.host.AddBridge(n.Bridge); err != nil && !errors.Is(err, errdefs.ErrAlreadyExists) {
			return l, err
		}
		l, err = s.host.ByName(n.Bridge)
	}
	if err != nil {
		return l, err
	}
	if l.Kind != "bridge" || l.Alias != "" && l.Alias != f.mark(n.ID) {
		return l, foreign(l)
	}
	// The host has no addresses on a network of tenants but those it is given.
	return l, sysctl(s.ns, [2]string{"ipv6/conf/" + n.Bridge + "/accept_ra", "0"}, [2]string{"ipv6/conf/" + n.Bridge + "/addr_gen_mode", "1"})
}

// setAddresses makes the addresses of ours on a link those given, and returns
// those that were not there.
func setAddresses(c *link.Conn, index int, want []netip.Prefix) (added []netip.Prefix, err error) {
	have, err := c.Addresses()
	if err != nil {
		return nil, err
	}
	for _, a := range have {
		if a.Index == index && a.Ours && !slices.Contains(want, a.Prefix) {
			if err := c.DeleteAddress(index, a.Prefix); err != nil {
				return added, err
			}
		}
	}
	for _, p := range want {
		if slices.Contains(have, link.Address{Index: index, Prefix: p, Ours: true}) {
			continue
		}
		if err := c.AddAddress(index, p); err != nil {
			return added, err
		}
		added = append(added, p)
	}
	return added, nil
}

// chains are the host's firewall for a network.
//
// With br_netfilter what is only bridged passes the host's iptables, too. In a
// network of a tenant it is tracked apart, since another tenant's connections
// may have the same addresses; in one that leads out it must not be translated.
//
// The host is no part of a network of tenants: it takes nothing from there, nor
// does it forward. Of one that leads out it takes answers and echo requests, and
// forwards; its own services are not for guests.
func (f *Fabric) chains(n Network, v6 bool) []firewall.Chain {
	apart := firewall.Chain{Table: "raw", Hook: "PREROUTING", Name: f.chain("raw", n.ID)}
	forward := firewall.Chain{Table: "filter", Hook: "FORWARD", Name: f.chain("fwd", n.ID)}
	in := firewall.Chain{Table: "filter", Hook: "INPUT", Name: f.chain("in", n.ID)}
	hide := firewall.Chain{Table: "nat", Hook: "POSTROUTING", Name: f.chain("out", n.ID)}
	switch {
	case n.Absent:
	case len(n.Gateways) == 0:
		apart.Rules = [][]string{{"-i", n.Bridge, "-j", "CT", "--zone", strconv.Itoa(int(f.zone(n.ID)))}}
		in.Rules = [][]string{{"-i", n.Bridge, "-j", "DROP"}}
		forward.Rules = [][]string{
			{"-i", n.Bridge, "-m", "physdev", "!", "--physdev-is-bridged", "-j", "DROP"}, {"-o", n.Bridge, "-m", "physdev", "!", "--physdev-is-bridged", "-j", "DROP"},
		}
	case v6:
		in.Rules = [][]string{{"-i", n.Bridge, "-j", "DROP"}} // its gateway is of IPv4
	default:
		routed := []string{"-m", "physdev", "!", "--physdev-is-bridged", "-j", "ACCEPT"} // the rest is the ports'
		forward.Rules = [][]string{append([]string{"-i", n.Bridge}, routed...), append([]string{"-o", n.Bridge}, routed...)}
		in.Rules = [][]string{
			{"-i", n.Bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "RETURN"},
			{"-i", n.Bridge, "-p", "icmp", "-m", "icmp", "--icmp-type", "echo-request", "-j", "RETURN"},
			{"-i", n.Bridge, "-j", "DROP"},
		}
		hide.Rules = [][]string{{"-m", "physdev", "--physdev-is-bridged", "-j", "RETURN"}}
		for _, g := range n.Gateways {
			if g.Addr().Is4() {
				hide.Rules = append(hide.Rules, []string{"-s", g.Masked().String(), "!", "-d", g.Masked().String(), "!", "-o", n.Bridge, "-j", "MASQUERADE"})
			}
		}
	}
	return []firewall.Chain{apart, forward, in, hide}
}

// setChains makes them so, for both versions at the same time.
func (f *Fabric) setChains(ctx context.Context, s *session, n Network) error {
	var kinds errgroup.Group
	for _, v6 := range []bool{false, true} {
		chains := f.chains(n, v6)
		kinds.Go(func() error { return firewall.Set(ctx, s.ns, v6, chains...) })
	}
	return kinds.Wait()
}

func (f *Fabric) removeNetwork(ctx context.Context, s *session, n Network) error {
	if err := f.unserve(n.ID); err != nil {
		return err
	}
	if err := f.setChains(ctx, s, n); err != nil {
		return err
	}
	if err := f.unhook(ctx, s); err != nil {
		return err
	}
	l, err := s.host.ByName(n.Bridge)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if l.Alias != f.mark(n.ID) {
		return nil // somebody else's
	}
	return s.host.Delete(l.Index)
}
