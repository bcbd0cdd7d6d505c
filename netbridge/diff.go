package netbridge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// state is what was observed, as far as a plan needs it.
type state struct {
	// Host holds the links of the host that the plan or the owner's leftovers
	// name, by name; absent ones are missing.
	Host map[string]hostLink
	// Guest holds all links inside except lo.
	Guest []guestLink
	LoUp  bool
	// Narrow names, for bridges whose MTU is less than an interface of the plan
	// wants, a port that is not ours and carries no more. A bridge without one
	// can be widened.
	Narrow map[string]string
}

type hostLink struct {
	Name, Kind, Alias string
	Index, Master     int
	MTU               int
	Up                bool
	// PeerIndex is the guest end's index; PeerHere says that it is in the
	// plan's namespace.
	PeerIndex int
	PeerHere  bool
	// Limits are those that hold.
	Limits Limits
}

type guestLink struct {
	Name, MAC  string
	Index, MTU int
	Up         bool
	Addresses  []guestAddress
	Routes     []guestRoute
}

type guestAddress struct {
	netip.Prefix
	Ours bool
}

type guestRoute struct {
	Route
	Metric int
	Ours   bool
}

// baseMetric is the metric of routes of the first interface; each further one
// counts one up, so that default routes of several interfaces coexist and the
// first wins. IPv6 turns 0 into 1024, so it is never 0.
const baseMetric = 100

type verb string

const (
	delHosts    verb = "host delete"
	addBridge   verb = "bridge add"
	upBridge    verb = "bridge up"
	addVeth     verb = "veth add"
	setHost     verb = "host set"
	setLimits   verb = "host limit"
	upLo        verb = "guest up lo"
	setGuest    verb = "guest set"
	delAddress  verb = "guest address delete"
	addAddress  verb = "guest address add"
	upGuest     verb = "guest up"
	delRoute    verb = "guest route delete"
	addRoute    verb = "guest route add"
	noInterface      = -1
)

// step is one change. Index is the interface of the plan that it serves;
// when a step fails, later ones of that interface are left out.
type step struct {
	Verb   verb
	Index  int
	Names  []string // delHosts
	Bridge string   // addBridge, upBridge
	MTU    int      // addBridge, upBridge, setHost, setGuest; 0 is unchanged
	Master string   // setHost; "" is unchanged
	Up     bool     // setHost
	Limits Limits   // setLimits
	Rename bool     // setGuest
	MAC    string   // setGuest; "" is unchanged
	Prefix netip.Prefix
	Route  Route
	Metric int
	OnLink bool // addRoute: the gateway is not within an address's network
}

// render writes the step as a line of text, for tests and error messages.
func (s step) render(p Plan) string {
	w := []string{string(s.Verb)}
	add := func(a ...string) { w = append(w, a...) }
	switch s.Verb {
	case delHosts:
		add(s.Names...)
	case addBridge, upBridge:
		add(s.Bridge)
	case addVeth:
		i := p.Interfaces[s.Index]
		add(i.HostName, "guest", i.GuestName, "mac", i.MAC, "mark", mark(p.Owner, i.ID))
	case setHost:
		add(p.Interfaces[s.Index].HostName)
	case setLimits:
		add(p.Interfaces[s.Index].HostName, s.Limits.String())
	case upLo:
	default:
		add(p.Interfaces[s.Index].GuestName)
	}
	if s.Rename {
		add("rename")
	}
	if s.MAC != "" {
		add("mac", s.MAC)
	}
	if s.MTU != 0 {
		add("mtu", fmt.Sprint(s.MTU))
	}
	if s.Master != "" {
		add("master", s.Master)
	}
	if s.Up {
		add("up")
	}
	if s.Prefix.IsValid() {
		add(s.Prefix.String())
	}
	if s.Route.To.IsValid() {
		add(renderRoute(s.Route, s.Metric))
	}
	if s.OnLink {
		add("onlink")
	}
	return strings.Join(w, " ")
}

func renderRoute(r Route, metric int) string {
	s := r.To.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	return fmt.Sprintf("%s metric %d", s, metric)
}

