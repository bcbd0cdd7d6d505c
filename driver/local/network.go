package local

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge"
)

// metadataAddress is where guests look for the metadata service.
var metadataAddress = netip.MustParsePrefix("169.254.169.254/32")

// networkPlan turns Neutron's view of an instance into a plan. It is pure.
//
// Source: nova/network/model.py; os_vif's names of devices. A port that
// Neutron could not bind, or of a type that this host cannot plug, is refused
// before anything is made.
func networkPlan(owner, netns string, vifs objects.NetworkInfo) (netbridge.Plan, error) {
	plan := netbridge.Plan{Owner: owner, NetNS: netns}
	for _, vif := range vifs {
		iface, err := planInterface(vif)
		if err != nil {
			return netbridge.Plan{}, fmt.Errorf("port %s: %w", vif.ID, err)
		}
		plan.Interfaces = append(plan.Interfaces, iface)
	}
	return plan, nil
}

func planInterface(vif objects.VIF) (netbridge.Interface, error) {
	iface := netbridge.Interface{
		ID:       vif.ID,
		HostName: netbridge.TapName(vif.ID),
		MAC:      vif.Address,
	}
	if vif.Network.Meta.MTU != nil {
		iface.MTU = *vif.Network.Meta.MTU
	}
	switch vif.Type {
	case "bridge":
		iface.Attachment = netbridge.AttachBridge
		iface.Bridge = netbridge.BridgeName(vif.Network.ID)
		if vif.Network.Bridge != nil && *vif.Network.Bridge != "" {
			iface.Bridge = *vif.Network.Bridge
		}
	case "ovs":
		if err := planOVS(&iface, vif); err != nil {
			return iface, err
		}
	case "tap":
		iface.Attachment = netbridge.AttachNone
	case "unbound", "binding_failed", "":
		return iface, errdefs.WithPublic(fmt.Errorf("vif type %q: %w", vif.Type, errdefs.ErrUnavailable),
			"Binding failed for port "+vif.ID+", please check neutron logs for more information.")
	default:
		return iface, errdefs.WithPublic(fmt.Errorf("vif type %q: %w", vif.Type, errdefs.ErrUnsupported),
			"Port "+vif.ID+" has VIF type "+vif.Type+", which container hosts do not support.")
	}
	if vif.VNICType != "" && vif.VNICType != "normal" {
		return iface, errdefs.WithPublic(fmt.Errorf("vnic type %q: %w", vif.VNICType, errdefs.ErrUnsupported),
			"Port "+vif.ID+" has VNIC type "+vif.VNICType+", which container hosts do not support.")
	}
	for _, subnet := range vif.Network.Subnets {
		if err := planSubnet(&iface, subnet); err != nil {
			return iface, fmt.Errorf("subnet %s: %w", subnet.CIDR, err)
		}
	}
	return iface, nil
}

// planOVS makes a port of Open vSwitch, for Neutron's agent or OVN
// (nova/network/os_vif_util.py, _nova_to_osvif_vif_ovs).
func planOVS(iface *netbridge.Interface, vif objects.VIF) error {
	var details struct {
		Hybrid   bool   `json:"ovs_hybrid_plug"`
		Datapath string `json:"datapath_type"`
	}
	if len(vif.Details) > 0 {
		if err := json.Unmarshal(vif.Details, &details); err != nil {
			return fmt.Errorf("vif details: %w: %w", err, errdefs.ErrInvalid)
		}
	}
	if vif.Network.Bridge == nil || *vif.Network.Bridge == "" {
		return fmt.Errorf("no bridge of open vswitch: %w", errdefs.ErrInvalid)
	}
	iface.Attachment = netbridge.AttachOVS
	iface.OVS = &netbridge.OVS{Bridge: *vif.Network.Bridge, Datapath: details.Datapath, InterfaceID: vif.ID, Hybrid: details.Hybrid}
	if vif.OVSInterfaceID != nil && *vif.OVSInterfaceID != "" {
		iface.OVS.InterfaceID = *vif.OVSInterfaceID
	}
	return nil
}

