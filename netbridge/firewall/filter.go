package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"

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
	// Mark is the port's alone: see MarkOf.
	Mark uint32
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
