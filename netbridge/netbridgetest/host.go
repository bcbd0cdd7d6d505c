// Package netbridgetest is the contract suite of netbridge.Plugger. Each
// implementation, and the fake, runs it on a host of its own.
package netbridgetest

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/gantry-project/gantry/netbridge"
)

// Host is a host's network as the suite sees it: separate from all others,
// empty but for lo. The text forms are those of netbridge.Fake.
type Host interface {
	// Plugger returns one without memory, as a new process has it.
	Plugger() netbridge.Plugger
	// NetNS makes a namespace and returns its path.
	NetNS(t *testing.T) string
	// DropNetNS ends it; the path names nothing afterwards, and its devices
	// are gone when it returns.
	DropNetNS(t *testing.T, path string)
	Links(t *testing.T) []string
	Guest(t *testing.T, path string) []string
	// Changes counts changes by the Pluggers since the last call.
	Changes() int

	// The rest damages what is there or adds foreign things.

	AddLink(t *testing.T, name, kind string)
	DelLink(t *testing.T, name string)
	DriftHost(t *testing.T, name string)
	// Enslave puts a foreign device into a bridge, with an MTU of its own.
	Enslave(t *testing.T, name, bridge string, mtu int)
	SetAlias(t *testing.T, name, alias string)
	DriftGuest(t *testing.T, path, name string)
	RenameGuest(t *testing.T, path, name, to string)
	AddGuestAddress(t *testing.T, path, name string, p netip.Prefix)
	AddGuestLink(t *testing.T, path, name string)
}

// FakeHost returns the Host of a netbridge.Fake.
func FakeHost() Host { return &fakeHost{Fake: netbridge.NewFake()} }

type fakeHost struct {
	*netbridge.Fake
	spaces int
}

func (h *fakeHost) NetNS(*testing.T) string {
	h.spaces++
	path := "/netns/" + string(rune('a'+h.spaces))
	h.AddNetNS(path)
	return path
}

func (h *fakeHost) DropNetNS(_ *testing.T, path string)        { h.Fake.DropNetNS(path) }
func (h *fakeHost) Links(*testing.T) []string                  { return h.Fake.Links() }
func (h *fakeHost) Guest(_ *testing.T, path string) []string   { return h.Fake.Guest(path) }
func (h *fakeHost) Changes() int                               { return len(h.Steps()) }
func (h *fakeHost) AddLink(_ *testing.T, name, kind string)    { h.Fake.AddLink(name, kind) }
func (h *fakeHost) DelLink(_ *testing.T, name string)          { h.Fake.DelLink(name) }
func (h *fakeHost) DriftHost(_ *testing.T, name string)        { h.Fake.DriftHost(name) }
func (h *fakeHost) SetAlias(_ *testing.T, name, alias string)  { h.Fake.SetAlias(name, alias) }
func (h *fakeHost) DriftGuest(_ *testing.T, path, name string) { h.Fake.DriftGuest(path, name) }

func (h *fakeHost) Enslave(_ *testing.T, name, bridge string, mtu int) {
	h.Fake.Enslave(name, bridge, mtu)
}

func (h *fakeHost) RenameGuest(_ *testing.T, path, name, to string) {
	h.Fake.RenameGuest(path, name, to)
}

func (h *fakeHost) AddGuestAddress(_ *testing.T, path, name string, p netip.Prefix) {
	h.Fake.AddGuestAddress(path, name, p)
}

func (h *fakeHost) AddGuestLink(_ *testing.T, path, name string) { h.Fake.AddGuestLink(path, name) }

// TwoPorts is a plan with two interfaces: the first in a bridge with IPv4 and
// IPv6, the second in another bridge with a gateway outside its network.
func TwoPorts(owner, netns string) netbridge.Plan {
	return netbridge.Plan{
		Owner: owner, NetNS: netns,
		Interfaces: []netbridge.Interface{
			Port("11111111-aaaa-4bbb-8ccc-000000000001", "eth0", "brqaaaaaaaa-01", 1450, []string{"10.1.0.5/24", "10.1.0.6/24", "fd00:1::5/64"}, map[string]string{
				"0.0.0.0/0": "10.1.0.1", "::/0": "fd00:1::1", "169.254.169.254/32": "10.1.0.2", "10.9.0.0/16": "",
			}),
			Port("22222222-aaaa-4bbb-8ccc-000000000002", "eth1", "brqbbbbbbbb-02", 1440, []string{"10.2.0.5/32"}, map[string]string{
				"0.0.0.0/0": "10.99.0.1",
			}),
		},
	}
}

// Port builds an interface attached to a bridge. Routes map a destination to a
// gateway, "" for on-link.
func Port(id, guest, bridge string, mtu int, addresses []string, routes map[string]string) netbridge.Interface {
	i := netbridge.Interface{
		ID: id, HostName: netbridge.TapName(id), GuestName: guest, MAC: "fa:16:3e:00:00:" + id[len(id)-2:], MTU: mtu,
		Attachment: netbridge.AttachBridge, Bridge: bridge,
	}
	for _, a := range addresses {
		i.Addresses = append(i.Addresses, netip.MustParsePrefix(a))
	}
	for to, via := range routes {
		r := netbridge.Route{To: netip.MustParsePrefix(to)}
		if via != "" {
			r.Via = netip.MustParseAddr(via)
		}
		i.Routes = append(i.Routes, r)
	}
	slices.SortFunc(i.Routes, func(a, b netbridge.Route) int { return a.To.Addr().Compare(b.To.Addr()) })
	return i
}
