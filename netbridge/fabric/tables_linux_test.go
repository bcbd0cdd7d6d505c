package fabric_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/gantry-project/gantry/netbridge/fabric"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// nft runs f with a connection to the host's nf_tables.
func (h *host) nft(f func(c *nftables.Conn) error) {
	h.t.Helper()
	var c *nftables.Conn
	h.ok(netns.Do(h.ns, func() (err error) {
		c, err = nftables.New(nftables.AsLasting())
		return err
	}))
	defer func() { _ = c.CloseLasting() }()
	h.ok(f(c))
}

// tables is what the kernel's nf_tables have but for those of iptables and
// ebtables, in a fixed order.
func (h *host) tables() string {
	h.t.Helper()
	var lines []string
	line := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	h.nft(func(c *nftables.Conn) error {
		for _, family := range []nftables.TableFamily{nftables.TableFamilyBridge, nftables.TableFamilyINet} {
			tables, err := c.ListTablesOfFamily(family)
			if err != nil {
				return err
			}
			for _, t := range tables {
				if t.Name == "nat" || t.Name == "filter" || t.Name == "broute" {
					continue // of ebtables
				}
				line("table %d %s", family, t.Name)
				sets, err := c.GetSets(t)
				if err != nil {
					return err
				}
				for _, s := range sets {
					elements, err := c.GetSetElements(s)
					if err != nil {
						return err
					}
					for _, e := range elements {
						line("element %d %s %q %q %v", family, s.Name, e.Key, e.Val, e.IntervalEnd)
					}
				}
				chains, err := c.ListChainsOfTableFamily(family)
				if err != nil {
					return err
				}
				for _, chain := range chains {
					if chain.Table.Name != t.Name {
						continue
					}
					rules, err := c.GetRules(t, chain)
					if err != nil {
						return err
					}
					line("chain %d %s", family, chain.Name)
					for n, r := range rules {
						var b strings.Builder
						for _, e := range r.Exprs {
							fmt.Fprintf(&b, " %T%+v", e, e)
						}
						line("rule %d %s %03d%s", family, chain.Name, n, b.String())
					}
				}
			}
		}
		return nil
	})
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// TestTablesAreRepaired: whatever somebody takes of the kernel's tables, or puts
// there, is mended, and nothing else is touched.
func TestTablesAreRepaired(t *testing.T) {
	h := newHost(t)
	h.strangers()
	h.nft(func(c *nftables.Conn) error {
		stranger := c.AddTable(&nftables.Table{Name: "stranger", Family: nftables.TableFamilyINet})
		c.AddRule(&nftables.Rule{
			Table: stranger, Chain: c.AddChain(&nftables.Chain{Table: stranger, Name: "stranger"}), Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}},
		})
		return c.Flush()
	})
	before := h.all()
	gs := h.guests(2)
	h.ok(h.fabric.SetGroup(t.Context(), fabric.Group{ID: "all", Members: []netip.Prefix{netip.MustParsePrefix(gs[0].ip + "/32")}}))
	made := h.all()
	if text := h.filters(); strings.Contains(text, "-A gantry-o-") || !strings.Contains(text, "chain 7 gantry-o-") {
		t.Fatalf("not in the kernel's tables:\n%s", text)
	}
	h.ok(h.fabric.Repair(t.Context()))
	if again := h.all(); again != made {
		t.Errorf("what held was changed:\n%s\nbefore:\n%s", again, made)
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyBridge, nftables.TableFamilyINet} {
		for _, undo := range []func(c *nftables.Conn, own *nftables.Table) error{
			func(c *nftables.Conn, own *nftables.Table) error { // port's rules
				c.FlushChain(&nftables.Chain{Table: own, Name: "gantry-o-" + gs[0].port.ID[:11]})
				return nil
			},
			func(c *nftables.Conn, own *nftables.Table) error { // as many as before
				chain := &nftables.Chain{Table: own, Name: "gantry-o-" + gs[0].port.ID[:11]}
				rules, err := c.GetRules(own, chain)
				c.InsertRule(&nftables.Rule{Table: own, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
				return firstOf(err, func() error { return c.DelRule(rules[len(rules)-1]) })
			},
			func(c *nftables.Conn, own *nftables.Table) error { // all rules
				c.FlushTable(own)
				return nil
			},
			func(c *nftables.Conn, own *nftables.Table) error {
				sets, err := c.GetSets(own)
				for _, s := range sets {
					if !strings.Contains(s.Name, "-") {
						c.FlushSet(s) // a map of ours
					}
				}
				return err
			},
			func(c *nftables.Conn, own *nftables.Table) error {
				c.DelTable(own)
				return nil
			},
		} {
			h.nft(func(c *nftables.Conn) error {
				tables, err := c.ListTablesOfFamily(family)
				for _, own := range tables {
					if err == nil && strings.HasPrefix(own.Name, "gantry-") {
						err = undo(c, own)
					}
				}
				return firstOf(err, c.Flush)
			})
			if now := h.all(); now == made {
				t.Errorf("nothing was changed")
			}
			h.ok(h.fabric.Repair(t.Context()))
			if again := h.all(); sorted(again) != sorted(made) {
				t.Fatalf("not repaired:\n%s\nbefore:\n%s", again, made)
			}
		}
	}
	h.seenAs("a member of the group", gs[0].ns, gs[1].ip+":80", gs[0].ip)
	h.unplug(gs[0].port.ID, gs[1].port.ID)
	h.ok(h.fabric.Sync(t.Context(), fabric.World{}))
	if after := h.all(); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}

func firstOf(err error, f func() error) error {
	if err != nil {
		return err
	}
	return f()
}

// TestFromProgramsToTables: a host whose ports programs filter, and one that has
// been, has its ports filtered once.
func TestFromProgramsToTables(t *testing.T) {
	h := newHost(t)
	w := h.world(2)
	h.ok(h.fabric.Sync(t.Context(), w))
	tables := h.filters()
	t.Setenv(programs, "yes")
	other := h.cloud("one")
	h.ok(other.Sync(t.Context(), w))
	if text := h.filters(); !strings.Contains(text, "-A gantry-o-") || strings.Contains(text, "chain 7 gantry-o-") {
		t.Errorf("not by programs alone:\n%s", text)
	}
	h.ok(h.fabric.Sync(t.Context(), w))
	if text := h.filters(); text != tables {
		t.Errorf("%s\nat first\n%s", text, tables)
	}
}

// TestTwoCloudsFilterTheirOwn: each has rules for its own devices, and neither
// undoes the other's.
func TestTwoCloudsFilterTheirOwn(t *testing.T) {
	h := newHost(t)
	gs := h.guests(2)
	h.serve(gs[1].ns, gs[1].ip+":82")
	other := h.cloud("two")
	device := fabric.Port{ID: "99999999-dddd-0000-0000-000000000000", Device: "tap99999999-dd", Network: "two"}
	for _, all := range []fabric.World{{Ports: []fabric.Port{device}}, {}} {
		h.ok(other.Sync(t.Context(), all))
		h.refused("nothing is let in", gs[0].ns, gs[1].ip+":82")
		gs[0].port.Rules = nil
		h.ok(h.fabric.SetPorts(t.Context(), gs[0].port))
		gs[1].port.Open = true
		h.ok(h.fabric.SetPorts(t.Context(), gs[1].port))
		h.refused("nothing may go out", gs[0].ns, gs[1].ip+":82")
		gs[0].port.Open = true
		h.ok(h.fabric.SetPorts(t.Context(), gs[0].port))
		h.seenAs("open", gs[0].ns, gs[1].ip+":80", gs[0].ip)
		gs[0].port.Open, gs[1].port.Open = false, false
		h.ok(h.fabric.SetPorts(t.Context(), gs[1].port))
	}
}

// TestFiveHundredRules: a port may have them, and what none of them allows is
// refused.
func TestFiveHundredRules(t *testing.T) {
	h := newHost(t)
	gs := h.guests(2)
	p := gs[1].port
	for n := range 500 {
		p.Rules = append(p.Rules, fabric.Rule{Ingress: true, Protocol: 6, First: 1000 + n, Last: 1000 + n, Remote: netip.MustParsePrefix("10.0.0.0/24")})
	}
	h.ok(h.fabric.SetPorts(t.Context(), p))
	h.serve(gs[1].ns, gs[1].ip+":1499")
	h.seenAs("the last rule", gs[0].ns, gs[1].ip+":1499", gs[0].ip)
	h.refused("no rule", gs[0].ns, gs[1].ip+":80")
}
