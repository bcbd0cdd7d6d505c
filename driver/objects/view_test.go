package objects

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestViewRefusesOthers(t *testing.T) {
	var i Instance
	if err := json.Unmarshal([]byte(serviceText), &i); !errors.Is(err, errdefs.ErrInvalid) || i.Object != nil {
		t.Errorf("a service became an instance: %v", err)
	}
	newer := strings.Replace(serviceText, `"1.22"`, `"2.0"`, 1)
	var s Service
	err := json.Unmarshal([]byte(newer), &s)
	if ve, ok := errors.AsType[*VersionError](err); !ok || ve.Object.String("host") != "cmp1" {
		t.Errorf("another major: %v", err)
	}
	if err := json.Unmarshal([]byte("null"), &s); err != nil || s.Object != nil {
		t.Errorf("null: %v", err)
	}
	if err := json.Unmarshal([]byte(`{"a":1}`), &s); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("no object: %v", err)
	}
	if _, err := AsInstance(nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("nil: %v", err)
	}
}

func TestViewMarshalsAsObject(t *testing.T) {
	s := NewService("cmp1", "nova-compute", "compute", 64)
	for _, v := range []any{s, &s, s.Object} {
		raw, err := json.Marshal(map[string]any{"objinst": v})
		if err != nil {
			t.Fatal(err)
		}
		const want = `{"objinst":{"nova_object.changes":["binary","host","report_count","topic","version"],` +
			`"nova_object.data":{"binary":"nova-compute","host":"cmp1","report_count":0,"topic":"compute","version":64},` +
			`"nova_object.name":"Service","nova_object.namespace":"nova","nova_object.version":"1.22"}}`
		if string(raw) != want {
			t.Errorf("%s", raw)
		}
	}
	if raw, err := json.Marshal(Service{}); err != nil || string(raw) != "null" {
		t.Errorf("absent view: %s %v", raw, err)
	}
}

func TestAbsentViewReadsEmpty(t *testing.T) {
	var i Instance
	if i.UUID() != "" || i.Flavor().MemoryMB() != 0 || len(i.Metadata()) != 0 || i.Has("id") || i.KeyPairs() != nil {
		t.Error("an absent instance has fields")
	}
	if info, err := i.NetworkInfo(); info != nil || err != nil {
		t.Error(info, err)
	}
	if (InstanceList{}).All() != nil || (Migration{}).Status() != "" || !i.LaunchedAt().IsZero() {
		t.Error("absent views have content")
	}
}

func TestSystemMetadataIsWhole(t *testing.T) {
	i := NewInstance()
	if err := i.PutSystemMetadata("a", "b"); !errors.Is(err, errdefs.ErrConflict) || i.Has("system_metadata") {
		t.Fatalf("a map that is not loaded was replaced: %v", err)
	}
	i.SetClean("system_metadata", map[string]any{"image_min_ram": "0", "none": nil})
	if err := i.PutSystemMetadata("boot_roles", "member"); err != nil {
		t.Fatal(err)
	}
	if err := i.DropSystemMetadata("image_min_ram"); err != nil {
		t.Fatal(err)
	}
	raw, _ := json.Marshal(i.Get("system_metadata"))
	if string(raw) != `{"boot_roles":"member","none":null}` || len(i.Changes()) != 1 {
		t.Errorf("%s %v", raw, i.Changes())
	}
}

func TestHostOfInstance(t *testing.T) {
	i := NewInstance()
	i.SetHost("cmp1", "node1")
	if i.Host() != "cmp1" || i.Node() != "node1" || i.LaunchedOn() != "cmp1" {
		t.Error("host")
	}
	i.ClearHost()
	if i.Host() != "" || !i.Has("node") || !i.Has("availability_zone") {
		t.Error("clear")
	}
}

func TestFaultMessageIsCut(t *testing.T) {
	f := NewInstanceFault("u", "h", 500, strings.Repeat("a", 254)+"ä", "details")
	if m := f.Message(); len(m) != 254 || strings.Contains(m, "\ufffd") {
		t.Errorf("%d bytes", len(m))
	}
}

func TestDiagnosticsFollowSchema(t *testing.T) {
	d := NewDiagnostics(DiagnosticsData{State: "running", CPUNanoseconds: []int64{1}, NICs: []NICData{{MAC: "aa"}}})
	eachObject(d.Object, func(o *Object) {
		s, _ := Lookup(o.Name)
		if len(s.Fields) != len(o.Fields()) {
			t.Errorf("%s: %d fields of %d", o.Name, len(o.Fields()), len(s.Fields))
		}
		for _, name := range o.Fields() {
			if f, ok := s.Field(name); !ok || !fits(f, o.Get(name)) {
				t.Errorf("%s.%s: %v", o.Name, name, o.Get(name))
			}
		}
	})
}

