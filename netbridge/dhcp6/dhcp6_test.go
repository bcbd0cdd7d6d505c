package dhcp6_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/dhcp6"
)

var (
	guest  = net.HardwareAddr{0xfa, 0x16, 0x3e, 0, 0, 5}
	server = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	link   = netip.MustParseAddr("fe80::f816:3eff:fe00:5")
)

func find(mac net.HardwareAddr) (dhcp6.Lease, bool) {
	return dhcp6.Lease{
		Addresses: []netip.Addr{netip.MustParseAddr("fd00::5")}, DNS: []netip.Addr{netip.MustParseAddr("fd00::53")}, Domain: "openstacklocal",
	}, bytes.Equal(mac, guest)
}

func stateless(mac net.HardwareAddr) (dhcp6.Lease, bool) {
	l, ok := find(mac)
	l.Addresses = nil
	return l, ok
}

func duid(mac net.HardwareAddr) dhcpv6.DUID {
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: mac}
}

func message(kind dhcpv6.MessageType, with ...dhcpv6.Option) []byte {
	m := &dhcpv6.Message{MessageType: kind, TransactionID: dhcpv6.TransactionID{1, 2, 3}}
	for _, o := range with {
		m.AddOption(o)
	}
	return m.ToBytes()
}

func association(addresses ...string) dhcpv6.Option {
	ia := &dhcpv6.OptIANA{IaId: [4]byte{1, 1, 1, 1}}
	for _, a := range addresses {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a)})
	}
	return ia
}

// told is an answer in short.
func told(a *dhcpv6.Message) string {
	out := []string{a.MessageType.String()}
	for _, ia := range a.Options.IANA() {
		for _, had := range ia.Options.Addresses() {
			out = append(out, fmt.Sprint(had.IPv6Addr, " for ", had.ValidLifetime))
		}
		if s := ia.Options.Status(); s != nil {
			out = append(out, s.StatusCode.String())
		}
	}
	if s := a.Options.Status(); s != nil {
		out = append(out, s.StatusCode.String())
	}
	for _, d := range a.Options.DNS() {
		out = append(out, d.String())
	}
	if l := a.Options.DomainSearchList(); l != nil {
		out = append(out, l.Labels...)
	}
	return strings.Join(out, ", ")
}

func TestAnswers(t *testing.T) {
	id, ours := dhcpv6.OptClientID(duid(guest)), dhcpv6.OptServerID(duid(server))
	for name, c := range map[string]struct {
		packet []byte
		from   netip.Addr
		find   func(net.HardwareAddr) (dhcp6.Lease, bool)
		want   string
	}{
		"solicit":        {message(dhcpv6.MessageTypeSolicit, id, association()), link, find, "ADVERTISE, fd00::5 for 24h0m0s, fd00::53, openstacklocal"},
		"rapid":          {message(dhcpv6.MessageTypeSolicit, id, association(), &dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit}), link, find, "REPLY, fd00::5 for 24h0m0s, fd00::53, openstacklocal"},
		"request":        {message(dhcpv6.MessageTypeRequest, id, ours, association("fd00::5")), link, find, "REPLY, fd00::5 for 24h0m0s, fd00::53, openstacklocal"},
		"another's":      {message(dhcpv6.MessageTypeRequest, id, ours, association("fd00::6")), link, find, "REPLY, fd00::5 for 24h0m0s, fd00::6 for 0s, fd00::53, openstacklocal"},
		"two":            {message(dhcpv6.MessageTypeRequest, id, ours, association(), association()), link, find, "REPLY, fd00::5 for 24h0m0s, NoAddrsAvail, fd00::53, openstacklocal"},
		"renew":          {message(dhcpv6.MessageTypeRenew, id, ours, association("fd00::5")), link, find, "REPLY, fd00::5 for 24h0m0s, fd00::53, openstacklocal"},
		"rebind":         {message(dhcpv6.MessageTypeRebind, id, association("fd00::5")), link, find, "REPLY, fd00::5 for 24h0m0s, fd00::53, openstacklocal"},
		"confirm":        {message(dhcpv6.MessageTypeConfirm, id, association("fd00::5")), link, find, "REPLY, Success"},
		"confirm other":  {message(dhcpv6.MessageTypeConfirm, id, association("fd00::6")), link, find, "REPLY, NotOnLink"},
		"release":        {message(dhcpv6.MessageTypeRelease, id, ours, association("fd00::5")), link, find, "REPLY, Success"},
		"information":    {message(dhcpv6.MessageTypeInformationRequest), link, stateless, "REPLY, fd00::53, openstacklocal"},
		"no addresses":   {message(dhcpv6.MessageTypeSolicit, id, association()), link, stateless, "silence"},
		"another server": {message(dhcpv6.MessageTypeRequest, id, dhcpv6.OptServerID(duid(guest)), association()), link, find, "silence"},
		"unknown":        {message(dhcpv6.MessageTypeSolicit, id, association()), netip.MustParseAddr("fe80::f816:3eff:fe00:6"), find, "silence"},
		"by its id":      {message(dhcpv6.MessageTypeSolicit, id, association()), netip.MustParseAddr("fe80::1:2:3:4"), find, "ADVERTISE, fd00::5 for 24h0m0s, fd00::53, openstacklocal"},
		"no id":          {message(dhcpv6.MessageTypeSolicit, association()), link, find, "invalid"},
		"not the link":   {message(dhcpv6.MessageTypeSolicit, id, association()), netip.MustParseAddr("fd00::5"), find, "invalid"},
		"a server's":     {message(dhcpv6.MessageTypeAdvertise, id, ours), link, find, "silence"},
		"malformed":      {[]byte{1, 2}, link, find, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			got := "silence"
			a, err := dhcp6.Server{MAC: server, Find: c.find}.Answer(c.packet, c.from)
			switch {
			case errors.Is(err, errdefs.ErrInvalid):
				got = "invalid"
			case err != nil:
				t.Fatal(err)
			case a != nil:
				got = told(a)
				if a.TransactionID != (dhcpv6.TransactionID{1, 2, 3}) || !a.Options.ServerID().Equal(duid(server)) {
					t.Error(a.Summary())
				}
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(message(dhcpv6.MessageTypeSolicit, dhcpv6.OptClientID(duid(guest)), association("fd00::5")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packet []byte) {
		a, err := dhcp6.Server{MAC: server, Find: find}.Answer(packet, link)
		if err != nil && a != nil {
			t.Error("both")
		}
		if a != nil {
			a.ToBytes()
		}
	})
}
