package netbridge_test

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/netbridgetest"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// flood sends datagrams from a namespace, some kilobytes each, and returns how
// many bytes there were in them.
func flood(t *testing.T, from *os.File, to string, n int) int64 {
	t.Helper()
	var c net.Conn
	check(t, netns.Do(from, func() (err error) {
		c, err = (&net.Dialer{}).DialContext(t.Context(), "udp4", net.JoinHostPort(to, "9"))
		return err
	}))
	defer c.Close()
	block := make([]byte, 1300)
	for range n {
		_, _ = c.Write(block) // nobody listens there, and says so
	}
	return int64(n * len(block))
}

// TestLimitsHold: what two guests send each other through a bridge passes, or
// hardly, as the limits of either direction say. At 1,000 bytes per second what
// is sent here takes an hour, however slow the machine is.
func TestLimitsHold(t *testing.T) {
	h := newKernelHost(t)
	p := h.Plugger()
	const one, two = "11111111-aaaa-4bbb-8ccc-000000000001", "22222222-aaaa-4bbb-8ccc-000000000002"
	plans := map[string]*netbridge.Plan{}
	for id, address := range map[string]string{one: "10.1.0.1/24", two: "10.1.0.2/24"} {
		plans[id] = &netbridge.Plan{Owner: id, NetNS: h.netNS(t), Interfaces: []netbridge.Interface{
			netbridgetest.Port(id, "eth0", "brqaaaaaaaa-01", 1450, []string{address}, nil),
		}}
		check(t, p.Set(t.Context(), *plans[id]))
	}
	from := h.spaces[plans[one].NetNS]
	arrived := func() int64 {
		t.Helper()
		all, err := p.Stats(t.Context(), two)
		if err != nil || len(all) != 1 {
			t.Fatalf("stats: %+v, %v", all, err)
		}
		return all[0].RxBytes
	}
	// passes waits until more has come than any burst of the limits below.
	passes := func(what string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for before := arrived(); arrived() < before+1<<20; {
			if ctx.Err() != nil {
				t.Fatalf("%s: %d bytes arrived in a minute", what, arrived()-before)
			}
			flood(t, from, "10.1.0.2", 200)
		}
	}
	passes("without limits")
	slow := netbridge.Limit{Rate: 1000, Burst: 10_000}
	for what, limit := range map[string]struct {
		id string
		l  netbridge.Limits
	}{
		"outbound":                {one, netbridge.Limits{Outbound: slow}},
		"inbound":                 {two, netbridge.Limits{Inbound: slow}},
		"outbound, with a peak":   {one, netbridge.Limits{Outbound: netbridge.Limit{Rate: 1000, Peak: 2000, Burst: 10_000}}},
		"inbound, the other idle": {two, netbridge.Limits{Inbound: slow, Outbound: slow}},
	} {
		plan := *plans[limit.id]
		plan.Interfaces = []netbridge.Interface{plan.Interfaces[0]}
		plan.Interfaces[0].Limits = limit.l
		check(t, p.Set(t.Context(), plan))
		before := arrived()
		sent := flood(t, from, "10.1.0.2", 3000)
		if got := arrived() - before; got > sent/4 {
			t.Errorf("%s: %d of %d bytes arrived", what, got, sent)
		}
		check(t, p.Set(t.Context(), *plans[limit.id]))
		passes("after " + what)
	}
	// The way through a limit is one for all: neighbours are found, and answers come.
	plan := *plans[one]
	plan.Interfaces = []netbridge.Interface{plan.Interfaces[0]}
	plan.Interfaces[0].MAC = "fa:16:3e:00:00:77"
	plan.Interfaces[0].Limits.Outbound.Rate = 100_000_000
	check(t, p.Set(t.Context(), plan))
	passes("at a rate that is no obstacle")
}
