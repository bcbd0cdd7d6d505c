package dns

import (
	"net/netip"
	"testing"
	"time"
)

func TestLimit(t *testing.T) {
	l := newLimit()
	start := time.Unix(1000, 0)
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	ask := func(a netip.Addr, n int, at time.Time) (passed int) {
		for range n {
			if l.enter(a, at) {
				passed++
				l.leave()
			}
		}
		return passed
	}
	if n := ask(one, 1000, start); n != mostAtATime {
		t.Errorf("%d at a time", n)
	}
	if n := ask(two, 10, start); n != 10 {
		t.Errorf("another one: %d", n)
	}
	if n := ask(one, 1000, start.Add(time.Second)); n != mostPerSecond {
		t.Errorf("%d in a second", n)
	}
	ask(two, 1, start.Add(time.Hour))
	if len(l.asked) != 1 {
		t.Errorf("remembers %v", l.asked)
	}
	for i := range mostAtOnce + 10 {
		if got := l.enter(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), start.Add(time.Hour)); got != (i < mostAtOnce) {
			t.Fatalf("%d at once: %v", i, got)
		}
	}
}
