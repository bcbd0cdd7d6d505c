package fabric_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/fabric"
	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// guest is an instance in one network with others.
type guest struct {
	ns   *os.File
	port fabric.Port
	ip   string
}

const lan = "brqlan"

// guests makes a network and n instances, the filter of each in place before
// its device: nothing comes in but from the group "all", everything may go out.
// Those that h has are not made again; a new one is in the namespace that is
// given for it.
func (h *host) guests(n int, given ...*os.File) []guest {
	h.t.Helper()
	h.ok(h.fabric.SetNetwork(h.t.Context(), fabric.Network{ID: "lan", Bridge: lan, MTU: 1500}))
	for i := len(h.made); i < n; i++ {
		id := fmt.Sprintf("%08d-dddd-0000-0000-000000000000", i+1)
		g := guest{ip: fmt.Sprintf("10.0.0.%d", 11+i)}
		if len(given) > 0 {
			g.ns, given = given[0], given[1:]
		} else {
			g.ns = newNS(h.t)
		}
		mac := fmt.Sprintf("fa:16:3e:00:01:%02x", i+1)
		g.port = fabric.Port{
			ID: id, Network: "lan", Device: netbridge.TapName(id), Sources: []fabric.Source{{MAC: mac, Address: netip.MustParsePrefix(g.ip + "/32")}},
			Rules: []fabric.Rule{
				{First: -1, Last: -1},
				{IPv6: true, First: -1, Last: -1},
				{Ingress: true, First: -1, Last: -1, Group: "all"},
				{Ingress: true, IPv6: true, First: -1, Last: -1, Group: "all"},
			},
		}
		h.ok(h.fabric.SetPorts(h.t.Context(), g.port))
		h.ok(netbridge.New(netbridge.Options{HostNetNS: fdPath(h.ns)}).Set(h.t.Context(), netbridge.Plan{
			Owner: id, NetNS: fdPath(g.ns), Interfaces: []netbridge.Interface{{
				ID: id, HostName: g.port.Device, GuestName: "eth0", MAC: mac, MTU: 1500, Attachment: netbridge.AttachBridge, Bridge: lan,
				Addresses: []netip.Prefix{netip.MustParsePrefix(g.ip + "/24")}, Limits: h.limits,
			}},
		}))
		h.serve(g.ns, g.ip+":80")
		h.serve(g.ns, g.ip+":81")
		h.made = append(h.made, g)
	}
	return h.made
}

// world is the guests and their network.
func (h *host) world(n int) fabric.World {
	h.t.Helper()
	w := fabric.World{Networks: []fabric.Network{{ID: "lan", Bridge: lan, MTU: 1500}}}
	for _, g := range h.guests(n) {
		w.Ports = append(w.Ports, g.port)
	}
	return w
}

func TestSecurityGroups(t *testing.T) {
	h := newHost(t)
	gs := h.guests(2)
	a, b := gs[0], gs[1]
	ctx := t.Context()
	h.refused("nothing is let in", a.ns, b.ip+":80")
	h.ok(h.fabric.SetGroup(ctx, fabric.Group{ID: "all", Members: []netip.Prefix{netip.MustParsePrefix(a.ip + "/32")}}))
	h.seenAs("a member of the group", a.ns, b.ip+":80", a.ip)
	h.refused("no member", b.ns, a.ip+":80")
	h.ok(h.fabric.SetGroup(ctx, fabric.Group{ID: "all"}))
	h.refused("a member no more", a.ns, b.ip+":80")
	b.port.Rules = append(b.port.Rules, fabric.Rule{Ingress: true, Protocol: 6, First: 80, Last: 80, Remote: netip.MustParsePrefix("10.0.0.0/24")})
	h.ok(h.fabric.SetPorts(ctx, b.port))
	h.seenAs("a rule", a.ns, b.ip+":80", a.ip)
	h.refused("another port", a.ns, b.ip+":81")
	a.port.Rules = nil
	h.ok(h.fabric.SetPorts(ctx, a.port))
	h.refused("nothing may go out", a.ns, b.ip+":80")
	a.port.Open = true
	h.ok(h.fabric.SetPorts(ctx, a.port))
	h.seenAs("not filtered", a.ns, b.ip+":80", a.ip)
	b.port.Down = true
	h.ok(h.fabric.SetPorts(ctx, b.port))
	h.refused("switched off", a.ns, b.ip+":80")
}

