package neutron

import (
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/gantry-project/gantry/driver/objects"
)

// The VIF types of Neutron that are treated apart
// (nova/network/model.py, neutron_lib portbindings).
const (
	vifBridge        = "bridge"
	vifOVS           = "ovs"
	vifUnbound       = "unbound"
	vifBindingFailed = "binding_failed"
	vnicNormal       = "normal"
)

// Whose ports serve a network: that of Neutron's DHCP agent, and that of OVN's
// metadata agent, which is on each host at once (neutron_lib/constants.py).
const (
	ownerDHCP        = "network:dhcp"
	ownerDistributed = "network:distributed"
)

// metadataCIDR is where guests look for the metadata service.
const metadataCIDR = "169.254.169.254/32"

// nicNameLen is Nova's NIC_NAME_LEN: device names that it derives are cut to it.
const nicNameLen = 14

var (
	jsonNull  = json.RawMessage("null")
	jsonEmpty = json.RawMessage("{}")
)

// facts is what network_info is made from besides the ports themselves.
type facts struct {
	networks map[string]network
	subnets  map[string]subnet
	dhcp     map[string]string   // subnet to the address of its DHCP server
	metadata map[string]string   // subnet to the address of OVN's metadata agent
	floating map[string][]string // port and fixed address to floating addresses
	preserve map[string]bool     // ports that the user owns
	bridge   string              // the integration bridge of this host
}

func floatKey(portID, fixed string) string { return portID + " " + fixed }

// vif describes one port as Nova does. It is pure.
//
// Source: nova/network/neutron.py, _build_vif_model and _nw_info_build_network.
func (f *facts) vif(p port) objects.VIF {
	net, owner := f.network(p)
	v := objects.VIF{
		ID:               p.ID,
		Address:          p.MAC,
		Network:          net,
		Type:             p.VIFType,
		Details:          p.VIFDetails,
		DevName:          cut("tap" + p.ID),
		OVSInterfaceID:   owner,
		QBHParams:        jsonNull,
		QBGParams:        jsonNull,
		Active:           p.Status == "ACTIVE" || (p.AdminStateUp != nil && !*p.AdminStateUp),
		VNICType:         p.VNICType,
		Profile:          p.Profile,
		PreserveOnDelete: f.preserve[p.ID],
		DelegateCreate:   true,
		Meta:             jsonEmpty,
	}
	if v.VNICType == "" {
		v.VNICType = vnicNormal
	}
	if len(v.Profile) == 0 || string(v.Profile) == "null" {
		v.Profile = jsonEmpty
	}
	return v
}

// network describes the port's network, and returns the interface id that Open
// vSwitch knows the port by, if that is what it is bound to.
func (f *facts) network(p port) (n objects.VIFNetwork, ovsID *string) {
	net, known := f.networks[p.NetworkID]
	tenant := net.TenantID
	if !known {
		tenant = p.TenantID
	}
	n = objects.VIFNetwork{ID: p.NetworkID, Label: net.Name, Subnets: f.subnetsOf(p), Meta: objects.NetworkMeta{
		TenantID: tenant, MTU: net.MTU,
	}}
	n.Meta.PhysicalNetwork, n.Meta.Tunneled = net.physical()
	var details struct {
		Bridge string `json:"bridge_name"`
	}
	_ = json.Unmarshal(p.VIFDetails, &details) // no object: no name
	name := details.Bridge
	switch p.VIFType {
	case vifOVS:
		if name == "" {
			name = f.bridge
		}
		ovsID = &p.ID
	case vifBridge:
		if name == "" {
			name = "brq" + p.NetworkID
		}
		n.Meta.ShouldCreateBridge = new(true)
	default:
		return n, nil
	}
	name = cut(name)
	n.Bridge = &name
	return n, ovsID
}

