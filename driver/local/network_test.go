package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge"
)

const (
	portA = "aaaaaaaa-1111-4222-8333-444444444444"
	portB = "bbbbbbbb-1111-4222-8333-444444444444"
	net1  = "11111111-aaaa-4bbb-8ccc-dddddddddddd"
	net2  = "22222222-aaaa-4bbb-8ccc-dddddddddddd"
)

func vif(id, kind, network string, subnets ...objects.VIFSubnet) objects.VIF {
	mtu := 1450
	return objects.VIF{
		ID: id, Address: "fa:16:3e:00:00:" + id[:2], Type: kind,
		Network: objects.VIFNetwork{ID: network, Meta: objects.NetworkMeta{MTU: &mtu}, Subnets: subnets},
	}
}

func ovsPort(bridge, details string) objects.VIF {
	v := vif(portA, "ovs", net1)
	v.Network.Bridge, v.Details = &bridge, json.RawMessage(details)
	return v
}

func direct(v objects.VIF) objects.VIF {
	v.VNICType = "direct"
	return v
}

func subnet(cidr, gateway string, ips ...string) objects.VIFSubnet {
	s := objects.VIFSubnet{CIDR: netip.MustParsePrefix(cidr), Gateway: &objects.VIFIP{Address: gateway}}
	for _, ip := range ips {
		s.IPs = append(s.IPs, objects.VIFIP{Address: ip, Type: "fixed"})
	}
	return s
}

func with(s objects.VIFSubnet, change func(*objects.VIFSubnet)) objects.VIFSubnet {
	change(&s)
	return s
}

func route(to, via string) objects.VIFRoute {
	return objects.VIFRoute{CIDR: to, Gateway: objects.VIFIP{Address: via}}
}

func dhcp(server string) func(*objects.VIFSubnet) {
	return func(s *objects.VIFSubnet) { s.Meta.DHCPServer = server }
}

func dns(servers ...string) func(*objects.VIFSubnet) {
	return func(s *objects.VIFSubnet) {
		for _, ip := range servers {
			s.DNS = append(s.DNS, objects.VIFIP{Address: ip})
		}
	}
}

func renderPlan(p netbridge.Plan) string {
	var b strings.Builder
	for _, i := range p.Interfaces {
		fmt.Fprintf(&b, "%s %s mtu %d %s", i.HostName, i.MAC, i.MTU, i.Attachment)
		if i.Bridge != "" {
			b.WriteString(" " + i.Bridge)
		}
		if i.OVS != nil {
			fmt.Fprintf(&b, " %v", *i.OVS)
		}
		b.WriteString("\n")
		for _, a := range i.Addresses {
			fmt.Fprintf(&b, "  %s\n", a)
		}
		for _, r := range i.Routes {
			fmt.Fprintf(&b, "  %s via %s\n", r.To, r.Via)
		}
	}
	return b.String()
}

