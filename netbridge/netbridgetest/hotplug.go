package netbridgetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge"
)

// unnamed is a plan whose ports take the names that are free; each number is
// one port.
func unnamed(netns string, ports ...int) netbridge.Plan {
	p := netbridge.Plan{Owner: owner, NetNS: netns}
	for _, n := range ports {
		p.Interfaces = append(p.Interfaces, Port(fmt.Sprintf("%d1111111-aaaa-4bbb-8ccc-0000000000%d%d", n, n, n), "", brq1, 1450,
			[]string{fmt.Sprintf("10.1.%d.5/24", n)}, map[string]string{"0.0.0.0/0": fmt.Sprintf("10.1.%d.1", n)}))
	}
	return p
}

// wantDevices compares the names inside with the last byte of the MAC addresses.
func wantDevices(t *testing.T, h Host, ns string, want ...string) {
	t.Helper()
	var got []string
	for _, line := range h.Guest(t, ns) {
		if f := strings.Fields(line); len(f) == 5 && f[2] == "mtu" {
			got = append(got, f[0]+" "+f[4][len(f[4])-2:])
		}
	}
	slices.Sort(got)
	equal(t, "devices", got, want)
}

func testNamesStay(t *testing.T, h Host) {
	p, ns := h.Plugger(), h.NetNS(t)
	set(t, p, unnamed(ns, 1, 2, 3))
	wantDevices(t, h, ns, "eth0 11", "eth1 22", "eth2 33")

	// A port that goes leaves the names of the others alone, and what is
	// changed of them is no more than the rank of their routes.
	h.Changes()
	set(t, p, unnamed(ns, 2, 3))
	wantDevices(t, h, ns, "eth1 22", "eth2 33")
	if n := h.Changes(); n > 5 {
		t.Errorf("%d changes for one port that goes, want its removal and a new metric for two routes", n)
	}
	set(t, h.Plugger(), unnamed(ns, 2, 3))
	if n := h.Changes(); n != 0 {
		t.Errorf("%d changes by a process that starts anew", n)
	}

	// A name that is free is taken again, but not one of the guest's own.
	h.AddGuestLink(t, ns, "eth3")
	set(t, p, unnamed(ns, 2, 3, 4, 5))
	wantDevices(t, h, ns, "eth0 44", "eth1 22", "eth2 33", "eth3 "+ownMAC(t, h, ns, "eth3"), "eth4 55")

	// One port goes and another comes in one step.
	set(t, p, unnamed(ns, 6, 3, 4, 5))
	wantDevices(t, h, ns, "eth0 44", "eth1 66", "eth2 33", "eth3 "+ownMAC(t, h, ns, "eth3"), "eth4 55")

	// A name that the guest gave is no name of ours.
	h.RenameGuest(t, ns, "eth2", "evil0")
	set(t, p, unnamed(ns, 6, 3))
	wantDevices(t, h, ns, "eth0 33", "eth1 66", "eth3 "+ownMAC(t, h, ns, "eth3"))
	set(t, p, netbridge.Plan{Owner: owner})
}

// ownMAC is the last byte of the address of a device that the guest has made.
func ownMAC(t *testing.T, h Host, ns, name string) string {
	t.Helper()
	for _, line := range h.Guest(t, ns) {
		if f := strings.Fields(line); len(f) == 5 && f[0] == name {
			return f[4][len(f[4])-2:]
		}
	}
	return ""
}

func testBridgeMTU(t *testing.T, h Host) {
	p, ns := h.Plugger(), h.NetNS(t)
	h.AddLink(t, brq1, "bridge")
	h.AddLink(t, "uplink0", "veth")
	h.Enslave(t, "uplink0", brq1, 1400)
	before := h.Links(t)
	wide := unnamed(ns, 1)
	h.Changes()
	refuse(t, p, wide, errdefs.ErrInvalid)
	equal(t, "host", h.Links(t), before)
	if n := h.Changes(); n != 0 {
		t.Errorf("%d changes by a plan that was refused", n)
	}
	wide.Interfaces[0].MTU = 1400
	set(t, p, wide)
	// A bridge that nothing narrows is widened.
	h.DelLink(t, "uplink0")
	wide.Interfaces[0].MTU = 9000
	set(t, p, wide)
	if links := strings.Join(h.Links(t), "\n"); !strings.Contains(links, brq1+" bridge up mtu 9000") {
		t.Errorf("links:\n%s", links)
	}
}
