package neutron

import (
	"fmt"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// Network ids with a meaning of their own (nova/objects/network_request.py).
const (
	NetworkAuto = "auto"
	NetworkNone = "none"
)

// NetworkRequest is one interface that the user asked for. With PortID the
// port exists; otherwise one is made on NetworkID.
type NetworkRequest struct {
	NetworkID string
	// Address is a fixed address asked for, or empty.
	Address string
	PortID  string
	// Tag is the device tag for the VirtualInterface row, or empty.
	Tag string
}

// AllocateRequest asks for the ports of an instance.
type AllocateRequest struct {
	InstanceUUID     string
	ProjectID        string
	AvailabilityZone string
	// Hostname is the instance's, for DNS integration.
	Hostname string
	// Host is the name under which this host's network agent is known.
	Host string
	// Networks in the order of the interfaces; empty when the user named none.
	Networks []NetworkRequest
	// SecurityGroups are names or ids of the project. Empty or only "default"
	// leaves the choice to Neutron.
	SecurityGroups []string
	// Admin says that the user may use external networks.
	Admin bool
	Auth  openstack.UserAuth

	// existing are ports that the instance had before: an undo that looks for
	// lost ones keeps them.
	existing []string
}

// AllocateResult is what Allocate did.
type AllocateResult struct {
	// Info describes the ports in the order of the request.
	Info objects.NetworkInfo
	// Ports in the same order, for the VirtualInterface rows.
	Ports []AllocatedPort
}

// AllocatedPort is one port of an AllocateResult.
type AllocatedPort struct {
	ID, MAC, Tag string
	// Created says that Nova owns the port; otherwise it was the user's.
	Created bool
}

// ParseRequests reads a NetworkRequestList; nil and an empty one give nil. A
// list of one request that names nothing means that nothing was asked for.
func ParseRequests(list *objects.Object) ([]NetworkRequest, error) {
	if list == nil {
		return nil, nil
	}
	if list.Name != "NetworkRequestList" {
		return nil, fmt.Errorf("requested networks: a %s: %w", list.Name, errdefs.ErrInvalid)
	}
	var out []NetworkRequest
	for _, o := range list.Objects("objects") {
		for _, f := range []string{"pci_request_id", "arq_uuid", "device_profile"} {
			if !o.IsNull(f) {
				return nil, errdefs.WithPublic(
					fmt.Errorf("requested networks: %s: %w", f, errdefs.ErrUnsupported),
					"Ports that need a device of the host are not supported.")
			}
		}
		out = append(out, NetworkRequest{
			NetworkID: o.String("network_id"), Address: o.String("address"),
			PortID: o.String("port_id"), Tag: o.String("tag"),
		})
	}
	if len(out) == 1 && out[0].NetworkID == "" && out[0].PortID == "" && out[0].Address == "" {
		return nil, nil
	}
	return out, nil
}

// special reports whether the request is the single word auto or none.
func (r AllocateRequest) special(word string) bool {
	return len(r.Networks) == 1 && r.Networks[0].NetworkID == word
}

// networkIDs returns the distinct networks on which ports are to be made.
func (r AllocateRequest) networkIDs() []string {
	seen := map[string]bool{}
	var out []string
	for _, n := range r.Networks {
		if n.PortID == "" && !seen[n.NetworkID] {
			seen[n.NetworkID] = true
			out = append(out, n.NetworkID)
		}
	}
	return out
}