// diff returns the steps that lead from the observed state to the plan. It is
// pure. An error (errdefs.ErrConflict: something that is not the owner's has a
// name that the plan needs; errdefs.ErrInvalid: a bridge does not carry the MTU)
// means that nothing may be done.
func diff(p Plan, leftovers []string, st state) ([]step, error) {
	d := differ{plan: p, state: st, bridges: map[string]bool{}}
	for _, name := range leftovers {
		l, ok := st.Host[name]
		if owner, _, marked := parseMark(l.Alias); ok && marked && owner == p.Owner {
			d.doomed = append(d.doomed, l)
		}
	}
	for n, i := range p.Interfaces {
		d.hostEnd(n, i)
	}
	if len(p.Interfaces) > 0 && !st.LoUp {
		d.add(step{Verb: upLo, Index: noInterface})
	}
	for n, i := range p.Interfaces {
		d.guestEnd(n, i)
	}
	if len(d.errs) > 0 {
		return nil, errors.Join(d.errs...)
	}
	var names, limits []string
	for _, l := range d.doomed {
		if l.Kind == limitKind {
			limits = append(limits, l.Name)
		} else {
			names = append(names, l.Name)
		}
	}
	if len(names) > 0 {
		d.steps = slices.Insert(d.steps, 0, step{Verb: delHosts, Index: noInterface, Names: names})
	}
	if len(limits) > 0 { // when nothing is led there any more
		d.add(step{Verb: delHosts, Index: noInterface, Names: limits})
	}
	return d.steps, nil
}

type differ struct {
	plan    Plan
	state   state
	bridges map[string]bool // handled already
	doomed  []hostLink
	steps   []step
	errs    []error
}

func (d *differ) add(s step) { d.steps = append(d.steps, s) }

func (d *differ) conflict(i Interface, format string, a ...any) {
	d.fail(errdefs.ErrConflict, i, format, a...)
}

func (d *differ) fail(class error, i Interface, format string, a ...any) {
	d.errs = append(d.errs, fmt.Errorf("interface %s of %s: %s: %w", i.ID, d.plan.Owner, fmt.Sprintf(format, a...), class))
}

// pair finds both ends of an interface that exists and is whole.
func (d *differ) pair(i Interface) (hostLink, guestLink, bool) {
	h, ok := d.state.Host[i.HostName]
	if !ok || !h.PeerHere || h.Alias != mark(d.plan.Owner, i.ID) {
		return h, guestLink{}, false
	}
	n := slices.IndexFunc(d.state.Guest, func(g guestLink) bool { return g.Index == h.PeerIndex })
	if n < 0 {
		return h, guestLink{}, false
	}
	return h, d.state.Guest[n], true
}

func (d *differ) hostEnd(n int, i Interface) {
	h, exists := d.state.Host[i.HostName]
	if exists && (h.Alias != mark(d.plan.Owner, i.ID) || h.Kind != "veth") {
		d.conflict(i, "host device %s (%s, alias %q) is not its own", i.HostName, h.Kind, h.Alias)
		return
	}
	master := 0
	if i.Attachment == AttachBridge {
		b, ok := d.state.Host[i.Bridge]
		switch {
		case !ok:
			if !d.bridges[i.Bridge] {
				d.add(step{Verb: addBridge, Index: n, Bridge: i.Bridge, MTU: i.MTU})
			}
		case b.Kind != "bridge":
			d.conflict(i, "host device %s is a %s, not a bridge", i.Bridge, b.Kind)
			return
		case d.state.Narrow[i.Bridge] != "" && b.MTU < i.MTU:
			d.fail(errdefs.ErrInvalid, i, "mtu %d is more than bridge %s carries, which has %s with less", i.MTU, i.Bridge, d.state.Narrow[i.Bridge])
			return
		case b.MTU < i.MTU:
			d.add(step{Verb: upBridge, Index: n, Bridge: i.Bridge, MTU: i.MTU})
		case !b.Up && !d.bridges[i.Bridge]:
			d.add(step{Verb: upBridge, Index: n, Bridge: i.Bridge})
		}
		d.bridges[i.Bridge] = true
		master = b.Index
	}
	if _, _, whole := d.pair(i); !whole {
		if exists {
			d.doomed = append(d.doomed, h)
		}
		d.add(step{Verb: addVeth, Index: n, MTU: i.MTU, Master: i.Bridge})
		h.Limits = Limits{}
	} else {
		d.mendHost(n, i, h, master)
	}
	spare := slices.ContainsFunc(d.doomed, func(l hostLink) bool { return l.Name == limitName(i.ID) })
	if h.Limits != i.Limits.effective() || spare && exists {
		d.add(step{Verb: setLimits, Index: n, Limits: i.Limits.effective()})
	}
}

