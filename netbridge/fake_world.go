package netbridge

import (
	"fmt"
	"net/netip"
	"slices"
)

// Links shows the host's devices, one line each, sorted:
// "tap… veth up mtu 1450 master brq… gantry:<owner>:<id>".
func (f *Fake) Links() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	byIndex := map[int]string{}
	for _, l := range f.links {
		byIndex[l.Index] = l.Name
	}
	var out []string
	for _, l := range f.links {
		out = append(out, RenderLink(l.Name, l.Kind, l.Up, l.MTU, byIndex[l.Master], l.Alias))
	}
	slices.Sort(out)
	return out
}

// RenderLink is the text form of a host device that Links and the tests of
// real kernels share.
func RenderLink(name, kind string, up bool, mtu int, master, alias string) string {
	s := fmt.Sprintf("%s %s %s mtu %d", name, kind, upDown(up), mtu)
	if master != "" {
		s += " master " + master
	}
	if alias != "" {
		s += " " + alias
	}
	return s
}

func upDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

// Guest shows the inside of a namespace, one line for lo, each device, address
// and route, sorted.
func (f *Fake) Guest(path string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	ns := f.spaces[path]
	if ns == nil {
		return nil
	}
	out := []string{"lo " + upDown(ns.loUp)}
	for _, g := range ns.guests {
		out = append(out, fmt.Sprintf("%s %s mtu %d %s", g.Name, upDown(g.Up), g.MTU, g.MAC))
		for _, a := range g.Addresses {
			out = append(out, g.Name+" address "+a.String())
		}
		for _, r := range g.Routes {
			out = append(out, g.Name+" route "+renderRoute(r.Route, r.Metric))
		}
	}
	slices.Sort(out)
	return out
}

// DelLink removes a device behind the Plugger's back.
func (f *Fake) DelLink(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove(name)
}

// DriftHost sets a device down, out of its bridge and to another MTU.
func (f *Fake) DriftHost(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.links[name]
	l.Up, l.Master, l.MTU = false, 0, 1300
}

// Enslave puts a foreign device with an MTU of its own into a bridge, which then
// carries no more.
func (f *Fake) Enslave(name, bridge string, mtu int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, b := f.links[name], f.links[bridge]
	l.Master, l.MTU, b.MTU = b.Index, mtu, min(b.MTU, mtu)
}

// SetAlias replaces the mark of a device.
func (f *Fake) SetAlias(name, alias string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links[name].Alias = alias
}

// DriftGuest sets a guest device down without addresses and routes, with
// another MAC and MTU.
func (f *Fake) DriftGuest(path, name string) {
	f.editGuest(path, name, func(g *guestLink) {
		*g = guestLink{Name: name, Index: g.Index, MAC: "02:00:00:00:00:99", MTU: 1300}
	})
}

// RenameGuest renames a guest device, as its root could.
func (f *Fake) RenameGuest(path, name, to string) {
	f.editGuest(path, name, func(g *guestLink) { g.Name = to })
}

// AddGuestAddress adds an address of the guest's own.
func (f *Fake) AddGuestAddress(path, name string, p netip.Prefix) {
	f.editGuest(path, name, func(g *guestLink) { g.Addresses = append(g.Addresses, guestAddress{p, false}) })
}

// AddGuestLink adds a device of the guest's own.
func (f *Fake) AddGuestLink(path, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.index()
	f.spaces[path].guests[i] = &guestLink{Name: name, Index: i, MTU: 1500, MAC: "02:00:00:00:00:98"}
}

func (f *Fake) editGuest(path, name string, fn func(*guestLink)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.spaces[path].guests {
		if g.Name == name {
			fn(g)
			return
		}
	}
}
