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
	"path/filepath"
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

// host is a host in a network namespace of its own, with the world outside in
// another one: 198.51.100.1, which knows no way to anything but the host's
// 198.51.100.2.
type host struct {
	t           *testing.T
	ns, outside *os.File
	dir         string
	fabric      *fabric.Fabric
	made        []guest
	limits      netbridge.Limits // of guests to come
}

func newNS(t testing.TB) *os.File {
	t.Helper()
	f, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, ns: newNS(t), outside: newNS(t), dir: t.TempDir()}
	h.fabric = h.cloud("one")
	t.Cleanup(func() {
		if err := h.fabric.Sync(context.WithoutCancel(t.Context()), fabric.World{}); err != nil {
			t.Error(err)
		}
	})
	in, out := h.conn(h.ns), h.conn(h.outside)
	h.ok(in.AddVeth(link.Veth{Name: "up0", Peer: "world", PeerMAC: "02:00:00:00:00:01", PeerNS: int(h.outside.Fd())}))
	for _, end := range []struct {
		c       *link.Conn
		name    string
		address string
	}{{in, "up0", "198.51.100.2/24"}, {out, "world", "198.51.100.1/24"}} {
		l, err := end.c.ByName(end.name)
		h.ok(err)
		h.ok(end.c.AddAddress(l.Index, netip.MustParsePrefix(end.address)))
		h.ok(end.c.Set(l.Index, link.Change{Up: true}))
	}
	return h
}

func (h *host) cloud(name string) *fabric.Fabric {
	return fabric.New(fabric.Options{Cloud: name, Dir: filepath.Join(h.dir, name), HostNetNS: fdPath(h.ns), Programs: os.Getenv(programs) != ""})
}

func (h *host) ok(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) conn(ns *os.File) *link.Conn {
	h.t.Helper()
	c, err := link.Open(ns, nil)
	h.ok(err)
	h.t.Cleanup(c.Close)
	return c
}

// snapshot is all that the host has: links with addresses, and the firewall.
func (h *host) snapshot() string {
	h.t.Helper()
	var w strings.Builder
	c := h.conn(h.ns)
	links, err := c.List()
	h.ok(err)
	slices.SortFunc(links, func(a, b link.Link) int { return strings.Compare(a.Name, b.Name) })
	addresses, err := c.Addresses()
	h.ok(err)
	for _, l := range links {
		fmt.Fprintln(&w, l.Name, l.Kind, l.Alias, l.MTU, l.Up, l.Master)
		for _, a := range addresses {
			if a.Index == l.Index && !a.Prefix.Addr().IsLinkLocalUnicast() {
				fmt.Fprintln(&w, "  ", a.Prefix, a.Ours)
			}
		}
	}
	h.ok(netns.Do(h.ns, func() error {
		for _, table := range []string{"raw", "filter", "nat"} {
			out, err := exec.CommandContext(h.t.Context(), "iptables", "-t", table, "-S").CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w", out, err)
			}
			w.Write(out)
		}
		return nil
	}))
	return w.String()
}

// tenant is a private network with a router, and an instance in it.
type tenant struct {
	network fabric.Network
	router  fabric.Router
	guest   *os.File
}

const external = "brqexternal"

func public() fabric.Network {
	return fabric.Network{ID: "external", Bridge: external, MTU: 1500, Gateways: []netip.Prefix{netip.MustParsePrefix("172.24.4.1/24")}}
}

// tenant makes a network 10.0.0.0/24 behind a router with the outside address
// 172.24.4.N, and an instance 10.0.0.5.
func (h *host) tenant(n int) tenant {
	h.t.Helper()
	t := h.planned(n)
	h.ok(h.fabric.SetNetwork(h.t.Context(), t.network))
	h.ok(h.fabric.SetRouter(h.t.Context(), t.router))
	h.plug(n, t)
	return t
}

// tenantWithout has no router yet: the gateway is where the network is served.
func (h *host) tenantWithout(n int) tenant {
	h.t.Helper()
	t := h.planned(n)
	t.network.Serving.Addresses = append(t.network.Serving.Addresses, netip.MustParsePrefix("10.0.0.1/24"))
	h.ok(h.fabric.SetNetwork(h.t.Context(), t.network))
	h.plug(n, t)
	return t
}

