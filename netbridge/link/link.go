// Package link talks rtnetlink for netbridge: it reads and changes links,
// addresses and routes in one network namespace through one socket each.
//
// It decides nothing. Most calls go to github.com/vishvananda/netlink; four
// messages are built here from that library's parts, because the library
// cannot say them: a veth pair whose both ends are complete at birth, several
// attributes of a link changed at once, and addresses with a protocol (origin)
// number. Sources: Linux include/uapi/linux/{rtnetlink,if_link,if_addr,veth}.h
// and net/core/rtnetlink.c. Only netbridge may import it.
package link

import "net/netip"

// Proto marks addresses (IFA_PROTO) and routes (rtm_protocol) as made by us. The
// value is free in /etc/iproute2/rt_protos and in the kernel's headers.
const Proto = 103

// Link is a device as seen from the namespace of the connection.
type Link struct {
	Name, Kind, Alias string
	Index, Master     int
	MTU               int
	MAC               string
	Up                bool
	// Running says that packets pass: both ends of a veth pair are up, and the
	// kernel has taken notice.
	Running bool
	// PeerIndex is the veth peer's index in its own namespace, PeerNS the
	// number (nsid) of that namespace here, -1 for this one.
	PeerIndex, PeerNS                    int
	RxBytes, RxPackets, RxErrors, RxDrop int64
	TxBytes, TxPackets, TxErrors, TxDrop int64
}

// Address of a link.
type Address struct {
	Index  int
	Prefix netip.Prefix
	Ours   bool // carries Proto
}

// Route of the main table.
type Route struct {
	Index  int
	To     netip.Prefix
	Via    netip.Addr // zero: on-link
	Metric int
	OnLink bool // only for adding: believe that Via is reachable
	Ours   bool // carries Proto
}

// Change of a link; zero fields stay as they are.
type Change struct {
	Name, Alias, MAC string
	MTU, Master      int
	// Up and Down are the administrative state; at most one is set.
	Up, Down bool
}

// Limit is of what a device sends, by a token bucket. One is ours by its
// number.
type Limit struct {
	Rate, Peak int64 // bytes per second; Peak 0 is none
	Burst      int64 // bytes; only for setting
	Bytes      int64 // that wait or are a burst
}

// Veth describes a new pair.
type Veth struct {
	Name string
	MTU  int // of both ends, 0 is the kernel's
	// Peer is the other end, born in the namespace PeerNS (a descriptor).
	Peer, PeerMAC string
	PeerNS        int
}
