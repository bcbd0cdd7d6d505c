// Package fabric makes the networks of a small cloud on one host: a bridge for
// each network, a network namespace for each router, and the way out.
//
// Plans are desired state, as in netbridge: the same twice changes nothing. It
// knows nothing of Neutron; internal/daemon translates. Devices of instances
// are netbridge's (its Plugger puts them into the bridges); this package only
// watches them.
//
// A network that leads out has its gateway on the bridge itself: the host
// forwards and hides it behind its own addresses. Any other network has nothing
// of the host's on its bridge. A router is a namespace with one end of a veth
// pair in each network, so networks of different tenants may have the same
// addresses. The namespace is pinned below Options.Dir, so that routers work on
// while the service does not run.
//
// A network whose guests are served has a namespace for it, with one device in
// the network: DHCP, DHCPv6, names and metadata are answered there, by this
// process. Routers answer for metadata, too, and advertise themselves (IPv6).
//
// Devices of instances are filtered where they are bridged, and so is what they
// send to the host. Not covered: what the host itself forwards to an instance
// that sits in a network that leads out is not filtered by the instance's rules
// (what it sends is).
//
// What is ours: links with the alias "gantry-net:<cloud>:<id>", the namespaces
// below Options.Dir, chains of the firewall and sets named "gantry…". Nothing
// else is changed or removed, but that forwarding of IPv4 and the filter of
// bridged packets are switched on.
package fabric

import (
	"net/netip"

	"github.com/gantry-project/gantry/netbridge/ra"
)

// Network is one layer-2 network.
type Network struct {
	ID string
	// Absent asks for removal; then only Bridge is needed besides.
	Absent bool
	Bridge string
	MTU    int // bytes
	// Down keeps the bridge down: nothing passes.
	Down bool
	// Gateways are the host's own addresses on the bridge of a network that
	// leads out, with the length of their subnets; none elsewhere. The subnets
	// of IPv4 are hidden behind the host towards everything else.
	Gateways []netip.Prefix
	// Serving is where guests find DHCP, names and metadata: a device in a
	// namespace of the network's own. nil: nowhere.
	Serving *Interface
}

// Router is one router.
type Router struct {
	ID string
	// Absent or Down asks for removal of all there is.
	Absent, Down bool
	Interfaces   []Interface
	// Gateway is the interface that leads out; nil for none.
	Gateway *Gateway
	// Floating are addresses outside that stand for one inside.
	Floating []Floating
	Routes   []Route
}

// Interface is a device of a router, or the one that serves a network.
type Interface struct {
	// ID is the port's; the end in the bridge is called "tap" and 11 characters
	// of it.
	ID string
	// Device is its name inside.
	Device    string
	MAC       string
	MTU       int
	Bridge    string
	Addresses []netip.Prefix
	// Advert is what a router says of itself there (IPv6); nil: nothing.
	Advert *ra.Advert
}

// Gateway is the interface of a router that leads out.
type Gateway struct {
	Interface

	// NextHops of the default routes, at most one of each IP version.
	NextHops []netip.Addr
	// SNAT hides what comes from inside behind the first IPv4 address.
	SNAT bool
}

// Floating is an address outside that stands for Fixed.
type Floating struct {
	Outside, Fixed netip.Addr
}

// Route of a router.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

// Group is a set of addresses that rules can name.
type Group struct {
	ID      string
	Absent  bool
	Members []netip.Prefix
}

// Port is what may pass a device of an instance.
type Port struct {
	ID     string
	Absent bool
	// Network is the ID of the one it is in.
	Network string
	// Device is the end in the bridge, which need not be there yet.
	Device string
	// Down lets nothing pass, Open everything.
	Down, Open bool
	Sources    []Source
	Rules      []Rule
}

// Source is a pair of addresses that a guest may send from.
type Source struct {
	MAC     string
	Address netip.Prefix
}

// Rule lets packets pass that begin a connection.
type Rule struct {
	// Ingress is towards the guest.
	Ingress, IPv6 bool
	// Protocol is the number, 0 for any.
	Protocol int
	// First and Last are ports of the destination, or type and code of ICMP; -1
	// for any.
	First, Last int
	// Remote is the other side; the zero Prefix is anything.
	Remote netip.Prefix
	// Group is a Group that the other side is of, "" for any.
	Group string
}

// World is everything.
type World struct {
	Networks []Network
	Groups   []Group
	Ports    []Port
	Routers  []Router
}
