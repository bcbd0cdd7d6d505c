package firewall

import (
	"context"
	"net/netip"
	"os"
)

// Ports filters devices that are in bridges: by tables of the kernel's own
// or by chains of iptables, ip6tables and ebtables (see Pick). Both
// let through the same. A network namespace should know one of both.
type Ports interface {
	// Filter makes what passes bridged devices in the namespace ns what the ports
	// say. It needs br_netfilter (errdefs.ErrUnsupported without).
	Filter(ctx context.Context, ns *os.File, c Change) error
	// Holds reports whether a filter is as Filter made it, before the rules of
	// others. What is new to m is believed when it has as many rules as it
	// should; what m knows must not have changed.
	Holds(ctx context.Context, ns *os.File, found *Found, c Change, m Memory) (bool, error)
	// Sets makes sets of networks, with the members given by the sets' names: all
	// of one IP version, v6 or not.
	Sets(ns *os.File, v6 bool, sets map[string][]netip.Prefix) error
	// DropSets removes the sets whose names begin with prefix and are not kept. One
	// that a rule still needs is emptied instead.
	DropSets(ns *os.File, prefix string, kept func(name string) bool) error
	// Close gives up what was kept open between calls; a later call opens it
	// anew. What filters goes on.
	Close() error
}

// programs filters by iptables, ip6tables and ebtables, and ipset's sets. Each
// of the three kinds of packets (frames, IPv4, IPv6) changes at once.
type programs struct {
	// tables may have filtered before.
	tables *tabled
}

func (p programs) Filter(ctx context.Context, ns *os.File, c Change) error {
	if err := Filter(ctx, ns, c); err != nil || !c.Fresh {
		return err
	}
	// It fails where the kernel has none, which then have filtered nothing.
	_ = p.tables.change(ns, func(x *transaction) error { return x.drop() })
	return p.tables.Close()
}

func (programs) Holds(_ context.Context, _ *os.File, found *Found, c Change, m Memory) (bool, error) {
	return found.Filters(c, m), nil
}

func (programs) Sets(ns *os.File, v6 bool, sets map[string][]netip.Prefix) error {
	return Sets(ns, v6, sets)
}

func (programs) DropSets(ns *os.File, prefix string, kept func(name string) bool) error {
	return DropSets(ns, prefix, kept)
}

func (programs) Close() error { return nil }
