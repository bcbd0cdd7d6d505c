package dhcp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/dhcp"
)

var guest = net.HardwareAddr{0xfa, 0x16, 0x3e, 0, 0, 5}

func find(mac net.HardwareAddr) (dhcp.Lease, bool) {
	return dhcp.Lease{
		Server: netip.MustParseAddr("10.0.0.1"), Address: netip.MustParsePrefix("10.0.0.5/26"), Router: netip.MustParseAddr("10.0.0.1"),
		DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("192.0.2.54")}, Domain: "openstacklocal", MTU: 1450, HostName: "host-10-0-0-5",
		Routes: []dhcp.Route{{To: netip.MustParsePrefix("198.51.100.7/24"), Via: netip.MustParseAddr("10.0.0.9")}},
	}, bytes.Equal(mac, guest)
}

func ip(s string) net.IP { return net.ParseIP(s).To4() }

func TestAnswers(t *testing.T) {
	kind, option := dhcpv4.WithMessageType, dhcpv4.WithOption
	for name, c := range map[string]struct {
		with []dhcpv4.Modifier
		want string // kind and address
	}{
		"discover":               {[]dhcpv4.Modifier{kind(dhcpv4.MessageTypeDiscover)}, "OFFER 10.0.0.5"},
		"discover, another wish": {[]dhcpv4.Modifier{kind(dhcpv4.MessageTypeDiscover), option(dhcpv4.OptRequestedIPAddress(ip("10.0.0.6")))}, "OFFER 10.0.0.5"},
		"request": {[]dhcpv4.Modifier{
			kind(dhcpv4.MessageTypeRequest), option(dhcpv4.OptRequestedIPAddress(ip("10.0.0.5"))), option(dhcpv4.OptServerIdentifier(ip("10.0.0.1"))),
		}, "ACK 10.0.0.5"},
		"renewal":                   {[]dhcpv4.Modifier{kind(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(ip("10.0.0.5"))}, "ACK 10.0.0.5"},
		"request of another's":      {[]dhcpv4.Modifier{kind(dhcpv4.MessageTypeRequest), option(dhcpv4.OptRequestedIPAddress(ip("10.0.0.6")))}, "NAK 0.0.0.0"},
		"request of nothing":        {[]dhcpv4.Modifier{kind(dhcpv4.MessageTypeRequest)}, "NAK 0.0.0.0"},
		"request of another server": {[]dhcpv4.Modifier{kind(dhcpv4.MessageTypeRequest), option(dhcpv4.OptServerIdentifier(ip("10.0.0.2")))}, "silence"},
		"inform":                    {[]dhcpv4.Modifier{kind(dhcpv4.MessageTypeInform), dhcpv4.WithClientIP(ip("10.0.0.5"))}, "ACK 0.0.0.0"},
		"release":                   {[]dhcpv4.Modifier{kind(dhcpv4.MessageTypeRelease), dhcpv4.WithClientIP(ip("10.0.0.5"))}, "silence"},
		"decline":                   {[]dhcpv4.Modifier{kind(dhcpv4.MessageTypeDecline)}, "silence"},
		"no kind":                   {nil, "silence"},
		"relayed":                   {[]dhcpv4.Modifier{kind(dhcpv4.MessageTypeDiscover), dhcpv4.WithGatewayIP(ip("10.0.0.7"))}, "silence"},
		"unknown":                   {[]dhcpv4.Modifier{kind(dhcpv4.MessageTypeDiscover), dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 1})}, "silence"},
		"no Ethernet":               {[]dhcpv4.Modifier{kind(dhcpv4.MessageTypeDiscover), dhcpv4.WithHwAddr(net.HardwareAddr{1})}, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(guest)}, c.with...)...)
			if err != nil {
				t.Fatal(err)
			}
			got := "silence"
			a, err := dhcp.Answer(req.ToBytes(), find)
			switch {
			case errors.Is(err, errdefs.ErrInvalid):
				got = "invalid"
			case err != nil:
				t.Fatal(err)
			case a != nil:
				got = fmt.Sprint(a.MessageType(), " ", a.YourIPAddr)
				if a.TransactionID != req.TransactionID || !bytes.Equal(a.ClientHWAddr, guest) || a.OpCode != dhcpv4.OpcodeBootReply {
					t.Error(a.Summary())
				}
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestWhatAGuestIsTold(t *testing.T) {
	req, err := dhcpv4.NewDiscovery(guest)
	if err != nil {
		t.Fatal(err)
	}
	a, err := dhcp.Answer(req.ToBytes(), find)
	if err != nil || a == nil {
		t.Fatal(a, err)
	}
	got := fmt.Sprintln(a.ServerIdentifier(), a.SubnetMask(), a.Router(), a.DNS(), a.DomainName(), a.DomainSearch(), a.IPAddressLeaseTime(0), a.HostName(), a.ClasslessStaticRoute(), hex.EncodeToString(a.Options.Get(dhcpv4.OptionInterfaceMTU)))
	want := fmt.Sprintln("10.0.0.1 ffffffc0 [10.0.0.1] [192.0.2.53 192.0.2.54] openstacklocal [openstacklocal] 24h0m0s host-10-0-0-5",
		"[route to 198.51.100.0/24 via 10.0.0.9 route to 0.0.0.0/0 via 10.0.0.1] 05aa")
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

func TestOptionsOfThePortReplaceOthers(t *testing.T) {
	req, err := dhcpv4.NewDiscovery(guest)
	if err != nil {
		t.Fatal(err)
	}
	a, err := dhcp.Answer(req.ToBytes(), func(mac net.HardwareAddr) (dhcp.Lease, bool) {
		l, ok := find(mac)
		l.Options = map[byte][]byte{26: {5, 120}, 67: []byte("boot"), 3: nil}
		return l, ok
	})
	if err != nil || a == nil {
		t.Fatal(a, err)
	}
	if mtu := hex.EncodeToString(a.Options.Get(dhcpv4.OptionInterfaceMTU)); mtu != "0578" || a.BootFileNameOption() != "boot" || a.Router() != nil {
		t.Errorf("MTU %s, boot file %q, gateway %v", mtu, a.BootFileNameOption(), a.Router())
	}
}

func FuzzAnswer(f *testing.F) {
	req, err := dhcpv4.NewDiscovery(guest)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(req.ToBytes())
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{1}, 300))
	f.Fuzz(func(t *testing.T, packet []byte) {
		a, err := dhcp.Answer(packet, func(net.HardwareAddr) (dhcp.Lease, bool) { return find(guest) })
		if err != nil && a != nil {
			t.Error("both")
		}
		if a != nil {
			a.ToBytes()
		}
	})
}
