package netbridge_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/netbridgetest"
)

func TestFakeSuite(t *testing.T) {
	netbridgetest.Run(t, func(*testing.T) netbridgetest.Host { return netbridgetest.FakeHost() })
}

// Each step fails once: the error says so, the other interface is whole, a
// second Set mends all, and an empty plan leaves nothing.
func TestEachStepFails(t *testing.T) {
	probe := netbridge.NewFake()
	probe.AddNetNS("/ns")
	if err := probe.Plugger().Set(t.Context(), netbridgetest.TwoPorts("o", "/ns")); err != nil {
		t.Fatal(err)
	}
	want, whole := probe.Guest("/ns"), probe.Links()
	errBroken := errors.New("broken")
	for _, step := range probe.Steps() {
		t.Run(step, func(t *testing.T) {
			f := netbridge.NewFake()
			f.AddNetNS("/ns")
			p := f.Plugger()
			f.FailOn(func(s string) error {
				if s == step {
					return errBroken
				}
				return nil
			})
			err := p.Set(t.Context(), netbridgetest.TwoPorts("o", "/ns"))
			if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), step) {
				t.Fatalf("Set = %v", err)
			}
			f.FailOn(nil)
			if err := p.Set(t.Context(), netbridgetest.TwoPorts("o", "/ns")); err != nil {
				t.Fatal(err)
			}
			if got := f.Guest("/ns"); strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Fatalf("guest:\n%s", strings.Join(got, "\n"))
			}
			if got := f.Links(); strings.Join(got, "\n") != strings.Join(whole, "\n") {
				t.Fatalf("host:\n%s", strings.Join(got, "\n"))
			}
			if err := p.Set(t.Context(), netbridge.Plan{Owner: "o"}); err != nil {
				t.Fatal(err)
			}
			if got := f.Links(); len(got) != 2 {
				t.Fatalf("left: %v", got)
			}
		})
	}
}
