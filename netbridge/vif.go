package netbridge

import "strings"

// MaxName is the longest device name in bytes (IFNAMSIZ less the final zero,
// Linux include/uapi/linux/if.h).
const MaxName = 15

// idChars is how much of an id Neutron puts into a device name
// (neutron_lib/constants.py: DEVICE_NAME_MAX_LEN less the prefix).
const idChars = 11

// TapName is the host end's device name for a Neutron port. Neutron's agents
// find the port by it: "tap" and the first 11 characters of the port id.
func TapName(portID string) string { return "tap" + cut(portID) }

// BridgeName is the Linux bridge of a Neutron network under the linuxbridge
// agent: "brq" and the first 11 characters of the network id.
func BridgeName(networkID string) string { return "brq" + cut(networkID) }

// HybridNames are of a port of Open vSwitch that has a Linux bridge of its own:
// the bridge, and the pair of devices that leads from it into the switch
// (vif_plug_ovs/ovs.py; nova/network/os_vif_util.py, _get_hybrid_bridge_name).
func HybridNames(portID string) (bridge, inBridge, inSwitch string) {
	id := cut(portID)
	return "qbr" + id, "qvb" + id, "qvo" + id
}

// pendingName is what a host end is called from its creation until it is
// complete; nothing of Neutron's looks at this prefix.
func pendingName(id string) string { return "gtp" + cut(id) }

// limitName is the device through which goes what a guest may send only so much
// of; nothing of Neutron's looks at this prefix.
func limitName(id string) string { return "gtl" + cut(id) }

func cut(id string) string { return id[:min(len(id), idChars)] }

const markPrefix = "gantry:"

// mark is the alias (IFLA_IFALIAS) of a host end that is ours.
func mark(owner, id string) string { return markPrefix + owner + ":" + id }

// parseMark reads an alias back; ok is false for one that is not ours.
func parseMark(alias string) (owner, id string, ok bool) {
	rest, found := strings.CutPrefix(alias, markPrefix)
	if !found {
		return "", "", false
	}
	owner, id, found = strings.Cut(rest, ":")
	return owner, id, found && owner != "" && id != ""
}

// validName follows dev_valid_name of Linux net/core/dev.c, and refuses '%',
// which the kernel takes as a pattern.
func validName(name string) bool {
	if name == "" || len(name) > MaxName || name == "." || name == ".." {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '/' || c == ':' || c == '%' {
			return false
		}
	}
	return true
}

// validID accepts what can stand in a mark.
func validID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c >= 0x7f || c == ':' || c == '/' {
			return false
		}
	}
	return true
}
