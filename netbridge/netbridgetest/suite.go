package netbridgetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge"
)

const (
	owner = "aaaaaaaa-1111-4222-8333-000000000001"
	other = "bbbbbbbb-1111-4222-8333-000000000002"

	tap1 = "tap11111111-aa"
	tap2 = "tap22222222-aa"
	brq1 = "brqaaaaaaaa-01"
	brq2 = "brqbbbbbbbb-02"
)

func wantHost(owner string) []string {
	return []string{
		brq1 + " bridge up mtu 1450",
		brq2 + " bridge up mtu 1440",
		tap1 + " veth up mtu 1450 master " + brq1 + " gantry:" + owner + ":11111111-aaaa-4bbb-8ccc-000000000001",
		tap2 + " veth up mtu 1440 master " + brq2 + " gantry:" + owner + ":22222222-aaaa-4bbb-8ccc-000000000002",
	}
}

func wantGuest() []string {
	return []string{
		"eth0 address 10.1.0.5/24",
		"eth0 address 10.1.0.6/24",
		"eth0 address fd00:1::5/64",
		"eth0 route 0.0.0.0/0 via 10.1.0.1 metric 100",
		"eth0 route 10.9.0.0/16 metric 100",
		"eth0 route 169.254.169.254/32 via 10.1.0.2 metric 100",
		"eth0 route ::/0 via fd00:1::1 metric 100",
		"eth0 up mtu 1450 fa:16:3e:00:00:01",
		"eth1 address 10.2.0.5/32",
		"eth1 route 0.0.0.0/0 via 10.99.0.1 metric 101",
		"eth1 up mtu 1440 fa:16:3e:00:00:02",
		"lo up",
	}
}

// Run runs the suite; newHost returns a separate host for each test.
func Run(t *testing.T, newHost func(t *testing.T) Host) {
	for _, c := range []struct {
		name string
		fn   func(t *testing.T, h Host)
	}{
		{"SetMakesAndEmptyRemoves", testSet},
		{"RepeatChangesNothing", testRepeat},
		{"Mends", testMends},
		{"GuestsOwnThingsStay", testGuestsOwn},
		{"PlanChanges", testPlanChanges},
		{"NewNamespace", testNewNamespace},
		{"LeftoversOfEarlierProcess", testLeftovers},
		{"ForeignUntouched", testForeign},
		{"Refused", testRefused},
		{"AttachNone", testAttachNone},
		{"Cancelled", testCancelled},
		{"Concurrent", testConcurrent},
		{"Stats", testStats},
		{"NamesStay", testNamesStay},
		{"MTUOfTheBridge", testBridgeMTU},
		{"Limits", testLimits},
	} {
		t.Run(c.name, func(t *testing.T) { c.fn(t, newHost(t)) })
	}
}

func set(t *testing.T, p netbridge.Plugger, plan netbridge.Plan) {
	t.Helper()
	if err := p.Set(t.Context(), plan); err != nil {
		t.Fatalf("Set: %v", err)
	}
}