func TestNetworkPlan(t *testing.T) {
	bridge := "br-x"
	for name, tc := range map[string]struct {
		vifs objects.NetworkInfo
		want string
	}{
		"no port": {nil, ""},
		"port without an address": {objects.NetworkInfo{vif(portA, "bridge", net1)}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 bridge brq11111111-aa
`},
		"bridge": {objects.NetworkInfo{vif(portA, "bridge", net1, subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.5"))}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 bridge brq11111111-aa
  10.0.0.5/24
  0.0.0.0/0 via 10.0.0.1
`},
		"Neutron names the bridge": {objects.NetworkInfo{func() objects.VIF {
			v := vif(portA, "bridge", net1)
			v.Network.Bridge = &bridge
			return v
		}()}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 bridge br-x
`},
		"tap": {objects.NetworkInfo{vif(portA, "tap", net1, subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.5"))}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 none
  10.0.0.5/24
  0.0.0.0/0 via 10.0.0.1
`},
		"Open vSwitch": {objects.NetworkInfo{ovsPort("br-int", `{"port_filter":true,"ovs_hybrid_plug":false,"datapath_type":"netdev"}`)}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 ovs {br-int netdev aaaaaaaa-1111-4222-8333-444444444444 false}
`},
		"Open vSwitch, hybrid, as the agent calls it": {objects.NetworkInfo{func() objects.VIF {
			v := ovsPort("br-int", `{"ovs_hybrid_plug":true}`)
			v.OVSInterfaceID = new("other")
			return v
		}()}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 ovs {br-int  other true}
`},
		"both families and a second subnet of one": {objects.NetworkInfo{vif(portA, "bridge", net1,
			subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.5", "10.0.0.6"), subnet("fd00::/64", "fe80::1", "fd00::5"), subnet("10.9.0.0/16", "10.9.0.1", "10.9.0.5"))}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 bridge brq11111111-aa
  10.0.0.5/24
  10.0.0.6/24
  fd00::5/64
  10.9.0.5/16
  0.0.0.0/0 via 10.0.0.1
  ::/0 via fe80::1
`},
		"a subnet in which the port has no address gives no route": {objects.NetworkInfo{vif(portA, "bridge", net1,
			subnet("10.0.0.0/24", "10.0.0.1"), subnet("10.9.0.0/16", "10.9.0.1", "10.9.0.5"))}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 bridge brq11111111-aa
  10.9.0.5/16
  0.0.0.0/0 via 10.9.0.1
`},
		"an isolated network reaches metadata through its DHCP server": {objects.NetworkInfo{vif(portA, "bridge", net1,
			with(subnet("10.0.0.0/24", "", "10.0.0.5"), dhcp("10.0.0.2")))}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 bridge brq11111111-aa
  10.0.0.5/24
  169.254.169.254/32 via 10.0.0.2
`},
		"Neutron's own metadata route wins": {objects.NetworkInfo{vif(portA, "bridge", net1,
			with(with(subnet("10.0.0.0/24", "", "10.0.0.5"), dhcp("10.0.0.2")), func(s *objects.VIFSubnet) {
				s.Routes = []objects.VIFRoute{route("169.254.169.254/32", "10.0.0.9")}
			}))}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 bridge brq11111111-aa
  10.0.0.5/24
  169.254.169.254/32 via 10.0.0.9
`},
		"isolated IPv6 has no such route": {objects.NetworkInfo{vif(portA, "bridge", net1,
			with(subnet("fd00::/64", "", "fd00::5"), dhcp("fd00::2")))}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 bridge brq11111111-aa
  fd00::5/64
`},
		"host routes, masked, once": {objects.NetworkInfo{vif(portA, "bridge", net1,
			with(subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.5"), func(s *objects.VIFSubnet) {
				s.Routes = []objects.VIFRoute{route("192.168.1.9/16", "10.0.0.7"), route("192.168.0.0/16", "10.0.0.8")}
			}))}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 bridge brq11111111-aa
  10.0.0.5/24
  192.168.0.0/16 via 10.0.0.7
  0.0.0.0/0 via 10.0.0.1
`},
		"two ports, each with its default": {objects.NetworkInfo{
			vif(portA, "bridge", net1, subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.5")), vif(portB, "bridge", net2, subnet("10.2.0.0/24", "10.2.0.1", "10.2.0.5")),
		}, `
tapaaaaaaaa-11 fa:16:3e:00:00:aa mtu 1450 bridge brq11111111-aa
  10.0.0.5/24
  0.0.0.0/0 via 10.0.0.1
tapbbbbbbbb-11 fa:16:3e:00:00:bb mtu 1450 bridge brq22222222-aa
  10.2.0.5/24
  0.0.0.0/0 via 10.2.0.1
`},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := networkPlan("owner", "/ns", tc.vifs)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.TrimPrefix(tc.want, "\n"), renderPlan(plan)); d != "" {
				t.Error(d)
			}
			if plan.Owner != "owner" || plan.NetNS != "/ns" {
				t.Errorf("plan of %s in %s", plan.Owner, plan.NetNS)
			}
			if err := netbridge.Validate(plan); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNetworkPlanRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		vif    objects.VIF
		class  error
		public string
	}{
		"unbound":         {vif(portA, "unbound", net1), errdefs.ErrUnavailable, "Binding failed for port " + portA},
		"failed binding":  {vif(portA, "binding_failed", net1), errdefs.ErrUnavailable, "Binding failed for port " + portA},
		"no type":         {vif(portA, "", net1), errdefs.ErrUnavailable, "Binding failed for port " + portA},
		"ovs, no bridge":  {vif(portA, "ovs", net1), errdefs.ErrInvalid, ""},
		"ovs, no details": {ovsPort("br-int", `[]`), errdefs.ErrInvalid, ""},
		"macvtap":         {vif(portA, "macvtap", net1), errdefs.ErrUnsupported, "VIF type macvtap"},
		"vhostuser":       {vif(portA, "vhostuser", net1), errdefs.ErrUnsupported, "VIF type vhostuser"},
		"direct":          {direct(ovsPort("br-int", `{}`)), errdefs.ErrUnsupported, "VNIC type direct"},
		"hw_veb":          {vif(portA, "hw_veb", net1), errdefs.ErrUnsupported, "VIF type hw_veb"},
		"bad address":     {vif(portA, "bridge", net1, subnet("10.0.0.0/24", "", "10.0.0")), errdefs.ErrInvalid, ""},
		"bad gateway":     {vif(portA, "bridge", net1, subnet("10.0.0.0/24", "x", "10.0.0.5")), errdefs.ErrInvalid, ""},
		"bad route":       {vif(portA, "bridge", net1, with(subnet("10.0.0.0/24", "", "10.0.0.5"), func(s *objects.VIFSubnet) { s.Routes = []objects.VIFRoute{route("all", "10.0.0.1")} })), errdefs.ErrInvalid, ""},
		"bad route's via": {vif(portA, "bridge", net1, with(subnet("10.0.0.0/24", "", "10.0.0.5"), func(s *objects.VIFSubnet) { s.Routes = []objects.VIFRoute{route("10.1.0.0/24", "")} })), errdefs.ErrInvalid, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := networkPlan("owner", "/ns", objects.NetworkInfo{tc.vif})
			if !errors.Is(err, tc.class) || !strings.Contains(err.Error(), portA) {
				t.Errorf("error %v, want %v", err, tc.class)
			}
			if got := errdefs.PublicText(err, ""); !strings.Contains(got, tc.public) {
				t.Errorf("tenants read %q, want %q", got, tc.public)
			}
		})
	}
}

func TestResolvConf(t *testing.T) {
	for name, tc := range map[string]struct {
		vifs objects.NetworkInfo
		want string
	}{
		"no port": {nil, ""},
		"no name server at all": {
			objects.NetworkInfo{vif(portA, "bridge", net1, subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.5"))}, "",
		},
		"name servers once, in order": {
			objects.NetworkInfo{
				vif(portA, "bridge", net1, with(subnet("10.0.0.0/24", "", "10.0.0.5"), dns("10.0.0.8", "10.0.0.9"))),
				vif(portB, "bridge", net2, with(subnet("fd00::/64", "", "fd00::5"), dns("fd00::8", "10.0.0.8"))),
			},
			"nameserver 10.0.0.8\nnameserver 10.0.0.9\nnameserver fd00::8\n",
		},
		"the DHCP server stands in": {
			objects.NetworkInfo{vif(portA, "bridge", net1, with(subnet("10.0.0.0/24", "", "10.0.0.5"), dhcp("10.0.0.2")))},
			"nameserver 10.0.0.2\n",
		},
		"no foreign lines": {
			objects.NetworkInfo{vif(portA, "bridge", net1, with(subnet("10.0.0.0/24", "", "10.0.0.5"), dns("1.1.1.1\nsearch evil", "")))}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, string(resolvConf(tc.vifs))); d != "" {
				t.Error(d)
			}
			if files := networkFiles(tc.vifs); (len(files) == 0) != (tc.want == "") {
				t.Errorf("files %v", files)
			}
		})
	}
}

func TestHostsFile(t *testing.T) {
	const local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	for name, tc := range map[string]struct {
		vifs objects.NetworkInfo
		want string
	}{
		"no port": {nil, "127.0.1.1\tweb\n"},
		"no address": {
			objects.NetworkInfo{vif(portA, "bridge", net1, subnet("10.0.0.0/24", "10.0.0.1"))}, "127.0.1.1\tweb\n",
		},
		"the first address": {
			objects.NetworkInfo{
				vif(portA, "bridge", net1, subnet("10.0.0.0/24", ""), subnet("fd00::/64", "", "fd00::5")),
				vif(portB, "bridge", net2, subnet("10.2.0.0/24", "", "10.2.0.5")),
			}, "fd00::5\tweb\n",
		},
		"no foreign lines": {
			objects.NetworkInfo{vif(portA, "bridge", net1, subnet("10.0.0.0/24", "", "10.0.0.5 evil\n"))}, "127.0.1.1\tweb\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(local+tc.want, string(hostsFile("web", tc.vifs))); d != "" {
				t.Error(d)
			}
		})
	}
}
