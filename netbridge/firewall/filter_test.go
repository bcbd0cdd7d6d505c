package firewall

import (
	"net/netip"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for want, r := range map[string]Rule{
		"":                                   {First: -1, Last: -1},
		"-s 10.0.0.0/8":                      {Ingress: true, First: -1, Last: -1, Remote: netip.MustParsePrefix("10.1.2.3/8")},
		"-d fd00::/8 -p 17":                  {IPv6: true, Protocol: 17, First: -1, Last: -1, Remote: netip.MustParsePrefix("fd00::/8")},
		"-p 6 -m multiport --dports 80":      {Protocol: 6, First: 80, Last: 80},
		"-p 132 -m multiport --dports 80:90": {Protocol: 132, First: 80, Last: 90},
		"-p 1 -m icmp --icmp-type 8":         {Protocol: 1, First: 8, Last: -1},
		"-p 1 -m icmp --icmp-type 8/0":       {Protocol: 1, First: 8, Last: 0},
		"-p 58 -m icmp6 --icmpv6-type 128":   {IPv6: true, Protocol: 58, First: 128, Last: -1},
		"-p 6 -m set --match-set g src":      {Ingress: true, Protocol: 6, First: -1, Last: -1, Set: "g"},
		"-m set --match-set g dst":           {First: -1, Last: -1, Set: "g"},
	} {
		if got := strings.Join(r.match(), " "); got != want {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
}

// TestOrderOfAPort: what a guest may always send, and what
// it never may, comes before its rules.
func TestOrderOfAPort(t *testing.T) {
	p := Port{ID: "0123456789abcdef", Device: "tap0123456789a", Rules: []Rule{{First: -1, Last: -1}}}
	text := Change{Dispatch: "d", All: []Port{p}, Fill: []Port{p}, Fresh: true}.packets(false, nil)
	var at []int
	for _, line := range []string{
		"-A d -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
		"-A d -m physdev --physdev-is-bridged --physdev-in tap0123456789a -j gantry-o-0123456789a",
		"-A gantry-i-0123456789a -m conntrack --ctstate INVALID -j DROP",
		"-A gantry-i-0123456789a -j DROP",
		"-A gantry-o-0123456789a -p udp --sport 67 --dport 68 -j DROP",
		"-A gantry-o-0123456789a -m conntrack --ctstate INVALID -j DROP",
		"-A gantry-o-0123456789a -j RETURN",
		"-A gantry-o-0123456789a -j DROP",
		"COMMIT",
	} {
		i := strings.Index(text, line+"\n")
		if i < 0 || len(at) > 0 && i < at[len(at)-1] {
			t.Errorf("%q is missing or out of order in\n%s", line, text)
		}
		at = append(at, i)
	}
}

func TestLinkLocal(t *testing.T) {
	if a, ok := linkLocal("fa:16:3e:01:02:03"); !ok || a != "fe80::f816:3eff:fe01:203" {
		t.Errorf("got %s, %v", a, ok)
	}
	if _, ok := linkLocal("no"); ok {
		t.Error("took no MAC")
	}
}
