package firewall

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/netbridge/netns"
)

// Lost are connections that a port may have no more. What was let through once
// passes as long as the kernel knows of it, whatever the rules say now.
type Lost struct {
	// Zone is of the network, Address the port's.
	Zone    uint16
	Address netip.Addr
	// Rule is what let them through; nil: any, in both directions. Of a Set it
	// means everybody, unless Remote says whom.
	Rule *Rule
}

// Cut makes the kernel forget them: what belongs to them is looked at like a
// first packet. Those that another rule lets through go on.
func Cut(ns *os.File, lost []Lost) error {
	if len(lost) == 0 {
		return nil
	}
	return netns.Do(ns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("cut connections: %w", err)
		}
		defer h.Close()
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			var of filters
			for _, l := range lost {
				if l.Address.Is4() == (family == unix.AF_INET) {
					of = append(of, l)
				}
			}
			if len(of) == 0 {
				continue
			}
			if _, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, family, of); err != nil {
				return fmt.Errorf("cut connections: %w", err)
			}
		}
		return nil
	})
}

type filters []Lost

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f filters) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	for _, l := range f {
		if l.matches(flow) {
			return true
		}
	}
	return false
}

func (l Lost) matches(flow *netlink.ConntrackFlow) bool {
	if flow.Zone != l.Zone {
		return false
	}
	from, to := address(flow.Forward.SrcIP), address(flow.Forward.DstIP)
	r := l.Rule
	if r == nil {
		return from == l.Address || to == l.Address
	}
	own, other := from, to
	if r.Ingress {
		own, other = to, from
	}
	if own != l.Address || r.Remote.IsValid() && !r.Remote.Contains(other) || r.Protocol != 0 && r.Protocol != int(flow.Forward.Protocol) {
		return false
	}
	const tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP
	if r.First < 0 || r.Protocol != tcp && r.Protocol != udp {
		return true
	}
	return r.First <= int(flow.Forward.DstPort) && int(flow.Forward.DstPort) <= r.Last
}

func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
