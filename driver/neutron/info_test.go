package neutron_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/driver/neutron"
	"github.com/gantry-project/gantry/driver/neutron/neutrontest"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// What a stock nova-compute saved must come out of the same answers of Neutron.
func TestInfoIsStockNovas(t *testing.T) {
	for _, file := range []string{"create-zed", "attach-zed"} {
		t.Run(file, func(t *testing.T) {
			raw, err := os.ReadFile("testdata/" + file + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var doc struct {
				Networks, Subnets, Ports []neutrontest.Resource
				Info                     json.RawMessage `json:"network_info"`
			}
			if err := json.Unmarshal(raw, &doc); err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, neutron.Options{})
			for name, list := range map[string][]neutrontest.Resource{"networks": doc.Networks, "subnets": doc.Subnets, "ports": doc.Ports} {
				for _, r := range list {
					w.Add(name, r)
				}
			}
			info, err := w.client.Info(t.Context(), neutron.InfoRequest{InstanceUUID: inst})
			if err != nil {
				t.Fatal(err)
			}
			got, want := tree(t, []byte(info.Text())), tree(t, doc.Info)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("network_info differs from stock's (-stock +ours):\n%s", d)
			}
		})
	}
}

func tree(t *testing.T, raw []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestInfoOrderAndFloating(t *testing.T) {
	w := newWorld(t, neutron.Options{})
	res, err := w.client.Allocate(t.Context(), w.request(neutron.NetworkRequest{NetworkID: w.private}, neutron.NetworkRequest{PortID: w.userPort(nil)}))
	if err != nil {
		t.Fatal(err)
	}
	w.Add("floatingips", neutrontest.Resource{"port_id": res.Info[1].ID, "fixed_ip_address": "10.0.0.77", "floating_ip_address": "192.0.2.9"})
	known := objects.NetworkInfo{res.Info[1], res.Info[0]}
	info, err := w.client.Info(t.Context(), neutron.InfoRequest{InstanceUUID: inst, Known: known})
	if err != nil {
		t.Fatal(err)
	}
	if info[0].ID != known[0].ID || info[1].ID != known[1].ID || !info[0].PreserveOnDelete || info[1].PreserveOnDelete {
		t.Errorf("order or ownership: %+v", info)
	}
	if f := info[0].Network.Subnets[0].IPs[0].FloatingIPs; len(f) != 1 || f[0].Address != "192.0.2.9" || f[0].Type != "floating" {
		t.Errorf("floating %+v", f)
	}
	if none, err := w.client.Info(t.Context(), neutron.InfoRequest{InstanceUUID: "other"}); err != nil || len(none) != 0 || none == nil {
		t.Errorf("%v %v", none, err)
	}
}

// OVN's metadata agent has a port in each network, and no router leads to it.
func TestInfoMetadataOfOVN(t *testing.T) {
	const metadata = "169.254.169.254/32"
	w := newWorld(t, neutron.Options{})
	first := w.AddSubnet(w.private, "10.5.0.0/24", nil)
	second := w.AddSubnet(w.private, "10.6.0.0/24", neutrontest.Resource{
		"host_routes": []any{neutrontest.Resource{"destination": metadata, "nexthop": "10.6.0.9"}},
	})
	at := func(last string) []any {
		return []any{
			neutrontest.Resource{"subnet_id": first, "ip_address": "10.5.0." + last}, neutrontest.Resource{"subnet_id": second, "ip_address": "10.6.0." + last},
		}
	}
	w.Add("ports", neutrontest.Resource{"network_id": w.private, "tenant_id": project, "device_owner": "network:distributed", "device_id": "ovnmeta-" + w.private, "fixed_ips": at("3")})
	w.Add("ports", neutrontest.Resource{"network_id": w.private, "tenant_id": project, "device_owner": "compute:nova", "device_id": inst, "fixed_ips": at("50")})
	info, err := w.client.Info(t.Context(), neutron.InfoRequest{InstanceUUID: inst})
	if err != nil {
		t.Fatal(err)
	}
	subnets := info[0].Network.Subnets
	for i, want := range []string{"10.5.0.3", "10.6.0.9"} {
		if r := subnets[i].Routes; len(r) != 1 || r[0].CIDR != metadata || r[0].Gateway.Address != want {
			t.Errorf("routes %+v, want one to the metadata service via %s", r, want)
		}
		if d := subnets[i].Meta.DHCPServer; d == "10.5.0.3" || d == "10.6.0.3" {
			t.Errorf("the metadata agent is said to be a DHCP server: %s", d)
		}
	}
}

func TestRefreshPort(t *testing.T) {
	w := newWorld(t, neutron.Options{})
	n := neutron.NetworkRequest{NetworkID: w.private}
	res, err := w.client.Allocate(t.Context(), w.request(n, n))
	if err != nil {
		t.Fatal(err)
	}
	req := neutron.InfoRequest{InstanceUUID: inst, Known: res.Info}
	second := res.Info[1].ID
	w.Port(second)["status"] = "ACTIVE"
	info, err := w.client.RefreshPort(t.Context(), req, second)
	if err != nil || len(info) != 2 || !info[1].Active || info[0].Active {
		t.Errorf("changed: %+v %v", info, err)
	}
	if res.Info[1].Active {
		t.Error("Known was changed in place")
	}
	w.Port(second)["device_id"] = "another"
	if info, err = w.client.RefreshPort(t.Context(), req, second); err != nil || len(info) != 1 {
		t.Errorf("moved away: %+v %v", info, err)
	}
	if info, err = w.client.RefreshPort(t.Context(), req, "nope"); err != nil || len(info) != 2 {
		t.Errorf("unknown: %+v %v", info, err)
	}
	req.Known = res.Info[:0:0]
	if info, err = w.client.RefreshPort(t.Context(), req, res.Info[0].ID); err != nil || len(info) != 1 {
		t.Errorf("new: %+v %v", info, err)
	}
}

func TestRebind(t *testing.T) {
	w := newWorld(t, neutron.Options{})
	w.AddHost("cmp2", "ovs")
	n := neutron.NetworkRequest{NetworkID: w.private}
	res, err := w.client.Allocate(t.Context(), w.request(n, n))
	if err != nil {
		t.Fatal(err)
	}
	req := neutron.RebindRequest{InfoRequest: neutron.InfoRequest{InstanceUUID: inst, Known: res.Info}, AvailabilityZone: "nova", Host: "cmp2"}
	info, err := w.client.Rebind(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range info {
		if v.ID != res.Info[i].ID || v.Type != "ovs" || *v.Network.Bridge != "br-int" || *v.OVSInterfaceID != v.ID || v.Network.Meta.ShouldCreateBridge != nil {
			t.Errorf("vif %+v", v)
		}
		if v.Network.Subnets[0].IPs[0].Address != res.Info[i].Network.Subnets[0].IPs[0].Address {
			t.Error("the address changed")
		}
	}
	req.Host = "cmp3"
	if _, err = w.client.Rebind(t.Context(), req); !neutron.Is(err, neutron.PortBindingFailed) {
		t.Errorf("no agent: %v", err)
	}
	if n := len(w.Ports(inst)); n != 2 {
		t.Errorf("%d ports remain, want 2", n)
	}
}

func TestParseRequests(t *testing.T) {
	list := func(fields ...map[string]any) *objects.Object {
		var all []*objects.Object
		for _, f := range fields {
			o := objects.New("NetworkRequest")
			for k, v := range f {
				o.Set(k, v)
			}
			all = append(all, o)
		}
		l := objects.New("NetworkRequestList")
		l.Set("objects", all)
		return l
	}
	cases := []struct {
		name string
		in   *objects.Object
		want []neutron.NetworkRequest
		err  error
	}{
		{"nil", nil, nil, nil},
		{"empty", list(), nil, nil},
		{"unspecified", list(map[string]any{"network_id": nil}), nil, nil},
		{
			"network and port", list(map[string]any{"network_id": "n", "address": "10.0.0.5", "tag": "a"}, map[string]any{"port_id": "p"}),
			[]neutron.NetworkRequest{{NetworkID: "n", Address: "10.0.0.5", Tag: "a"}, {PortID: "p"}},
			nil,
		},
		{"auto", list(map[string]any{"network_id": "auto"}), []neutron.NetworkRequest{{NetworkID: neutron.NetworkAuto}}, nil},
		{"device of the host", list(map[string]any{"port_id": "p", "pci_request_id": "x"}), nil, errdefs.ErrUnsupported},
		{"another object", objects.New("Instance"), nil, errdefs.ErrInvalid},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := neutron.ParseRequests(c.in)
			if d := cmp.Diff(c.want, got); d != "" || !isClass(err, c.err) {
				t.Errorf("%s %v", d, err)
			}
		})
	}
}
