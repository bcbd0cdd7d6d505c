package metadata

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/gantry-project/gantry/driver/objects"
)

// legacyTypes of interfaces are told as they are, all others as "phy"
// (nova/network/model.py, LEGACY_EXPOSED_VIF_TYPES).
func legacyTypes() []string {
	return []string{"bridge", "dvs", "hw_veb", "hyperv", "ovs", "tap", "vhostuser", "vif"}
}

// networkLink is an interface of network_data.json.
type networkLink struct {
	ID   string `json:"id"`
	VIF  string `json:"vif_id"`
	Type string `json:"type"`
	MTU  *int   `json:"mtu"`
	MAC  string `json:"ethernet_mac_address"`
}

// networkService is a name server.
type networkService struct {
	Type    string `json:"type"`
	Address string `json:"address"`
}

// networkRoute is a route of one of its networks.
type networkRoute struct {
	Network string `json:"network"`
	Netmask string `json:"netmask"`
	Gateway string `json:"gateway"`
}

// NetworkData is network_data.json (nova/virt/netutils.py,
// get_network_metadata): for each interface the first subnet of each version.
func NetworkData(info objects.NetworkInfo) map[string]any {
	if len(info) == 0 {
		return map[string]any{}
	}
	links, nets, services := []networkLink{}, []map[string]any{}, []networkService{}
	for _, vif := range info {
		if len(vif.Network.Subnets) == 0 {
			continue
		}
		l := link(vif, len(links))
		links = append(links, l)
		for _, version := range []int{4, 6} {
			at := slices.IndexFunc(vif.Network.Subnets, func(s objects.VIFSubnet) bool { return s.Version == version })
			if at < 0 || len(vif.Network.Subnets[at].IPs) == 0 {
				continue
			}
			sub := vif.Network.Subnets[at]
			n := subnet(sub)
			n["id"], n["link"], n["network_id"] = fmt.Sprint("network", len(nets)), l.ID, vif.Network.ID
			nets = append(nets, n)
			for _, d := range nameServers(sub) {
				if !slices.Contains(services, d) {
					services = append(services, d)
				}
			}
		}
	}
	return map[string]any{"links": links, "networks": nets, "services": services}
}

func link(vif objects.VIF, n int) networkLink {
	l := networkLink{
		ID: cmp.Or(vif.DevName, fmt.Sprint("interface", n)), VIF: vif.ID, Type: "phy", MAC: vif.Address, MTU: vif.Network.Meta.MTU,
	}
	if slices.Contains(legacyTypes(), vif.Type) {
		l.Type = vif.Type
	}
	if slices.ContainsFunc(vif.Network.Subnets, func(s objects.VIFSubnet) bool { return s.Meta.DHCPServer != "" }) {
		l.MTU = nil // who gives the address tells the MTU, too
	}
	return l
}

// subnet is what a guest needs to set its address up, or that it has to ask.
func subnet(s objects.VIFSubnet) map[string]any {
	kind := fmt.Sprint("ipv", s.Version)
	switch {
	case s.Meta.IPv6AddressMode != "":
		kind += "_" + s.Meta.IPv6AddressMode
	case s.Meta.DHCPServer != "":
		return map[string]any{"type": kind + "_dhcp"}
	}
	routes := []networkRoute{}
	if s.Gateway != nil && s.Gateway.Address != "" {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if s.Version == 6 {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		routes = append(routes, route(all, s.Gateway.Address))
	}
	for _, r := range s.Routes {
		to, err := netip.ParsePrefix(r.CIDR)
		if err != nil {
			continue // the network service lets none in
		}
		routes = append(routes, route(to, r.Gateway.Address))
	}
	return map[string]any{
		"type": kind, "ip_address": s.IPs[0].Address, "netmask": netmask(s.CIDR), "routes": routes, "services": nameServers(s),
	}
}

func route(to netip.Prefix, via string) networkRoute {
	return networkRoute{Network: to.Masked().Addr().String(), Netmask: netmask(to), Gateway: via}
}

func netmask(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return net.IP(net.CIDRMask(p.Bits(), p.Addr().BitLen())).String()
}

func nameServers(s objects.VIFSubnet) []networkService {
	out := []networkService{}
	for _, d := range s.DNS {
		out = append(out, networkService{"dns", d.Address})
	}
	return out
}