// TestWhatIsNotAllowedAnyMoreEnds: connections that were let through do not
// outlive the rule, or the membership, that let them.
func TestWhatIsNotAllowedAnyMoreEnds(t *testing.T) {
	h := newHost(t)
	gs := h.guests(2)
	a, b := gs[0], gs[1]
	member := fabric.Group{ID: "all", Members: []netip.Prefix{netip.MustParsePrefix(a.ip + "/32")}}
	allowed := fabric.Rule{Ingress: true, Protocol: 6, First: 7, Last: 7}
	other := fabric.Rule{Ingress: true, Protocol: 6, First: 8, Last: 8}
	plain := b.port.Rules
	for name, c := range map[string]struct {
		open, close   func() error
		closes, stays string // ports
	}{
		"a rule": {
			func() error {
				b.port.Rules = append(slices.Clone(plain), allowed, other)
				return h.fabric.SetPorts(t.Context(), b.port)
			},
			func() error {
				b.port.Rules = append(slices.Clone(plain), other)
				return h.fabric.SetPorts(t.Context(), b.port)
			}, "7", "8",
		},
		"a member": {
			func() error {
				b.port.Rules = append(slices.Clone(plain), other)
				return errors.Join(h.fabric.SetPorts(t.Context(), b.port), h.fabric.SetGroup(t.Context(), member))
			},
			func() error { return h.fabric.SetGroup(t.Context(), fabric.Group{ID: "all"}) }, "9", "8",
		},
	} {
		h.ok(c.open())
		closes, stays := h.echo(a.ns, b.ns, b.ip+":"+c.closes), h.echo(a.ns, b.ns, b.ip+":"+c.stays)
		if !closes(long) || !stays(long) {
			t.Fatalf("%s: not open", name)
		}
		h.ok(c.close())
		if closes(short) {
			t.Errorf("%s: still open", name)
		}
		if !stays(long) {
			t.Errorf("%s: what is allowed is closed, too", name)
		}
	}
}

// echo connects one guest to another, and returns whether a byte comes back.
func (h *host) echo(from, to *os.File, address string) func(patience time.Duration) bool {
	h.t.Helper()
	var l net.Listener
	h.ok(netns.Do(to, func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(h.t.Context(), "tcp4", address)
		return err
	}))
	defer l.Close()
	c, err := h.dial(from, address, long)
	h.ok(err)
	h.t.Cleanup(func() { _ = c.Close() })
	back, err := l.Accept()
	h.ok(err)
	h.t.Cleanup(func() { _ = back.Close() })
	go func() { _, _ = io.Copy(back, back) }()
	return func(patience time.Duration) bool {
		h.ok(c.SetDeadline(time.Now().Add(patience)))
		b := []byte{1}
		if _, err := c.Write(b); err != nil {
			return false
		}
		_, err := io.ReadFull(c, b)
		return err == nil
	}
}