func TestMaxServerPerHost(t *testing.T) {
	for rule, want := range map[string]int{"": 1, "3": 3, "x": 1, "-2": 1, "0": 1} {
		g := InstanceGroup{New("InstanceGroup")}
		g.Set("_rules", map[string]string{"max_server_per_host": rule})
		if g.MaxServerPerHost() != want {
			t.Errorf("%q: %d", rule, g.MaxServerPerHost())
		}
	}
	spec := RequestSpec{New("RequestSpec")}
	spec.Set("scheduler_hints", map[string]any{"group": []string{"g1"}})
	if h := spec.GroupHints(); len(h) != 1 || h[0] != "g1" {
		t.Error(h)
	}
}

func TestNetworkRequests(t *testing.T) {
	for id, want := range map[string][2]bool{"none": {true, false}, "auto": {false, true}, "n1": {false, false}} {
		r := New("NetworkRequest")
		r.Set("network_id", id)
		l := NetworkRequestList{listOf("NetworkRequestList", []*Object{r})}
		if l.NoAllocate() != want[0] || l.AutoAllocate() != want[1] {
			t.Errorf("%s: %v %v", id, l.NoAllocate(), l.AutoAllocate())
		}
	}
}

// TestNetworkInfoKeepsKeys covers forms that the captures lack: IPv6, routes,
// floating addresses, no gateway, nulls.
func TestNetworkInfoKeepsKeys(t *testing.T) {
	const text = `[{"id":"p","address":"fa:16:3e:aa:bb:cc","network":{"id":"n","bridge":null,"label":"l","subnets":[` +
		`{"cidr":"fd00::/64","dns":[],"gateway":{"address":null,"type":"gateway","version":null,"meta":{}},` +
		`"ips":[{"address":"fd00::5","type":"fixed","version":6,"meta":{},"floating_ips":[],"label":"l","vif_mac":"m"}],` +
		`"routes":[{"cidr":"fd01::/64","gateway":{"address":"fd00::1","type":"gateway","version":6,"meta":{}},"interface":null,"meta":{}}],` +
		`"version":6,"meta":{"ipv6_address_mode":"slaac","dhcp_server":"fd00::2"}},` +
		`{"cidr":"10.0.0.0/24","dns":[{"address":"192.0.2.53","type":"dns","version":4,"meta":{}}],"gateway":null,` +
		`"ips":[{"address":"10.0.0.5","type":"fixed","version":4,"meta":{},"floating_ips":[{"address":"192.0.2.9","type":"floating","version":4,"meta":{}}]}],` +
		`"routes":[],"version":4,"meta":{}}],"meta":{"injected":false,"tenant_id":"p1","mtu":1442,"physical_network":"physnet1","tunneled":true}},` +
		`"type":"ovs","details":{"port_filter":true},"devname":"tapp","ovs_interfaceid":"p","qbh_params":null,"qbg_params":null,` +
		`"active":false,"vnic_type":"normal","profile":{"a":1},"preserve_on_delete":true,"delegate_create":true,"meta":{}}]`
	info, err := ParseNetworkInfo(text)
	if err != nil {
		t.Fatal(err)
	}
	got, want := canonical(t, []byte(info.Text())), canonical(t, []byte(text))
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(got)
	if string(a) != string(b) {
		t.Errorf("\nwant %s\ngot  %s", a, b)
	}
	if made := (NetworkInfo{{ID: "p"}}).Text(); !strings.Contains(made, `"profile":{}`) || !strings.Contains(made, `"meta":{}}]`) {
		t.Errorf("conductor fails on a null there: %s", made)
	}
	if NetworkInfo(nil).Text() != "[]" {
		t.Error("no network has text")
	}
	if _, err := ParseNetworkInfo("{"); !errors.Is(err, errdefs.ErrInvalid) {
		t.Error(err)
	}
}

func FuzzParseNetworkInfo(f *testing.F) {
	f.Add(`[{"id":"p","network":{"subnets":[{"cidr":"10.0.0.0/24","gateway":null}]}}]`)
	f.Add(`[{"details":null,"profile":1,"meta":[]}]`)
	f.Fuzz(func(t *testing.T, text string) {
		info, err := ParseNetworkInfo(text)
		if err != nil {
			return
		}
		again, err := ParseNetworkInfo(info.Text())
		if err != nil || again.Text() != info.Text() {
			t.Fatalf("not stable: %v", err)
		}
	})
}
