package fabric_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/gantry-project/gantry/netbridge/dhcp"
	"github.com/gantry-project/gantry/netbridge/dns"
	"github.com/gantry-project/gantry/netbridge/fabric"
	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// leasing is a cloud's fabric that has a lease for each guest: 10.0.0.5, and the
// interface it asked on for its host name.
func (h *host) leasing(name string, macs ...string) *fabric.Fabric {
	f := fabric.New(fabric.Options{
		Cloud: name, Dir: filepath.Join(h.dir, name), HostNetNS: fdPath(h.ns),
		Lease: func(port, asking string) (dhcp.Lease, bool) {
			return dhcp.Lease{
				Server: netip.MustParseAddr("10.0.0.254"), Address: netip.MustParsePrefix("10.0.0.5/24"), Router: netip.MustParseAddr("10.0.0.1"),
				DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, MTU: 1450, HostName: fmt.Sprintf("at-%.8s", port),
				Routes: []dhcp.Route{{To: netip.MustParsePrefix("192.0.2.0/24"), Via: netip.MustParseAddr("10.0.0.9")}},
			}, slices.Contains(macs, asking)
		},
	})
	h.t.Cleanup(func() {
		if err := f.Close(context.WithoutCancel(h.t.Context())); err != nil {
			h.t.Error(err)
		}
	})
	return f
}

// leased is what the client of a guest tells its script, or its error.
func (h *host) leased(guest *os.File) (string, error) {
	h.t.Helper()
	script := filepath.Join(h.t.TempDir(), "script")
	h.ok(os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = bound ] && echo \"bound $ip/$mask $router $dns $mtu $hostname $staticroutes $lease $serverid\"\nexit 0\n"), 0o700)) //nolint:gosec // is run
	var out []byte
	err := netns.Do(guest, func() (err error) {
		out, err = exec.CommandContext(h.t.Context(), "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "4", "-T", "1", "-s", script,
			"-O", "mtu", "-O", "staticroutes", "-O", "hostname").CombinedOutput()
		return err
	})
	for line := range strings.Lines(string(out)) {
		if told, ok := strings.CutPrefix(line, "bound "); ok {
			return strings.TrimSpace(told), err
		}
	}
	return "", fmt.Errorf("%w: %s", err, out)
}

func TestGuestsAreToldTheirAddresses(t *testing.T) {
	h := newHost(t)
	h.fabric = h.leasing("one", "fa:16:3e:00:00:0b", "fa:16:3e:00:00:0c")
	h.ok(h.fabric.SetNetwork(t.Context(), public()))
	one, two, unknown := h.tenant(11), h.tenant(12), h.tenant(13)
	want := "10.0.0.5/24 10.0.0.1 192.0.2.53 1450 at-%s 192.0.2.0/24 10.0.0.9 0.0.0.0/0 10.0.0.1 86400 10.0.0.254"
	for _, again := range []bool{false, true} {
		if again {
			h.ok(h.fabric.Close(t.Context()))
			if told, err := h.leased(one.guest); err == nil {
				t.Errorf("while no process runs: %s", told)
			}
			h.fabric = h.leasing("one", "fa:16:3e:00:00:0b", "fa:16:3e:00:00:0c")
			h.ok(h.fabric.Sync(t.Context(), fabric.World{
				Networks: []fabric.Network{public(), one.network, two.network, unknown.network}, Routers: []fabric.Router{one.router, two.router, unknown.router},
			}))
		}
		for id, guest := range map[string]tenant{"00000011": one, "00000012": two} {
			if told, err := h.leased(guest.guest); err != nil || told != fmt.Sprintf(want, id) {
				t.Errorf("%s (again: %v) is told %q, %v", id, again, told, err)
			}
		}
	}
	if told, err := h.leased(unknown.guest); err == nil {
		t.Errorf("who is not known is told %q", told)
	}
	// What is not served any more answers no more.
	two.network.Serving = nil
	h.ok(h.fabric.SetNetwork(t.Context(), two.network))
	if told, err := h.leased(two.guest); err == nil {
		t.Errorf("not served: %q", told)
	}
}

