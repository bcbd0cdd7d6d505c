package objects

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// maxNetworkInfo bounds the text of one instance's network: the column is a
// MEDIUMTEXT, and a hundred ports with many addresses stay below 1 MiB.
const maxNetworkInfo = 16 << 20

// NetworkInfo is the list of an instance's VIFs as the info cache keeps it.
//
// Source: nova/network/model.py (NetworkInfo, VIF). On the wire it is JSON text
// inside InstanceInfoCache.network_info.
//
// Keys that Nova 26 writes survive a round trip; keys that no struct names do not.
type NetworkInfo []VIF

// ParseNetworkInfo reads the text of an info cache. Empty text is no network;
// malformed text is errdefs.ErrInvalid.
func ParseNetworkInfo(text string) (NetworkInfo, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxNetworkInfo {
		return nil, fmt.Errorf("parse network info: %d bytes: %w", len(text), errdefs.ErrInvalid)
	}
	var info NetworkInfo
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		return nil, fmt.Errorf("parse network info: %w: %w", errdefs.ErrInvalid, err)
	}
	return info, nil
}

// Text is the inverse of ParseNetworkInfo; no network is "[]".
func (n NetworkInfo) Text() string {
	if len(n) == 0 {
		return "[]"
	}
	raw, err := json.Marshal(n)
	if err != nil {
		panic(err) // only a RawMessage that is no JSON can do that
	}
	return string(raw)
}

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

// MarshalJSON writes {} for a Profile or Meta that nobody set: Nova takes a
// null there for a mistake and fails with AttributeError.
func (v VIF) MarshalJSON() ([]byte, error) {
	type plain VIF // without this method
	if v.Profile == nil {
		v.Profile = json.RawMessage("{}")
	}
	if v.Meta == nil {
		v.Meta = json.RawMessage("{}")
	}
	return json.Marshal(plain(v))
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

// VIFIP is one address. Type is fixed, floating, gateway or dns. An empty
// Address and a zero Version are null on the wire: a subnet without a gateway
// has such a gateway.
type VIFIP struct {
	Address string          `json:"address"`
	Type    string          `json:"type"`
	Version int             `json:"version"`
	Meta    json.RawMessage `json:"meta,omitempty"`
	// FloatingIPs is nil except for fixed addresses, which always have a list.
	FloatingIPs []VIFIP `json:"floating_ips,omitzero"`
	// Label and VIFMAC stand on addresses of an interface attached later.
	Label  *string `json:"label,omitempty"`
	VIFMAC *string `json:"vif_mac,omitempty"`
}

// MarshalJSON writes null for an absent address or version.
func (ip VIFIP) MarshalJSON() ([]byte, error) {
	type plain VIFIP // without this method
	out := struct {
		Address *string `json:"address"`
		Version *int    `json:"version"`
		plain
	}{plain: plain(ip)}
	if ip.Address != "" {
		out.Address = &ip.Address
	}
	if ip.Version != 0 {
		out.Version = &ip.Version
	}
	return json.Marshal(out)
}

// VIFRoute is an extra route of a subnet.
type VIFRoute struct {
	CIDR      string          `json:"cidr"`
	Gateway   VIFIP           `json:"gateway"`
	Interface json.RawMessage `json:"interface,omitempty"`
	Meta      json.RawMessage `json:"meta,omitempty"`
}
