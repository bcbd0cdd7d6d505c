package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-iptables/iptables"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// Port is what may pass a device that is in a bridge.
type Port struct {
	// ID tells ports apart by its first 11 characters.
	ID string
	// Device is the end in the bridge.
	Device string
	// Down lets nothing pass, Open everything.
	Down, Open bool
	// Sources may be sent from: anything else is dropped before it is looked at
	// further, ARP included.
	Sources []Source
	Rules   []Rule
}

// Source is a pair of addresses that frames may come from.
type Source struct {
	MAC     string
	Address netip.Prefix
}

// Rule lets packets pass; what belongs to a connection that was let through
// always does.
type Rule struct {
	Ingress, IPv6 bool
	// Protocol is the number, 0 for any.
	Protocol int
	// First and Last are ports, or type and code of ICMP; -1 for any.
	First, Last int
	// Remote is the other side; the zero Prefix is anything.
	Remote netip.Prefix
	// Set is the name of a set of addresses that the other side is of; "" for
	// any.
	Set string
}

const idChars = 11

func (p Port) ingress() string { return ingressPrefix + p.ID[:min(len(p.ID), idChars)] }
func (p Port) egress() string  { return egressPrefix + p.ID[:min(len(p.ID), idChars)] }

const (
	ingressPrefix = "gantry-i-"
	egressPrefix  = "gantry-o-"
)

// Change is what Filter is to do.
type Change struct {
	// Dispatch is the chain that leads to those of ports, one for each cloud.
	Dispatch string
	// All are its ports, Fill those whose rules are to be written (anew), and
	// Added those of Fill that were not among All before.
	All, Fill, Added []Port
	// Gone are ports that were among All and are no more.
	Gone []Port
	// Fresh asks for a look at what is there, which takes far longer than a
	// change: at the first one of a process, and to leave nothing. Chains that Dispatch led to and none of All has are
	// removed then, and Dispatch itself if there is none.
	Fresh bool
}

// Filter makes what passes bridged devices in the namespace ns what the ports
// say. It needs br_netfilter (errdefs.ErrUnsupported without). Each of the three
// kinds of packets (frames, IPv4, IPv6) changes at once.
func Filter(ctx context.Context, ns *os.File, c Change) error {
	gone := make([]string, 0, len(c.Gone))
	for _, p := range c.Gone {
		gone = append(gone, strings.TrimPrefix(p.ingress(), ingressPrefix))
	}
	var err error
	if c.Fresh {
		err = c.fresh(ctx, ns)
	} else {
		err = c.writeAll(ctx, ns, gone, gone)
	}
	if err != nil {
		return fmt.Errorf("filter of bridged devices: %w", err)
	}
	return nil
}

// fresh looks at what is there before it writes.
func (c Change) fresh(ctx context.Context, ns *os.File) error {
	var there, framed bool
	var gone, goneFrames []string
	err := netns.Do(ns, func() (err error) {
		if err := bridged(ctx); err != nil {
			return err
		}
		if there, gone, err = leftovers(c.Dispatch, c.All); err != nil {
			return err
		}
		// a change that was cut off has been made for frames and not for packets
		framed, goneFrames = leftFrames(ctx, c.Dispatch, c.All)
		return nil
	})
	if err != nil || !there && !framed && len(c.All) == 0 {
		return err
	}
	return c.writeAll(ctx, ns, goneFrames, gone)
}

// writeAll writes frames first: a device whose addresses are not checked yet is
// not let through by rules that trust them. Where ports are only added, whose
// devices nobody has filtered until now, all is written at the same time.
func (c Change) writeAll(ctx context.Context, ns *os.File, goneFrames, gone []string) error {
	var kinds errgroup.Group
	write := func(f func() error) { kinds.Go(func() error { return netns.Do(ns, f) }) }
	write(func() error { return c.writeFrames(ctx, goneFrames) })
	if c.Fresh || len(c.Fill) > len(c.Added) {
		if err := kinds.Wait(); err != nil {
			return err
		}
	}
	for _, v6 := range []bool{false, true} {
		write(func() error { return c.writePackets(ctx, v6, gone) })
	}
	return kinds.Wait()
}

func (c Change) writeFrames(ctx context.Context, gone []string) error {
	if err := restore(ctx, "ebtables-restore", c.frames(gone)); err != nil || !c.Fresh {
		return err
	}
	return hookFrames(ctx, c.Dispatch, len(c.All) > 0)
}

func (c Change) writePackets(ctx context.Context, v6 bool, gone []string) error {
	program := "iptables-restore"
	if v6 {
		program = "ip6tables-restore"
	}
	if err := restore(ctx, program, c.packets(v6, gone), "--wait", "5"); err != nil || !c.Fresh {
		return err
	}
	return hookPackets(v6, c.Dispatch, len(c.All) > 0)
}

