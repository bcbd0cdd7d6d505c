package netbridge

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// MTU limits: RFC 791 for IPv4, RFC 8200 for IPv6, veth's own at the top.
const (
	minMTU   = 68
	minMTUv6 = 1280
	maxMTU   = 65535
)

// Validate says whether the plan can be: nil, or all that is wrong, joined, of
// class errdefs.ErrInvalid. It does not look at the host.
func Validate(p Plan) error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("plan of %q: %s: %w", p.Owner, fmt.Sprintf(format, a...), errdefs.ErrInvalid))
	}
	if !validID(p.Owner) {
		bad("owner cannot be a mark")
	}
	if p.NetNS == "" && len(p.Interfaces) > 0 {
		bad("no network namespace")
	}
	seen := map[string]bool{}
	once := func(kind, value string) {
		if key := kind + " " + value; seen[key] {
			bad("%s %q twice", kind, value)
		} else {
			seen[key] = true
		}
	}
	for _, i := range p.Interfaces {
		once("id", i.ID)
		once("host name", i.HostName)
		once("pending name", pendingName(i.ID))
		once("host name", limitName(i.ID))
		if i.GuestName != "" {
			once("guest name", i.GuestName)
		}
		for _, a := range i.Addresses {
			once("address", a.Addr().String())
		}
		if hw, err := parseMAC(i.MAC); err == nil {
			once("mac", hw.String())
		}
		validateInterface(i, func(format string, a ...any) {
			bad("interface %q: %s", i.ID, fmt.Sprintf(format, a...))
		})
	}
	for _, i := range p.Interfaces {
		if seen["host name "+i.Bridge] {
			bad("bridge %q has the name of a host end", i.Bridge)
		}
	}
	return errors.Join(errs...)
}

func validateInterface(i Interface, bad func(string, ...any)) {
	if !validID(i.ID) || !validName(pendingName(i.ID)) {
		bad("id cannot be a device name or a mark")
	}
	if !validName(i.HostName) {
		bad("host name %q is not a device name", i.HostName)
	}
	if i.GuestName != "" && (!validName(i.GuestName) || i.GuestName == "lo") {
		bad("guest name %q is not a device name", i.GuestName)
	}
	if _, err := parseMAC(i.MAC); err != nil {
		bad("%v", err)
	}
	if i.MTU != 0 && (i.MTU < minMTU || i.MTU > maxMTU) {
		bad("mtu %d is not within %d and %d", i.MTU, minMTU, maxMTU)
	}
	switch i.Attachment {
	case AttachBridge:
		if !validName(i.Bridge) {
			bad("bridge %q is not a device name", i.Bridge)
		}
	case AttachNone:
		if i.Bridge != "" {
			bad("bridge %q without attachment", i.Bridge)
		}
	case AttachOVS:
		if i.OVS == nil || i.Bridge != "" || !validName(i.OVS.Bridge) || i.OVS.InterfaceID == "" {
			bad("port of open vswitch %+v", i.OVS)
		}
	default:
		bad("attachment %q is unknown", i.Attachment)
	}
	if i.Limits != (Limits{}) && i.Attachment == AttachOVS && (i.OVS == nil || !i.OVS.Hybrid) {
		bad("a port of open vswitch has no limits of traffic")
	}
	i.Limits.Inbound.validate("inbound", bad)
	i.Limits.Outbound.validate("outbound", bad)
	validateAddresses(i, bad)
}

func validateAddresses(i Interface, bad func(string, ...any)) {
	for _, a := range i.Addresses {
		ip := a.Addr()
		switch {
		case !a.IsValid() || ip.Is4In6() || ip.Zone() != "":
			bad("address %s is not valid", a)
		case ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback():
			bad("address %s cannot be a host's", a)
		case ip.Is6() && i.MTU != 0 && i.MTU < minMTUv6:
			bad("mtu %d is too small for IPv6 address %s", i.MTU, a)
		}
	}
	seen := map[netip.Prefix]bool{}
	for _, r := range i.Routes {
		switch {
		case !r.To.IsValid() || r.To != r.To.Masked() || r.To.Addr().Is4In6():
			bad("route to %s is not a network", r.To)
		case r.Via.IsValid() && (r.Via.Is4() != r.To.Addr().Is4() || r.Via.IsUnspecified() || r.Via.IsMulticast() || r.Via.Zone() != ""):
			bad("route to %s: gateway %s cannot be", r.To, r.Via)
		case seen[r.To]:
			bad("route to %s twice", r.To)
		}
		seen[r.To] = true
	}
}

// parseMAC accepts a six-byte unicast address.
func parseMAC(s string) (net.HardwareAddr, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return nil, fmt.Errorf("mac %q is not an Ethernet address", s)
	}
	if hw[0]&1 != 0 || bytes.Equal(hw, make([]byte, 6)) {
		return nil, fmt.Errorf("mac %q is not a unicast address", s)
	}
	return hw, nil
}
