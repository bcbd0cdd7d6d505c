package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/placement"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// candidates returns the hosts with room for one instance that pass all
// filters but those of server groups. None left is a *NoValidHost.
func (s *Scheduler) candidates(ctx context.Context, spec objects.RequestSpec) ([]*host, error) {
	want, err := needs(spec)
	if err != nil {
		return nil, err
	}
	found, err := s.o.Placement.Candidates(ctx, want)
	if errors.Is(err, errdefs.ErrInvalid) {
		return nil, errors.Join(&NoValidHost{}, err) // a trait or class that nobody has
	}
	if err != nil {
		return nil, fmt.Errorf("ask placement: %w", err)
	}
	if len(found) == 0 {
		return nil, &NoValidHost{}
	}
	hosts, err := s.hosts(ctx, found)
	if err != nil {
		return nil, err
	}
	for _, f := range filters {
		before := len(hosts)
		hosts = slices.DeleteFunc(hosts, func(h *host) bool { return !f.pass(h, spec) })
		if len(hosts) < before {
			s.o.Log.Debug().Str("filter", f.name).Int("before", before).Int("hosts", len(hosts)).Msg("hosts are filtered")
		}
	}
	if len(hosts) == 0 {
		return nil, notEnough()
	}
	return hosts, nil
}

// hosts joins candidates with the nodes whose services are up and enabled
// (ComputeFilter).
func (s *Scheduler) hosts(ctx context.Context, found []placement.Candidate) ([]*host, error) {
	services, err := s.o.Nodes.Services(ctx, cell.ServiceQuery{Binary: "nova-compute"})
	if err != nil {
		return nil, err
	}
	now, usable := time.Now(), map[string]bool{}
	for _, service := range services {
		usable[service.Host()] = !service.Disabled() && cell.Up(service, now)
	}
	all, err := s.o.Nodes.ComputeNodes(ctx, cell.NodeQuery{})
	if err != nil {
		return nil, err
	}
	zones, err := s.zones(ctx)
	if err != nil {
		return nil, err
	}
	nodes := make(map[string]objects.ComputeNode, len(all))
	for _, n := range all {
		nodes[n.UUID()] = n
	}
	var out []*host
	seen := map[string]bool{}
	for _, c := range found {
		for provider := range c.Allocations {
			n, ok := nodes[provider]
			if !ok || seen[provider] || !usable[n.Host()] {
				continue
			}
			seen[provider] = true // the first way at a node will do
			zone := zones[n.Host()]
			if zone == "" {
				zone = DefaultZone
			}
			out = append(out, newHost(n, c, zone))
		}
	}
	return out, nil
}

// filter is a condition on one host.
type filter struct {
	name string
	pass func(h *host, spec objects.RequestSpec) bool
}

var filters = [...]filter{
	{"requested", requested},
	{"tried", notTried},
	{"zone", inZone},
	{"image", runsImage},
}

// requested looks at the hosts that were forced, requested or ignored.
func requested(h *host, spec objects.RequestSpec) bool {
	name, node := h.node.Host(), h.node.Node()
	if forced := spec.StringList("force_hosts"); len(forced) > 0 && !slices.Contains(forced, name) {
		return false
	}
	if forced := spec.StringList("force_nodes"); len(forced) > 0 && !slices.Contains(forced, node) {
		return false
	}
	if slices.Contains(spec.StringList("ignore_hosts"), name) {
		return false
	}
	d := spec.Object.Object("requested_destination")
	return (d.String("host") == "" || d.String("host") == name) && (d.String("node") == "" || d.String("node") == node)
}

// notTried leaves out the hosts where the build has failed.
func notTried(h *host, spec objects.RequestSpec) bool {
	tried := spec.Object.Object("retry").Objects("hosts")
	return !slices.ContainsFunc(tried, func(n *objects.Object) bool {
		return n.String("host") == h.node.Host() && n.String("hypervisor_hostname") == h.node.Node()
	})
}

func inZone(h *host, spec objects.RequestSpec) bool {
	zone := spec.String("availability_zone")
	return zone == "" || zone == h.zone
}

// runsImage compares the image's architecture, hypervisor type and mode with
// what the host runs (ImagePropertiesFilter).
func runsImage(h *host, spec objects.RequestSpec) bool {
	props := spec.Object.Object("image").Object("properties")
	want := map[string]string{
		"arch": canonicalArch(props.String("hw_architecture")), "hv_type": canonicalType(props.String("img_hv_type")),
		"vm_mode": canonicalMode(props.String("hw_vm_mode")),
	}
	if want["arch"] == "" && want["hv_type"] == "" && want["vm_mode"] == "" {
		return true
	}
	return slices.ContainsFunc(h.node.Objects("supported_hv_specs"), func(s *objects.Object) bool {
		for field, w := range want {
			if w != "" && s.String(field) != w {
				return false
			}
		}
		return true
	})
}

// The canonical names are those of nova/objects/fields.py (Architecture,
// HVType, VMMode).
func canonicalArch(s string) string {
	switch s = strings.ToLower(s); s {
	case "i386", "i486", "i586":
		return "i686"
	case "amd64":
		return "x86_64"
	}
	return s
}

func canonicalType(s string) string {
	switch s = strings.ToLower(s); s {
	case "baremetal":
		return "ironic"
	case "xapi":
		return "xen"
	case "powervm":
		return "phyp"
	}
	return s
}

func canonicalMode(s string) string {
	switch s = strings.ToLower(s); s {
	case "pv":
		return "xen"
	case "hv":
		return "hvm"
	case "baremetal":
		return "hvm"
	}
	return s
}