func TestAGuestCannotBeAnother(t *testing.T) {
	h := newHost(t)
	gs := h.guests(2)
	a, b := gs[0], gs[1]
	h.ok(h.fabric.SetGroup(t.Context(), fabric.Group{ID: "all", Members: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}))
	h.seenAs("as itself", a.ns, b.ip+":80", a.ip)
	c := h.conn(a.ns)
	l, err := c.ByName("eth0")
	h.ok(err)
	h.ok(c.AddAddress(l.Index, netip.MustParsePrefix("10.0.0.99/32")))
	h.ok(c.AddRoute(link.Route{Index: l.Index, To: netip.MustParsePrefix(b.ip + "/32"), Metric: 1}))
	from := func(address string, patience time.Duration) error {
		return netns.Do(a.ns, func() error {
			d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
			conn, err := d.DialContext(t.Context(), "tcp4", b.ip+":80")
			if err != nil {
				return err
			}
			return conn.Close()
		})
	}
	h.ok(from(a.ip, long))
	if from("10.0.0.99", short) == nil {
		t.Error("with another address it is heard")
	}
	a.port.Sources = append(a.port.Sources, fabric.Source{MAC: a.port.Sources[0].MAC, Address: netip.MustParsePrefix("10.0.0.99/32")})
	h.ok(h.fabric.SetPorts(t.Context(), a.port))
	h.ok(from("10.0.0.99", long))
	h.ok(c.Set(l.Index, link.Change{MAC: "fa:16:3e:66:66:66"}))
	if from(a.ip, short) == nil {
		t.Error("with another MAC it is heard")
	}
}

