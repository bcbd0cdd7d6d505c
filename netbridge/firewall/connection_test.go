package firewall

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestLost(t *testing.T) {
	flow := func(zone uint16, from, to string, protocol uint8, port uint16) *netlink.ConntrackFlow {
		return &netlink.ConntrackFlow{Zone: zone, Forward: netlink.IPTuple{SrcIP: net.ParseIP(from), DstIP: net.ParseIP(to), Protocol: protocol, SrcPort: 4444, DstPort: port}}
	}
	own := netip.MustParseAddr("10.0.0.5")
	web := &Rule{Ingress: true, Protocol: 6, First: 80, Last: 90, Remote: netip.MustParsePrefix("10.0.0.0/28")}
	for name, c := range map[string]struct {
		lost Lost
		flow *netlink.ConntrackFlow
		want bool
	}{
		"any, in":         {Lost{Zone: 1, Address: own}, flow(1, "10.0.0.6", "10.0.0.5", 6, 80), true},
		"any, out":        {Lost{Zone: 1, Address: own}, flow(1, "10.0.0.5", "10.0.0.6", 6, 80), true},
		"any, of others":  {Lost{Zone: 1, Address: own}, flow(1, "10.0.0.7", "10.0.0.6", 6, 80), false},
		"another network": {Lost{Zone: 1, Address: own}, flow(2, "10.0.0.6", "10.0.0.5", 6, 80), false},
		"rule":            {Lost{Zone: 1, Address: own, Rule: web}, flow(1, "10.0.0.6", "10.0.0.5", 6, 85), true},
		"the other way":   {Lost{Zone: 1, Address: own, Rule: web}, flow(1, "10.0.0.5", "10.0.0.6", 6, 85), false},
		"another port":    {Lost{Zone: 1, Address: own, Rule: web}, flow(1, "10.0.0.6", "10.0.0.5", 6, 91), false},
		"another remote":  {Lost{Zone: 1, Address: own, Rule: web}, flow(1, "10.0.0.66", "10.0.0.5", 6, 85), false},
		"another kind":    {Lost{Zone: 1, Address: own, Rule: web}, flow(1, "10.0.0.6", "10.0.0.5", 17, 85), false},
		"icmp":            {Lost{Zone: 1, Address: own, Rule: &Rule{Protocol: 1, First: 8, Last: -1}}, flow(1, "10.0.0.5", "10.0.0.6", 1, 0), true},
		"any protocol":    {Lost{Zone: 1, Address: own, Rule: &Rule{First: -1, Last: -1}}, flow(1, "10.0.0.5", "10.0.0.6", 132, 9), true},
	} {
		if got := (filters{c.lost}).MatchConntrackFlow(c.flow); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