// planSubnet adds the addresses and routes that the subnet gives the port: the
// ones that a DHCP client would get from Neutron. Each port has its own default
// routes; netbridge gives the first port's the lower metric. Of two routes of
// one port to the same destination the first counts.
func planSubnet(iface *netbridge.Interface, subnet objects.VIFSubnet) error {
	for _, ip := range subnet.IPs {
		addr, err := netip.ParseAddr(ip.Address)
		if err != nil {
			return fmt.Errorf("address %q: %w", ip.Address, errdefs.ErrInvalid)
		}
		iface.Addresses = append(iface.Addresses, netip.PrefixFrom(addr, subnet.CIDR.Bits()))
	}
	if len(subnet.IPs) == 0 {
		return nil
	}
	for _, r := range subnet.Routes {
		to, err := netip.ParsePrefix(r.CIDR)
		if err != nil {
			return fmt.Errorf("route to %q: %w", r.CIDR, errdefs.ErrInvalid)
		}
		via, err := netip.ParseAddr(r.Gateway.Address)
		if err != nil {
			return fmt.Errorf("route via %q: %w", r.Gateway.Address, errdefs.ErrInvalid)
		}
		addRoute(iface, to.Masked(), via)
	}
	v4 := subnet.CIDR.Addr().Is4()
	gateway, err := gatewayOf(subnet)
	if err != nil {
		return err
	}
	switch {
	case gateway.IsValid():
		anywhere := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		if v4 {
			anywhere = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		addRoute(iface, anywhere, gateway)
	case v4 && subnet.Meta.DHCPServer != "":
		// an isolated network: Neutron's DHCP server answers for the metadata service
		if server, err := netip.ParseAddr(subnet.Meta.DHCPServer); err == nil {
			addRoute(iface, metadataAddress, server)
		}
	}
	return nil
}

// addRoute adds a route unless there is one to the same destination.
func addRoute(iface *netbridge.Interface, to netip.Prefix, via netip.Addr) {
	if !slices.ContainsFunc(iface.Routes, func(r netbridge.Route) bool { return r.To == to }) {
		iface.Routes = append(iface.Routes, netbridge.Route{To: to, Via: via})
	}
}

func gatewayOf(subnet objects.VIFSubnet) (netip.Addr, error) {
	if subnet.Gateway == nil || subnet.Gateway.Address == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(subnet.Gateway.Address)
	if err != nil {
		return addr, fmt.Errorf("gateway %q: %w", subnet.Gateway.Address, errdefs.ErrInvalid)
	}
	return addr, nil
}

// resolvConf is the resolver configuration that the subnets give. A subnet
// without name servers gets its DHCP server, which is what Neutron's DHCP
// agent announces then.
func resolvConf(vifs objects.NetworkInfo) []byte {
	var b strings.Builder
	seen := map[string]bool{}
	add := func(server string) {
		if _, err := netip.ParseAddr(server); err == nil && !seen[server] {
			seen[server] = true
			b.WriteString("nameserver " + server + "\n")
		}
	}
	for _, vif := range vifs {
		for _, subnet := range vif.Network.Subnets {
			for _, dns := range subnet.DNS {
				add(dns.Address)
			}
			if len(subnet.DNS) == 0 {
				add(subnet.Meta.DHCPServer)
			}
		}
	}
	return []byte(b.String())
}

// hostsFile names the guest at its first fixed address.
func hostsFile(hostname string, vifs objects.NetworkInfo) []byte {
	b := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	for _, vif := range vifs {
		for _, subnet := range vif.Network.Subnets {
			for _, ip := range subnet.IPs {
				if _, err := netip.ParseAddr(ip.Address); err == nil {
					return []byte(b + ip.Address + "\t" + hostname + "\n")
				}
			}
		}
	}
	return []byte(b + "127.0.1.1\t" + hostname + "\n")
}