// hookPackets leads packets to dispatch, once, or removes it.
func hookPackets(v6 bool, dispatch string, wanted bool) error {
	proto := iptables.ProtocolIPv4
	if v6 {
		proto = iptables.ProtocolIPv6
	}
	ipt, err := iptables.New(iptables.IPFamily(proto), iptables.Timeout(5))
	if err != nil {
		return err
	}
	if wanted {
		return ipt.InsertUnique("filter", "FORWARD", 1, "-j", dispatch)
	}
	if err := ipt.DeleteIfExists("filter", "FORWARD", "-j", dispatch); err != nil {
		return err
	}
	return ipt.ClearAndDeleteChain("filter", dispatch)
}

// bridged makes sure that bridged packets pass the chains at all. The module
// that does it is loaded if it is one and is not there yet.
func bridged(ctx context.Context) error {
	const dir = "/proc/sys/net/bridge/"
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if out, err := exec.CommandContext(ctx, "modprobe", "br_netfilter").CombinedOutput(); err != nil {
			return fmt.Errorf("load br_netfilter: %w: %s: %w", err, strings.TrimSpace(string(out)), errdefs.ErrUnsupported)
		}
	}
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		if err := os.WriteFile(dir+name, []byte("1"), 0); err != nil {
			return fmt.Errorf("br_netfilter: %w: %w", err, errdefs.ErrUnsupported)
		}
	}
	return nil
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

// restore runs a program that takes a table's changes.
func restore(ctx context.Context, program, text string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, append([]string{"--noflush"}, args...)...)
	cmd.Stdin = strings.NewReader(text)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(out.String()))
	}
	return nil
}

// hookFrames leads frames to dispatch, once, or removes it.
func hookFrames(ctx context.Context, dispatch string, wanted bool) error {
	out, err := exec.CommandContext(ctx, "ebtables", "-t", "nat", "-L", "PREROUTING").CombinedOutput()
	if err != nil {
		return fmt.Errorf("ebtables: %w: %s", err, strings.TrimSpace(string(out)))
	}
	hooked := slices.Contains(strings.Fields(string(out)), dispatch)
	var s script
	s.add("*nat")
	switch {
	case wanted && !hooked:
		s.add("-A PREROUTING -j", dispatch)
	case wanted:
		return nil
	default:
		if hooked {
			s.add("-D PREROUTING -j", dispatch)
		}
		s.add("-X", dispatch)
	}
	s.add("COMMIT")
	return restore(ctx, "ebtables-restore", s.String())
}

// script is the text of a restore.
type script struct{ strings.Builder }

func (s *script) add(words ...string) {
	s.WriteString(strings.Join(words, " "))
	s.WriteByte('\n')
}

// frames is the check of the addresses that frames come from.
func (c Change) frames(gone []string) string {
	var s script
	s.add("*nat")
	added := c.Added
	if c.Fresh {
		s.add(":" + c.Dispatch + " RETURN")
		added = c.All
	}
	for _, p := range c.Fill {
		s.add(":"+p.egress(), "RETURN")
	}
	for _, id := range gone {
		s.add(":"+egressPrefix+id, "RETURN")
	}
	for _, p := range added {
		s.add("-A", c.Dispatch, "-i", p.Device, "-j", p.egress())
	}
	if !c.Fresh {
		for _, p := range c.Gone {
			s.add("-D", c.Dispatch, "-i", p.Device, "-j", p.egress())
		}
	}
	for _, p := range c.Fill {
		p.frames(&s)
	}
	for _, id := range gone {
		s.add("-X", egressPrefix+id)
	}
	s.add("COMMIT")
	return s.String()
}

func (p Port) frames(s *script) {
	pass := func(words ...string) {
		s.add(slices.Concat([]string{"-A", p.egress()}, words, []string{"-j", "RETURN"})...)
	}
	switch {
	case p.Down:
		s.add("-A", p.egress(), "-j", "DROP")
		return
	case p.Open:
		pass()
		return
	}
	macs := map[string]bool{}
	for _, src := range p.Sources {
		a := src.Address.Masked().String()
		if src.Address.Addr().Is4() {
			pass("-p", "ARP", "--arp-ip-src", a, "--arp-mac-src", src.MAC)
			pass("-p", "IPv4", "-s", src.MAC, "--ip-src", a)
		} else {
			pass("-p", "IPv6", "-s", src.MAC, "--ip6-src", a)
		}
		if macs[src.MAC] {
			continue
		}
		macs[src.MAC] = true
		// asking for an address, and whether one is free (RFC 2131, RFC 5227)
		pass("-p", "IPv4", "-s", src.MAC, "--ip-src", "0.0.0.0", "--ip-proto", "udp", "--ip-sport", "68", "--ip-dport", "67")
		pass("-p", "ARP", "--arp-ip-src", "0.0.0.0", "--arp-mac-src", src.MAC)
		// neighbour discovery from the address that follows from the MAC
		pass("-p", "IPv6", "-s", src.MAC, "--ip6-src", "::/128")
		if local, ok := linkLocal(src.MAC); ok {
			pass("-p", "IPv6", "-s", src.MAC, "--ip6-src", local+"/128")
		}
	}
	s.add("-A", p.egress(), "-j", "DROP")
}

