package netbridgetest

import (
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge"
)

// Limited is TwoPorts with limits in both directions on the first one, and of
// what comes to the guest on the second.
func Limited(owner, netns string) netbridge.Plan {
	p := TwoPorts(owner, netns)
	p.Interfaces[0].Limits = netbridge.Limits{
		Inbound:  netbridge.Limit{Rate: 1_000_000, Peak: 2_000_000, Burst: 1 << 20},
		Outbound: netbridge.Limit{Rate: 500_000},
	}
	p.Interfaces[1].Limits.Inbound.Rate = 7
	return p
}

func testLimits(t *testing.T, h Host) {
	p, ns := h.Plugger(), h.NetNS(t)
	limited := append([]string{"gtl11111111-aa ifb up mtu 1500 gantry:" + owner + ":11111111-aaaa-4bbb-8ccc-000000000001"}, wantHost(owner)...)
	// sorted as h.Links sorts
	limited = append(append(limited[1:3:3], limited[0]), limited[3:]...)
	repeat := func(what string, plan netbridge.Plan, want []string) {
		t.Helper()
		set(t, p, plan)
		equal(t, what, h.Links(t), want)
		h.Changes()
		set(t, p, plan)
		if n := h.Changes(); n != 0 {
			t.Fatalf("%s: %d changes by the same plan", what, n)
		}
	}
	repeat("limits of a new interface", Limited(owner, ns), limited)
	owners(t, p, owner)
	stats, err := p.Stats(t.Context(), owner)
	if err != nil || len(stats) != 2 {
		t.Fatalf("stats: %+v, %v", stats, err)
	}
	for what, change := range map[string]func(*netbridge.Interface){
		"another rate inbound":   func(i *netbridge.Interface) { i.Limits.Inbound.Rate++ },
		"another peak inbound":   func(i *netbridge.Interface) { i.Limits.Inbound.Peak = 0 },
		"another burst outbound": func(i *netbridge.Interface) { i.Limits.Outbound.Burst = 200_000 },
	} {
		plan := Limited(owner, ns)
		change(&plan.Interfaces[0])
		repeat(what, plan, limited)
	}
	repeat("back", Limited(owner, ns), limited)
	h.DelLink(t, "gtl11111111-aa")
	repeat("the device was taken away", Limited(owner, ns), limited)
	h.DelLink(t, tap1)
	p = h.Plugger() // another process
	repeat("the host end was taken away", Limited(owner, ns), limited)
	repeat("without limits", TwoPorts(owner, ns), wantHost(owner))
	p = h.Plugger()
	repeat("limits of what is there", Limited(owner, ns), limited)
	p = h.Plugger()
	set(t, p, netbridge.Plan{Owner: owner})
	equal(t, "after the last port", h.Links(t), bridges())
	owners(t, p)

	h.AddLink(t, "gtl11111111-aa", "bridge")
	refuse(t, p, Limited(owner, ns), errdefs.ErrConflict)
	set(t, p, netbridge.Plan{Owner: owner})
	if links := strings.Join(h.Links(t), "\n"); !strings.Contains(links, "gtl11111111-aa bridge") {
		t.Errorf("a foreign device is gone: %s", links)
	}
	for _, bad := range []netbridge.Limit{
		{Rate: -1}, {Peak: 1}, {Burst: 1}, {Rate: 2, Peak: 1}, {Rate: 2, Peak: 2}, {Rate: 1 << 32}, {Rate: 1, Peak: 1 << 32}, {Rate: 1, Burst: 1 << 40},
	} {
		plan := TwoPorts(owner, ns)
		plan.Interfaces[0].Limits.Outbound = bad
		refuse(t, p, plan, errdefs.ErrInvalid)
	}
}
