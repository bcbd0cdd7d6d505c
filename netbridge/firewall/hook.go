package firewall

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-iptables/iptables"
)

// inside is the chain that packets to the host itself are led to.
func inside(dispatch string) string { return dispatch + "-in" }

// hookPackets leads packets to dispatch before anybody else's rules, or removes
// it: those that are bridged, and those that end at the host.
func hookPackets(v6 bool, dispatch string, wanted bool) error {
	proto := iptables.ProtocolIPv4
	if v6 {
		proto = iptables.ProtocolIPv6
	}
	ipt, err := iptables.New(iptables.IPFamily(proto), iptables.Timeout(5))
	if err != nil {
		return err
	}
	for _, h := range [][2]string{{"FORWARD", dispatch}, {"INPUT", inside(dispatch)}} {
		if wanted {
			err = hookFirst(ipt, h[0], h[1])
		} else if err = unhook(ipt, h[0], h[1]); err == nil {
			err = ipt.ClearAndDeleteChain("filter", h[1])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unhook removes every rule that leads to a chain: a hookFirst that was cut off
// has left two.
func unhook(ipt *iptables.IPTables, hook, chain string) error {
	lines, err := ipt.List("filter", hook)
	if err != nil {
		return err
	}
	at, _ := jumps(lines, chain)
	for _, n := range slices.Backward(at) {
		if err := ipt.DeleteById("filter", hook, n); err != nil {
			return err
		}
	}
	return nil
}

func hookFirst(ipt *iptables.IPTables, hook, chain string) error {
	lines, err := ipt.List("filter", hook)
	if err != nil {
		return err
	}
	at, first := jumps(lines, chain)
	if first {
		return nil
	}
	if err := ipt.Insert("filter", hook, 1, "-j", chain); err != nil {
		return err
	}
	for _, n := range slices.Backward(at) {
		if err := ipt.DeleteById("filter", hook, n+1); err != nil {
			return err
		}
	}
	return nil
}

// jumps are the numbers, from 1, of the rules that lead to a chain in the
// listing of a hook; first reports whether there is one, and nothing before it
// but what leads to other chains of ours.
func jumps(lines []string, chain string) (at []int, first bool) {
	n := 0
	first = true
	for _, line := range lines {
		words := strings.Fields(line)
		target := ""
		if to := slices.Index(words, "-j"); to >= 0 && to+1 < len(words) {
			target = words[to+1]
		} else if len(words) == 0 || words[0] != "-A" {
			continue // a heading
		}
		n++
		switch {
		case target == chain:
			at = append(at, n)
		case len(at) == 0 && !strings.HasPrefix(target, "gantry-"):
			first = false
		}
	}
	return at, first && len(at) == 1
}

// leftovers are ids that dispatch leads to and no port has; there says whether
// dispatch exists.
func leftovers(dispatch string, all []Port) (there bool, out []string, err error) {
	ipt, err := iptables.New(iptables.Timeout(5))
	if err != nil {
		return false, nil, err
	}
	if there, err = ipt.ChainExists("filter", dispatch); err != nil || !there {
		return false, nil, err
	}
	lines, err := ipt.List("filter", dispatch)
	if err != nil {
		return false, nil, err
	}
	for _, line := range lines {
		_, id, ok := strings.Cut(line, "-j "+ingressPrefix)
		if ok && !slices.ContainsFunc(all, func(p Port) bool { return p.ingress() == ingressPrefix+id }) {
			out = append(out, id)
		}
	}
	return true, out, nil
}

// leftFrames is leftovers for frames.
func leftFrames(ctx context.Context, dispatch string, all []Port) (there bool, out []string) {
	text, err := exec.CommandContext(ctx, "ebtables", "-t", "nat", "-L", dispatch).CombinedOutput()
	if err != nil {
		return false, nil // no such chain
	}
	for line := range strings.Lines(string(text)) {
		_, id, ok := strings.Cut(strings.TrimSpace(line), "-j "+egressPrefix)
		id, _, _ = strings.Cut(id, " ")
		if ok && !slices.ContainsFunc(all, func(p Port) bool { return p.egress() == egressPrefix+id }) {
			out = append(out, id)
		}
	}
	return true, out
}

// hookFrames leads frames to dispatch before anybody else's rules, or removes
// it.
func hookFrames(ctx context.Context, dispatch string, wanted bool) error {
	out, err := exec.CommandContext(ctx, "ebtables", "-t", "nat", "-L", "PREROUTING").CombinedOutput()
	if err != nil {
		return fmt.Errorf("ebtables: %w: %s", err, strings.TrimSpace(string(out)))
	}
	at, first := jumps(strings.Split(string(out), "\n"), dispatch)
	if wanted && first {
		return nil
	}
	var s script
	s.add("*nat")
	shift := 0
	if wanted {
		s.add("-I PREROUTING 1 -j", dispatch)
		shift = 1
	}
	for _, n := range slices.Backward(at) {
		s.add("-D PREROUTING", strconv.Itoa(n+shift))
	}
	if !wanted {
		s.add("-X", dispatch)
	}
	s.add("COMMIT")
	return restore(ctx, "ebtables-restore", s.String())
}
