package neutron

import (
	"encoding/json"
	"testing"

	"github.com/gantry-project/gantry/driver/objects"
)

// Whatever Neutron answers, describing it does not panic and gives text that
// can be read again.
func FuzzVIF(f *testing.F) {
	f.Add([]byte(`{"id":"11a6c19e-cc64-4d3b-b95b-6d78a089a249","network_id":"n","fixed_ips":[{"subnet_id":"s","ip_address":"10.0.0.3"}],"binding:vif_type":"bridge","binding:vif_details":{"bridge_name":"b"}}`),
		[]byte(`{"id":"s","cidr":"10.0.0.0/24","gateway_ip":null,"host_routes":[{"destination":"0.0.0.0/0","nexthop":"x"}]}`),
		[]byte(`{"id":"n","segments":[{"provider:physical_network":"p"}],"mtu":1450}`))
	f.Fuzz(func(t *testing.T, rawPort, rawSubnet, rawNet []byte) {
		var p port
		var s subnet
		var n network
		if json.Unmarshal(rawPort, &p) != nil || json.Unmarshal(rawSubnet, &s) != nil || json.Unmarshal(rawNet, &n) != nil {
			return
		}
		fs := facts{networks: map[string]network{n.ID: n}, subnets: map[string]subnet{s.ID: s}, bridge: "br-int"}
		v := fs.vif(p)
		if len(v.DevName) > nicNameLen {
			t.Errorf("device name %q", v.DevName)
		}
		if _, err := objects.ParseNetworkInfo(objects.NetworkInfo{v}.Text()); err != nil {
			t.Error(err)
		}
		cleanProfile(p.Profile)
	})
}
