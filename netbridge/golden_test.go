package netbridge_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/netbridgetest"
)

var update = flag.Bool("update", false, "rewrite testdata")

// The steps of a Set in typical situations, as text; testdata/steps.
func TestStepsGolden(t *testing.T) {
	two := func() netbridge.Plan { return netbridgetest.TwoPorts("owner", "/ns") }
	for name, c := range map[string]struct {
		before func(f *netbridge.Fake, set func(netbridge.Plan))
		plan   func() netbridge.Plan
	}{
		"fresh": {func(*netbridge.Fake, func(netbridge.Plan)) {}, two},
		"empty": {func(_ *netbridge.Fake, set func(netbridge.Plan)) { set(two()) }, func() netbridge.Plan {
			return netbridge.Plan{Owner: "owner"}
		}},
		"bridge-gone": {func(f *netbridge.Fake, set func(netbridge.Plan)) {
			set(two())
			f.DelLink("brqaaaaaaaa-01")
			f.DriftHost("tap11111111-aa")
		}, two},
		"limits": {func(_ *netbridge.Fake, set func(netbridge.Plan)) { set(two()) }, func() netbridge.Plan {
			return netbridgetest.Limited("owner", "/ns")
		}},
		"limits-removed": {func(_ *netbridge.Fake, set func(netbridge.Plan)) { set(netbridgetest.Limited("owner", "/ns")) }, two},
		"guest-drift": {func(f *netbridge.Fake, set func(netbridge.Plan)) {
			set(two())
			f.DriftGuest("/ns", "eth0")
			f.RenameGuest("/ns", "eth1", "evil0")
		}, two},
		"new-namespace": {func(f *netbridge.Fake, set func(netbridge.Plan)) { set(two()) }, func() netbridge.Plan {
			return netbridgetest.TwoPorts("owner", "/ns2")
		}},
		"port-and-address-removed": {func(_ *netbridge.Fake, set func(netbridge.Plan)) { set(two()) }, func() netbridge.Plan {
			p := two()
			p.Interfaces = p.Interfaces[:1]
			p.Interfaces[0].Addresses = []netip.Prefix{p.Interfaces[0].Addresses[1]}
			p.Interfaces[0].Routes = p.Interfaces[0].Routes[:1]
			return p
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := netbridge.NewFake()
			f.AddNetNS("/ns")
			f.AddNetNS("/ns2")
			set := func(p netbridge.Plan) {
				if err := f.Plugger().Set(t.Context(), p); err != nil {
					t.Fatal(err)
				}
			}
			c.before(f, set)
			f.Steps()
			set(c.plan())
			got := strings.Join(f.Steps(), "\n") + "\n"
			file := filepath.Join("testdata", "steps", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Fatalf("-want +got:\n%s", d)
			}
		})
	}
}