// neighbour is a machine in the external network, 172.24.4.9.
func (h *host) neighbour() *os.File {
	h.t.Helper()
	ns := newNS(h.t)
	h.ok(netbridge.New(netbridge.Options{HostNetNS: fdPath(h.ns)}).Set(h.t.Context(), netbridge.Plan{Owner: "neighbour", NetNS: fdPath(ns), Interfaces: []netbridge.Interface{{
		ID: "neighbour-0000", HostName: "neighbour0", GuestName: "eth0", MAC: "fa:16:3e:99:00:09", MTU: 1500,
		Attachment: netbridge.AttachBridge, Bridge: external, Addresses: []netip.Prefix{netip.MustParsePrefix("172.24.4.9/24")},
	}}}))
	return ns
}

// planned is a tenant of which nothing has been made.
func (h *host) planned(n int) tenant {
	h.t.Helper()
	id := fmt.Sprintf("%08d-0000-0000-0000-000000000000", n)
	t := tenant{guest: newNS(h.t)}
	t.network = fabric.Network{ID: id, Bridge: netbridge.BridgeName(id), MTU: 1450}
	t.network.Serving = &fabric.Interface{
		ID: fmt.Sprintf("%08d-eeee-0000-0000-000000000000", n), Device: fmt.Sprintf("ns-%08d", n), MAC: fmt.Sprintf("02:00:00:00:03:%02x", n), MTU: 1450,
		Bridge: t.network.Bridge, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.254/24")},
	}
	t.router = fabric.Router{
		ID: id,
		Interfaces: []fabric.Interface{{
			ID: fmt.Sprintf("%08d-aaaa-0000-0000-000000000000", n), Device: fmt.Sprintf("qr-%08d", n), MAC: fmt.Sprintf("02:00:00:00:01:%02x", n), MTU: 1450,
			Bridge: t.network.Bridge, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")},
		}},
		Gateway: &fabric.Gateway{
			Interface: fabric.Interface{
				ID: fmt.Sprintf("%08d-bbbb-0000-0000-000000000000", n), Device: fmt.Sprintf("qg-%08d", n), MAC: fmt.Sprintf("02:00:00:00:02:%02x", n), MTU: 1500,
				Bridge: external, Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 24, 4, byte(n)}), 24)},
			},
			NextHops: []netip.Addr{netip.MustParseAddr("172.24.4.1")}, SNAT: true,
		},
	}
	return t
}

// plug makes the instance's device.
func (h *host) plug(n int, t tenant) {
	h.t.Helper()
	id := t.network.ID
	plugger := netbridge.New(netbridge.Options{HostNetNS: fdPath(h.ns)})
	port := fmt.Sprintf("%08d-cccc-0000-0000-000000000000", n)
	h.ok(plugger.Set(h.t.Context(), netbridge.Plan{Owner: id, NetNS: fdPath(t.guest), Interfaces: []netbridge.Interface{{
		ID: port, HostName: netbridge.TapName(port), GuestName: "eth0", MAC: fmt.Sprintf("fa:16:3e:00:00:%02x", n), MTU: 1450,
		Attachment: netbridge.AttachBridge, Bridge: t.network.Bridge,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24")},
		Routes:    []netbridge.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.0.0.1")}},
	}}}))
}

// serve answers connections to address in ns with the address they come from.
func (h *host) serve(ns *os.File, address string) {
	h.t.Helper()
	var l net.Listener
	h.ok(netns.Do(ns, func() (err error) {
		l, err = net.Listen("tcp4", address) //nolint:noctx // the thread decides, a goroutine would be elsewhere
		return err
	}))
	h.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, from)
			_ = c.Close()
		}
	}()
}

// dial connects from ns.
func (h *host) dial(ns *os.File, address string, patience time.Duration) (c net.Conn, err error) {
	err = netns.Do(ns, func() (err error) {
		c, err = net.DialTimeout("tcp4", address, patience) //nolint:noctx // see serve
		return err
	})
	return c, err
}