// linkLocal is the IPv6 address that a guest makes of its MAC.
func linkLocal(mac string) (string, bool) {
	m, err := net.ParseMAC(mac)
	if err != nil || len(m) != 6 {
		return "", false
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]}).String(), true
}

// packets is the filter of one IP version. A packet from one port to another
// passes the chains of both.
func (c Change) packets(v6 bool, gone []string) string {
	var s script
	s.add("*filter")
	added := c.Added
	if c.Fresh {
		s.add(":"+c.Dispatch, "- [0:0]")
		added = c.All
	}
	for _, p := range c.Fill {
		s.add(":"+p.ingress(), "- [0:0]")
		s.add(":"+p.egress(), "- [0:0]")
	}
	for _, id := range gone {
		s.add(":"+ingressPrefix+id, "- [0:0]")
		s.add(":"+egressPrefix+id, "- [0:0]")
	}
	jump := func(verb string, p Port) {
		s.add(verb, c.Dispatch, "-m physdev --physdev-is-bridged --physdev-in", p.Device, "-j", p.egress())
		s.add(verb, c.Dispatch, "-m physdev --physdev-is-bridged --physdev-out", p.Device, "-j", p.ingress())
	}
	for _, p := range added {
		jump("-A", p)
	}
	if !c.Fresh {
		for _, p := range c.Gone {
			jump("-D", p)
		}
	}
	for _, p := range c.Fill {
		p.packets(&s, v6, true)
		p.packets(&s, v6, false)
	}
	for _, id := range gone {
		s.add("-X", ingressPrefix+id)
		s.add("-X", egressPrefix+id)
	}
	s.add("COMMIT")
	return s.String()
}

func (p Port) packets(s *script, v6, ingress bool) {
	chain := p.egress()
	if ingress {
		chain = p.ingress()
	}
	pass := func(words ...string) { s.add(slices.Concat([]string{"-A", chain}, words, []string{"-j", "RETURN"})...) }
	drop := func(words ...string) { s.add(slices.Concat([]string{"-A", chain}, words, []string{"-j", "DROP"})...) }
	switch {
	case p.Down:
		drop()
		return
	case p.Open:
		pass()
		return
	}
	always(v6, ingress, pass, drop)
	pass("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
	drop("-m", "conntrack", "--ctstate", "INVALID")
	for _, r := range p.Rules {
		if r.IPv6 == v6 && r.Ingress == ingress {
			pass(r.match()...)
		}
	}
	drop()
}

// always are packets without which a guest has no network, and those that would
// make it a server of networks to others (neutron/agent/linux/iptables_firewall.py).
func always(v6, ingress bool, pass, drop func(...string)) {
	if !v6 {
		if ingress {
			pass("-p", "udp", "--sport", "67", "--dport", "68")
		} else {
			pass("-p", "udp", "--sport", "68", "--dport", "67")
			drop("-p", "udp", "--sport", "67", "--dport", "68")
		}
		return
	}
	types := []string{"130", "131", "132", "133", "135", "136"}
	if ingress {
		types = []string{"130", "131", "132", "134", "135", "136"}
	}
	for _, t := range types {
		pass("-p", "ipv6-icmp", "-m", "icmp6", "--icmpv6-type", t)
	}
	if ingress {
		pass("-p", "udp", "--sport", "547", "--dport", "546")
		return
	}
	drop("-p", "ipv6-icmp", "-m", "icmp6", "--icmpv6-type", "134")
	pass("-p", "udp", "--sport", "546", "--dport", "547")
	drop("-p", "udp", "--sport", "547", "--dport", "546")
}

// match is what iptables compares.
func (r Rule) match() []string {
	var w []string
	side, set := "-d", "dst"
	if r.Ingress {
		side, set = "-s", "src"
	}
	if r.Remote.IsValid() {
		w = append(w, side, r.Remote.Masked().String())
	}
	if r.Protocol != 0 {
		w = append(w, "-p", strconv.Itoa(r.Protocol))
	}
	if r.First >= 0 || r.Last >= 0 {
		w = append(w, r.ports()...)
	}
	if r.Set != "" {
		w = append(w, "-m", "set", "--match-set", r.Set, set)
	}
	return w
}

func (r Rule) ports() []string {
	const icmp, icmp6 = 1, 58
	if r.Protocol != icmp && r.Protocol != icmp6 {
		ports := strconv.Itoa(r.First)
		if r.Last != r.First {
			ports += ":" + strconv.Itoa(r.Last)
		}
		return []string{"-m", "multiport", "--dports", ports}
	}
	kind := strconv.Itoa(r.First)
	if r.Last >= 0 {
		kind += "/" + strconv.Itoa(r.Last)
	}
	if r.Protocol == icmp {
		return []string{"-m", "icmp", "--icmp-type", kind}
	}
	return []string{"-m", "icmp6", "--icmpv6-type", kind}
}
