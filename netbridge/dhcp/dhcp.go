// Package dhcp tells guests the addresses they have (RFC 2131, 2132, 3442): it
// gives out nothing of its own, and remembers nothing. Who is known is somebody
// else's answer; whoever is not known gets none.
//
// IPv4 only. netbridge/fabric listens; this package reads, decides and answers.
package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Lease is what a guest is told. Addresses are of IPv4.
type Lease struct {
	// Server is the address of ours that the guest talks to.
	Server netip.Addr
	// Address is the guest's, with the length of its subnet.
	Address netip.Prefix
	// Router is the gateway; the zero Addr means none.
	Router netip.Addr
	DNS    []netip.Addr
	// Domain follows names that have no dot; "" says nothing of it.
	Domain string
	// Routes are others than the one to Router.
	Routes []Route
	// MTU in bytes; 0 says nothing of it.
	MTU int
	// HostName may be empty.
	HostName string
	// Options replace those that follow from the above, by their codes; an empty
	// one is left out.
	Options map[byte][]byte
}

// Route is a way that is not the default one.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

// leaseTime is how long a guest believes it (Neutron's dhcp_lease_duration).
const leaseTime = 24 * time.Hour

// maxPacket is the largest that is read: more than Ethernet brings.
const maxPacket = 4096

// Serve answers what comes in on conn until conn is closed, one packet after the
// other; find says what the guest with a MAC is told. Malformed packets are
// dropped. Answers go to all on the link, since a guest without an address
// cannot be found otherwise; conn must be bound to its device.
func Serve(conn net.PacketConn, find func(mac net.HardwareAddr) (Lease, bool)) error {
	buf := make([]byte, maxPacket)
	for {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read dhcp: %w", err)
		}
		answer, err := Answer(buf[:n], find)
		if err != nil || answer == nil {
			continue
		}
		to := &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}
		if !answer.ClientIPAddr.IsUnspecified() && answer.MessageType() == dhcpv4.MessageTypeAck {
			to.IP = answer.ClientIPAddr // it has the address and can be asked for it
		}
		_, _ = conn.WriteTo(answer.ToBytes(), to) // the guest asks again
	}
}

// Answer is the answer to a packet; nil is silence: the packet is not for us, or
// its sender is not known. What is no DHCP request is errdefs.ErrInvalid.
func Answer(packet []byte, find func(mac net.HardwareAddr) (Lease, bool)) (*dhcpv4.DHCPv4, error) {
	req, err := dhcpv4.FromBytes(packet)
	if err != nil {
		return nil, fmt.Errorf("dhcp: %w: %w", err, errdefs.ErrInvalid)
	}
	const macLength = 6
	if req.OpCode != dhcpv4.OpcodeBootRequest || len(req.ClientHWAddr) != macLength {
		return nil, fmt.Errorf("dhcp: not a request: %w", errdefs.ErrInvalid)
	}
	if !req.GatewayIPAddr.IsUnspecified() {
		return nil, nil // through a relay: not from our link
	}
	lease, ok := find(req.ClientHWAddr)
	if !ok {
		return nil, nil
	}
	if id := req.ServerIdentifier(); id != nil && !is(id, lease.Server) {
		return nil, nil // another server's offer was taken
	}
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return lease.reply(req, dhcpv4.MessageTypeOffer)
	case dhcpv4.MessageTypeInform:
		return lease.reply(req, dhcpv4.MessageTypeAck)
	case dhcpv4.MessageTypeRequest:
		wanted := req.RequestedIPAddress()
		if wanted == nil {
			wanted = req.ClientIPAddr
		}
		if !is(wanted, lease.Address.Addr()) {
			return dhcpv4.NewReplyFromRequest(req, dhcpv4.WithMessageType(dhcpv4.MessageTypeNak),
				dhcpv4.WithOption(dhcpv4.OptServerIdentifier(lease.Server.AsSlice())))
		}
		return lease.reply(req, dhcpv4.MessageTypeAck)
	default:
		return nil, nil // nothing was given, so nothing is given back
	}
}

func is(ip net.IP, a netip.Addr) bool {
	got, ok := netip.AddrFromSlice(ip)
	return ok && got.Unmap() == a
}

func (l Lease) reply(req *dhcpv4.DHCPv4, kind dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	with := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind), dhcpv4.WithServerIP(l.Server.AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(l.Server.AsSlice())),
		dhcpv4.WithNetmask(net.CIDRMask(l.Address.Bits(), l.Address.Addr().BitLen())),
	}
	if req.MessageType() != dhcpv4.MessageTypeInform {
		with = append(with, dhcpv4.WithYourIP(l.Address.Addr().AsSlice()), dhcpv4.WithLeaseTime(uint32(leaseTime.Seconds())))
	}
	if l.Router.IsValid() {
		with = append(with, dhcpv4.WithRouter(l.Router.AsSlice()))
	}
	if len(l.DNS) > 0 {
		var ips []net.IP
		for _, d := range l.DNS {
			ips = append(ips, d.AsSlice())
		}
		with = append(with, dhcpv4.WithDNS(ips...))
	}
	if l.Domain != "" {
		with = append(with, dhcpv4.WithOption(dhcpv4.OptDomainName(l.Domain)),
			dhcpv4.WithOption(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: []string{l.Domain}})))
	}
	if routes := l.routes(); len(routes) > 0 {
		with = append(with, dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(routes...)))
	}
	if l.MTU > 0 {
		with = append(with, dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{byte(l.MTU >> 8), byte(l.MTU)}))
	}
	if l.HostName != "" {
		with = append(with, dhcpv4.WithOption(dhcpv4.OptHostName(l.HostName)))
	}
	for code, value := range l.Options {
		if option := dhcpv4.GenericOptionCode(code); len(value) > 0 {
			with = append(with, dhcpv4.WithGeneric(option, value))
		} else {
			with = append(with, func(d *dhcpv4.DHCPv4) { delete(d.Options, code) })
		}
	}
	return dhcpv4.NewReplyFromRequest(req, with...)
}

// routes are those of option 121. A guest that gets it does not look at the
// option of the gateway any more, which therefore is among them.
func (l Lease) routes() []*dhcpv4.Route {
	if len(l.Routes) == 0 {
		return nil
	}
	var out []*dhcpv4.Route
	for _, r := range l.Routes {
		m := r.To.Masked()
		out = append(out, &dhcpv4.Route{
			Dest: &net.IPNet{IP: m.Addr().AsSlice(), Mask: net.CIDRMask(m.Bits(), m.Addr().BitLen())}, Router: r.Via.AsSlice(),
		})
	}
	if l.Router.IsValid() {
		out = append(out, &dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Router: l.Router.AsSlice()})
	}
	return out
}
