package neutron

import "encoding/json"

// The resources of the Networking API v2.0, as far as they are used. Fields
// that an answer lacks keep their zero value.

type port struct {
	ID           string          `json:"id"`
	NetworkID    string          `json:"network_id"`
	TenantID     string          `json:"tenant_id"`
	MAC          string          `json:"mac_address"`
	AdminStateUp *bool           `json:"admin_state_up"`
	Status       string          `json:"status"`
	DeviceID     string          `json:"device_id"`
	DeviceOwner  string          `json:"device_owner"`
	FixedIPs     []fixedIP       `json:"fixed_ips"`
	DNSName      string          `json:"dns_name"`
	CreatedAt    string          `json:"created_at"`
	VNICType     string          `json:"binding:vnic_type"`
	VIFType      string          `json:"binding:vif_type"`
	VIFDetails   json.RawMessage `json:"binding:vif_details"`
	Profile      json.RawMessage `json:"binding:profile"`
	HostID       string          `json:"binding:host_id"`
}

type fixedIP struct {
	SubnetID string `json:"subnet_id"`
	Address  string `json:"ip_address"`
}

type network struct {
	ID           string    `json:"id"`
	Name         string    `json:"name"`
	TenantID     string    `json:"tenant_id"`
	Shared       bool      `json:"shared"`
	External     bool      `json:"router:external"`
	MTU          *int      `json:"mtu"`
	Subnets      []string  `json:"subnets"`
	PortSecurity *bool     `json:"port_security_enabled"`
	DNSDomain    string    `json:"dns_domain"`
	NetworkType  *string   `json:"provider:network_type"`
	PhysicalNet  *string   `json:"provider:physical_network"`
	Segments     []segment `json:"segments"`
}

type segment struct {
	NetworkType *string `json:"provider:network_type"`
	PhysicalNet *string `json:"provider:physical_network"`
}

type subnet struct {
	ID              string   `json:"id"`
	NetworkID       string   `json:"network_id"`
	IPVersion       int      `json:"ip_version"`
	CIDR            string   `json:"cidr"`
	Gateway         *string  `json:"gateway_ip"`
	EnableDHCP      bool     `json:"enable_dhcp"`
	IPv6AddressMode *string  `json:"ipv6_address_mode"`
	DNS             []string `json:"dns_nameservers"`
	Routes          []struct {
		Destination string `json:"destination"`
		NextHop     string `json:"nexthop"`
	} `json:"host_routes"`
}

type floatingIP struct {
	PortID   string `json:"port_id"`
	Fixed    string `json:"fixed_ip_address"`
	Floating string `json:"floating_ip_address"`
}

type securityGroup struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}
