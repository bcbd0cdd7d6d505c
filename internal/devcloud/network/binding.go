package network

import "strings"

// The types of binding (neutron_lib/api/definitions/portbindings.py).
const (
	vifUnbound = "unbound"
	vifFailed  = "binding_failed"
	vifBridge  = "bridge"
)

// deviceID is how much of an id is part of a device's name
// (neutron_lib/constants.py, RESOURCE_ID_LENGTH; IFNAMSIZ).
const deviceID = 11

// bridgeName is the bridge of a network on a host, tapName the device of a
// port (linuxbridge_neutron_agent.py, get_bridge_name, get_tap_device_name).
func bridgeName(networkID string) string { return "brq" + networkID[:deviceID] }
func tapName(portID string) string       { return "tap" + portID[:deviceID] }

// binding is where a port is, as an administrator sees it.
type binding struct {
	VNIC    string
	Host    string         `json:",omitempty"`
	Profile map[string]any `json:",omitempty"`
	VIF     string         `json:",omitempty"`
}

func (b *binding) view(v map[string]any) {
	profile := b.Profile
	if profile == nil {
		profile = map[string]any{}
	}
	details := map[string]any{}
	if b.VIF == vifBridge {
		details = map[string]any{"connectivity": "l2", "port_filter": true, "bound_drivers": map[string]any{"0": "linuxbridge"}}
	}
	v["binding:vnic_type"], v["binding:host_id"], v["binding:profile"] = b.VNIC, b.Host, profile
	v["binding:vif_type"], v["binding:vif_details"] = b.VIF, details
}

// bind takes over what was sent of the binding and binds: to the one host that
// has an agent, of which host is the name, or it fails.
//
// Source: neutron/plugins/ml2/plugin.py, _process_port_binding and
// _attempt_binding; drivers/linuxbridge/mech_driver.
func (b *binding) bind(v values, host string) {
	v.setStr("binding:vnic_type", &b.VNIC)
	if v.has("binding:profile") {
		b.Profile, _ = v["binding:profile"].(map[string]any)
	}
	if v.has("binding:host_id") {
		b.Host = v.str("binding:host_id")
	}
	switch {
	case b.Host == "":
		b.VIF = vifUnbound
	case strings.EqualFold(b.Host, host) && b.VNIC == "normal":
		b.VIF = vifBridge
	default:
		b.VIF = vifFailed
	}
}
