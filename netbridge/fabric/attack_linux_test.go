package fabric_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/fabric"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// A guest with all rights over its own device sends what it likes; others hear
// what came through.

// wire is a socket for whole frames.
type wireEnd struct {
	t  *testing.T
	fd int
}

// tap opens one on a device, or on all there will be when it is "".
func (h *host) tap(ns *os.File, device string) *wireEnd {
	h.t.Helper()
	w := &wireEnd{t: h.t}
	h.ok(netns.Do(ns, func() error {
		proto := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto))
		if err != nil {
			return err
		}
		w.fd = fd
		if device == "" {
			return nil
		}
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: i.Index})
	}))
	h.ok(unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	h.t.Cleanup(func() { _ = unix.Close(w.fd) })
	return w
}

func (w *wireEnd) send(frame []byte) {
	w.t.Helper()
	if _, err := unix.Write(w.fd, frame); err != nil {
		w.t.Fatalf("send %x: %v", frame, err)
	}
}

// until returns all that came in before a frame that has the mark.
func (w *wireEnd) until(mark []byte) [][]byte {
	w.t.Helper()
	if err := unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(long.Seconds())}); err != nil {
		w.t.Fatal(err)
	}
	var out [][]byte
	buf := make([]byte, 65536)
	for {
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			w.t.Fatalf("the mark did not come: %v", err)
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if bytes.Contains(buf[:n], mark) {
			return out
		}
		out = append(out, bytes.Clone(buf[:n]))
	}
}

// Parts of frames.
var (
	ownMAC, victimMAC = mac("fa:16:3e:00:01:01"), mac("fa:16:3e:00:01:02")
	routerMAC         = mac("fa:16:3e:66:66:66")
	allMAC            = mac("ff:ff:ff:ff:ff:ff")
	ownIP, victimIP   = ip("10.0.0.11"), ip("10.0.0.12")
	routerIP, noIP    = ip("10.0.0.1"), ip("0.0.0.0")
	own6, victim6     = ip("fd00::11"), ip("fd00::12")
	ownLink           = ip("fe80::f816:3eff:fe00:101")
	routerLink, no6   = ip("fe80::1"), ip("::")
	nodes6, joined6   = ip("ff02::1"), ip("ff02::1:2")
)

func mac(s string) []byte {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func join(parts ...any) []byte {
	var out []byte
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			out = append(out, p...)
		case netip.Addr:
			out = append(out, p.AsSlice()...)
		case int: // two bytes
			out = binary.BigEndian.AppendUint16(out, uint16(p))
		case byte:
			out = append(out, p)
		case string:
			out = append(out, p...)
		}
	}
	return out
}

func frame(src []byte, kind int, body []byte) []byte { return join(allMAC, src, kind, body) }

func arp(ether []byte, op int, senderMAC []byte, sender netip.Addr, target netip.Addr) []byte {
	return frame(ether, 0x0806, join(1, 0x0800, byte(6), byte(4), op, senderMAC, sender, make([]byte, 6), target))
}

func checksum(parts ...[]byte) int {
	var sum uint32
	b := bytes.Join(parts, nil)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return int(^uint16(sum))
}

// v4 is a packet; more and offset (in units of 8 bytes) are of fragments.
func v4(src, dst netip.Addr, proto byte, more bool, offset int, body []byte) []byte {
	flags := offset
	if more {
		flags |= 0x2000
	}
	head := join(byte(0x45), byte(0), 20+len(body), 0x4242, flags, byte(64), proto)
	sum := checksum(head, join(0, src, dst))
	return join(head, sum, src, dst, body)
}

func udp4(src, dst netip.Addr, from, to int, payload string) []byte {
	return v4(src, dst, 17, false, 0, join(from, to, 8+len(payload), 0, payload))
}

// v6 is a packet; next is the kind of its first header.
func v6(src, dst netip.Addr, next byte, body []byte) []byte {
	return join(byte(0x60), []byte{0, 0, 0}, len(body), next, byte(255), src, dst, body)
}

func upper6(src, dst netip.Addr, proto byte, at int, body []byte) []byte {
	sum := checksum(join(src, dst, 0, len(body), 0, int(proto)), body)
	out := bytes.Clone(body)
	binary.BigEndian.PutUint16(out[at:], uint16(sum))
	return out
}

