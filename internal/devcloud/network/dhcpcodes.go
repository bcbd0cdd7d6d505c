package network

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// form is how the text of an option becomes bytes.
type form int

const (
	asText form = iota
	asAddresses
	asByte
	asShort
	asLong
	asFlag
)

// dhcpCode is a DHCP option (RFC 2132 and later).
type dhcpCode struct {
	code byte
	form form
}

// dhcpCodes are the options by the names that Neutron hands to dnsmasq.
var dhcpCodes = map[string]dhcpCode{
	"netmask": {1, asAddresses}, "time-offset": {2, asLong}, "router": {3, asAddresses}, "dns-server": {6, asAddresses},
	"log-server": {7, asAddresses}, "lpr-server": {9, asAddresses}, "hostname": {12, asText}, "domain-name": {15, asText},
	"root-path": {17, asText}, "extension-path": {18, asText}, "ip-forward-enable": {19, asFlag}, "default-ttl": {23, asByte},
	"mtu": {26, asShort}, "broadcast": {28, asAddresses}, "static-route": {33, asAddresses}, "tcp-ttl": {37, asByte},
	"tcp-keepalive": {38, asLong}, "nis-domain": {40, asText}, "nis-server": {41, asAddresses}, "ntp-server": {42, asAddresses},
	"netbios-ns": {44, asAddresses}, "netbios-dd": {45, asAddresses}, "netbios-nodetype": {46, asByte}, "netbios-scope": {47, asText},
	"x-windows-fs": {48, asAddresses}, "x-windows-dm": {49, asAddresses}, "vendor-class": {60, asText}, "nis+-domain": {64, asText},
	"nis+-server": {65, asAddresses}, "tftp-server": {66, asText}, "bootfile-name": {67, asText}, "smtp-server": {69, asAddresses},
	"pop3-server": {70, asAddresses}, "nntp-server": {71, asAddresses}, "irc-server": {74, asAddresses}, "user-class": {77, asText},
	"tftp-server-address": {150, asAddresses},
}

// reserved are the options of the protocol itself, which nobody but the server
// has a say in.
func reserved(code int) bool {
	return code <= 0 || code >= 255 || code >= 50 && code <= 59 || code == 61 || code == 82
}

// wire is the option as it is told; nil for one that is not to be told at all.
// Not ok are names and values that mean nothing.
func (o dhcpOption) wire() (code byte, value []byte, ok bool) {
	known, named := dhcpCodes[strings.TrimPrefix(o.Name, "option:")]
	if n, err := strconv.Atoi(o.Name); err == nil && !reserved(n) {
		known, named = dhcpCode{byte(n), asText}, true
		for _, c := range dhcpCodes {
			if c.code == known.code {
				known = c
			}
		}
	}
	if !named || o.Version != 4 {
		return 0, nil, false
	}
	if o.Value == "" {
		return known.code, nil, true
	}
	value, ok = known.form.bytes(o.Value)
	return known.code, value, ok && len(value) <= 255
}

func (f form) bytes(text string) ([]byte, bool) {
	number := func(bits int) (uint64, bool) {
		n, err := strconv.ParseUint(text, 0, bits)
		return n, err == nil
	}
	switch f {
	case asAddresses:
		var out []byte
		for one := range strings.SplitSeq(text, ",") {
			a, err := netip.ParseAddr(strings.TrimSpace(one))
			if err != nil || !a.Is4() {
				return nil, false
			}
			out = append(out, a.AsSlice()...)
		}
		return out, true
	case asByte:
		n, ok := number(8)
		return []byte{byte(n)}, ok
	case asShort:
		n, ok := number(16)
		return binary.BigEndian.AppendUint16(nil, uint16(n)), ok
	case asLong:
		n, ok := number(32)
		return binary.BigEndian.AppendUint32(nil, uint32(n)), ok
	case asFlag:
		b, err := strconv.ParseBool(text)
		return []byte{byte(slices.Index([]bool{false, true}, b))}, err == nil
	case asText:
	}
	return []byte(text), true
}

// told are the options of a port for its lease.
func (p *port) told() map[byte][]byte {
	var out map[byte][]byte
	for _, o := range p.Options {
		code, value, ok := o.wire()
		if !ok {
			continue
		}
		if out == nil {
			out = map[byte][]byte{}
		}
		out[code] = value
	}
	return out
}
