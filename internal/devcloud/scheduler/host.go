package scheduler

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/placement"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// cellUUID is the one cell's; compute hosts only hand it back.
const cellUUID = "00000000-0000-0000-0000-000000000001"

// allocationVersion is Placement's microversion that the form of
// allocation_request is from.
const allocationVersion = "1.36"

// host is a compute node that has room.
type host struct {
	node      objects.ComputeNode
	candidate placement.Candidate
	zone      string
	// what rank compares; preference is of the server group.
	preference, failed, freeRAM, instances int64
}

func newHost(node objects.ComputeNode, c placement.Candidate, zone string) *host {
	failed, _ := strconv.ParseInt(node.Stats()["failed_builds"], 10, 64) // absent is 0
	return &host{
		node: node, candidate: c, zone: zone, failed: failed,
		freeRAM: node.Int("free_ram_mb"), instances: node.Int("running_vms"),
	}
}

// taken counts an instance that was just placed here.
func (h *host) taken(spec objects.RequestSpec) {
	h.freeRAM -= objects.Flavor{Object: spec.Object.Object("flavor")}.MemoryMB()
	h.instances++
}

type allocationRequest struct {
	Allocations map[string]allocationAmounts `json:"allocations"`
	Mappings    map[string][]string          `json:"mappings"`
}

type allocationAmounts struct {
	Resources map[string]int64 `json:"resources"`
}

// selection is the host as it goes to the conductor and the compute host.
func (h *host) selection() objects.Selection {
	req := allocationRequest{Allocations: map[string]allocationAmounts{}, Mappings: map[string][]string{"": {}}}
	for provider, amounts := range h.candidate.Allocations {
		req.Allocations[provider] = allocationAmounts{amounts}
		req.Mappings[""] = append(req.Mappings[""], provider)
	}
	text, err := json.Marshal(req)
	if err != nil {
		text = []byte("{}") // strings and numbers only: it does not happen
	}
	limits := objects.New("SchedulerLimits")
	for _, f := range []string{"numa_topology", "vcpu", "disk_gb", "memory_mb"} {
		limits.Set(f, nil)
	}
	s := objects.New("Selection")
	s.Set("compute_node_uuid", h.node.UUID())
	s.Set("service_host", h.node.Host())
	s.Set("nodename", h.node.Node())
	s.Set("cell_uuid", cellUUID)
	s.Set("limits", limits)
	s.Set("allocation_request", string(text))
	s.Set("allocation_request_version", allocationVersion)
	s.Set("availability_zone", h.zone)
	return objects.Selection{Object: s}
}

// allocationsOf is what a selection would allocate.
func allocationsOf(s objects.Selection) (map[string]map[string]int64, error) {
	var req allocationRequest
	if err := json.Unmarshal([]byte(s.String("allocation_request")), &req); err != nil || len(req.Allocations) == 0 {
		return nil, fmt.Errorf("allocation request of host %s: %w: %w", s.ServiceHost(), errdefs.ErrInvalid, err)
	}
	out := make(map[string]map[string]int64, len(req.Allocations))
	for provider, amounts := range req.Allocations {
		out[provider] = amounts.Resources
	}
	return out, nil
}
