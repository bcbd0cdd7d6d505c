package netbridge

import (
	"fmt"
	"slices"
	"sync"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Fake is a host in memory for tests of this package's users: its Pluggers do
// all that the real one does, and it shows the result as text. It enforces the
// rules of the kernel that matter: names are unique, a bridge must be one, a
// pair dies as a whole. Safe for concurrent use.
type Fake struct {
	mu     sync.Mutex
	next   int
	links  map[string]*fakeLink    // of the host, by name
	spaces map[string]*fakeSpace   // by path
	steps  []string                // since the last Steps
	fail   func(step string) error // may be nil
}

type fakeSpace struct {
	loUp   bool
	guests map[int]*guestLink
}

type fakeLink struct {
	hostLink
	MAC  string
	peer *fakeSpace // of veth
}

// NewFake returns an empty host.
func NewFake() *Fake {
	return &Fake{next: 1, links: map[string]*fakeLink{}, spaces: map[string]*fakeSpace{}}
}

// Plugger returns a Plugger of the host, as a new process would have it.
func (f *Fake) Plugger() Plugger { return &plugger{kernel: f} }

// AddNetNS makes a network namespace that is pinned at path.
func (f *Fake) AddNetNS(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spaces[path] = &fakeSpace{guests: map[int]*guestLink{}}
}

// DropNetNS removes a network namespace with all devices inside.
func (f *Fake) DropNetNS(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ns := f.spaces[path]
	delete(f.spaces, path)
	for name, l := range f.links {
		if ns != nil && l.peer == ns {
			delete(f.links, name)
		}
	}
}

// AddLink adds a foreign link of a kind ("bridge", "veth") to the host.
func (f *Fake) AddLink(name, kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links[name] = &fakeLink{hostLink: hostLink{Name: name, Kind: kind, Index: f.index(), MTU: 1500, Up: true}}
}

// FailOn makes the steps for which fn returns an error fail with it; nil ends
// that. A step is the text that Steps shows.
func (f *Fake) FailOn(fn func(step string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fn
}

// Steps returns what was changed since the last call, a line each.
func (f *Fake) Steps() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.steps
	f.steps = nil
	return out
}

func (f *Fake) index() int {
	f.next++
	return f.next
}

func (f *Fake) owned() ([]hostLink, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []hostLink
	for _, l := range f.links {
		if _, _, ok := parseMark(l.Alias); ok && (l.Kind == "veth" || l.Kind == limitKind) {
			out = append(out, l.hostLink)
		}
	}
	return out, nil
}

func (f *Fake) stats(name string) (string, Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.links[name]
	if !ok || l.Kind != "veth" {
		return "", Stats{}, fmt.Errorf("device %s: %w", name, errdefs.ErrNotFound)
	}
	return l.Alias, Stats{MAC: l.peer.guests[l.PeerIndex].MAC}, nil
}

func (f *Fake) open(path string) (session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ns := f.spaces[path]
	if path != "" && ns == nil {
		return nil, fmt.Errorf("network namespace %s: %w", path, errdefs.ErrNotFound)
	}
	return &fakeSession{f: f, ns: ns, indexes: map[int]int{}}, nil
}

type fakeSession struct {
	f       *Fake
	ns      *fakeSpace
	indexes map[int]int
}

func (s *fakeSession) close() {}

func (s *fakeSession) observe(p Plan, names []string) (state, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	names = slices.Clone(names)
	for _, i := range p.Interfaces {
		names = append(names, i.HostName, i.Bridge)
	}
	st := state{Host: map[string]hostLink{}}
	for _, name := range names {
		if l, ok := s.f.links[name]; ok {
			h := l.hostLink
			h.PeerHere = l.peer != nil && l.peer == s.ns
			if _, id, _ := parseMark(h.Alias); s.f.links[limitName(id)] == nil {
				h.Limits.Outbound = Limit{} // somebody has taken the device away
			}
			st.Host[name] = h
		}
	}
	st.Narrow = s.f.narrow(p, st)
	if s.ns == nil {
		return st, nil
	}
	st.LoUp = s.ns.loUp
	for _, g := range s.ns.guests {
		c := *g
		c.Addresses, c.Routes = slices.Clone(g.Addresses), slices.Clone(g.Routes)
		st.Guest = append(st.Guest, c)
	}
	for n, i := range p.Interfaces {
		if h := st.Host[i.HostName]; h.PeerHere {
			s.indexes[n] = h.PeerIndex
		}
	}
	return st, nil
}

// narrow finds foreign ports with less than an interface of the plan wants.
func (f *Fake) narrow(p Plan, st state) map[string]string {
	out := map[string]string{}
	for _, i := range p.Interfaces {
		b, ok := st.Host[i.Bridge]
		for name, l := range f.links {
			if _, _, ours := parseMark(l.Alias); ok && !ours && l.Master == b.Index && l.MTU < i.MTU {
				out[i.Bridge] = name
			}
		}
	}
	return out
}

func (s *fakeSession) do(p Plan, st step) error {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	text := st.render(p)
	if s.f.fail != nil {
		if err := s.f.fail(text); err != nil {
			return err
		}
	}
	s.f.steps = append(s.f.steps, text)
	switch st.Verb {
	case delHosts:
		for _, name := range st.Names {
			s.f.remove(name)
		}
		return nil
	case addBridge, upBridge:
		return s.f.bridge(st)
	case addVeth:
		return s.addVeth(p, st)
	case setHost:
		return s.f.set(p.Interfaces[st.Index].HostName, st)
	case setLimits:
		return s.f.limit(p.Owner, p.Interfaces[st.Index], st.Limits)
	case upLo:
		s.ns.loUp = true
		return nil
	}
	g := s.ns.guests[s.indexes[st.Index]]
	if g == nil {
		return fmt.Errorf("guest device %s: %w", p.Interfaces[st.Index].GuestName, errdefs.ErrNotFound)
	}
	return s.guest(g, p.Interfaces[st.Index].GuestName, st)
}

// remove deletes a link and its peer.
func (f *Fake) remove(name string) {
	if l, ok := f.links[name]; ok && l.peer != nil {
		delete(l.peer.guests, l.PeerIndex)
	}
	delete(f.links, name)
}

func (f *Fake) bridge(st step) error {
	l, ok := f.links[st.Bridge]
	if !ok {
		l = &fakeLink{hostLink: hostLink{Name: st.Bridge, Kind: "bridge", Index: f.index(), MTU: 1500}}
		f.links[st.Bridge] = l
		if st.MTU != 0 {
			l.MTU = st.MTU
		}
	}
	if st.MTU != 0 && st.Verb == upBridge {
		l.MTU = st.MTU
	}
	l.Up = true
	return nil
}

func (f *Fake) set(name string, st step) error {
	l, ok := f.links[name]
	if !ok {
		return fmt.Errorf("device %s: %w", name, errdefs.ErrNotFound)
	}
	if st.Master != "" {
		b, ok := f.links[st.Master]
		if !ok || b.Kind != "bridge" {
			return fmt.Errorf("device %s is no bridge: %w", st.Master, errdefs.ErrNotFound)
		}
		l.Master = b.Index
	}
	if st.MTU != 0 {
		l.MTU = st.MTU
	}
	l.Up = l.Up || st.Up
	return nil
}

func (s *fakeSession) addVeth(p Plan, st step) error {
	i := p.Interfaces[st.Index]
	if _, ok := s.f.links[i.HostName]; ok {
		return fmt.Errorf("device %s: %w", i.HostName, errdefs.ErrAlreadyExists)
	}
	for _, g := range s.ns.guests {
		if g.Name == i.GuestName {
			return fmt.Errorf("guest device %s: %w", g.Name, errdefs.ErrAlreadyExists)
		}
	}
	hw, err := parseMAC(i.MAC)
	if err != nil {
		return err
	}
	g := &guestLink{Name: i.GuestName, MAC: hw.String(), Index: s.f.index(), MTU: 1500}
	if st.MTU != 0 {
		g.MTU = st.MTU
	}
	l := &fakeLink{peer: s.ns, hostLink: hostLink{
		Name: i.HostName, Kind: "veth", Alias: mark(p.Owner, i.ID), Index: s.f.index(), MTU: g.MTU, PeerIndex: g.Index,
	}}
	s.f.links[i.HostName] = l
	st.Up = true
	if err := s.f.set(i.HostName, st); err != nil {
		delete(s.f.links, i.HostName)
		return err
	}
	s.ns.guests[g.Index] = g
	s.indexes[st.Index] = g.Index
	return nil
}

func (s *fakeSession) guest(g *guestLink, name string, st step) error {
	same := func(r guestRoute) bool { return r.To == st.Route.To && r.Metric == st.Metric }
	switch st.Verb {
	case setGuest:
		if st.Rename {
			g.Name, g.Up, g.Routes = name, false, nil
		}
		if st.MAC != "" {
			g.MAC = st.MAC
		}
		if st.MTU != 0 {
			g.MTU = st.MTU
		}
	case addAddress, delAddress:
		g.Addresses = slices.DeleteFunc(g.Addresses, func(a guestAddress) bool { return a.Prefix == st.Prefix })
		if st.Verb == addAddress {
			g.Addresses = append(g.Addresses, guestAddress{st.Prefix, true})
		}
	case upGuest:
		g.Up = true
	case addRoute, delRoute:
		if !g.Up {
			return fmt.Errorf("guest device %s is down: %w", name, errdefs.ErrConflict)
		}
		g.Routes = slices.DeleteFunc(g.Routes, same)
		if st.Verb == addRoute {
			g.Routes = append(g.Routes, guestRoute{st.Route, st.Metric, true})
		}
	}
	return nil
}

func (f *Fake) limit(owner string, i Interface, l Limits) error {
	h, ok := f.links[i.HostName]
	if !ok {
		return fmt.Errorf("device %s: %w", i.HostName, errdefs.ErrNotFound)
	}
	name := limitName(i.ID)
	if d, ok := f.links[name]; ok && d.Alias != mark(owner, i.ID) {
		return fmt.Errorf("device %s is not its own: %w", name, errdefs.ErrConflict)
	} else if !ok && l.Outbound.Rate != 0 {
		f.links[name] = &fakeLink{hostLink: hostLink{Name: name, Kind: limitKind, Alias: mark(owner, i.ID), Index: f.index(), MTU: 1500, Up: true}}
	}
	h.Limits = l
	return nil
}