// physical returns the physical network and whether the network is a tunnel.
func (n network) physical() (name *string, tunneled bool) {
	for _, s := range n.Segments {
		if s.PhysicalNet != nil && *s.PhysicalNet != "" {
			return s.PhysicalNet, false
		}
	}
	if n.NetworkType == nil {
		return n.PhysicalNet, false
	}
	switch *n.NetworkType {
	case "vxlan", "gre", "geneve":
		tunneled = true
	}
	return n.PhysicalNet, tunneled
}

// subnetsOf lists the subnets in which the port has addresses, in the order of
// the port's addresses.
func (f *facts) subnetsOf(p port) []objects.VIFSubnet {
	out := []objects.VIFSubnet{}
	at := map[string]int{}
	for _, ip := range p.FixedIPs {
		i, seen := at[ip.SubnetID]
		if !seen {
			s, known := f.subnets[ip.SubnetID]
			if !known {
				continue // deleted meanwhile
			}
			view, ok := f.subnet(s)
			if !ok {
				continue
			}
			i = len(out)
			at[ip.SubnetID] = i
			out = append(out, view)
		}
		fixed := address(ip.Address, "fixed")
		fixed.FloatingIPs = []objects.VIFIP{}
		for _, a := range f.floating[floatKey(p.ID, ip.Address)] {
			fixed.FloatingIPs = append(fixed.FloatingIPs, address(a, "floating"))
		}
		out[i].IPs = append(out[i].IPs, fixed)
	}
	return out
}

func (f *facts) subnet(s subnet) (objects.VIFSubnet, bool) {
	cidr, err := netip.ParsePrefix(s.CIDR)
	if err != nil {
		return objects.VIFSubnet{}, false
	}
	v := objects.VIFSubnet{
		CIDR: cidr, Version: version(cidr.Addr()),
		DNS: []objects.VIFIP{}, IPs: []objects.VIFIP{}, Routes: []objects.VIFRoute{},
		Gateway: &objects.VIFIP{Type: "gateway", Meta: jsonEmpty},
	}
	gateway := ""
	if s.Gateway != nil && *s.Gateway != "" {
		gateway = *s.Gateway
		*v.Gateway = address(gateway, "gateway")
	}
	for _, d := range s.DNS {
		v.DNS = append(v.DNS, address(d, "dns"))
	}
	for _, r := range s.Routes {
		v.Routes = append(v.Routes, objects.VIFRoute{
			CIDR: r.Destination, Gateway: address(r.NextHop, "gateway"), Interface: jsonNull, Meta: jsonEmpty,
		})
	}
	// Stock Nova lacks this one: its guests have it from OVN's DHCP (ovn_client.py,
	// _get_ovn_dhcpv4_opts), and no router of OVN leads there.
	if at := f.metadata[s.ID]; at != "" && v.Version == 4 && !slices.ContainsFunc(v.Routes, func(r objects.VIFRoute) bool { return r.CIDR == metadataCIDR }) {
		v.Routes = append(v.Routes, objects.VIFRoute{CIDR: metadataCIDR, Gateway: address(at, "gateway"), Interface: jsonNull, Meta: jsonEmpty})
	}
	if s.IPv6AddressMode != nil {
		v.Meta.IPv6AddressMode = *s.IPv6AddressMode
	}
	// A subnet with DHCP whose server has no port yet: the gateway stands in.
	if v.Meta.DHCPServer = f.dhcp[s.ID]; v.Meta.DHCPServer == "" && s.EnableDHCP {
		v.Meta.DHCPServer = gateway
	}
	return v, true
}

func address(a, kind string) objects.VIFIP {
	ip := objects.VIFIP{Address: a, Type: kind, Meta: jsonEmpty}
	if p, err := netip.ParseAddr(a); err == nil {
		ip.Version = version(p)
	}
	return ip
}

func version(a netip.Addr) int {
	if a.Is6() {
		return 6
	}
	return 4
}

func cut(name string) string {
	if len(name) > nicNameLen {
		name = name[:nicNameLen]
	}
	return name
}