func TestPortsAreSyncedAndRemoved(t *testing.T) {
	h := newHost(t)
	before := h.filters()
	gs := h.guests(2)
	group := fabric.Group{ID: "all", Members: []netip.Prefix{netip.MustParsePrefix("10.0.0.11/32"), netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("fd00::/64")}}
	h.ok(h.fabric.SetGroup(t.Context(), group))
	made := h.filters()
	w := fabric.World{
		Networks: []fabric.Network{{ID: "lan", Bridge: lan, MTU: 1500}}, Groups: []fabric.Group{group}, Ports: []fabric.Port{gs[0].port, gs[1].port},
	}
	restarted := h.cloud("one")
	h.ok(restarted.Sync(t.Context(), w))
	if again := h.filters(); again != made {
		t.Errorf("after a sync:\n%s\nbefore:\n%s", again, made)
	}
	w.Ports = w.Ports[:1]
	h.ok(restarted.Sync(t.Context(), w))
	if now := h.filters(); strings.Contains(now, gs[1].port.ID[:11]) || !strings.Contains(now, gs[0].port.ID[:11]) {
		t.Errorf("after a sync with one:\n%s", now)
	}
	for name, p := range map[string]fabric.Port{
		"no device":    {ID: gs[0].port.ID},
		"no mac":       {ID: gs[0].port.ID, Device: "tap1", Sources: []fabric.Source{{MAC: "x", Address: netip.MustParsePrefix("10.0.0.1/32")}}},
		"bad ports":    {ID: gs[0].port.ID, Device: "tap1", Rules: []fabric.Rule{{Protocol: 6, First: 80, Last: -1}}},
		"wrong family": {ID: gs[0].port.ID, Device: "tap1", Rules: []fabric.Rule{{First: -1, Last: -1, Remote: netip.MustParsePrefix("fd00::/8")}}},
	} {
		if err := restarted.SetPorts(t.Context(), p); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.ok(restarted.SetPorts(t.Context(), gs[1].port))
	h.ok(restarted.SetPorts(t.Context(), fabric.Port{ID: gs[0].port.ID, Absent: true}))
	if now := h.filters(); strings.Contains(now, gs[0].port.ID[:11]) || !strings.Contains(now, gs[1].port.ID[:11]) {
		t.Errorf("after one came and one went:\n%s", now)
	}
	h.ok(restarted.Sync(context.WithoutCancel(t.Context()), fabric.World{}))
	if after := h.filters(); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}

// TestTheLastNetworkTakesAllWithIt: ports come and go together, and what leads
// to them stays until the network goes.
func TestTheLastNetworkTakesAllWithIt(t *testing.T) {
	h := newHost(t)
	before := h.filters()
	n := fabric.Network{ID: "n", Bridge: "brlast", MTU: 1500}
	h.ok(h.fabric.SetNetwork(t.Context(), n))
	var ports, gone []fabric.Port
	for _, id := range []string{"00000001-eeee", "00000002-eeee"} {
		ports = append(ports, fabric.Port{ID: id, Device: "tap" + id[:11], Rules: []fabric.Rule{{First: -1, Last: -1}}})
		gone = append(gone, fabric.Port{ID: id, Absent: true})
	}
	for range 2 {
		h.ok(h.fabric.SetPorts(t.Context(), ports...))
		if text := h.filters(); !strings.Contains(text, ports[0].ID[:11]) || !strings.Contains(text, ports[1].ID[:11]) {
			t.Fatalf("not filtered:\n%s", text)
		}
		h.ok(h.fabric.SetPorts(t.Context(), gone...))
		if text := h.filters(); strings.Contains(text, ports[0].ID[:11]) {
			t.Errorf("filtered still:\n%s", text)
		}
	}
	n.Absent = true
	h.ok(h.fabric.SetNetwork(t.Context(), n))
	if after := h.filters(); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}

// TestEveryRuleIsTaken: a rule that the kernel's tools refuse would keep all
// ports of the host from being filtered.
func TestEveryRuleIsTaken(t *testing.T) {
	h := newHost(t)
	id := "00000001-dddd-0000-0000-000000000000"
	p := fabric.Port{ID: id, Device: netbridge.TapName(id)}
	for _, cidr := range []string{"0.0.0.0/0", "10.0.0.0/8", "10.0.0.1/32", "::/0", "fd00::/8", "fd00::1/128"} {
		p.Sources = append(p.Sources, fabric.Source{MAC: "fa:16:3e:00:00:01", Address: netip.MustParsePrefix(cidr)})
	}
	const icmp, icmp6 = 1, 58
	for _, v6 := range []bool{false, true} {
		remote := netip.MustParsePrefix("10.0.0.7/8")
		if v6 {
			remote = netip.MustParsePrefix("fd00::7/8")
		}
		for protocol := range 256 {
			if v6 && protocol == icmp || !v6 && protocol == icmp6 {
				continue // refused where rules are made
			}
			p.Rules = append(p.Rules, fabric.Rule{IPv6: v6, Protocol: protocol, First: -1, Last: -1, Remote: remote},
				fabric.Rule{IPv6: v6, Ingress: true, Protocol: protocol, First: -1, Last: -1, Group: "all"})
		}
		for _, protocol := range []int{6, 17, 33, 132, 136} {
			for _, ports := range [][2]int{{1, 1}, {1, 65535}, {65535, 65535}} {
				p.Rules = append(p.Rules, fabric.Rule{IPv6: v6, Ingress: true, Protocol: protocol, First: ports[0], Last: ports[1]})
			}
		}
		protocol := icmp
		if v6 {
			protocol = icmp6
		}
		for kind := range 256 {
			p.Rules = append(p.Rules, fabric.Rule{IPv6: v6, Protocol: protocol, First: kind, Last: -1},
				fabric.Rule{IPv6: v6, Protocol: protocol, First: kind, Last: 255 - kind})
		}
	}
	h.ok(h.fabric.SetPorts(t.Context(), p))
	h.ok(h.fabric.SetPorts(t.Context(), p))
}

// filters is what the kernel filters by.
func (h *host) filters() string {
	h.t.Helper()
	var w strings.Builder
	h.ok(netns.Do(h.ns, func() error {
		for _, args := range [][]string{
			{"iptables", "-S"}, {"ip6tables", "-S"}, {"ebtables", "-t", "nat", "-L"}, {"ipset", "-s", "save"},
		} {
			out, err := exec.CommandContext(h.t.Context(), args[0], args[1:]...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%v: %w: %s", args, err, out)
			}
			w.Write(out)
		}
		return nil
	}))
	return w.String() + h.tables()
}
