//go:build linux

package netbridge_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/netbridgetest"
	"github.com/gantry-project/gantry/netbridge/netns"
)

const tap1, brq1 = "tap11111111-aa", "brqaaaaaaaa-01"

// What only a kernel can show: IPv6 is off on the host's side, the bridge has
// no delay, and a packet sent inside comes out of the bridge and is counted.
func TestKernelDetails(t *testing.T) {
	h := newKernelHost(t)
	ns := h.NetNS(t)
	p := h.Plugger()
	check(t, p.Set(t.Context(), netbridgetest.TwoPorts("o", ns)))
	for _, name := range []string{tap1, brq1} {
		if got := sysctl(t, h.host, "ipv6/conf/"+name+"/disable_ipv6"); got != "1" {
			t.Errorf("%s: disable_ipv6 = %s", name, got)
		}
	}
	nl := h.handle(t, h.host)
	bridge := byName(t, nl, brq1)
	if a, err := nl.AddrList(bridge, netlink.FAMILY_V6); err != nil || len(a) != 0 {
		t.Errorf("bridge has IPv6 addresses: %v, %v", a, err)
	}
	a, err := netlink.ParseAddr("10.1.0.1/24")
	check(t, err)
	check(t, nl.AddrAdd(bridge, a))

	// From the host to the guest and back, over the bridge, at once.
	var conn net.PacketConn
	check(t, netns.Do(h.spaces[ns], func() (err error) {
		conn, err = net.ListenPacket("udp4", "10.1.0.5:7777")
		return err
	}))
	defer conn.Close()
	var out net.Conn
	check(t, netns.Do(h.host, func() (err error) {
		out, err = net.Dial("udp4", "10.1.0.5:7777")
		return err
	}))
	defer out.Close()
	_, err = out.Write([]byte("hello"))
	check(t, err)
	buf := make([]byte, 16)
	n, from, err := conn.ReadFrom(buf)
	check(t, err)
	if _, err := conn.WriteTo(buf[:n], from); err != nil {
		t.Fatal(err)
	}
	if n, err := out.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Fatalf("echo: %q, %v", buf[:n], err)
	}
	stats, err := p.Stats(t.Context(), "o")
	check(t, err)
	if s := stats[0]; s.RxPackets < 2 || s.RxBytes < 47 || s.TxPackets < 2 {
		t.Fatalf("counters do not count: %+v", s)
	}
}

// A veth that an earlier process left half made is replaced; a device of
// somebody else under that name is not.
func TestPendingLeftover(t *testing.T) {
	h := newKernelHost(t)
	ns := h.NetNS(t)
	nl := h.handle(t, h.host)
	half := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "gtp11111111-aa", TxQLen: -1},
		PeerName:  "old0", PeerNamespace: netlink.NsFd(newNS(t).Fd()),
	}
	check(t, nl.LinkAdd(half))
	check(t, h.Plugger().Set(t.Context(), netbridgetest.TwoPorts("o", ns)))
	check(t, h.Plugger().Set(t.Context(), netbridge.Plan{Owner: "o"}))
	half.Flags = net.FlagUp
	check(t, nl.LinkAdd(half))
	before := h.Links(t)
	if err := h.Plugger().Set(t.Context(), netbridgetest.TwoPorts("o", ns)); err == nil {
		t.Fatal("a foreign device was taken over")
	}
	for _, l := range before {
		if !slices.Contains(h.Links(t), l) {
			t.Fatalf("%s has changed:\n%s", l, strings.Join(h.Links(t), "\n"))
		}
	}
}

// The namespace belongs to a user namespace, as an instance's does.
func TestUserNamespace(t *testing.T) {
	h := newKernelHost(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHelperWait$")
	cmd.Env = append(os.Environ(), "NETBRIDGE_HELPER=1")
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 700000, Size: 65536}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 700000, Size: 65536}},
	}
	check(t, cmd.Start())
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	ready := make([]byte, 1)
	if _, err := out.Read(ready); err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)
	if h.spaces[path], err = netns.Open(path); err != nil {
		t.Fatal(err)
	}
	defer h.spaces[path].Close()
	plan := netbridgetest.TwoPorts("o", path)
	check(t, h.Plugger().Set(t.Context(), plan))
	h.DriftGuest(t, path, "eth0")
	check(t, h.Plugger().Set(t.Context(), plan))
	h.Changes()
	check(t, h.Plugger().Set(t.Context(), plan))
	if n := h.Changes(); n != 0 {
		t.Fatalf("%d changes", n)
	}
	if st, err := h.Plugger().Stats(t.Context(), "o"); err != nil || len(st) != 2 || st[0].MAC != "fa:16:3e:00:00:01" {
		t.Fatalf("stats: %v, %v", st, err)
	}
}

// TestHelperWait is the process of TestUserNamespace: it lives until its stdin
// ends.
func TestHelperWait(*testing.T) {
	if os.Getenv("NETBRIDGE_HELPER") == "" {
		return
	}
	_, _ = os.Stdout.WriteString("r")
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

func benchPlan(h *kernelHost, b *testing.B, n int) netbridge.Plan {
	id := fmt.Sprintf("%08d-aaaa-4bbb-8ccc-000000000001", n)
	return netbridge.Plan{Owner: fmt.Sprintf("owner-%d", n), NetNS: h.netNS(b), Interfaces: []netbridge.Interface{
		netbridgetest.Port(id, "eth0", brq1, 1450, []string{"10.1.0.5/24"}, map[string]string{"0.0.0.0/0": "10.1.0.1"}),
	}}
}

// One new interface: veth, bridge, address, default route.
func BenchmarkSetNew(b *testing.B) {
	h := newKernelHost(b)
	p := h.Plugger()
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		plan := benchPlan(h, b, n)
		b.StartTimer()
		if err := p.Set(b.Context(), plan); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSetSame(b *testing.B) {
	h := newKernelHost(b)
	p, plan := h.Plugger(), benchPlan(h, b, 1)
	for b.Loop() {
		if err := p.Set(b.Context(), plan); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSetEmpty(b *testing.B) {
	h := newKernelHost(b)
	p := h.Plugger()
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		plan := benchPlan(h, b, n)
		if err := p.Set(b.Context(), plan); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := p.Set(b.Context(), netbridge.Plan{Owner: plan.Owner}); err != nil {
			b.Fatal(err)
		}
	}
}

// How much a removal that runs at the same time hinders a new interface.
func BenchmarkSetNewWhileRemoving(b *testing.B) {
	h := newKernelHost(b)
	p := h.Plugger()
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		old, plan := benchPlan(h, b, 2*n), benchPlan(h, b, 2*n+1)
		if err := p.Set(b.Context(), old); err != nil {
			b.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- p.Set(b.Context(), netbridge.Plan{Owner: old.Owner}) }()
		b.StartTimer()
		if err := p.Set(b.Context(), plan); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
