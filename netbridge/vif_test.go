package netbridge

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestNames(t *testing.T) {
	const id = "70f0fe67-4d3c-4a55-9d1f-0123456789ab"
	for _, c := range []struct{ got, want string }{
		{TapName(id), "tap70f0fe67-4d"},
		{BridgeName(id), "brq70f0fe67-4d"},
		{pendingName(id), "gtp70f0fe67-4d"},
		{TapName("abc"), "tapabc"},
		{TapName(""), "tap"},
	} {
		if c.got != c.want || len(c.got) > MaxName {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	for name, want := range map[string]bool{
		"eth0": true, "123456789012345": true, "1234567890123456": false, "": false, ".": false, "..": false,
		"a/b": false, "a b": false, "a:b": false, "veth%d": false, "a\n": false, "ü": false,
	} {
		if got := validName(name); got != want {
			t.Errorf("validName(%q) = %v", name, got)
		}
	}
}

func FuzzParseMark(f *testing.F) {
	f.Add("gantry:owner:id")
	f.Add("gantry:")
	f.Add("gantry::id")
	f.Fuzz(func(t *testing.T, alias string) {
		owner, id, ok := parseMark(alias)
		if ok && mark(owner, id) != alias {
			t.Fatalf("%q is not the mark of %q, %q", alias, owner, id)
		}
	})
}

func good() Plan {
	return Plan{Owner: "o", NetNS: "/ns", Interfaces: []Interface{
		{
			ID: "port-1", HostName: "tapport-1", GuestName: "eth0", MAC: "fa:16:3e:00:00:01", MTU: 1450,
			Attachment: AttachBridge, Bridge: "brq1", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24")},
			Routes: []Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.0.0.1")}},
		},
		{ID: "port-2", HostName: "tapport-2", GuestName: "eth1", MAC: "fa:16:3e:00:00:02", Attachment: AttachNone},
	}}
}

func TestValidate(t *testing.T) {
	if err := Validate(good()); err != nil {
		t.Fatal(err)
	}
	if err := Validate(Plan{Owner: "o"}); err != nil {
		t.Fatal(err)
	}
	one := func(fn func(i *Interface)) func(*Plan) { return func(p *Plan) { fn(&p.Interfaces[0]) } }
	prefix := netip.MustParsePrefix
	for name, c := range map[string]struct {
		edit func(*Plan)
		want string
	}{
		"no owner":             {func(p *Plan) { p.Owner = "" }, "owner"},
		"owner with colon":     {func(p *Plan) { p.Owner = "a:b" }, "owner"},
		"no namespace":         {func(p *Plan) { p.NetNS = "" }, "namespace"},
		"no id":                {one(func(i *Interface) { i.ID = "" }), "id cannot be"},
		"id with slash":        {one(func(i *Interface) { i.ID = "../../x" }), "id cannot be"},
		"id twice":             {func(p *Plan) { p.Interfaces[1].ID = "port-1" }, `id "port-1" twice`},
		"host name long":       {one(func(i *Interface) { i.HostName = "tap1234567890123" }), "host name"},
		"host name twice":      {func(p *Plan) { p.Interfaces[1].HostName = "tapport-1" }, "twice"},
		"guest name twice":     {func(p *Plan) { p.Interfaces[1].GuestName = "eth0" }, "twice"},
		"guest name lo":        {one(func(i *Interface) { i.GuestName = "lo" }), "guest name"},
		"mac nonsense":         {one(func(i *Interface) { i.MAC = "x" }), "mac"},
		"mac multicast":        {one(func(i *Interface) { i.MAC = "01:00:5e:00:00:01" }), "unicast"},
		"mac zero":             {one(func(i *Interface) { i.MAC = "00:00:00:00:00:00" }), "unicast"},
		"mac eight bytes":      {one(func(i *Interface) { i.MAC = "02:00:5e:10:00:00:00:01" }), "Ethernet"},
		"mac twice":            {func(p *Plan) { p.Interfaces[1].MAC = "FA:16:3E:00:00:01" }, "twice"},
		"mtu small":            {one(func(i *Interface) { i.MTU = 67 }), "mtu"},
		"mtu large":            {one(func(i *Interface) { i.MTU = 65536 }), "mtu"},
		"mtu negative":         {one(func(i *Interface) { i.MTU = -1 }), "mtu"},
		"mtu small for v6":     {one(func(i *Interface) { i.MTU, i.Addresses = 1279, []netip.Prefix{prefix("fd00::5/64")} }), "too small"},
		"no bridge":            {one(func(i *Interface) { i.Bridge = "" }), "bridge"},
		"bridge not wanted":    {func(p *Plan) { p.Interfaces[1].Bridge = "brq1" }, "without attachment"},
		"bridge is host end":   {one(func(i *Interface) { i.Bridge = "tapport-2" }), "name of a host end"},
		"attachment unknown":   {one(func(i *Interface) { i.Attachment = "sriov" }), "attachment"},
		"ovs without a switch": {one(func(i *Interface) { i.Attachment, i.Bridge = AttachOVS, "" }), "open vswitch"},
		"address zero":         {one(func(i *Interface) { i.Addresses = []netip.Prefix{{}} }), "address"},
		"address loopback":     {one(func(i *Interface) { i.Addresses = []netip.Prefix{prefix("127.0.0.1/8")} }), "host's"},
		"address multicast":    {one(func(i *Interface) { i.Addresses = []netip.Prefix{prefix("ff02::1/64")} }), "host's"},
		"address mapped":       {one(func(i *Interface) { i.Addresses = []netip.Prefix{prefix("::ffff:10.0.0.1/128")} }), "valid"},
		"address twice":        {func(p *Plan) { p.Interfaces[1].Addresses = []netip.Prefix{prefix("10.0.0.5/16")} }, "twice"},
		"route unmasked":       {one(func(i *Interface) { i.Routes = []Route{{To: prefix("10.0.0.1/8")}} }), "not a network"},
		"route zero":           {one(func(i *Interface) { i.Routes = []Route{{}} }), "not a network"},
		"route families":       {one(func(i *Interface) { i.Routes[0].Via = netip.MustParseAddr("fd00::1") }), "gateway"},
		"route to nowhere":     {one(func(i *Interface) { i.Routes[0].Via = netip.IPv4Unspecified() }), "gateway"},
		"route twice":          {one(func(i *Interface) { i.Routes = append(i.Routes, i.Routes[0]) }), "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			p := good()
			c.edit(&p)
			err := Validate(p)
			if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Validate = %v, want a text with %q", err, c.want)
			}
		})
	}
}