// ask connects from ns and returns as whom it was seen.
func (h *host) ask(ns *os.File, address string, patience time.Duration) (string, error) {
	c, err := h.dial(ns, address, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	data, err := io.ReadAll(c)
	return string(data), err
}

func (h *host) seenAs(what string, ns *os.File, address, want string) {
	h.t.Helper()
	if got, err := h.ask(ns, address, long); err != nil || got != want {
		h.t.Errorf("%s: seen as %q, %v; want %q", what, got, err, want)
	}
}

func TestTheWayOut(t *testing.T) {
	h := newHost(t)
	h.ok(h.fabric.SetNetwork(t.Context(), public()))
	// Two tenants with the same addresses.
	one, two := h.tenant(11), h.tenant(12)
	h.serve(h.outside, "198.51.100.1:80")
	h.serve(h.neighbour(), "172.24.4.9:80")
	h.serve(h.ns, "0.0.0.0:80")
	for _, tenant := range []struct {
		tenant
		behind string
	}{{one, "172.24.4.11"}, {two, "172.24.4.12"}} {
		h.seenAs("to the world", tenant.guest, "198.51.100.1:80", "198.51.100.2")
		h.seenAs("to the external network", tenant.guest, "172.24.4.9:80", tenant.behind)
		h.refused("a service of the host at the gateway", tenant.guest, "172.24.4.1:80")
		h.refused("a service of the host elsewhere", tenant.guest, "198.51.100.2:80")
	}
	one.router.Gateway = nil
	h.ok(h.fabric.SetRouter(t.Context(), one.router))
	h.refused("without a gateway", one.guest, "198.51.100.1:80")
	h.seenAs("the other one", two.guest, "198.51.100.1:80", "198.51.100.2")
}

func TestFloatingAddresses(t *testing.T) {
	h := newHost(t)
	h.ok(h.fabric.SetNetwork(t.Context(), public()))
	one, two := h.tenant(11), h.tenant(12)
	for i, r := range []*fabric.Router{&one.router, &two.router} {
		r.Floating = []fabric.Floating{{
			Outside: netip.AddrFrom4([4]byte{172, 24, 4, byte(51 + i)}), Fixed: netip.MustParseAddr("10.0.0.5"),
		}}
		h.ok(h.fabric.SetRouter(t.Context(), *r))
	}
	h.serve(h.neighbour(), "172.24.4.9:80")
	h.serve(one.guest, "10.0.0.5:80")
	h.serve(two.guest, "10.0.0.5:80")
	h.seenAs("out", one.guest, "172.24.4.9:80", "172.24.4.51")
	h.seenAs("in", h.ns, "172.24.4.52:80", "172.24.4.1")
	h.seenAs("from tenant to tenant", one.guest, "172.24.4.52:80", "172.24.4.51")
	h.seenAs("to oneself", two.guest, "172.24.4.52:80", "172.24.4.52")
	two.router.Floating = nil
	h.ok(h.fabric.SetRouter(t.Context(), two.router))
	h.refused("taken away", h.ns, "172.24.4.52:80")
	h.seenAs("back behind the gateway", two.guest, "172.24.4.9:80", "172.24.4.12")
}

func TestTwiceIsOnceAndNothingIsLeft(t *testing.T) {
	h := newHost(t)
	before := h.snapshot()
	h.ok(h.fabric.SetNetwork(t.Context(), public()))
	one := h.tenant(11)
	made := h.snapshot()
	restarted := h.cloud("one")
	h.ok(restarted.Sync(t.Context(), fabric.World{Networks: []fabric.Network{public(), one.network}, Routers: []fabric.Router{one.router}}))
	if again := h.snapshot(); again != made {
		t.Errorf("after a sync with the same plans:\n%s\nbefore:\n%s", again, made)
	}
	// Another cloud of this host sees nothing of it.
	h.ok(h.cloud("two").Sync(t.Context(), fabric.World{}))
	if again := h.snapshot(); again != made {
		t.Errorf("after another cloud's sync:\n%s\nbefore:\n%s", again, made)
	}
	h.ok(netbridge.New(netbridge.Options{HostNetNS: fdPath(h.ns)}).Set(t.Context(), netbridge.Plan{Owner: one.network.ID}))
	h.ok(restarted.Sync(t.Context(), fabric.World{}))
	if after := h.snapshot(); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
	if left, err := filepath.Glob(filepath.Join(h.dir, "one", "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestNothingForeignIsTouched(t *testing.T) {
	h := newHost(t)
	c := h.conn(h.ns)
	h.ok(c.AddBridge("brqforeign"))
	l, err := c.ByName("brqforeign")
	h.ok(err)
	h.ok(c.Set(l.Index, link.Change{Alias: "somebody's"}))
	before := h.snapshot()
	n := fabric.Network{ID: "x", Bridge: "brqforeign", MTU: 1400}
	if err := h.fabric.SetNetwork(t.Context(), n); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("took it: %v", err)
	}
	n.Absent = true
	h.ok(h.fabric.SetNetwork(t.Context(), n))
	for name, err := range map[string]error{
		"no id":     h.fabric.SetNetwork(t.Context(), fabric.Network{Bridge: "brqx", MTU: 1500}),
		"bad name":  h.fabric.SetNetwork(t.Context(), fabric.Network{ID: "y", Bridge: "no/name", MTU: 1500}),
		"router":    h.fabric.SetRouter(t.Context(), fabric.Router{ID: "a/b"}),
		"interface": h.fabric.SetRouter(t.Context(), fabric.Router{ID: "r", Interfaces: []fabric.Interface{{ID: "short", Device: "qr-1", Bridge: "b"}}}),
	} {
		if !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := h.snapshot(); after != before {
		t.Errorf("changed:\n%s\nbefore:\n%s", after, before)
	}
}

func TestARouterNeedsItsBridges(t *testing.T) {
	h := newHost(t)
	err := h.fabric.SetRouter(t.Context(), fabric.Router{ID: "r", Interfaces: []fabric.Interface{{
		ID: "00000000-aaaa-0000", Device: "qr-1", MAC: "02:00:00:00:01:01", MTU: 1500, Bridge: "brqabsent",
	}}})
	if !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestWatch(t *testing.T) {
	h := newHost(t)
	h.ok(h.fabric.SetNetwork(t.Context(), public()))
	first, second := h.tenant(11), make(chan string, 16)
	ctx, cancel := context.WithCancel(t.Context())
	known, done := make(chan []string, 1), make(chan error, 1)
	go func() {
		done <- h.fabric.Watch(ctx, func(all []string) { known <- all }, func(device string, up bool) { second <- fmt.Sprint(device, " ", up) })
	}()
	tap := netbridge.TapName("00000011-cccc-0000-0000-000000000000")
	if all := <-known; !slices.Contains(all, tap) {
		t.Errorf("known at first: %v", all)
	}
	h.ok(netbridge.New(netbridge.Options{HostNetNS: fdPath(h.ns)}).Set(t.Context(), netbridge.Plan{Owner: first.network.ID}))
	limit := time.After(2 * time.Minute)
	for want := tap + " false"; ; {
		select {
		case got := <-second:
			if got != want {
				continue
			}
		case <-limit:
			t.Error("not told that it went")
		}
		break
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// How long a connection may take that is wanted, and how long one that is not:
// what is filtered is dropped without a word.
const (
	long  = 20 * time.Second
	short = 500 * time.Millisecond
)

// refused wants no connection.
func (h *host) refused(what string, ns *os.File, address string) {
	h.t.Helper()
	if got, err := h.ask(ns, address, short); err == nil {
		h.t.Errorf("%s: seen as %q", what, got)
	}
}

// unplug takes devices of guests away.
func (h *host) unplug(owners ...string) {
	h.t.Helper()
	for _, o := range owners {
		h.ok(netbridge.New(netbridge.Options{HostNetNS: fdPath(h.ns)}).Set(h.t.Context(), netbridge.Plan{Owner: o}))
	}
}