func refuse(t *testing.T, p netbridge.Plugger, plan netbridge.Plan, class error) {
	t.Helper()
	if err := p.Set(t.Context(), plan); !errors.Is(err, class) {
		t.Fatalf("Set = %v, want %v", err, class)
	}
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func owners(t *testing.T, p netbridge.Plugger, want ...string) {
	t.Helper()
	got, err := p.Owners(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "owners", got, want)
}

func bridges() []string { return wantHost("")[:2] }

func testSet(t *testing.T, h Host) {
	p, ns := h.Plugger(), h.NetNS(t)
	owners(t, p)
	set(t, p, TwoPorts(owner, ns))
	equal(t, "host", h.Links(t), wantHost(owner))
	equal(t, "guest", h.Guest(t, ns), wantGuest())
	owners(t, p, owner)
	set(t, p, netbridge.Plan{Owner: owner})
	equal(t, "host after removal", h.Links(t), bridges())
	equal(t, "guest after removal", h.Guest(t, ns), []string{"lo up"})
	owners(t, p)
	set(t, p, netbridge.Plan{Owner: owner}) // absent is nil
	set(t, p, TwoPorts(owner, ns))
	h.DropNetNS(t, ns)
	equal(t, "host without namespace", h.Links(t), bridges())
	set(t, p, netbridge.Plan{Owner: owner, NetNS: ns})
}

func testRepeat(t *testing.T, h Host) {
	p, ns := h.Plugger(), h.NetNS(t)
	set(t, p, TwoPorts(owner, ns))
	if h.Changes() == 0 {
		t.Fatal("changes are not counted")
	}
	set(t, p, TwoPorts(owner, ns))
	set(t, h.Plugger(), TwoPorts(owner, ns))
	if n := h.Changes(); n != 0 {
		t.Fatalf("a repeated Set made %d changes", n)
	}
}

func testMends(t *testing.T, h Host) {
	p, ns := h.Plugger(), h.NetNS(t)
	for _, c := range []struct {
		name string
		harm func()
	}{
		{"bridge removed", func() { h.DelLink(t, brq1) }},
		{"host end removed", func() { h.DelLink(t, tap1) }},
		{"host end drifted", func() { h.DriftHost(t, tap2) }},
		{"guest end drifted", func() { h.DriftGuest(t, ns, "eth0") }},
		{"guest end renamed", func() { h.RenameGuest(t, ns, "eth0", "evil0") }},
		{"all of it", func() { h.DelLink(t, brq1); h.DelLink(t, tap1); h.DriftGuest(t, ns, "eth1"); h.DelLink(t, brq2) }},
	} {
		set(t, p, TwoPorts(owner, ns))
		c.harm()
		set(t, p, TwoPorts(owner, ns))
		equal(t, c.name+": host", h.Links(t), wantHost(owner))
		equal(t, c.name+": guest", h.Guest(t, ns), wantGuest())
		h.Changes()
		set(t, p, TwoPorts(owner, ns))
		if n := h.Changes(); n != 0 {
			t.Fatalf("%s: not whole, %d changes", c.name, n)
		}
	}
}

func testGuestsOwn(t *testing.T, h Host) {
	p, ns := h.Plugger(), h.NetNS(t)
	set(t, p, TwoPorts(owner, ns))
	h.AddGuestAddress(t, ns, "eth0", netip.MustParsePrefix("10.1.0.77/32"))
	h.AddGuestLink(t, ns, "own0")
	before := h.Guest(t, ns)
	h.Changes()
	set(t, p, TwoPorts(owner, ns))
	equal(t, "guest", h.Guest(t, ns), before)
	if n := h.Changes(); n != 0 {
		t.Fatalf("%d changes", n)
	}
	// A device of the guest's own that has our name is in the way, and stays.
	set(t, p, netbridge.Plan{Owner: owner})
	h.AddGuestLink(t, ns, "eth0")
	before = h.Guest(t, ns)
	refuse(t, p, TwoPorts(owner, ns), errdefs.ErrConflict)
	equal(t, "guest after conflict", h.Guest(t, ns), before)
	equal(t, "host after conflict", h.Links(t), bridges())
}

func testPlanChanges(t *testing.T, h Host) {
	p, ns := h.Plugger(), h.NetNS(t)
	plan := TwoPorts(owner, ns)
	set(t, p, plan)

	less := TwoPorts(owner, ns)
	less.Interfaces = less.Interfaces[:1]
	i := &less.Interfaces[0]
	i.Addresses = append(i.Addresses[1:], netip.MustParsePrefix("10.1.0.9/24")) // without the primary one
	i.Routes = slices.DeleteFunc(i.Routes, func(r netbridge.Route) bool { return r.To.Bits() == 16 })
	i.MTU, i.MAC, i.Bridge = 1400, "fa:16:3e:aa:bb:cc", brq2
	set(t, p, less)
	equal(t, "host", h.Links(t), append(bridges(),
		tap1+" veth up mtu 1400 master "+brq2+" gantry:"+owner+":"+i.ID))
	equal(t, "guest", h.Guest(t, ns), []string{
		"eth0 address 10.1.0.6/24",
		"eth0 address 10.1.0.9/24",
		"eth0 address fd00:1::5/64",
		"eth0 route 0.0.0.0/0 via 10.1.0.1 metric 100",
		"eth0 route 169.254.169.254/32 via 10.1.0.2 metric 100",
		"eth0 route ::/0 via fd00:1::1 metric 100",
		"eth0 up mtu 1400 fa:16:3e:aa:bb:cc",
		"lo up",
	})
	set(t, p, plan)
	equal(t, "guest again", h.Guest(t, ns), wantGuest())
}

func testNewNamespace(t *testing.T, h Host) {
	p, old, ns := h.Plugger(), h.NetNS(t), h.NetNS(t)
	set(t, p, TwoPorts(owner, old))
	set(t, p, TwoPorts(owner, ns))
	equal(t, "host", h.Links(t), wantHost(owner))
	equal(t, "guest", h.Guest(t, ns), wantGuest())
	equal(t, "old guest", h.Guest(t, old), []string{"lo up"})
}

func testLeftovers(t *testing.T, h Host) {
	ns, ns2 := h.NetNS(t), h.NetNS(t)
	set(t, h.Plugger(), TwoPorts(owner, ns))
	p := h.Plugger()
	owners(t, p, owner)
	// Another owner's port is in use: a conflict, and nothing changes.
	h.Changes()
	refuse(t, p, TwoPorts(other, ns2), errdefs.ErrConflict)
	if n := h.Changes(); n != 0 {
		t.Fatalf("%d changes", n)
	}
	set(t, p, netbridge.Plan{Owner: owner})
	equal(t, "host", h.Links(t), bridges())
	set(t, p, TwoPorts(other, ns2))
	one := TwoPorts(other, ns2)
	one.Interfaces = one.Interfaces[1:]
	one.Interfaces[0].GuestName = "eth0" // was the other one's name
	set(t, h.Plugger(), one)
	owners(t, p, other)
	equal(t, "guest", h.Guest(t, ns2), []string{
		"eth0 address 10.2.0.5/32",
		"eth0 route 0.0.0.0/0 via 10.99.0.1 metric 100",
		"eth0 up mtu 1440 fa:16:3e:00:00:02",
		"lo up",
	})
}

func testForeign(t *testing.T, h Host) {
	p, ns := h.Plugger(), h.NetNS(t)
	for _, l := range []struct{ name, kind string }{
		{"tap33333333-aa", "veth"}, {"brqcccccccc-03", "bridge"}, {"veth-foreign", "veth"}, {brq1, "bridge"},
	} {
		h.AddLink(t, l.name, l.kind)
	}
	h.SetAlias(t, "veth-foreign", "gantry-but-not-quite:"+owner+":x")
	before := h.Links(t)
	set(t, p, TwoPorts(owner, ns))
	owners(t, p, owner)
	set(t, h.Plugger(), netbridge.Plan{Owner: owner})
	after := slices.DeleteFunc(h.Links(t), func(s string) bool { return strings.HasPrefix(s, brq2) })
	equal(t, "host", after, before)

	// Our name in foreign hands is not taken away.
	h.AddLink(t, tap1, "veth")
	before = h.Links(t)
	refuse(t, p, TwoPorts(owner, ns), errdefs.ErrConflict)
	equal(t, "host after conflict", h.Links(t), before)
	// Nor is a host end that has lost its mark, neither by Set nor by removal.
	h.DelLink(t, tap1)
	set(t, p, TwoPorts(owner, ns))
	h.SetAlias(t, tap1, "somebody else")
	refuse(t, p, TwoPorts(owner, ns), errdefs.ErrConflict)
	set(t, p, netbridge.Plan{Owner: owner})
	if links := strings.Join(h.Links(t), "\n"); !strings.Contains(links, tap1) || strings.Contains(links, tap2) {
		t.Fatalf("after removal:\n%s", links)
	}
	// A device that is no bridge is none.
	h.DelLink(t, tap1)
	h.DelLink(t, brq2)
	h.AddLink(t, brq2, "veth")
	refuse(t, p, TwoPorts(owner, ns), errdefs.ErrConflict)
}

func testRefused(t *testing.T, h Host) {
	p := h.Plugger()
	refuse(t, p, TwoPorts(owner, "/nonexistent/netns"), errdefs.ErrNotFound)
	bad := TwoPorts(owner, h.NetNS(t))
	bad.Interfaces[1].MAC = "nonsense"
	refuse(t, p, bad, errdefs.ErrInvalid)
	equal(t, "host", h.Links(t), nil)
	if n := h.Changes(); n != 0 {
		t.Fatalf("%d changes", n)
	}
}

func testAttachNone(t *testing.T, h Host) {
	p, ns := h.Plugger(), h.NetNS(t)
	plan := TwoPorts(owner, ns)
	plan.Interfaces = plan.Interfaces[:1]
	plan.Interfaces[0].Attachment, plan.Interfaces[0].Bridge, plan.Interfaces[0].MTU = netbridge.AttachNone, "", 0
	set(t, p, plan)
	equal(t, "host", h.Links(t), []string{tap1 + " veth up mtu 1500 gantry:" + owner + ":" + plan.Interfaces[0].ID})
	h.Changes()
	set(t, p, plan)
	if n := h.Changes(); n != 0 {
		t.Fatalf("%d changes", n)
	}
}

func testCancelled(t *testing.T, h Host) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p, ns := h.Plugger(), h.NetNS(t)
	if err := p.Set(ctx, TwoPorts(owner, ns)); !errors.Is(err, context.Canceled) {
		t.Fatalf("Set = %v", err)
	}
	equal(t, "host", h.Links(t), nil)
}

