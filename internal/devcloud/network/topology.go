package network

import (
	"context"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// topology is the network with a way out that a project gets without setting one
// up. Its ID is the project's.
type topology struct {
	base

	Network, Router string
}

// topologyRoutes are of neutron/services/auto_allocate/db.py.
func (s *Service) topologyRoutes() {
	s.api.Handle("GET /v2.0/auto-allocated-topology", func(context.Context, *rest.Request) (*rest.Response, error) {
		return rest.OK(map[string]any{"auto_allocated_topologies": []any{}})
	})
	s.api.Handle("GET /v2.0/auto-allocated-topology/{project}", s.getTopology)
	s.api.Handle("DELETE /v2.0/auto-allocated-topology/{project}", s.deleteTopology)
}

// topologyOf is the project of the path; "None" and "null" are the caller's.
func topologyOf(r *rest.Request) (string, error) {
	project := r.PathValue("project")
	if project == "None" || project == "null" {
		project = r.Caller.ProjectID
	}
	if !r.Caller.Owns(project) {
		return "", fault(http.StatusForbidden, "NotAuthorized", "Not authorized.")
	}
	return project, nil
}

func (s *Service) getTopology(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	project, err := topologyOf(r)
	if err != nil {
		return nil, err
	}
	fields := fieldsOf(r)
	if len(fields) > 0 && !slices.Contains(fields, "dry-run") {
		return nil, fault(400, "BadRequest", "Bad auto_allocate request: Unrecognized field.")
	}
	id := "dry-run=pass"
	if len(fields) > 0 {
		err = s.store.read(func(st *state) error {
			_, _, err := st.topologyNeeds()
			return err
		})
	} else {
		err = s.write(ctx, func(st *state) error {
			t, err := st.ensureTopology(r.Caller, project, s.o.Host)
			if err == nil {
				id = t.Network
			}
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"auto_allocated_topology": map[string]any{"id": id, "tenant_id": project, "project_id": project}})
}

func cannotAllocate(why string) error {
	return conflict("AutoAllocationFailure", "Deployment error: %s.", why)
}

// topologyNeeds are the default external network and the default pools.
func (st *state) topologyNeeds() (*network, []*subnetPool, error) {
	outside := st.networks.where(func(n *network) bool { return n.External && n.Default })
	if len(outside) == 0 {
		return nil, nil, cannotAllocate("No default router:external network")
	}
	var pools []*subnetPool
	for _, version := range []int{4, 6} {
		if p := st.defaultPool(version); p != nil {
			pools = append(pools, p)
		}
	}
	if len(pools) == 0 {
		return nil, nil, cannotAllocate("No default subnetpools defined")
	}
	return outside[0], pools, nil
}

// ensureTopology returns a project's, which is made when it is first asked for.
func (st *state) ensureTopology(c *rest.Caller, project, host string) (*topology, error) {
	if t, ok := st.topologies.get(project); ok {
		return t, nil
	}
	outside, pools, err := st.topologyNeeds()
	if err != nil {
		return nil, err
	}
	// what it needs is the cloud's, so a member may have it made
	admin := &rest.Caller{ProjectID: project, Roles: []string{"admin", "member"}}
	if !c.Member() {
		return nil, denied("rule:get_auto_allocated_topology")
	}
	n, err := st.createNetwork(admin, values{
		"name": "auto_allocated_network", "admin_state_up": true, "project_id": project, "port_security_enabled": true,
	})
	if err != nil {
		return nil, err
	}
	one := &router{SNAT: true, Up: true}
	one.ID, one.Project, one.Name = uuid.NewString(), project, "auto_allocated_router"
	st.made(&one.base)
	if err := st.room(project, "router", st.countOf(project, "router")+1); err != nil {
		return nil, err
	}
	st.routers.put(one)
	if one, err = st.setGateway(admin, one, values{"external_gateway_info": map[string]any{"network_id": outside.ID}}, host); err != nil {
		return nil, err
	}
	for _, p := range pools {
		sub, err := st.createSubnet(admin, values{
			"name": "auto_allocated_subnet_v" + py(p.version()), "network_id": n.ID, "project_id": project, "ip_version": p.version(),
			"subnetpool_id": p.ID, "enable_dhcp": true,
		})
		if err != nil {
			return nil, cannotAllocate("Unable to provide tenant private network")
		}
		if _, err := st.interfaceBySubnet(admin, one, sub.ID, host); err != nil {
			return nil, cannotAllocate("Unable to provide external connectivity")
		}
	}
	t := &topology{Network: n.ID, Router: one.ID}
	t.ID, t.Project = project, project
	st.made(&t.base)
	st.topologies.put(t)
	return t, nil
}

func (s *Service) deleteTopology(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	project, err := topologyOf(r)
	if err != nil {
		return nil, err
	}
	if !r.Caller.Member() {
		return nil, denied("rule:delete_auto_allocated_topology")
	}
	err = s.write(ctx, func(st *state) error {
		t, ok := st.topologies.get(project)
		if !ok {
			return nil
		}
		return st.removeTopology(t)
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

// removeTopology removes one whose network nobody uses.
func (st *state) removeTopology(t *topology) error {
	mine := func(p *port) bool { return p.Owner == ownerDHCP || p.Owner == ownerInterface && p.DeviceID == t.Router }
	for _, p := range st.ports.where(func(p *port) bool { return p.Network == t.Network }) {
		if !mine(p) {
			return conflict("NetworkInUse", "Unable to complete operation on network %s. "+
				"There are one or more ports still in use on the network, id for these ports is: %s.", t.Network, p.ID)
		}
		st.ports.del(p.ID)
	}
	if one, ok := st.routers.get(t.Router); ok {
		if one.Gateway != "" {
			st.ports.del(one.Gateway)
		}
		st.routers.del(one.ID)
	}
	for _, sub := range st.subnetsOf(t.Network) {
		st.subnets.del(sub.ID)
	}
	st.dropPolicies(t.Network)
	st.networks.del(t.Network)
	st.topologies.del(t.ID)
	return nil
}
