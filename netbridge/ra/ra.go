// Package ra is the part of a router of IPv6 that tells its link of itself
// (RFC 4861, section 6.2; RFC 8106): where to send packets, of which network the
// addresses are, and how guests get theirs.
//
// netbridge/fabric says on which device; only it may import this package.
package ra

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/ipv6"
)

// Advert is what a router says on one link.
type Advert struct {
	// MAC is the router's, MTU of the link in bytes; 0 says nothing of it.
	MAC string
	MTU int
	// Managed: guests get addresses by DHCPv6. Other: they get the rest by it.
	Managed, Other bool
	Prefixes       []Prefix
	DNS            []netip.Addr
	// Domain follows names that have no dot; "" says nothing of it.
	Domain string
}

// Prefix is a network on the link.
type Prefix struct {
	Network netip.Prefix
	// Autonomous: guests make themselves an address in it.
	Autonomous bool
}

// Times. Prefixes do not end: instances keep their addresses while nobody
// advertises. A router does, at the latest a protocol allows.
const (
	routerLifetime = 9000 // seconds; the most there is
	forever        = 0xffffffff
	dnsLifetime    = 9000 // seconds
	interval       = 30 * time.Second
	again          = 50 * time.Millisecond // while the device has no address yet
	// soonest is how long after one who asked without an address, and was
	// answered with a word to all, another one is.
	soonest = 3 * time.Second
)

// Options of neighbour discovery (RFC 4861, section 4.6; RFC 8106, section 5).
const (
	optionSource = 1
	optionPrefix = 3
	optionMTU    = 5
	optionDNS    = 25
	optionSearch = 31
)

// Marshal is the ICMPv6 message; its checksum is for the kernel.
func (a Advert) Marshal() []byte {
	const managed, other, onLink, autonomous = 0x80, 0x40, 0x80, 0x40
	var flags byte
	if a.Managed {
		flags |= managed
	}
	if a.Other {
		flags |= other
	}
	const hops = 64
	b := []byte{byte(ipv6.ICMPTypeRouterAdvertisement), 0, 0, 0, hops, flags}
	b = binary.BigEndian.AppendUint16(b, routerLifetime)
	b = append(b, make([]byte, 8)...) // reachable and retransmission times: the guests' own
	if hw, err := net.ParseMAC(a.MAC); err == nil {
		b = option(b, optionSource, hw)
	}
	if a.MTU > 0 {
		b = option(b, optionMTU, binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(a.MTU))) //nolint:gosec // bytes of a frame
	}
	for _, p := range a.Prefixes {
		flags := byte(onLink)
		if p.Autonomous {
			flags |= autonomous
		}
		body := []byte{byte(p.Network.Bits()), flags}
		body = binary.BigEndian.AppendUint32(body, forever)
		body = binary.BigEndian.AppendUint32(body, forever)
		body = append(body, 0, 0, 0, 0)
		b = option(b, optionPrefix, append(body, p.Network.Masked().Addr().AsSlice()...))
	}
	lifetime := binary.BigEndian.AppendUint32([]byte{0, 0}, dnsLifetime)
	if len(a.DNS) > 0 {
		body := append([]byte{}, lifetime...)
		for _, d := range a.DNS {
			body = append(body, d.AsSlice()...)
		}
		b = option(b, optionDNS, body)
	}
	if a.Domain != "" {
		body := append([]byte{}, lifetime...)
		for label := range strings.SplitSeq(a.Domain, ".") {
			body = append(append(body, byte(len(label))), label...)
		}
		b = option(b, optionSearch, append(body, 0))
	}
	return b
}

// option adds one, filled up to whole units of eight bytes.
func option(b []byte, kind byte, body []byte) []byte {
	const unit = 8
	n := (len(body) + 2 + unit - 1) / unit
	b = append(append(b, kind, byte(n)), body...)
	return append(b, make([]byte, n*unit-2-len(body))...)
}

// Serve says it on a device, at once, then from time to time and to who asks,
// until conn is closed. conn is a raw socket for ICMPv6, bound to the device.
func Serve(conn net.PacketConn, device int, a Advert) error {
	p := ipv6.NewPacketConn(conn)
	i := &net.Interface{Index: device}
	if err := prepare(p, i); err != nil {
		return fmt.Errorf("advertise router: %w", err)
	}
	done := make(chan struct{})
	var saying sync.WaitGroup
	defer saying.Wait()
	defer close(done)
	say := func(to net.IP) error {
		_, err := p.WriteTo(a.Marshal(), &ipv6.ControlMessage{IfIndex: device, Src: a.source()}, &net.IPAddr{IP: to})
		return err
	}
	saying.Go(func() {
		next := time.NewTimer(0)
		defer next.Stop()
		for {
			select {
			case <-done:
				return
			case <-next.C:
			}
			next.Reset(interval)
			if say(net.IPv6linklocalallnodes) != nil {
				next.Reset(again)
			}
		}
	})
	return answer(p, say)
}

// source is the address of the router on the link, which guests want.
func (a Advert) source() net.IP {
	m, err := net.ParseMAC(a.MAC)
	if err != nil || len(m) != 6 {
		return nil // the kernel knows
	}
	return net.IP{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]}
}

func prepare(p *ipv6.PacketConn, i *net.Interface) error {
	const hops = 255 // what guests believe comes from the link
	var only ipv6.ICMPFilter
	only.SetAll(true)
	only.Accept(ipv6.ICMPTypeRouterSolicitation)
	err := errors.Join(p.SetICMPFilter(&only), p.SetControlMessage(ipv6.FlagHopLimit, true), p.SetMulticastHopLimit(hops),
		p.SetHopLimit(hops), p.SetMulticastInterface(i), p.SetMulticastLoopback(false))
	if err != nil {
		return err
	}
	return p.JoinGroup(i, &net.IPAddr{IP: net.IPv6linklocalallrouters})
}

// answer answers solicitations.
func answer(p *ipv6.PacketConn, say func(to net.IP) error) error {
	buf := make([]byte, 1500)
	var said time.Time
	for {
		n, cm, from, err := p.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("advertise router: %w", err)
		}
		if cm == nil || cm.HopLimit != 255 || !Solicitation(buf[:n]) {
			continue
		}
		to, ok := from.(*net.IPAddr)
		if !ok {
			continue
		}
		if to.IP.IsUnspecified() {
			if time.Since(said) < soonest {
				continue
			}
			said = time.Now()
			to.IP = net.IPv6linklocalallnodes
		}
		_ = say(to.IP) // the guest asks again
	}
}

// Solicitation reports whether a message is one of a guest.
func Solicitation(b []byte) bool {
	const least = 8
	return len(b) >= least && b[0] == byte(ipv6.ICMPTypeRouterSolicitation) && b[1] == 0
}
