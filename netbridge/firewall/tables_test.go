package firewall

import (
	"testing"

	"github.com/gantry-project/gantry/netbridge/netns"
)

func TestProbe(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := Probe(ns); err != nil {
		t.Fatal(err)
	}
}
