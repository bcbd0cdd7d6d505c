// Package dhcp6 tells guests the addresses of IPv6 they have (RFC 8415), or only
// what else there is to know: it gives out nothing of its own, and remembers
// nothing. Who is known is somebody else's answer; whoever is not known gets
// none.
//
// netbridge/fabric listens; this package reads, decides and answers.
package dhcp6

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Lease is what a guest is told.
type Lease struct {
	// Addresses are the guest's; none: it has its addresses from elsewhere.
	Addresses []netip.Addr
	DNS       []netip.Addr
	// Domain follows names that have no dot; "" says nothing of it.
	Domain string
}

// Server is who answers.
type Server struct {
	// MAC is the server's, by which guests know it again.
	MAC net.HardwareAddr
	// Find says what the guest with a MAC is told; false: nothing.
	Find func(mac net.HardwareAddr) (Lease, bool)
}

// ServerPort and ClientPort are those of UDP.
const (
	ServerPort = dhcpv6.DefaultServerPort
	ClientPort = dhcpv6.DefaultClientPort
)

// leaseTime is how long a guest believes it (Neutron's dhcp_lease_duration).
const leaseTime = 24 * time.Hour

// maxPacket is the largest that is read: more than Ethernet brings.
const maxPacket = 4096

// Servers is the group of all servers and relays on a link.
func Servers() netip.Addr { return netip.MustParseAddr("ff02::1:2") }

// Serve answers what comes in on conn until conn is closed, one packet after the
// other. Malformed packets are dropped, and those from elsewhere than the link.
// conn must be bound to its device and be of Servers.
func (s Server) Serve(conn net.PacketConn) error {
	buf := make([]byte, maxPacket)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read dhcpv6: %w", err)
		}
		udp, ok := from.(*net.UDPAddr)
		if !ok {
			continue
		}
		address, _ := netip.AddrFromSlice(udp.IP)
		answer, err := s.Answer(buf[:n], address)
		if err != nil || answer == nil {
			continue
		}
		_, _ = conn.WriteTo(answer.ToBytes(), udp) // the guest asks again
	}
}

// Answer is the answer to a packet; nil is silence: the packet is not for us, or
// its sender is not known. What is no message of a client is errdefs.ErrInvalid.
func (s Server) Answer(packet []byte, from netip.Addr) (*dhcpv6.Message, error) {
	if !from.IsLinkLocalUnicast() {
		return nil, fmt.Errorf("dhcpv6: from %s: not of the link: %w", from, errdefs.ErrInvalid)
	}
	q, err := dhcpv6.MessageFromBytes(packet)
	if err != nil {
		return nil, fmt.Errorf("dhcpv6: %w: %w", err, errdefs.ErrInvalid)
	}
	own := s.id()
	if id := q.Options.ServerID(); id != nil && !id.Equal(own) {
		return nil, nil // another server's offer was taken
	}
	mac := macOf(from, q)
	if mac == nil {
		return nil, nil
	}
	lease, ok := s.Find(mac)
	if !ok {
		return nil, nil
	}
	a := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply, TransactionID: q.TransactionID}
	if id := q.Options.ClientID(); id != nil {
		a.AddOption(dhcpv6.OptClientID(id))
	} else if q.MessageType != dhcpv6.MessageTypeInformationRequest {
		return nil, fmt.Errorf("dhcpv6: no client id: %w", errdefs.ErrInvalid)
	}
	a.AddOption(dhcpv6.OptServerID(own))
	if !lease.fill(a, q) {
		return nil, nil
	}
	return a, nil
}

func (s Server) id() dhcpv6.DUID {
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: s.MAC}
}

// fill answers a message of each kind; false: not at all.
func (l Lease) fill(a, q *dhcpv6.Message) bool {
	given := len(l.Addresses) > 0
	switch q.MessageType {
	case dhcpv6.MessageTypeSolicit:
		if !given {
			return false // there is nothing to be had here
		}
		if q.GetOneOption(dhcpv6.OptionRapidCommit) != nil {
			dhcpv6.WithRapidCommit(a)
		} else {
			a.MessageType = dhcpv6.MessageTypeAdvertise
		}
		l.assign(a, q)
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind:
		l.assign(a, q)
	case dhcpv6.MessageTypeConfirm:
		if !given {
			return false
		}
		a.AddOption(l.confirm(q))
		return true
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		a.AddOption(status(iana.StatusSuccess)) // nothing was given, so nothing is given back
		return true
	case dhcpv6.MessageTypeInformationRequest:
	default:
		return false
	}
	if len(l.DNS) > 0 {
		ips := make([]net.IP, 0, len(l.DNS))
		for _, d := range l.DNS {
			ips = append(ips, d.AsSlice())
		}
		a.AddOption(dhcpv6.OptDNS(ips...))
	}
	if l.Domain != "" {
		dhcpv6.WithDomainSearchList(l.Domain)(a)
	}
	return true
}

// assign tells all addresses in the first association, and in those beyond that
// there are no more. An address that is asked for and is not the guest's is one
// that it has no longer.
func (l Lease) assign(a, q *dhcpv6.Message) {
	for n, asked := range q.Options.IANA() {
		ia := &dhcpv6.OptIANA{IaId: asked.IaId, T1: leaseTime / 2, T2: leaseTime * 7 / 8}
		if n == 0 {
			for _, address := range l.Addresses {
				ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: address.AsSlice(), PreferredLifetime: leaseTime, ValidLifetime: leaseTime})
			}
		}
		for _, had := range asked.Options.Addresses() {
			if !l.has(had.IPv6Addr) {
				ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: had.IPv6Addr})
			}
		}
		if n > 0 || len(l.Addresses) == 0 {
			ia.Options.Add(status(iana.StatusNoAddrsAvail))
		}
		a.AddOption(ia)
	}
}

// confirm says whether what a guest has is still right.
func (l Lease) confirm(q *dhcpv6.Message) dhcpv6.Option {
	for _, ia := range q.Options.IANA() {
		for _, had := range ia.Options.Addresses() {
			if !l.has(had.IPv6Addr) {
				return status(iana.StatusNotOnLink)
			}
		}
	}
	return status(iana.StatusSuccess)
}

func (l Lease) has(ip net.IP) bool {
	a, ok := netip.AddrFromSlice(ip)
	return ok && slices.Contains(l.Addresses, a)
}

func status(code iana.StatusCode) dhcpv6.Option { return &dhcpv6.OptStatusCode{StatusCode: code} }

// macOf is the MAC of who asks: what its address on the link was made of, which
// others cannot have where sources are checked; else what it says of itself.
func macOf(from netip.Addr, q *dhcpv6.Message) net.HardwareAddr {
	const macLength = 6
	if b := from.As16(); b[11] == 0xff && b[12] == 0xfe {
		return net.HardwareAddr{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}
	}
	var mac net.HardwareAddr
	switch id := q.Options.ClientID().(type) {
	case *dhcpv6.DUIDLL:
		mac = id.LinkLayerAddr
	case *dhcpv6.DUIDLLT:
		mac = id.LinkLayerAddr
	}
	if len(mac) != macLength {
		return nil
	}
	return mac
}