// naming is a cloud's fabric that knows the guest of each network as "guest", by
// its router as "gate", and finds all else at 127.99.88.54.
func (h *host) naming(name string) *fabric.Fabric {
	h.t.Helper()
	resolvers := filepath.Join(h.t.TempDir(), "resolv.conf")
	h.ok(os.WriteFile(resolvers, []byte("nameserver 127.99.88.54\n"), 0o600))
	pc, err := (&net.ListenConfig{}).ListenPacket(h.t.Context(), "udp4", "127.99.88.54:53")
	h.ok(err)
	upstream := &wire.Server{PacketConn: pc, Handler: wire.HandlerFunc(func(w wire.ResponseWriter, q *wire.Msg) {
		a := new(wire.Msg).SetReply(q)
		r, _ := wire.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.80")
		a.Answer = []wire.RR{r}
		_ = w.WriteMsg(a)
	})}
	started := make(chan struct{})
	upstream.NotifyStartedFunc = func() { close(started) }
	go func() { _ = upstream.ActivateAndServe() }()
	<-started
	h.t.Cleanup(func() { _ = upstream.Shutdown() })
	f := fabric.New(fabric.Options{
		Cloud: name, Dir: filepath.Join(h.dir, name), HostNetNS: fdPath(h.ns), Domain: "openstacklocal", Resolvers: resolvers,
		Names: func(network string) []dns.Name {
			return []dns.Name{
				{Host: "guest-" + network[6:8], Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.5")}},
				{Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
			}
		},
	})
	h.t.Cleanup(func() { h.ok(f.Close(context.WithoutCancel(h.t.Context()))) })
	return f
}

// resolved is what a guest finds at a name server.
func (h *host) resolved(ns *os.File, transport, server, name string, kind uint16, patience time.Duration) (string, error) {
	h.t.Helper()
	var a *wire.Msg
	err := netns.Do(ns, func() error {
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(h.t.Context(), transport, net.JoinHostPort(server, "53"))
		if err != nil {
			return err
		}
		defer conn.Close()
		c := &wire.Client{Net: transport, Timeout: patience}
		a, _, err = c.ExchangeWithConnContext(h.t.Context(), new(wire.Msg).SetQuestion(name, kind), &wire.Conn{Conn: conn})
		return err
	})
	if err != nil {
		return "", err
	}
	out := wire.RcodeToString[a.Rcode]
	for _, r := range a.Answer {
		out += " " + strings.TrimPrefix(r.String(), r.Header().String())
	}
	return out, nil
}

func TestGuestsFindNames(t *testing.T) {
	h := newHost(t)
	h.fabric = h.naming("one")
	h.ok(h.fabric.SetNetwork(t.Context(), public()))
	one, two := h.tenant(11), h.tenant(12)
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"guest-11.", wire.TypeA, "NOERROR 10.0.0.5"},
		{"guest-12.", wire.TypeA, "NXDOMAIN"},
		{"guest-11.openstacklocal.", wire.TypeA, "NOERROR 10.0.0.5"},
		{"ip-10-0-0-5.", wire.TypeA, "NOERROR 10.0.0.5"},
		{"5.0.0.10.in-addr.arpa.", wire.TypePTR, "NOERROR guest-11.openstacklocal."},
		{"www.example.", wire.TypeA, "NOERROR 192.0.2.80"},
	} {
		for _, transport := range []string{"udp4", "tcp4"} {
			if transport == "tcp4" && c.name == "www.example." {
				c.want = "SERVFAIL" // the resolver of this test has datagrams only
			}
			if got, err := h.resolved(one.guest, transport, "10.0.0.254", c.name, c.kind, long); err != nil || got != c.want {
				t.Errorf("%s over %s: %q, %v", c.name, transport, got, err)
			}
		}
	}
	if got, err := h.resolved(two.guest, "udp4", "10.0.0.254", "guest-12.", wire.TypeA, long); err != nil || got != "NOERROR 10.0.0.5" {
		t.Errorf("the other network: %q, %v", got, err)
	}
	// Nobody outside is answered, not even one who knows the way.
	c := h.conn(h.outside)
	l, err := c.ByName("world")
	h.ok(err)
	h.ok(c.AddRoute(link.Route{Index: l.Index, To: netip.MustParsePrefix("172.24.4.0/24"), Via: netip.MustParseAddr("198.51.100.2")}))
	for _, server := range []string{"172.24.4.11", "172.24.4.1", "198.51.100.2"} {
		if got, err := h.resolved(h.outside, "udp4", server, "guest-11.", wire.TypeA, short); err == nil {
			t.Errorf("%s answers outside: %q", server, got)
		}
	}
	h.ok(h.fabric.Close(t.Context()))
	if got, err := h.resolved(one.guest, "udp4", "10.0.0.254", "guest-11.", wire.TypeA, short); err == nil {
		t.Errorf("while no process runs: %q", got)
	}
}

// TestWithoutARouter: DHCP, names and metadata are where the network is served;
// when a router comes, neighbours are told who is the gateway now.
func TestWithoutARouter(t *testing.T) {
	h := newHost(t)
	h.fabric = h.answering("one")
	one := h.tenantWithout(11)
	where := fmt.Sprintf("%.8s", one.network.ID)
	if got, err := h.metadata(one); err != nil || !strings.HasPrefix(got, where+" 10.0.0.5:") {
		t.Errorf("through the gateway that is not there: %q, %v", got, err)
	}
	one.network.Serving.Addresses = one.network.Serving.Addresses[:1]
	h.ok(h.fabric.SetNetwork(t.Context(), one.network))
	one.router.Gateway = nil
	h.ok(h.fabric.SetRouter(t.Context(), one.router))
	mac := one.router.Interfaces[0].MAC
	h.ok(netns.Do(one.guest, func() error {
		out, err := exec.CommandContext(t.Context(), "ip", "neigh", "show", "10.0.0.1").CombinedOutput()
		if err == nil && !strings.Contains(string(out), mac) {
			err = fmt.Errorf("the gateway is %s, want %s", out, mac)
		}
		return err
	}))
	// It stays there for those who are told the way.
	c := h.conn(one.guest)
	l, err := c.ByName("eth0")
	h.ok(err)
	h.ok(c.AddRoute(link.Route{Index: l.Index, To: netip.MustParsePrefix("169.254.169.254/32"), Via: netip.MustParseAddr("10.0.0.254"), Metric: 1}))
	if got, err := h.metadata(one); err != nil || !strings.HasPrefix(got, where+" 10.0.0.5:") {
		t.Errorf("by a route: %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(h.dir, "one", "qdhcp-"+one.network.ID)); err != nil {
		t.Error(err)
	}
	one.network.Absent = true
	h.ok(h.fabric.SetNetwork(t.Context(), one.network))
	if _, err := os.Stat(filepath.Join(h.dir, "one", "qdhcp-"+one.network.ID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}
