package firewall

import (
	"context"
	"crypto/sha256"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/netbridge/netns"
)

// Found is what filters in a namespace at one moment.
type Found struct {
	four, six, frames tables
}

// Look reads all of it, and makes sure that bridged packets are filtered at all.
func Look(ctx context.Context, ns *os.File) (*Found, error) {
	if err := netns.Do(ns, func() error { return bridged(ctx) }); err != nil {
		return nil, err
	}
	f := &Found{}
	var kinds errgroup.Group
	read := func(into *tables, program string) {
		kinds.Go(func() error {
			return netns.Do(ns, func() error {
				text, err := output(ctx, program)
				*into = parse(text)
				return err
			})
		})
	}
	read(&f.four, "iptables-save")
	read(&f.six, "ip6tables-save")
	read(&f.frames, "ebtables-save")
	return f, kinds.Wait()
}

// Holds reports whether chains are as they should be.
func (f *Found) Holds(ipv6 bool, chains ...Chain) bool {
	t := f.four
	if ipv6 {
		t = f.six
	}
	return !slices.ContainsFunc(chains, func(c Chain) bool { return !t.holds(c) })
}

// Memory is how the programs list chains that were seen to be complete: they
// list rules in other words than they take them. The zero value knows nothing.
type Memory map[string]listed

type listed struct{ wanted, found [sha256.Size]byte }

// Filters reports whether a filter of ports is as Filter made it, before the
// rules of others. Chains that are new to m are believed when they have as many
// rules as they should; those that it knows must not have changed.
func (f *Found) Filters(c Change, m Memory) bool {
	if len(c.All) == 0 {
		return true
	}
	c.Fresh, c.Fill, c.Added, c.Gone = true, c.All, nil, nil
	hooked := func(t tables, table, hook, chain string) bool {
		_, first := jumps(t[table][hook], chain)
		return first
	}
	ok := hooked(f.frames, "nat", "PREROUTING", c.Dispatch) && m.same("frames", parse(c.frames(nil))["nat"], f.frames["nat"])
	for _, v6 := range []bool{false, true} {
		t := f.four
		if v6 {
			t = f.six
		}
		ok = ok && hooked(t, "filter", "FORWARD", c.Dispatch) && hooked(t, "filter", "INPUT", inside(c.Dispatch)) &&
			m.same(family(v6), parse(c.packets(v6, nil))["filter"], t["filter"])
	}
	if !ok {
		clear(m)
	}
	return ok
}

// same compares the chains that are wanted, and remembers them.
func (m Memory) same(kind string, wanted, found map[string][]string) bool {
	for name, rules := range wanted {
		have, there := found[name]
		if !there || len(have) != len(rules) {
			return false
		}
		now := listed{sum(rules), sum(have)}
		if before, known := m[kind+name]; known && before.wanted == now.wanted && before.found != now.found {
			return false
		}
		m[kind+name] = now
	}
	return true
}

func sum(lines []string) [sha256.Size]byte { return sha256.Sum256([]byte(strings.Join(lines, "\n"))) }
