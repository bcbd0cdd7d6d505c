package fabric_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/netbridge/dhcp6"
	"github.com/gantry-project/gantry/netbridge/fabric"
	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
	"github.com/gantry-project/gantry/netbridge/ra"
)

// addresses are those of a guest, but for those of its link.
func (h *host) addresses(ns *os.File) []string {
	h.t.Helper()
	all, err := h.conn(ns).Addresses()
	h.ok(err)
	var out []string
	for _, a := range all {
		if !a.Prefix.Addr().IsLoopback() && !a.Prefix.Addr().IsLinkLocalUnicast() && a.Prefix.Addr().Is6() {
			out = append(out, a.Prefix.String())
		}
	}
	return out
}

// eventually waits for what the kernel does on its own.
func (h *host) eventually(what string, ok func() bool) {
	h.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(long)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			h.t.Fatal("not in time: " + what)
		}
	}
}

func TestRoutersAdvertise(t *testing.T) {
	h := newHost(t)
	one, two := h.planned(11), h.planned(12)
	for n, x := range []*tenant{&one, &two} {
		x.router.Gateway = nil
		i := &x.router.Interfaces[0]
		prefix := netip.MustParsePrefix(fmt.Sprintf("fd0%d::1/64", n))
		i.Addresses = append(i.Addresses, prefix)
		i.Advert = &ra.Advert{MAC: i.MAC, MTU: 1400, Prefixes: []ra.Prefix{{Network: prefix, Autonomous: true}}}
		h.ok(h.fabric.SetNetwork(t.Context(), x.network))
		h.plug(11+n, *x)
	}
	// One router leads to both.
	one.router.Interfaces = append(one.router.Interfaces, two.router.Interfaces...)
	one.router.Interfaces[1].Addresses = one.router.Interfaces[1].Addresses[1:]
	h.ok(h.fabric.SetRouter(t.Context(), one.router))
	for n, guest := range []*os.File{one.guest, two.guest} {
		want := fmt.Sprintf("fd0%d::f816:3eff:fe00:%x/64", n, 11+n)
		h.eventually(want, func() bool {
			return strings.Join(h.addresses(guest), " ") == want && h.usable(guest, netip.MustParsePrefix(want).Addr())
		})
		h.ok(netns.Do(guest, func() error {
			if mtu, err := os.ReadFile("/proc/thread-self/root/proc/sys/net/ipv6/conf/eth0/mtu"); err != nil || string(bytes.TrimSpace(mtu)) != "1400" {
				t.Errorf("mtu %s, %v", mtu, err)
			}
			return nil
		}))
	}
	// From network to network, by the routes that were learnt.
	h.serve6(two.guest, 80)
	h.ok(netns.Do(one.guest, func() error {
		c, err := (&net.Dialer{Timeout: long}).DialContext(t.Context(), "tcp6", "[fd01::f816:3eff:fe00:c]:80")
		if err == nil {
			err = c.Close()
		}
		return err
	}))
	// What it says no more is not said when the process is another one.
	h.ok(h.fabric.Close(t.Context()))
	one.router.Interfaces[0].Advert = nil
	h.fabric = h.cloud("one")
	h.ok(h.fabric.SetRouter(t.Context(), one.router))
	h.ok(h.fabric.Close(t.Context()))
}

// serve6 takes connections.
func (h *host) serve6(ns *os.File, port int) {
	h.t.Helper()
	var l net.Listener
	h.ok(netns.Do(ns, func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(h.t.Context(), "tcp6", fmt.Sprintf("[::]:%d", port))
		return err
	}))
	h.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
}

// usable reports whether a guest may send from an address.
func (h *host) usable(ns *os.File, a netip.Addr) bool {
	return netns.Do(ns, func() error {
		c, err := (&net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { h.ok(unix.BindToDevice(int(fd), "eth0")) })
		}}).ListenPacket(h.t.Context(), "udp6", net.JoinHostPort(a.String(), "0"))
		if err == nil {
			err = c.Close()
		}
		return err
	}) == nil
}

func TestGuestsAreToldTheirAddressesOfIPv6(t *testing.T) {
	h := newHost(t)
	mac := net.HardwareAddr{0xfa, 0x16, 0x3e, 0, 0, 11}
	h.fabric = fabric.New(fabric.Options{
		Cloud: "one", Dir: filepath.Join(h.dir, "one"), HostNetNS: fdPath(h.ns),
		Lease6: func(port, asking string) (dhcp6.Lease, bool) {
			return dhcp6.Lease{Addresses: []netip.Addr{netip.MustParseAddr("fd00::77")}, DNS: []netip.Addr{netip.MustParseAddr("fd00::fe")}},
				asking == mac.String() && strings.HasPrefix(port, "00000011-eeee")
		},
	})
	t.Cleanup(func() { h.ok(h.fabric.Close(context.WithoutCancel(t.Context()))) })
	one := h.planned(11)
	one.network.Serving.Addresses = append(one.network.Serving.Addresses, netip.MustParsePrefix("fd00::fe/64"))
	h.ok(h.fabric.SetNetwork(t.Context(), one.network))
	h.plug(11, one)
	ask := func() (string, error) {
		var conn net.PacketConn
		h.ok(netns.Do(one.guest, func() (err error) {
			device := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { h.ok(unix.BindToDevice(int(fd), "eth0")) })
			}}
			conn, err = device.ListenPacket(t.Context(), "udp6", "[::]:546")
			return err
		}))
		c := h.conn(one.guest)
		l, err := c.ByName("eth0")
		h.ok(err)
		hw, err := net.ParseMAC(l.MAC)
		h.ok(err)
		client, err := nclient6.NewWithConn(conn, hw, nclient6.WithTimeout(2*time.Second), nclient6.WithRetry(1))
		h.ok(err)
		defer client.Close()
		local := netip.AddrFrom16([16]byte{0xfe, 0x80, 8: hw[0] ^ 2, hw[1], hw[2], 0xff, 0xfe, hw[3], hw[4], hw[5]})
		h.eventually("an address of the link", func() bool { return h.usable(one.guest, local) })
		offer, err := client.Solicit(t.Context())
		if err != nil {
			return "", err
		}
		reply, err := client.Request(t.Context(), offer)
		if err != nil {
			return "", err
		}
		return fmt.Sprint(reply.Options.OneIANA().Options.OneAddress().IPv6Addr, reply.Options.DNS()), nil
	}
	if got, err := ask(); err != nil || got != "fd00::77 [fd00::fe]" {
		t.Errorf("told %q, %v", got, err)
	}
	// Another one is told nothing.
	c := h.conn(one.guest)
	l, err := c.ByName("eth0")
	h.ok(err)
	h.ok(c.Set(l.Index, link.Change{Down: true}))
	h.ok(c.Set(l.Index, link.Change{MAC: "fa:16:3e:00:00:77"}))
	h.ok(c.Set(l.Index, link.Change{Up: true}))
	if got, err := ask(); err == nil {
		t.Errorf("another one is told %q", got)
	}
}