func testConcurrent(t *testing.T, h Host) {
	p := h.Plugger()
	var wg sync.WaitGroup
	const n = 8
	plans := make([]netbridge.Plan, n)
	for k := range n {
		plans[k] = netbridge.Plan{Owner: fmt.Sprintf("owner-%d", k), NetNS: h.NetNS(t), Interfaces: []netbridge.Interface{
			Port(fmt.Sprintf("%d0000000-0000-4000-8000-0000000000%02d", k, k), "eth0", brq1, 1450, []string{"10.1.0.5/24"}, nil),
		}}
	}
	for round := range 3 {
		for _, plan := range plans {
			if round == 1 {
				plan.Interfaces = nil
			}
			for range 2 { // the same one twice at once
				wg.Go(func() {
					if err := p.Set(t.Context(), plan); err != nil {
						t.Errorf("Set: %v", err)
					}
				})
			}
		}
		wg.Wait()
		want := n + 1
		if round == 1 {
			want = 1
		}
		if l := h.Links(t); len(l) != want {
			t.Fatalf("round %d: %d links, want %d:\n%s", round, len(l), want, strings.Join(l, "\n"))
		}
	}
}

func testStats(t *testing.T, h Host) {
	p, ns := h.Plugger(), h.NetNS(t)
	set(t, p, TwoPorts(owner, ns))
	for _, p := range []netbridge.Plugger{p, h.Plugger()} {
		st, err := p.Stats(t.Context(), owner)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range st {
			got = append(got, s.ID+" "+s.MAC)
		}
		equal(t, "stats", got, []string{
			"11111111-aaaa-4bbb-8ccc-000000000001 fa:16:3e:00:00:01",
			"22222222-aaaa-4bbb-8ccc-000000000002 fa:16:3e:00:00:02",
		})
	}
	if st, err := p.Stats(t.Context(), other); err != nil || len(st) != 0 {
		t.Fatalf("stats of nobody: %v, %v", st, err)
	}
}
