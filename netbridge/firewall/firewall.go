// Package firewall keeps chains of iptables as they should be, in one network
// namespace, and filters devices that are in bridges there (Ports).
//
// A chain is desired state: its rules, and the built-in chain that jumps to it.
// Only chains of that name and the one jump to each are ever touched. Only
// netbridge/fabric uses it. It runs iptables, ip6tables and ebtables, with their
// -save and -restore: whichever back end these stand for. Ports of instances are
// filtered by these, too, or by nf_tables through netlink (Pick).
package firewall

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/gantry-project/gantry/netbridge/netns"
)

// MaxName is the longest name of a chain in bytes
// (Linux include/uapi/linux/netfilter/x_tables.h, XT_FUNCTION_MAXNAMELEN - 1).
const MaxName = 28

// Chain is the wanted content of one chain.
type Chain struct {
	// Table and Hook are built in ("nat", "POSTROUTING"); Name is ours.
	Table, Hook, Name string
	// Rules in order, each as iptables takes them ("-s", "10.0.0.0/8", "-j",
	// "ACCEPT"). None removes the chain.
	Rules [][]string
}

// Set makes the chains as they should be in the namespace ns, the caller's own
// when nil, for IPv6 if that is asked for. The same chains twice change
// nothing. It costs one look and at most one change of all, at once for each
// table.
func Set(ctx context.Context, ns *os.File, ipv6 bool, chains ...Chain) error {
	err := netns.Do(ns, func() error {
		have, err := look(ctx, ipv6)
		if err != nil {
			return err
		}
		text := have.change(chains)
		if text == "" {
			return nil
		}
		return restore(ctx, family(ipv6)+"-restore", text, "--wait", "5")
	})
	if err != nil {
		return fmt.Errorf("firewall: %w", err)
	}
	return nil
}

// Held reports whether chains are as Set would make them.
func Held(ctx context.Context, ns *os.File, ipv6 bool, chains ...Chain) (held bool, err error) {
	err = netns.Do(ns, func() error {
		have, err := look(ctx, ipv6)
		held = have.change(chains) == ""
		return err
	})
	return held, err
}

func family(ipv6 bool) string {
	if ipv6 {
		return "ip6tables"
	}
	return "iptables"
}

// tables are rules as a program lists them, by table and chain.
type tables map[string]map[string][]string

// look reads all tables there are.
func look(ctx context.Context, ipv6 bool) (tables, error) {
	out, err := output(ctx, family(ipv6)+"-save")
	if err != nil {
		return nil, err
	}
	return parse(out), nil
}

// parse reads the output of iptables-save, or ebtables-save.
func parse(text string) tables {
	all := tables{}
	var now map[string][]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			now = map[string][]string{}
			all[line[1:]] = now
		case now == nil:
		case strings.HasPrefix(line, ":"):
			name, _, _ := strings.Cut(line[1:], " ")
			now[name] = []string{}
		case strings.HasPrefix(line, "-A "):
			name, _, _ := strings.Cut(line[3:], " ")
			now[name] = append(now[name], line)
		}
	}
	return all
}

// change is the text of a restore that makes the chains so; "" if they are.
func (t tables) change(chains []Chain) string {
	var s script
	for _, table := range []string{"raw", "filter", "nat"} {
		var changes []Chain
		for _, c := range chains {
			if c.Table == table && !t.holds(c) {
				changes = append(changes, c)
			}
		}
		if len(changes) == 0 {
			continue
		}
		s.add("*" + table)
		for _, c := range changes {
			s.add(":"+c.Name, "- [0:0]")
		}
		for _, c := range changes {
			c.write(&s, t[table])
		}
		s.add("COMMIT")
	}
	return s.String()
}

// holds reports whether a chain is there with its rules, and hooked before those
// of others; or is not there.
func (t tables) holds(c Chain) bool {
	have, there := t[c.Table][c.Name]
	at, first := jumps(t[c.Table][c.Hook], c.Name)
	if len(c.Rules) == 0 {
		return !there && len(at) == 0
	}
	return there && first && len(have) == len(c.Rules) && strings.Contains(have[len(have)-1], c.sum())
}

// write fills a chain that is empty now, and hooks it; or removes it.
func (c Chain) write(s *script, table map[string][]string) {
	for i, r := range c.Rules {
		if i == len(c.Rules)-1 {
			// The sum is on the last rule: a chain that has it is complete.
			r = append([]string{"-m", "comment", "--comment", c.sum()}, r...)
		}
		s.add(append([]string{"-A", c.Name}, r...)...)
	}
	at, first := jumps(table[c.Hook], c.Name)
	if len(c.Rules) > 0 && first {
		return
	}
	for range at {
		s.add("-D", c.Hook, "-j", c.Name)
	}
	if len(c.Rules) > 0 {
		s.add("-I", c.Hook, "1 -j", c.Name)
	} else {
		s.add("-X", c.Name)
	}
}

// sum stands for the rules.
func (c Chain) sum() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", c.Rules))
	return "gantry:" + hex.EncodeToString(sum[:8])
}
