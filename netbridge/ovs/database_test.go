package ovs

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/ovs/ovstest"
)

func connect(t *testing.T, connection string) *client {
	t.Helper()
	network, address, err := parseConnection(connection)
	if err != nil {
		t.Fatal(err)
	}
	return &client{network: network, address: address, timeout: time.Minute}
}

func TestConnections(t *testing.T) {
	for in, want := range map[string]string{
		"tcp:127.0.0.1:6640": "tcp 127.0.0.1:6640", "tcp:[::1]:6640": "tcp [::1]:6640", "unix:/run/openvswitch/db.sock": "unix /run/openvswitch/db.sock",
		"ssl:127.0.0.1:6640": "", "tcp:6640": "", "unix:": "", "": "", "tcp::6640": "",
	} {
		network, address, err := parseConnection(in)
		if want == "" && !errors.Is(err, errdefs.ErrInvalid) || want != "" && network+" "+address != want {
			t.Errorf("%q: %s %s, %v", in, network, address, err)
		}
	}
}

const ids = " attached-mac=fa:16:3e:00:00:01 iface-id=the-port iface-status=active vm-uuid=the-owner"

var one = port{Name: "tapone", Bridge: "br-int", Datapath: "system", InterfaceID: "the-port", MAC: "fa:16:3e:00:00:01", Owner: "the-owner"}

func TestPorts(t *testing.T) {
	s := ovstest.New(t)
	c := connect(t, s.Connection)
	look := func(want ...string) {
		t.Helper()
		if got := s.Ports(); !slices.Equal(got, want) {
			t.Fatalf("the switch has %q, want %q", got, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.ensure(t.Context(), one, false))
	look("br-int br-int", "br-int tapone"+ids)
	must(c.ensure(t.Context(), one, true)) // a tag that an agent has set stays
	look("br-int br-int", "br-int tapone"+ids)

	changed := one
	changed.Owner = "another"
	must(c.ensure(t.Context(), changed, false))
	must(c.ensure(t.Context(), one, false))
	two := one
	two.Name, two.Bridge = "taptwo", "tbr-1"
	must(c.ensure(t.Context(), two, true))
	look("br-int br-int", "br-int tapone"+ids, "tbr-1 taptwo tag=4095"+ids, "tbr-1 tbr-1")

	moved := one
	moved.Bridge = "tbr-1"
	if err := c.ensure(t.Context(), moved, false); !errors.Is(err, errdefs.ErrConflict) {
		t.Fatalf("a port of another bridge: %v", err)
	}
	must(c.remove(t.Context(), "taptwo"))
	look("br-int br-int", "br-int tapone"+ids) // a trunk's bridge is gone
	must(c.remove(t.Context(), "taptwo"))
	must(c.remove(t.Context(), "tapone"))
	look("br-int br-int")
}

// TestSomebodyIsFaster: a bridge or a port that came between the look and the
// change is found at the second look.
func TestSomebodyIsFaster(t *testing.T) {
	s := ovstest.New(t)
	c := connect(t, s.Connection)
	s.Between(func() {
		ops := []map[string]any{}
		for _, o := range addBridge("br-int", "system") {
			ops = append(ops, o)
		}
		s.Do(ops...)
	})
	if err := c.ensure(t.Context(), one, false); err != nil {
		t.Fatal(err)
	}
	s.Between(func() {
		if err := connect(t, s.Connection).remove(t.Context(), one.Name); err != nil {
			t.Error(err)
		}
	})
	if err := c.ensure(t.Context(), one, false); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Ports(), []string{"br-int br-int", "br-int tapone" + ids}; !slices.Equal(got, want) {
		t.Fatalf("the switch has %q", got)
	}
}

func TestBadAnswers(t *testing.T) {
	for answer, class := range map[string]error{
		`{"id":0,"result":[{"rows":[]},{"error":"constraint violation","details":"x"}],"error":null}`: errdefs.ErrConflict,
		`{"id":0,"result":null,"error":"unknown database"}`:                                           errdefs.ErrConflict,
		`{"id":0,"result":[{"rows":[]}],"error":null}`:                                                errdefs.ErrCorrupt,
		`{"id":0,"result":[],"error":null}`:                                                           errdefs.ErrCorrupt,
		`{"id":0,"result":{},"error":null}`:                                                           errdefs.ErrCorrupt,
		`{"id":0,"result":[null,null],"error":null}`:                                                  errdefs.ErrCorrupt,
		`]`: errdefs.ErrCorrupt,
	} {
		s := ovstest.New(t)
		s.Answer = answer
		if err := connect(t, s.Connection).ensure(t.Context(), one, false); !errors.Is(err, class) {
			t.Errorf("%s: %v, want %v", answer, err, class)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	s := ovstest.New(t)
	s.Silent = true
	c := connect(t, s.Connection)
	c.timeout = time.Millisecond
	if _, err := c.datapaths(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a silent database: %v", err)
	}
	if _, err := connect(t, "unix:"+t.TempDir()+"/none").datapaths(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("no database: %v", err)
	}
}

func FuzzOutcome(f *testing.F) {
	f.Add([]byte(`[{"rows":[{"_uuid":["uuid","a"],"ports":["set",[["uuid","b"]]]}]},{"error":"timed out"}]`), 2)
	f.Add([]byte(`[null,{},{"rows":[{"name":1,"_uuid":[]}]}]`), 1)
	f.Fuzz(func(t *testing.T, text []byte, n int) {
		got, err := outcome(text, n&7)
		if err != nil {
			return
		}
		if len(got) < n&7 {
			t.Fatal("too few results")
		}
		for _, r := range got {
			for _, one := range r.Rows {
				holds(one["ports"], uuidOf(one["_uuid"]))
			}
		}
	})
}