func icmp6(src, dst netip.Addr, body []byte) []byte { return upper6(src, dst, 58, 2, body) }

func udp6(src, dst netip.Addr, from, to int, payload string) []byte {
	return v6(src, dst, 17, upper6(src, dst, 17, 6, join(from, to, 8+len(payload), 0, payload)))
}

// nd is a message of neighbour discovery with a target and an option.
func nd(kind byte, src, dst, target netip.Addr) []byte {
	return icmp6(src, dst, join(kind, byte(0), 0, []byte{0x60, 0, 0, 0}, target, byte(2), byte(1), ownMAC))
}

func ra6(src netip.Addr) []byte {
	return icmp6(src, nodes6, join(byte(134), byte(0), 0, byte(64), byte(0), 1800, make([]byte, 8), byte(1), byte(1), ownMAC))
}

// behind puts a header before a body: fragment (44), hop-by-hop (0) or options
// for the destination (60).
func behind(header, next byte, body []byte) []byte {
	if header == 44 {
		return join(next, byte(0), 0, []byte{0, 0, 0, 7}, body) // a fragment that is all
	}
	return join(next, byte(0), []byte{1, 4, 0, 0, 0, 0}, body)
}

// attacks are what nobody else may hear of.
func attacks() map[string][][]byte {
	dhcp := "\x02\x01\x06\x00attack" + string(make([]byte, 300))
	big := join(67, 68, 8+len(dhcp), 0, dhcp)
	ra := ra6(ownLink)
	fragment := func(offset int, more byte, body []byte) []byte {
		return frame(ownMAC, 0x86dd, v6(ownLink, nodes6, 44, join(byte(58), byte(0), offset<<3|int(more), []byte{0, 0, 0, 9}, body)))
	}
	six := func(p []byte) [][]byte { return [][]byte{frame(ownMAC, 0x86dd, p)} }
	four := func(p []byte) [][]byte { return [][]byte{frame(ownMAC, 0x0800, p)} }
	return map[string][][]byte{
		"arp: the router's address":              {arp(ownMAC, 2, ownMAC, routerIP, victimIP)},
		"arp: the router's address, asking":      {arp(ownMAC, 1, ownMAC, routerIP, routerIP)},
		"arp: another sender inside":             {arp(ownMAC, 2, victimMAC, ownIP, victimIP)},
		"arp: another sender outside":            {arp(victimMAC, 2, ownMAC, ownIP, victimIP)},
		"arp: whether the victim's is free":      {arp(ownMAC, 1, ownMAC, noIP, victimIP)},
		"rarp":                                   {frame(ownMAC, 0x8035, join(1, 0x0800, byte(6), byte(4), 3, ownMAC, ownIP, ownMAC, ownIP))},
		"mac: another's":                         {frame(victimMAC, 0x0800, udp4(ownIP, victimIP, 9, 9, "attack"))},
		"mac: another's, IPv6":                   {frame(victimMAC, 0x86dd, udp6(own6, victim6, 9, 9, "attack"))},
		"ipv4: another's":                        four(udp4(routerIP, victimIP, 9, 9, "attack")),
		"ipv4: nobody's":                         four(udp4(noIP, victimIP, 9, 9, "attack")),
		"ipv4: nobody's, to the port of servers": four(udp4(noIP, victimIP, 9, 67, "attack")),
		"ipv6: another's":                        six(udp6(victim6, victim6, 9, 9, "attack")),
		"ipv6: another's on the link":            six(udp6(routerLink, victim6, 9, 9, "attack")),
		"ipv6: nobody's":                         six(udp6(no6, victim6, 9, 9, "attack")),
		"dhcp: an answer":                        four(udp4(ownIP, ip("255.255.255.255"), 67, 68, dhcp)),
		"dhcp: an answer in fragments": {
			frame(ownMAC, 0x0800, v4(ownIP, victimIP, 17, true, 0, big[:16])), frame(ownMAC, 0x0800, v4(ownIP, victimIP, 17, false, 2, big[16:])),
		},
		"dhcpv6: an answer":                six(udp6(ownLink, nodes6, 547, 546, "attack")),
		"dhcpv6: an answer behind header":  six(v6(ownLink, nodes6, 60, behind(60, 17, udp6(ownLink, nodes6, 547, 546, "attack")[40:]))),
		"ra":                               six(v6(ownLink, nodes6, 58, ra)),
		"ra: as the router":                six(v6(routerLink, nodes6, 58, ra6(routerLink))),
		"ra: behind hop-by-hop":            six(v6(ownLink, nodes6, 0, behind(0, 58, ra))),
		"ra: behind options":               six(v6(ownLink, nodes6, 60, behind(60, 58, ra))),
		"ra: behind a fragment":            six(v6(ownLink, nodes6, 44, behind(44, 58, ra))),
		"ra: behind options and fragment":  six(v6(ownLink, nodes6, 60, behind(60, 44, behind(44, 58, ra)))),
		"ra: in fragments":                 {fragment(0, 1, ra[:8]), fragment(1, 0, ra[8:])},
		"ra: in fragments that overlap":    {fragment(0, 1, append([]byte{200}, ra[1:16]...)), fragment(0, 1, ra[:16]), fragment(2, 0, ra[16:])},
		"na: the router's":                 six(v6(ownLink, nodes6, 58, nd(136, ownLink, nodes6, ip("fd00::1")))),
		"na: the victim's":                 six(v6(own6, nodes6, 58, nd(136, own6, nodes6, victim6))),
		"na: the router's on the link":     six(v6(ownLink, nodes6, 58, nd(136, ownLink, nodes6, routerLink))),
		"na: behind options":               six(v6(ownLink, nodes6, 60, behind(60, 58, nd(136, ownLink, nodes6, victim6)))),
		"na: behind a fragment":            six(v6(ownLink, nodes6, 44, behind(44, 58, nd(136, ownLink, nodes6, victim6)))),
		"ns: whether the victim's is free": six(v6(no6, nodes6, 58, nd(135, no6, nodes6, victim6))),
		"ns: for the victim":               six(v6(victim6, nodes6, 58, nd(135, victim6, nodes6, own6))),
		"icmp6: redirect":                  six(v6(ownLink, nodes6, 58, icmp6(ownLink, nodes6, join(byte(137), byte(0), 0, 0, 0, victim6, victim6)))),
		"vlan":                             {frame(ownMAC, 0x8100, join(1, arp(ownMAC, 2, ownMAC, routerIP, victimIP)[12:]))},
		"vlan of providers":                {frame(ownMAC, 0x88a8, join(1, 0x8100, 1, udp4(routerIP, victimIP, 9, 9, "attack")))},
		"spanning tree":                    {join(mac("01:80:c2:00:00:00"), ownMAC, 38, []byte{0x42, 0x42, 3}, make([]byte, 35))},
		"another protocol":                 {frame(ownMAC, 0x9000, []byte("attack"))},
	}
}

