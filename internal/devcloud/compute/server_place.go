package compute

import (
	"context"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// placement is where a server is to be.
type placement struct {
	// zone is what the tenant asked for, or "".
	zone string
	// forced ones are taken without asking the filters, wanted ones with.
	forcedHost, forcedNode string
	wantedHost, wantedNode string
}

// placeOf reads the zone, which may name a host and node, and the host of 2.74.
func (s *Service) placeOf(ctx context.Context, r *rest.Request, d *schema.Dict) (placement, error) {
	var p placement
	parts := strings.Split(d.String("availability_zone"), ":")
	p.zone = parts[0]
	switch len(parts) {
	case 1:
	case 2:
		p.forcedHost = parts[1]
	case 3:
		p.forcedHost, p.forcedNode = parts[1], parts[2]
	default:
		return p, badRequest("Invalid input received: Unable to parse availability_zone")
	}
	if p.forcedHost != "" || p.forcedNode != "" {
		if err := allow(r.Caller.Admin(), "servers:create:forced_host"); err != nil {
			return p, err
		}
		zones, err := s.Zones(ctx)
		if err != nil {
			return p, err
		}
		// the host's own zone wins over another one that was asked for
		if own := zones[p.forcedHost]; p.forcedHost != "" && p.zone != own && (p.zone != defaultZone || own != "") {
			p.zone = ""
		}
	}
	p.wantedHost, p.wantedNode = d.String("host"), d.String("hypervisor_hostname")
	if p.wantedHost == "" && p.wantedNode == "" {
		return p, nil
	}
	if !r.Caller.Admin() {
		return p, forbidden("Policy doesn't allow compute:servers:create:requested_destination to be performed.")
	}
	if p.forcedHost != "" || p.forcedNode != "" {
		return p, badRequest("One mechanism with host and/or hypervisor_hostname and another mechanism with zone:host:node are mutually exclusive.")
	}
	return p, s.nodeExists(ctx, p.wantedHost, p.wantedNode)
}

func (s *Service) nodeExists(ctx context.Context, host, node string) error {
	nodes, err := s.o.Cell.ComputeNodes(ctx, cell.NodeQuery{Host: host, Node: node})
	if err != nil || len(nodes) > 0 {
		return err
	}
	if host == "" {
		host = node
	}
	return badRequest("Compute host %s could not be found.", host)
}

// checkZone refuses zones that have no enabled compute service.
func (s *Service) checkZone(ctx context.Context, o *order) error {
	if o.place.zone == "" || o.place.forcedHost != "" {
		return nil
	}
	all, zones, err := s.services(ctx, cell.ServiceQuery{Binary: computeBinary})
	if err != nil {
		return err
	}
	for _, svc := range all {
		if !svc.Disabled() && zoneOf(svc, zones) == o.place.zone {
			return nil
		}
	}
	return badRequest("The requested availability zone is not available")
}

// groupHint finds the server group of the scheduler hints.
func (s *Service) groupHint(ctx context.Context, r *rest.Request, hints *schema.Dict, o *order) error {
	o.hints = map[string]any{}
	if hints == nil {
		return nil
	}
	for _, k := range hints.Keys {
		// the scheduler's form: each hint is a list of texts
		switch v := hints.Get(k).(type) {
		case string:
			o.hints[k] = []string{v}
		case []any:
			list := []string{}
			for _, one := range v {
				list = append(list, schema.Text(one))
			}
			o.hints[k] = list
		case nil:
		default:
			o.hints[k] = []string{schema.Text(v)}
		}
	}
	id := hints.String("group")
	if id == "" {
		return nil
	}
	g, err := s.Group(ctx, id)
	if err == nil && !r.Caller.Owns(g.ProjectID) {
		err = groupNotFound(id)
	}
	if err != nil {
		return orderError(err, badRequest("Instance group %s could not be found.", id))
	}
	o.group = g
	return nil
}

// join makes instances members of a group and returns what takes that back.
// Members that are no more make room.
func (s *Service) join(ctx context.Context, r *rest.Request, g *Group, rows []cell.NewInstance, limit int) (leave func() error, err error) {
	none := func() error { return nil }
	if g == nil {
		return none, nil
	}
	members := make([]any, len(g.Members))
	for n, m := range g.Members {
		members[n] = m
	}
	var gone []string
	if len(members) > 0 {
		alive, err := s.o.Cell.ListInstances(ctx, cell.InstanceQuery{Deleted: cell.LiveAndSoft, Match: map[string][]any{"uuid": members}})
		if err != nil {
			return none, err
		}
		for _, m := range g.Members {
			if !slices.ContainsFunc(alive, func(i objects.Instance) bool { return i.UUID() == m }) {
				gone = append(gone, m)
			}
		}
	}
	ids := make([]string, len(rows))
	for n, row := range rows {
		ids[n] = row.Instance.UUID()
	}
	if err := s.addMembers(ctx, g.ID, ids, gone, limit); err != nil {
		return none, err
	}
	return func() error { return s.dropMembers(context.WithoutCancel(ctx), g.ID, ids) }, nil
}
