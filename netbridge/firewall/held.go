package firewall

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Holds implements Ports.
func (t *tabled) Holds(_ context.Context, ns *os.File, _ *Found, c Change, m Memory) (bool, error) {
	if len(c.All) == 0 {
		return true, nil
	}
	ok := false
	err := t.with(ns, func(x *transaction) error {
		now, err := t.generation()
		if err != nil {
			return err
		}
		// Nobody has changed anything in this namespace since it was looked at.
		if t.held != 0 && now == t.held {
			ok = true
			return nil
		}
		t.held = 0
		if ok, err = x.holds(c, m); ok {
			t.held = now
		}
		return err
	})
	if !ok {
		clear(m)
	}
	return ok, err
}

// generation is the number of the last change of anybody's; mu is held.
func (t *tabled) generation() (uint32, error) {
	found, err := t.socket.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request}, Data: make([]byte, 4),
	})
	if err != nil || len(found) == 0 || len(found[0].Data) < 4 {
		return 0, fmt.Errorf("generation of rules: %w", errors.Join(err, errdefs.ErrUnavailable))
	}
	d, err := netlink.NewAttributeDecoder(found[0].Data[4:])
	if err != nil {
		return 0, err
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		if d.Type() == unix.NFTA_GEN_ID {
			return d.Uint32(), nil
		}
	}
	return 0, d.Err()
}

func (x *transaction) holds(c Change, m Memory) (bool, error) {
	found, err := x.chains()
	if err != nil {
		return false, err
	}
	hooks := hookRules()
	for _, h := range x.hooked() {
		there := slices.ContainsFunc(found, func(f *nftables.Chain) bool {
			return f.Name == h.Name && f.Table.Family == h.Table.Family && f.Hooknum != nil && *f.Hooknum == *h.Hooknum && *f.Priority == *h.Priority
		})
		if !there || !x.same(h, hooks[h.Name], m) {
			return false, nil
		}
	}
	for n, s := range x.maps() {
		if !x.sameMembers(s, n, c.All) {
			return false, nil
		}
	}
	for _, p := range c.All {
		rules := p.wanted()
		for n, chain := range x.own(p) {
			if !x.same(chain, rules[n], m) {
				return false, nil
			}
		}
	}
	return true, nil
}

// same compares a chain, and remembers it.
func (x *transaction) same(c *nftables.Chain, wanted []words, m Memory) bool {
	found, err := x.GetRules(c.Table, c)
	if err != nil || len(found) != len(wanted) {
		return false
	}
	now := listed{sha256.Sum256(fmt.Appendf(nil, "%s", text(wanted))), sha256.Sum256(fmt.Appendf(nil, "%s", ruleText(found)))}
	key := fmt.Sprintf("nf_tables %d %s", c.Table.Family, c.Name)
	if before, known := m[key]; known && before.wanted == now.wanted && before.found != now.found {
		return false
	}
	m[key] = now
	return true
}

// sameMembers compares the keys of a map.
func (x *transaction) sameMembers(s *nftables.Set, n int, ports []Port) bool {
	found, err := x.GetSetElements(s)
	if err != nil || len(found) != len(ports) {
		return false
	}
	keys := map[string]bool{}
	for _, e := range found {
		keys[strings.TrimRight(string(e.Key), "\x00")] = true
	}
	return !slices.ContainsFunc(ports, func(p Port) bool { return !keys[strings.TrimRight(string(p.elements()[n].Key), "\x00")] })
}

func text(rules []words) string {
	var b strings.Builder
	for _, r := range rules {
		for _, e := range r {
			fmt.Fprintf(&b, "%T%+v ", e, e)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func ruleText(found []*nftables.Rule) string {
	rules := make([]words, len(found))
	for n, r := range found {
		rules[n] = r.Exprs
	}
	return text(rules)
}