// TestAttacks: of what a guest forges nothing is heard, and of what it may say
// everything is.
//
// A guest whose traffic is limited goes another way to its bridge.
func TestAttacks(t *testing.T) {
	for name, limits := range map[string]netbridge.Limits{
		"unlimited": {},
		"limited":   {Outbound: netbridge.Limit{Rate: 100_000_000}, Inbound: netbridge.Limit{Rate: 100_000_000}},
	} {
		t.Run(name, func(t *testing.T) { testAttacks(t, limits) })
	}
}

func testAttacks(t *testing.T, limits netbridge.Limits) {
	h := newHost(t)
	h.limits = limits
	from, heard := h.attacked()
	honest := map[string][]byte{
		"arp":                arp(ownMAC, 1, ownMAC, ownIP, victimIP),
		"arp: its own":       arp(ownMAC, 1, ownMAC, noIP, ownIP),
		"ipv4":               frame(ownMAC, 0x0800, udp4(ownIP, victimIP, 9, 9, "honest4")),
		"ipv6":               frame(ownMAC, 0x86dd, udp6(own6, victim6, 9, 9, "honest6")),
		"ipv6 on the link":   frame(ownMAC, 0x86dd, udp6(ownLink, victim6, 9, 9, "honest-link")),
		"na":                 frame(ownMAC, 0x86dd, v6(own6, nodes6, 58, nd(136, own6, nodes6, own6))),
		"na on the link":     frame(ownMAC, 0x86dd, v6(ownLink, nodes6, 58, nd(136, ownLink, nodes6, ownLink))),
		"ns":                 frame(ownMAC, 0x86dd, v6(own6, nodes6, 58, nd(135, own6, nodes6, victim6))),
		"ns: its own":        frame(ownMAC, 0x86dd, v6(no6, nodes6, 58, nd(135, no6, nodes6, own6))),
		"ns: on the link":    frame(ownMAC, 0x86dd, v6(no6, nodes6, 58, nd(135, no6, nodes6, ownLink))),
		"router, anybody?":   frame(ownMAC, 0x86dd, v6(no6, ip("ff02::2"), 58, icmp6(no6, ip("ff02::2"), join(byte(133), byte(0), 0, 0, 0)))),
		"dhcp: a question":   frame(ownMAC, 0x0800, udp4(noIP, ip("255.255.255.255"), 68, 67, "honest-dhcp")),
		"dhcpv6: a question": frame(ownMAC, 0x86dd, udp6(ownLink, joined6, 546, 547, "honest-dhcp6")),
		"a pair, arp":        arp(ownMAC, 2, ownMAC, ip("10.0.1.77"), victimIP),
		"a pair, na":         frame(ownMAC, 0x86dd, v6(ip("fd00:1::77"), nodes6, 58, nd(136, ip("fd00:1::77"), nodes6, ip("fd00:1::77")))),
	}
	n := byte('a')
	mark := func() []byte {
		n++
		m := []byte("the mark " + string(n))
		from.send(frame(ownMAC, 0x0800, udp4(ownIP, victimIP, 7, 7, string(m))))
		return m
	}
	for name, f := range honest {
		from.send(f)
		m := mark()
		for end, w := range heard {
			found := false
			for _, got := range w.until(m) {
				found = found || bytes.Equal(got, f)
			}
			if !found {
				t.Errorf("%s is not heard by %s", name, end)
			}
		}
	}
	for name, frames := range attacks() {
		for _, f := range frames {
			from.send(f)
		}
		m := mark()
		for end, w := range heard {
			for _, got := range w.until(m) {
				if bytes.Equal(got[6:12], ownMAC) || !fromVictim(got) {
					t.Errorf("%s is heard by %s: %x", name, end, got)
				}
			}
		}
	}
}

