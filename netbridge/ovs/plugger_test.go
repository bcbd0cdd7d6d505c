package ovs_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/netbridgetest"
	"github.com/gantry-project/gantry/netbridge/ovs"
	"github.com/gantry-project/gantry/netbridge/ovs/ovstest"
)

// wrapped is a fake host whose Pluggers know the switch.
type wrapped struct {
	netbridgetest.Host

	t testing.TB
	o ovs.Options
}

func (h wrapped) Plugger() netbridge.Plugger { return newPlugger(h.t, h.Host.Plugger(), h.o) }

func newPlugger(t testing.TB, inner netbridge.Plugger, o ovs.Options) netbridge.Plugger {
	t.Helper()
	p, err := ovs.New(inner, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestSuite: without ports of a switch all is as before, and no database is
// asked.
func TestSuite(t *testing.T) {
	netbridgetest.Run(t, func(t *testing.T) netbridgetest.Host {
		return wrapped{netbridgetest.FakeHost(), t, ovs.Options{Connection: "unix:" + t.TempDir() + "/none", Dir: t.TempDir()}}
	})
}

const (
	owner  = "the-owner"
	portID = "11111111-aaaa-4bbb-8ccc-000000000001"
	tap    = "tap11111111-aa"
)

// plan has one port of the switch, and one of a Linux bridge.
func plan(netns string) netbridge.Plan {
	p := netbridgetest.TwoPorts(owner, netns)
	i := &p.Interfaces[0]
	i.Attachment, i.Bridge, i.OVS = netbridge.AttachOVS, "", &netbridge.OVS{Bridge: "br-int", InterfaceID: portID}
	return p
}

func TestSet(t *testing.T) {
	s, fake := ovstest.New(t), netbridge.NewFake()
	fake.AddNetNS("/ns")
	o := ovs.Options{Connection: s.Connection, Dir: t.TempDir(), Timeout: time.Minute}
	p := newPlugger(t, fake.Plugger(), o)
	want := []string{"br-int br-int", "br-int " + tap + " attached-mac=fa:16:3e:00:00:01 iface-id=" + portID + " iface-status=active vm-uuid=" + owner}
	for range 2 {
		if err := p.Set(t.Context(), plan("/ns")); err != nil {
			t.Fatal(err)
		}
		if got := s.Ports(); !slices.Equal(got, want) {
			t.Fatalf("the switch has %q, want %q", got, want)
		}
	}
	if got := strings.Join(fake.Links(), "\n"); !strings.Contains(got, tap) {
		t.Fatalf("no device %s in\n%s", tap, got)
	}
	// one goes, by a process that knows nothing of it but the record
	less := plan("/ns")
	less.Interfaces = less.Interfaces[1:]
	less.Interfaces[0].GuestName = "eth1"
	if err := newPlugger(t, fake.Plugger(), o).Set(t.Context(), less); err != nil {
		t.Fatal(err)
	}
	if got := s.Ports(); !slices.Equal(got, want[:1]) {
		t.Fatalf("the switch has %q", got)
	}
	asked := s.Asked()
	if err := p.Set(t.Context(), netbridge.Plan{Owner: owner}); err != nil {
		t.Fatal(err)
	}
	if s.Asked() != asked {
		t.Error("an instance without ports of the switch asks its database")
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("records are left: %v, %v", left, err)
	}
}

func TestSilentDatabase(t *testing.T) {
	s, fake := ovstest.New(t), netbridge.NewFake()
	fake.AddNetNS("/ns")
	o := ovs.Options{Connection: s.Connection, Dir: t.TempDir(), Timeout: 50 * time.Millisecond}
	p := newPlugger(t, fake.Plugger(), o)
	s.Silent = true
	err := p.Set(t.Context(), plan("/ns"))
	if text := errdefs.PublicText(err, ""); !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(text, "Open vSwitch database") {
		t.Errorf("%v, to the tenant %q", err, text)
	}
	if steps := fake.Steps(); len(steps) > 0 {
		t.Errorf("it has changed %q", steps)
	}
	// what leads back needs no database, nor do others
	if err := p.Set(t.Context(), netbridge.Plan{Owner: owner}); err != nil {
		t.Error(err)
	}
	if err := p.Set(t.Context(), netbridgetest.TwoPorts("another", "/ns")); err != nil {
		t.Error(err)
	}
}

// TestRemovalIsMadeUpFor: a port that could not be removed is with the next try.
func TestRemovalIsMadeUpFor(t *testing.T) {
	s, fake := ovstest.New(t), netbridge.NewFake()
	fake.AddNetNS("/ns")
	o := ovs.Options{Connection: s.Connection, Dir: t.TempDir(), Timeout: time.Minute}
	if err := newPlugger(t, fake.Plugger(), o).Set(t.Context(), plan("/ns")); err != nil {
		t.Fatal(err)
	}
	gone := o
	gone.Connection = "unix:" + t.TempDir() + "/none"
	if err := newPlugger(t, fake.Plugger(), gone).Set(t.Context(), netbridge.Plan{Owner: owner}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatal(err)
	}
	if got := strings.Join(fake.Links(), "\n"); strings.Contains(got, tap) {
		t.Errorf("devices are left:\n%s", got)
	}
	if err := newPlugger(t, fake.Plugger(), o).Set(t.Context(), netbridge.Plan{Owner: owner}); err != nil {
		t.Fatal(err)
	}
	if got := s.Ports(); !slices.Equal(got, []string{"br-int br-int"}) {
		t.Errorf("the switch has %q", got)
	}
}

func TestBadInput(t *testing.T) {
	fake := netbridge.NewFake()
	fake.AddNetNS("/ns")
	if _, err := ovs.New(fake.Plugger(), ovs.Options{Connection: "ssl:1.2.3.4:6640", Dir: t.TempDir()}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Error(err)
	}
	p := newPlugger(t, fake.Plugger(), ovs.Options{Connection: "unix:/none", Dir: t.TempDir()})
	for name, breakIt := range map[string]func(i *netbridge.Interface){
		"no switch": func(i *netbridge.Interface) { i.OVS = nil },
		"no bridge": func(i *netbridge.Interface) { i.OVS.Bridge = "" },
		"no id":     func(i *netbridge.Interface) { i.OVS.InterfaceID = "" },
		"no MAC":    func(i *netbridge.Interface) { i.MAC = "" },
	} {
		bad := plan("/ns")
		breakIt(&bad.Interfaces[0])
		if err := p.Set(t.Context(), bad); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := fake.Plugger().Set(t.Context(), plan("/ns")); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a Plugger that knows no switch: %v", err)
	}
}
