package network

import (
	"context"
	"net/netip"
)

// Fabric makes the network of one host as plans say. Plans are desired state:
// the same one twice changes nothing the second time, a later one replaces an
// earlier one of the same ID, and one with Absent removes what the earlier ones
// made (nothing there is success). Only what the fabric itself made is ever
// changed or removed.
//
// The service sends one plan at a time, each after those that it refers to:
// networks, groups, ports, routers. A call that fails is sent again later; it
// has left what held before, or is mended by the next one. Errors carry a class
// of errdefs.
type Fabric interface {
	// Sync is the whole wanted state, sent when the service starts: it sets
	// all plans and removes what an earlier process made and nobody wants any
	// more. Devices of instances are not its own and stay. After an error all
	// plans are sent one by one.
	Sync(ctx context.Context, all World) error
	// SetNetwork makes the bridge of a network, or removes it.
	SetNetwork(ctx context.Context, plan NetworkPlan) error
	// SetGroup says which addresses the rules that name a group mean.
	SetGroup(ctx context.Context, plan GroupPlan) error
	// SetPorts says what may pass devices, before the devices exist: when it
	// returns, devices of those names are filtered from their first packet on.
	// The devices themselves are made by the compute service. After an error of
	// several plans each is sent by itself.
	SetPorts(ctx context.Context, plans ...PortPlan) error
	// SetRouter makes a router.
	SetRouter(ctx context.Context, plan RouterPlan) error
	// Repair makes again what others have undone of what was sent.
	Repair(ctx context.Context) error
	// Watch tells of network devices of the host: first all that are up, at
	// once, and then each that comes up or goes. It calls both functions from
	// one goroutine, may tell the same twice, and returns when ctx ends (its
	// error) or when it cannot watch any more; it is then called again.
	Watch(ctx context.Context, all func(devices []string), seen func(device string, up bool)) error
}

// World is everything a host has to have.
type World struct {
	Networks []NetworkPlan
	Groups   []GroupPlan
	Ports    []PortPlan
	Routers  []RouterPlan
}

// NetworkPlan is one layer-2 network.
type NetworkPlan struct {
	ID string
	// Absent asks for removal; only ID and Bridge are set then.
	Absent bool
	// Bridge is its device's name: "brq" and 11 characters of ID, as the
	// linuxbridge agent names it.
	Bridge string
	// MTU in bytes.
	MTU int
	// Down says that an administrator has switched it off: nothing passes.
	Down bool
	// External marks a network that leads out of the cloud. The host has the
	// gateways of its subnets on the bridge, forwards, and hides the subnets
	// behind its own addresses (masquerade) towards everything else.
	External bool
	Subnets  []SubnetPlan
	// Serving is where guests find DHCP, names and metadata: the device in a
	// namespace of the network's own ("qdhcp-" and ID), named "ns-" and 11
	// characters of the port's id. nil: nowhere.
	Serving *RouterInterface
}

// SubnetPlan is one subnet of a network.
type SubnetPlan struct {
	ID   string
	CIDR netip.Prefix
	// Gateway is the address of the router that guests use; the zero Addr means
	// none. In networks that are not External it belongs to a router's port.
	Gateway netip.Addr
	// DHCP says that guests are to be given addresses (v4: DHCP; v6: by Mode).
	DHCP bool
	// Mode is the ipv6_address_mode, "" for v4.
	Mode   string
	DNS    []netip.Addr
	Routes []HostRoute
}

// HostRoute is a route that guests are told of.
type HostRoute struct {
	To  netip.Prefix
	Via netip.Addr
}

// GroupPlan is the members of a security group.
type GroupPlan struct {
	ID     string
	Absent bool
	// Members are the addresses of all ports in the group, sorted.
	Members []netip.Prefix
}

// PortPlan is what may pass one device of an instance.
type PortPlan struct {
	ID     string
	Absent bool
	// Device is "tap" and 11 characters of ID, the host end.
	Device    string
	NetworkID string
	Bridge    string
	MAC       string
	// Addresses are its own.
	Addresses []netip.Addr
	// HostName is what DHCP calls it ("host-10-0-0-5").
	HostName string
	// Down says that nothing at all may pass.
	Down bool
	// Open says that nothing is filtered (port security is off). Otherwise
	// only frames from Sources leave the guest, DHCP and neighbour discovery
	// besides, and only what Rules and connections known already let pass goes
	// through.
	Open    bool
	Sources []Source
	Rules   []Rule
}

// Source is a pair that a guest may send from: its own and the allowed ones.
type Source struct {
	MAC     string
	Address netip.Prefix
}

// Rule lets packets pass.
type Rule struct {
	// Ingress is towards the guest.
	Ingress bool
	// IPv6 says of which version the packets are.
	IPv6 bool
	// Protocol is the number; 0 means any.
	Protocol int
	// First and Last are ports of the destination; -1 means any. For ICMP they
	// are type and code.
	First, Last int
	// Remote bounds the other side; the zero Prefix means all, unless Group is
	// set.
	Remote netip.Prefix
	// Group is the ID of a GroupPlan whose members the other side is of, or "".
	Group string
}

// RouterPlan is one router: a network namespace with a device in each network.
type RouterPlan struct {
	ID     string
	Absent bool
	// Down says that it is switched off: it has no devices.
	Down bool
	// Namespace is "qrouter-" and ID.
	Namespace string
	// Interfaces are inside.
	Interfaces []RouterInterface
	// Gateway leads out; nil means none.
	Gateway *RouterGateway
	// Floating are addresses of Gateway's network that stand for one inside.
	Floating []FloatingAddress
	Routes   []HostRoute
}

// RouterInterface is a device of a router.
type RouterInterface struct {
	PortID string
	// Device is "qr-" and 11 characters of PortID, or "qg-" for the gateway.
	Device string
	MAC    string
	MTU    int
	// Bridge is of the network it leads to.
	Bridge    string
	Addresses []netip.Prefix
	// Advert is what the router says of itself there (IPv6); nil: nothing.
	Advert *RouterAdvert
}

// RouterAdvert is a router advertisement (RFC 4861).
type RouterAdvert struct {
	// Managed: guests get addresses by DHCPv6. Other: they get the rest by it.
	Managed, Other bool
	// Autonomous are the networks in which guests make themselves addresses,
	// OnLink the others.
	Autonomous, OnLink []netip.Prefix
	DNS                []netip.Addr
}

// RouterGateway is the device that leads out.
type RouterGateway struct {
	RouterInterface

	// NextHops are the default routes, at most one of each version.
	NextHops []netip.Addr
	// SNAT hides what comes from inside behind the first IPv4 address.
	SNAT bool
}

// FloatingAddress is what is sent to Floating and is meant for Fixed, and back.
type FloatingAddress struct {
	Floating, Fixed netip.Addr
}