// fromVictim reports whether a frame is one of those that the victim's or the
// host's kernel sends of its own.
func fromVictim(f []byte) bool {
	return bytes.Equal(f[6:12], victimMAC) && !bytes.Contains(f, []byte("attack"))
}

func silent() error { return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("1"), 0) }

// attacked is two guests that may be sent anything, and one that is not filtered
// at all: where the first one sends, and where the others hear.
func (h *host) attacked() (from *wireEnd, heard map[string]*wireEnd) {
	h.t.Helper()
	gs := h.guests(2)
	id := "0000000f-dddd-0000-0000-000000000000"
	open := newNS(h.t)
	h.ok(h.fabric.SetPorts(h.t.Context(), fabric.Port{ID: id, Device: netbridge.TapName(id), Open: true}))
	h.ok(netbridge.New(netbridge.Options{HostNetNS: fdPath(h.ns)}).Set(h.t.Context(), netbridge.Plan{Owner: id, NetNS: fdPath(open), Interfaces: []netbridge.Interface{{
		ID: id, HostName: netbridge.TapName(id), GuestName: "eth0", MAC: "fa:16:3e:00:01:0f", MTU: 1500, Attachment: netbridge.AttachBridge, Bridge: lan,
	}}}))
	h.ok(netns.Do(open, silent))
	for i := range gs {
		p := &gs[i].port
		p.Rules = append(p.Rules, fabric.Rule{Ingress: true, First: -1, Last: -1}, fabric.Rule{Ingress: true, IPv6: true, First: -1, Last: -1})
		m := p.Sources[0].MAC
		p.Sources = append(p.Sources, fabric.Source{MAC: m, Address: netip.PrefixFrom([]netip.Addr{own6, victim6}[i], 128)})
		if i == 0 {
			p.Sources = append(p.Sources, fabric.Source{MAC: m, Address: netip.MustParsePrefix("10.0.1.0/24")}, fabric.Source{MAC: m, Address: netip.MustParsePrefix("fd00:1::/40")})
		}
		h.ok(h.fabric.SetPorts(h.t.Context(), *p))
		// The kernels are silent: all that is heard is sent here.
		h.ok(netns.Do(gs[i].ns, silent))
	}
	return h.tap(gs[0].ns, "eth0"), map[string]*wireEnd{"the victim": h.tap(gs[1].ns, "eth0"), "one without a filter": h.tap(open, "eth0")}
}

