// Package firewall keeps chains of iptables as they should be, in one network
// namespace.
//
// A chain is desired state: its rules, and the built-in chain that jumps to it.
// Only chains of that name and the one jump to each are ever touched. Only
// netbridge/fabric uses it. It runs the programs iptables and ip6tables.
package firewall

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/coreos/go-iptables/iptables"

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
// nothing. A chain that differs is emptied and filled again: for a moment it
// holds less.
func Set(ns *os.File, ipv6 bool, chains ...Chain) error {
	return netns.Do(ns, func() error {
		proto := iptables.ProtocolIPv4
		if ipv6 {
			proto = iptables.ProtocolIPv6
		}
		ipt, err := iptables.New(iptables.IPFamily(proto), iptables.Timeout(5))
		if err != nil {
			return fmt.Errorf("firewall: %w", err)
		}
		for _, c := range chains {
			if err := c.set(ipt); err != nil {
				return fmt.Errorf("firewall chain %s of table %s: %w", c.Name, c.Table, err)
			}
		}
		return nil
	})
}

func (c Chain) set(ipt *iptables.IPTables) error {
	there, err := ipt.ChainExists(c.Table, c.Name)
	if err != nil {
		return err
	}
	jump := []string{"-j", c.Name}
	if len(c.Rules) == 0 {
		if !there {
			return nil
		}
		if err := ipt.DeleteIfExists(c.Table, c.Hook, jump...); err != nil {
			return err
		}
		return ipt.ClearAndDeleteChain(c.Table, c.Name)
	}
	if same, err := c.same(ipt, there); err != nil || same {
		return err
	}
	if err := ipt.ClearChain(c.Table, c.Name); err != nil { // makes it, too
		return err
	}
	for i, r := range c.Rules {
		if i == len(c.Rules)-1 {
			// The sum is on the last rule: a chain that has it is complete.
			r = append([]string{"-m", "comment", "--comment", c.sum()}, r...)
		}
		if err := ipt.Append(c.Table, c.Name, r...); err != nil {
			return err
		}
	}
	return ipt.InsertUnique(c.Table, c.Hook, 1, jump...)
}

// same reports whether the chain is there with these rules, and hooked.
func (c Chain) same(ipt *iptables.IPTables, there bool) (bool, error) {
	if !there {
		return false, nil
	}
	have, err := ipt.List(c.Table, c.Name)
	if err != nil || len(have) != len(c.Rules)+1 || !strings.Contains(have[len(have)-1], c.sum()) {
		return false, err
	}
	return ipt.Exists(c.Table, c.Hook, "-j", c.Name)
}

// sum stands for the rules.
func (c Chain) sum() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", c.Rules))
	return "gantry:" + hex.EncodeToString(sum[:8])
}
