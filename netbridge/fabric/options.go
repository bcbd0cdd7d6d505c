package fabric

import (
	"net/http"

	"github.com/gantry-project/gantry/netbridge/dhcp"
	"github.com/gantry-project/gantry/netbridge/dhcp6"
	"github.com/gantry-project/gantry/netbridge/dns"
)

// Options of New. Functions are called from many goroutines until Close; nil:
// nobody answers.
type Options struct {
	// Cloud tells several clouds of one host apart: what another has made is
	// foreign. Not empty, without ':'.
	Cloud string
	// Dir is where namespaces are pinned: an absolute path, made when it is
	// missing, on a file system that is empty after a boot (/run).
	Dir string
	// HostNetNS is the path of the namespace that has the bridges; empty is the
	// process's own.
	HostNetNS string
	// Programs filters ports by iptables, ip6tables and ebtables also where the
	// kernel's nf_tables could do it (firewall.Ports), which is slower.
	Programs bool
	// Metadata answers what guests ask at 169.254.169.254, port 80. RemoteAddr
	// is that of the guest, which has an address in a network of that place or
	// would not get the answer: the address is the place's own, so a request
	// goes no further.
	Metadata func(at Place, w http.ResponseWriter, r *http.Request)
	// Lease says what a guest with that MAC is told that asks by DHCP where a
	// network is served, by the ID of Network.Serving; false: nothing.
	Lease func(port, mac string) (dhcp.Lease, bool)
	// Lease6 is Lease for DHCPv6.
	Lease6 func(port, mac string) (dhcp6.Lease, bool)
	// Names are the hosts of a network, and Domain what follows their names.
	Names  func(network string) []dns.Name
	Domain string
	// Resolvers is the resolv.conf(5) by which other names are found; empty is
	// /etc/resolv.conf. Its servers are asked from the process's own namespace.
	Resolvers string
}

// Place is where a guest is heard: one of both is set.
type Place struct {
	// Router is the one through which it asks, Network the one that it asks in.
	Router, Network string
}
