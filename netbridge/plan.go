// Package netbridge makes the host's network match what instances need: links,
// bridges, addresses and routes, all as desired state.
//
// A Plan is the whole network of one instance. Set makes the host match it and
// may be repeated; an empty plan leaves nothing. Names of devices come from one
// place (vif.go). The package knows nothing of Neutron, Nova or containers; among
// ours it imports only internal/errdefs, internal/keylock and its own
// sub-packages link (netlink) and netns (namespaces).
//
// How a Set works: the plan is validated, the host is observed, a pure function
// (diff.go) turns both into a list of steps, and the steps are applied one
// after the other. The Linux kernel (apply_linux.go) and the in-memory one of
// the fake (fake.go) share everything but observation and application.
//
// What is ours: host ends carry the alias "gantry:<owner>:<id>"; addresses and
// routes inside carry our protocol number (link.Proto), so that those the guest
// added itself stay. Bridges belong to everybody: they are made when missing
// and never removed (Neutron's linuxbridge agent removes empty ones).
package netbridge

import (
	"context"
	"net/netip"
)

// Plugger owns the links of this host that carry its prefix.
//
// Methods may be called from any goroutine; calls for one owner are serialised
// inside.
type Plugger interface {
	// Set makes the host match the plan. The same plan twice changes nothing
	// the second time. It adds what is missing, mends what differs and removes
	// interfaces of the owner that the plan does not name, leftovers of an
	// earlier process included; nothing that is not ours is touched. On error
	// it returns all errors joined and keeps what holds; a Set with the old
	// plan or with an empty one leads back. A namespace that does not exist is
	// errdefs.ErrNotFound, a plan that cannot be errdefs.ErrInvalid, and then
	// nothing has changed.
	Set(ctx context.Context, plan Plan) error
	// Stats reads the counters of the owner's interfaces, as the guest sees
	// them: received is what came to the guest.
	Stats(ctx context.Context, owner string) ([]Stats, error)
	// Owners lists those that have at least one host device here.
	Owners(ctx context.Context) ([]string, error)
}

// Plan is the wanted network of one instance.
type Plan struct {
	// Owner identifies the instance (its UUID).
	Owner string
	// NetNS is the path of the pinned network namespace. It may be empty only
	// with no interfaces.
	NetNS string
	// Interfaces in guest order: the first becomes eth0.
	Interfaces []Interface
}

// Attachment says what the host end is connected to.
type Attachment string

// The attachments that exist.
const (
	// AttachBridge puts the host end into the Linux bridge Bridge, which is
	// made when it is missing (Neutron's linuxbridge agent, VIF type bridge).
	AttachBridge Attachment = "bridge"
	// AttachNone leaves the host end alone (VIF type tap).
	AttachNone Attachment = "none"
	// AttachOVS is a port of Open vSwitch, as Interface.OVS says. Only the
	// Plugger of netbridge/ovs knows it; to others it is errdefs.ErrInvalid.
	AttachOVS Attachment = "ovs"
)

// OVS is how an interface is a port of Open vSwitch.
type OVS struct {
	// Bridge is made when it is missing, with that datapath ("system" when
	// empty, "netdev" in user space).
	Bridge, Datapath string
	// InterfaceID is what agents know the port by (external_ids:iface-id).
	InterfaceID string
	// Hybrid puts a Linux bridge of its own before the port, for an agent that
	// filters with iptables.
	Hybrid bool
}

// Interface is one veth pair: a host end and a guest end in the namespace.
type Interface struct {
	// ID is Neutron's port id, or another stable id.
	ID string
	// HostName is the host end's device name ("tap" and 11 characters).
	HostName string
	// GuestName is the device name inside ("eth0"). Empty leaves the choice to
	// the Plugger: an interface that exists keeps its name as long as that is
	// eth and a number, whatever comes and goes beside it; a new one gets the
	// lowest number that is free.
	GuestName  string
	MAC        string
	MTU        int // bytes; 0 leaves the kernel's
	Attachment Attachment
	Bridge     string
	// OVS is of AttachOVS only.
	OVS       *OVS
	Addresses []netip.Prefix
	Routes    []Route
	Limits    Limits
}

// Route is a route inside the namespace through the interface.
type Route struct {
	// To is the destination; a default route is 0.0.0.0/0 or ::/0.
	To netip.Prefix
	// Via is the gateway; the zero Addr means on-link.
	Via netip.Addr
}

// Stats are the counters of one interface.
type Stats struct {
	ID, MAC                              string
	RxBytes, RxPackets, RxErrors, RxDrop int64
	TxBytes, TxPackets, TxErrors, TxDrop int64
}