// TestTheHostIsNoPartOfANetwork: what is sent to the bridge itself reaches no
// service of the host, nor anybody behind it.
func TestTheHostIsNoPartOfANetwork(t *testing.T) {
	h := newHost(t)
	from, _ := h.attacked()
	l, err := h.conn(h.ns).ByName(lan)
	h.ok(err)
	// The host would forward, and believes any address.
	h.ok(netns.Do(h.ns, func() error {
		err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
		for _, name := range []string{"all", "default", lan, "up0"} {
			err = errors.Join(err, os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("0"), 0))
		}
		return err
	}))
	ends := map[string]net.PacketConn{}
	for address, ns := range map[string]*os.File{"198.51.100.2": h.ns, "198.51.100.1": h.outside} {
		h.ok(netns.Do(ns, func() (err error) {
			ends[address], err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", address+":9")
			return err
		}))
		defer ends[address].Close()
		h.ok(ends[address].SetReadDeadline(time.Now().Add(short)))
	}
	for range 3 {
		for address := range ends {
			from.send(join(mac(l.MAC), ownMAC, 0x0800, udp4(ownIP, ip(address), 9, 9, "attack")))
		}
	}
	for address, conn := range ends {
		if n, who, err := conn.ReadFrom(make([]byte, 100)); err == nil {
			t.Errorf("%s gets %d bytes from %s", address, n, who)
		}
	}
}

// TestNothingGetsOutBeforeTheRules: a guest that forges frames from the first
// moment of its device on, and one that is sent what it does not want.
func TestNothingGetsOutBeforeTheRules(t *testing.T) {
	h := newHost(t)
	from, heard := h.attacked()
	_ = from
	victim := heard["the victim"]
	late := newNS(t)
	ears := h.tap(late, "")
	ctx, cancel := context.WithCancel(t.Context())
	var hammering sync.WaitGroup
	// The new guest forges as soon as it can,
	forged := frame(mac("fa:16:3e:00:01:03"), 0x0806, arp(routerMAC, 2, routerMAC, routerIP, victimIP)[14:])
	hammering.Go(func() {
		_ = netns.Do(late, func() error {
			for ctx.Err() == nil {
				i, err := net.InterfaceByName("eth0")
				if err != nil {
					continue
				}
				_ = unix.Sendto(ears.fd, forged, 0, &unix.SockaddrLinklayer{Ifindex: i.Index})
			}
			return nil
		})
	})
	// and an old one sends to its address before it is there.
	hammering.Go(func() {
		for ctx.Err() == nil {
			from.send(frame(ownMAC, 0x0800, udp4(ownIP, ip("10.0.0.13"), 9, 9, "unwanted")))
		}
	})
	h.guests(3, late)
	from.send(frame(ownMAC, 0x0800, udp4(ownIP, victimIP, 7, 7, "the mark 1")))
	for _, got := range victim.until([]byte("the mark 1")) {
		if bytes.Contains(got, routerMAC) {
			t.Fatalf("the victim hears %x", got)
		}
	}
	// Rules that are written anew leave no gap either.
	for range 5 {
		restarted := h.cloud("one")
		h.ok(restarted.Sync(ctx, h.world(3)))
	}
	cancel()
	hammering.Wait()
	from.send(frame(ownMAC, 0x0800, udp4(ownIP, victimIP, 7, 7, "the mark 2")))
	for _, got := range victim.until([]byte("the mark 2")) {
		if bytes.Contains(got, routerMAC) {
			t.Fatalf("the victim hears %x", got)
		}
	}
	from.send(arp(ownMAC, 1, ownMAC, ownIP, ip("10.0.0.99")))
	for _, got := range ears.until(join(ownIP, make([]byte, 6), ip("10.0.0.99"))) {
		if bytes.Contains(got, []byte("unwanted")) {
			t.Fatalf("the new guest hears %x", got)
		}
	}
}
