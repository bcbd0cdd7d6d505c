//go:build linux

package netbridge_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	netnslib "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/netbridgetest"
	"github.com/gantry-project/gantry/netbridge/netns"
)

func TestLinuxSuite(t *testing.T) {
	netbridgetest.Run(t, func(t *testing.T) netbridgetest.Host { return newKernelHost(t) })
}

// kernelHost is a host in a network namespace of its own. It looks at the
// kernel with the netlink library, not with the code under test.
type kernelHost struct {
	host    *os.File
	spaces  map[string]*os.File
	changes atomic.Int64
}

func newKernelHost(t testing.TB) *kernelHost {
	h := &kernelHost{host: newNS(t), spaces: map[string]*os.File{}}
	return h
}

func newNS(t testing.TB) *os.File {
	f, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func (h *kernelHost) Plugger() netbridge.Plugger {
	return netbridge.NewCounting(netbridge.Options{HostNetNS: fdPath(h.host)}, func(string) { h.changes.Add(1) })
}

func (h *kernelHost) Changes() int { return int(h.changes.Swap(0)) }

func (h *kernelHost) NetNS(t *testing.T) string { return h.netNS(t) }

// netNS pins the namespace by a link in /proc, which needs no mount.
func (h *kernelHost) netNS(t testing.TB) string {
	f := newNS(t)
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.Symlink(fdPath(f), path); err != nil {
		t.Fatal(err)
	}
	h.spaces[path] = f
	return path
}

func (h *kernelHost) DropNetNS(t *testing.T, path string) {
	f := h.spaces[path]
	peers := 0
	host := h.handle(t, h.host)
	count := func() (n int) {
		for _, l := range list(t, host) {
			if l.Type() == "veth" {
				n++
			}
		}
		return n
	}
	before := count()
	guest, err := netlink.NewHandleAt(netnslib.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	check(t, err)
	for _, l := range list(t, guest) {
		if l.Type() == "veth" {
			peers++
		}
	}
	guest.Close()
	_ = os.Remove(path)
	_ = f.Close()
	delete(h.spaces, path)
	for deadline := time.Now().Add(2 * time.Minute); count() > before-peers; {
		if time.Now().After(deadline) {
			t.Fatal("devices of a dropped namespace are still there")
		}
	}
}

func (h *kernelHost) handle(t testing.TB, ns *os.File) *netlink.Handle {
	nl, err := netlink.NewHandleAt(netnslib.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nl.Close)
	return nl
}

func list(t testing.TB, nl *netlink.Handle) []netlink.Link {
	links, err := nl.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(links, func(l netlink.Link) bool {
		return !slices.Contains([]string{"veth", "bridge", "device", "ifb"}, l.Type())
	})
}

func (h *kernelHost) Links(t *testing.T) []string {
	links := list(t, h.handle(t, h.host))
	byIndex := map[int]string{}
	for _, l := range links {
		byIndex[l.Attrs().Index] = l.Attrs().Name
	}
	var out []string
	for _, l := range links {
		if a := l.Attrs(); l.Type() != "device" {
			out = append(out, netbridge.RenderLink(a.Name, l.Type(), a.Flags&net.FlagUp != 0, a.MTU, byIndex[a.MasterIndex], a.Alias))
		}
	}
	slices.Sort(out)
	return out
}

func (h *kernelHost) Guest(t *testing.T, path string) []string {
	nl := h.handle(t, h.spaces[path])
	defer nl.Close()
	state := func(a *netlink.LinkAttrs) string {
		if a.Flags&net.FlagUp != 0 {
			return "up"
		}
		return "down"
	}
	var out []string
	for _, l := range list(t, nl) {
		a := l.Attrs()
		switch {
		case a.Name == "lo":
			out = append(out, "lo "+state(a))
		case l.Type() == "veth", l.Type() == "bridge":
			out = append(out, fmt.Sprintf("%s %s mtu %d %s", a.Name, state(a), a.MTU, a.HardwareAddr))
			out = append(out, guestNet(t, nl, l)...)
		}
	}
	slices.Sort(out)
	return out
}

func guestNet(t *testing.T, nl *netlink.Handle, l netlink.Link) (out []string) {
	name := l.Attrs().Name
	addresses, err := nl.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 && !a.IP.IsLinkLocalUnicast() {
			t.Fatalf("address %s is tentative", a.IP)
		}
		if !a.IP.IsLinkLocalUnicast() {
			out = append(out, name+" address "+a.IPNet.String())
		}
	}
	routes, err := nl.RouteList(l, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		s := name + " route " + r.Dst.String()
		if r.Gw != nil {
			s += " via " + r.Gw.String()
		}
		out = append(out, fmt.Sprintf("%s metric %d", s, r.Priority))
	}
	return out
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func byName(t *testing.T, nl *netlink.Handle, name string) netlink.Link {
	t.Helper()
	l, err := nl.LinkByName(name)
	check(t, err)
	return l
}

func (h *kernelHost) AddLink(t *testing.T, name, kind string) {
	nl := h.handle(t, h.host)
	attrs := netlink.LinkAttrs{Name: name, TxQLen: -1, Flags: net.FlagUp}
	if kind == "bridge" {
		check(t, nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
		return
	}
	// The far end is in a namespace of its own.
	far := newNS(t)
	check(t, nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far0", PeerNamespace: netlink.NsFd(far.Fd())}))
}

func (h *kernelHost) DelLink(t *testing.T, name string) {
	nl := h.handle(t, h.host)
	check(t, nl.LinkDel(byName(t, nl, name)))
}

func (h *kernelHost) DriftHost(t *testing.T, name string) {
	nl := h.handle(t, h.host)
	l := byName(t, nl, name)
	check(t, nl.LinkSetDown(l))
	check(t, nl.LinkSetNoMaster(l))
	check(t, nl.LinkSetMTU(l, 1300))
}

func (h *kernelHost) Enslave(t *testing.T, name, bridge string, mtu int) {
	nl := h.handle(t, h.host)
	l := byName(t, nl, name)
	check(t, nl.LinkSetMTU(l, mtu))
	check(t, nl.LinkSetMasterByIndex(l, byName(t, nl, bridge).Attrs().Index))
}

func (h *kernelHost) SetAlias(t *testing.T, name, alias string) {
	nl := h.handle(t, h.host)
	check(t, nl.LinkSetAlias(byName(t, nl, name), alias))
}

func (h *kernelHost) DriftGuest(t *testing.T, path, name string) {
	nl := h.handle(t, h.spaces[path])
	defer nl.Close()
	l := byName(t, nl, name)
	addresses, err := nl.AddrList(l, netlink.FAMILY_V4)
	check(t, err)
	for _, a := range addresses {
		// A secondary address goes with its primary one.
		if err := nl.AddrDel(l, &a); err != nil && err != unix.EADDRNOTAVAIL {
			t.Fatal(err)
		}
	}
	check(t, nl.LinkSetDown(l))
	check(t, nl.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 0x99}))
	check(t, nl.LinkSetMTU(l, 1300))
}

func (h *kernelHost) RenameGuest(t *testing.T, path, name, to string) {
	nl := h.handle(t, h.spaces[path])
	defer nl.Close()
	l := byName(t, nl, name)
	check(t, nl.LinkSetDown(l))
	check(t, nl.LinkSetName(l, to))
	check(t, nl.LinkSetUp(l))
}

func (h *kernelHost) AddGuestAddress(t *testing.T, path, name string, p netip.Prefix) {
	nl := h.handle(t, h.spaces[path])
	defer nl.Close()
	a, err := netlink.ParseAddr(p.String())
	check(t, err)
	check(t, nl.AddrAdd(byName(t, nl, name), a))
}

func (h *kernelHost) AddGuestLink(t *testing.T, path, name string) {
	nl := h.handle(t, h.spaces[path])
	defer nl.Close()
	check(t, nl.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, TxQLen: -1}}))
}

func sysctl(t *testing.T, ns *os.File, path string) (value string) {
	t.Helper()
	check(t, netns.Do(ns, func() error {
		b, err := os.ReadFile("/proc/sys/net/" + path)
		value = strings.TrimSpace(string(b))
		return err
	}))
	return value
}
