package objects

import (
	"encoding/json"
	"net/netip"
)

// NetworkInfo is the list of an instance's VIFs as the info cache keeps it.
//
// Source: nova/network/model.py (NetworkInfo, VIF). On the wire it is JSON text
// inside InstanceInfoCache.network_info.
type NetworkInfo []VIF

// VIF is one port of an instance.
type VIF struct {
	ID               string          `json:"id"`
	Address          string          `json:"address"`
	Network          VIFNetwork      `json:"network"`
	Type             string          `json:"type"`
	Details          json.RawMessage `json:"details,omitempty"`
	DevName          string          `json:"devname"`
	OVSInterfaceID   *string         `json:"ovs_interfaceid"`
	QBHParams        json.RawMessage `json:"qbh_params"`
	QBGParams        json.RawMessage `json:"qbg_params"`
	Active           bool            `json:"active"`
	VNICType         string          `json:"vnic_type"`
	Profile          json.RawMessage `json:"profile"`
	PreserveOnDelete bool            `json:"preserve_on_delete"`
	DelegateCreate   bool            `json:"delegate_create"`
	Meta             json.RawMessage `json:"meta"`
}

// VIFNetwork is the network that a VIF is on.
type VIFNetwork struct {
	ID      string      `json:"id"`
	Bridge  *string     `json:"bridge"`
	Label   string      `json:"label"`
	Subnets []VIFSubnet `json:"subnets"`
	Meta    NetworkMeta `json:"meta"`
}

// NetworkMeta carries what Nova puts beside the network.
type NetworkMeta struct {
	Injected           bool    `json:"injected"`
	TenantID           string  `json:"tenant_id"`
	MTU                *int    `json:"mtu"`
	PhysicalNetwork    *string `json:"physical_network"`
	Tunneled           bool    `json:"tunneled"`
	ShouldCreateBridge *bool   `json:"should_create_bridge,omitempty"`
}

// VIFSubnet is a subnet with the addresses that the VIF has in it.
type VIFSubnet struct {
	CIDR    netip.Prefix `json:"cidr"`
	DNS     []VIFIP      `json:"dns"`
	Gateway *VIFIP       `json:"gateway"`
	IPs     []VIFIP      `json:"ips"`
	Routes  []VIFRoute   `json:"routes"`
	Version int          `json:"version"`
	Meta    SubnetMeta   `json:"meta"`
}

// SubnetMeta carries the DHCP facts of a subnet.
type SubnetMeta struct {
	DHCPServer      string `json:"dhcp_server,omitempty"`
	IPv6AddressMode string `json:"ipv6_address_mode,omitempty"`
	EnableDHCP      *bool  `json:"enable_dhcp,omitempty"`
}

// VIFIP is one address. Type is fixed, floating, gateway or dns.
type VIFIP struct {
	Address     string          `json:"address"`
	Type        string          `json:"type"`
	Version     int             `json:"version"`
	Meta        json.RawMessage `json:"meta,omitempty"`
	FloatingIPs []VIFIP         `json:"floating_ips,omitempty"`
}

// VIFRoute is an extra route of a subnet.
type VIFRoute struct {
	CIDR      string          `json:"cidr"`
	Gateway   VIFIP           `json:"gateway"`
	Interface json.RawMessage `json:"interface,omitempty"`
	Meta      json.RawMessage `json:"meta,omitempty"`
}