// mendHost makes an existing host end what it has to be, but for its limits.
func (d *differ) mendHost(n int, i Interface, h hostLink, master int) {
	s := step{Verb: setHost, Index: n, Up: !h.Up}
	if i.MTU != 0 && h.MTU != i.MTU {
		s.MTU = i.MTU
	}
	if i.Attachment == AttachBridge && (master == 0 || h.Master != master) {
		s.Master = i.Bridge
	}
	if s.Up || s.MTU != 0 || s.Master != "" {
		d.add(s)
	}
}

func (d *differ) guestEnd(n int, i Interface) {
	_, g, whole := d.pair(i)
	for _, other := range d.state.Guest {
		if other.Name == i.GuestName && (!whole || other.Index != g.Index) && !d.dies(other) {
			d.conflict(i, "the guest has another device %s", i.GuestName)
			return
		}
	}
	if !whole {
		g = guestLink{Name: i.GuestName, MAC: i.MAC, MTU: i.MTU}
	}
	s := step{Verb: setGuest, Index: n, Rename: g.Name != i.GuestName}
	if want, err := parseMAC(i.MAC); err == nil && whole && want.String() != g.MAC {
		s.MAC = want.String()
	}
	if i.MTU != 0 && g.MTU != i.MTU {
		s.MTU = i.MTU
	}
	if s.Rename || s.MAC != "" || s.MTU != 0 {
		d.add(s)
	}
	// A renamed link was down for a moment: addresses and routes are gone.
	lost := d.addresses(n, i, g, s.Rename)
	if !g.Up || s.Rename {
		d.add(step{Verb: upGuest, Index: n})
	}
	d.routes(n, i, g, lost)
}

// dies says whether a guest link goes away with a host end that is deleted.
func (d *differ) dies(g guestLink) bool {
	return slices.ContainsFunc(d.doomed, func(h hostLink) bool { return h.PeerHere && h.PeerIndex == g.Index })
}

// addresses reports whether routes and addresses have to be set again: the
// kernel drops secondary addresses and routes with a primary address.
func (d *differ) addresses(n int, i Interface, g guestLink, lost bool) bool {
	for _, a := range g.Addresses {
		if a.Ours && !slices.Contains(i.Addresses, a.Prefix) {
			d.add(step{Verb: delAddress, Index: n, Prefix: a.Prefix})
			lost = true
		}
	}
	for _, a := range i.Addresses {
		there := slices.ContainsFunc(g.Addresses, func(b guestAddress) bool { return b.Prefix == a })
		if lost || !there {
			d.add(step{Verb: addAddress, Index: n, Prefix: a})
		}
	}
	return lost
}

func (d *differ) routes(n int, i Interface, g guestLink, lost bool) {
	metric := baseMetric + n
	var moved []step
	for _, r := range g.Routes {
		if !r.Ours || r.Metric == metric && slices.Contains(i.Routes, r.Route) {
			continue
		}
		s := step{Verb: delRoute, Index: n, Route: r.Route, Metric: r.Metric}
		if r.Metric != metric && slices.Contains(i.Routes, r.Route) {
			moved = append(moved, s) // goes when its successor is there
			continue
		}
		d.add(s)
	}
	for _, r := range i.Routes {
		if lost || !slices.Contains(g.Routes, guestRoute{Route: r, Metric: metric, Ours: true}) {
			d.add(step{Verb: addRoute, Index: n, Route: r, Metric: metric, OnLink: offLink(i, r.Via)})
		}
	}
	d.steps = append(d.steps, moved...)
}

// offLink says that a gateway is in none of the interface's networks, so that
// the kernel must be told to believe it. Link-local gateways are always near.
func offLink(i Interface, via netip.Addr) bool {
	if !via.IsValid() || via.Is6() && via.IsLinkLocalUnicast() {
		return false
	}
	return !slices.ContainsFunc(i.Addresses, func(a netip.Prefix) bool { return a.Contains(via) })
}
