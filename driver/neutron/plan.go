package neutron

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// plan is an allocation that has been checked and resolved: nothing has been
// changed yet.
type plan struct {
	req        AllocateRequest
	networks   []NetworkRequest // every one with a NetworkID
	given      map[string]port  // the user's ports
	visible    map[string]network
	groups     []string // ids; nil leaves the choice to Neutron
	extensions map[string]bool
}

// prepare reads everything that decides whether and what to allocate, all at
// a time: the user's ports, the networks as the user sees them, the security
// groups of the project, the extensions.
func (c *Client) prepare(ctx context.Context, req AllocateRequest) (*plan, error) {
	p := &plan{req: req, networks: slices.Clone(req.Networks), given: map[string]port{}, visible: map[string]network{}}
	asked := len(req.Networks) > 0 && !req.special(NetworkAuto)
	found := make([]port, len(p.networks))
	var nets []network
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		p.extensions, err = c.loadExtensions(gctx, req.Auth)
		return err
	})
	g.Go(func() (err error) {
		p.groups, err = c.resolveGroups(gctx, req)
		return err
	})
	if asked {
		for i, n := range p.networks {
			if n.PortID != "" {
				g.Go(func() (err error) {
					found[i], err = c.givenPort(gctx, req, n.PortID)
					return err
				})
			}
		}
		if ids := req.networkIDs(); len(ids) > 0 {
			g.Go(func() (err error) {
				nets, err = c.listNetworks(gctx, req.Auth, url.Values{"id": ids})
				return err
			})
		}
	} else {
		g.Go(func() (err error) {
			nets, err = c.availableNetworks(gctx, req)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("prepare network of instance %s: %w", req.InstanceUUID, err)
	}
	if !asked {
		if err := c.choose(ctx, p, &nets); err != nil {
			return nil, err
		}
	}
	for _, n := range nets {
		p.visible[n.ID] = n
	}
	for i := range p.networks {
		if n := &p.networks[i]; n.PortID != "" {
			n.NetworkID = found[i].NetworkID
			p.given[n.PortID] = found[i]
		}
	}
	if err := c.lookUpDomains(ctx, p); err != nil {
		return nil, err
	}
	return p, p.check()
}

// lookUpDomains adds the networks of the user's ports, as far as the user sees
// them: their DNS domain decides who sets the name.
func (c *Client) lookUpDomains(ctx context.Context, p *plan) error {
	var ids []string
	for _, g := range p.given {
		if _, known := p.visible[g.NetworkID]; !known && p.extensions[extDNS] {
			ids = append(ids, g.NetworkID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	nets, err := c.listNetworks(ctx, p.req.Auth, url.Values{"id": ids})
	if err != nil {
		return fmt.Errorf("list networks: %w", err)
	}
	for _, n := range nets {
		p.visible[n.ID] = n
	}
	return nil
}

// check applies the rules that need no further look.
func (p *plan) check() error {
	used := map[string]bool{}
	for _, r := range p.networks {
		if r.PortID != "" {
			if used[r.PortID] {
				return fail(PortInUse, "Port %s is still in use.", r.PortID)
			}
			used[r.PortID] = true
			if name := p.given[r.PortID].DNSName; p.extensions[extDNS] && name != "" && name != p.req.Hostname {
				return fail(PortNotUsableDNS,
					"Port %s not usable for instance %s. Value %s assigned to dns_name attribute does not match instance's hostname %s",
					r.PortID, p.req.InstanceUUID, name, p.req.Hostname)
			}
			continue
		}
		net, ok := p.visible[r.NetworkID]
		switch {
		case !ok:
			return fail(NetworkNotFound, "Network %s could not be found.", r.NetworkID)
		case net.External && !net.Shared && !p.req.Admin:
			return fail(ExternalNetworkAttachForbidden, "It is not allowed to create an interface on external network %s", r.NetworkID)
		case net.secure() && len(net.Subnets) == 0, !net.secure() && len(p.groups) > 0:
			return fail(SecurityGroupCannotBeApplied,
				"Network requires port_security_enabled and subnet associated in order to apply security groups.")
		}
	}
	return nil
}

// secure reports whether ports of the network are filtered.
func (n network) secure() bool { return n.PortSecurity == nil || *n.PortSecurity }

// givenPort reads a port of the user and checks that it may be used.
func (c *Client) givenPort(ctx context.Context, req AllocateRequest, id string) (port, error) {
	p, err := c.showPort(ctx, req.Auth.AsService(), id)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return p, failBy(err, PortNotFound, "Port id %s could not be found.", id)
	case err != nil:
		return p, fmt.Errorf("read port %s: %w", id, err)
	case p.TenantID != req.ProjectID:
		return p, fail(PortNotUsable, "Port %s not usable for instance %s.", id, req.InstanceUUID)
	case p.DeviceID != "" && p.DeviceID != req.InstanceUUID:
		return p, fail(PortInUse, "Port %s is still in use.", id)
	case p.VIFType == vifBindingFailed:
		return p, bindingFailed(id)
	}
	return p, nil
}

func bindingFailed(id string) error {
	return fail(PortBindingFailed, "Binding failed for port %s, please check neutron logs for more information.", id)
}

// resolveGroups maps names and ids to ids among the groups of the project. A
// name goes before an id that it equals, as in Nova.
func (c *Client) resolveGroups(ctx context.Context, req AllocateRequest) ([]string, error) {
	if len(req.SecurityGroups) == 0 || (len(req.SecurityGroups) == 1 && req.SecurityGroups[0] == "default") {
		return nil, nil
	}
	var out struct {
		Groups []securityGroup `json:"security_groups"`
	}
	q := url.Values{"fields": {"id", "name"}, "tenant_id": {req.ProjectID}}
	if err := c.get(ctx, req.Auth, "/v2.0/security-groups", q, &out); err != nil {
		return nil, fmt.Errorf("list security groups: %w", err)
	}
	ids := make([]string, 0, len(req.SecurityGroups))
	for _, want := range req.SecurityGroups {
		byName, byID := "", ""
		for _, g := range out.Groups {
			if g.Name == want {
				if byName != "" {
					return nil, fail(NoUniqueMatch, "Multiple security groups found matching '%s'. Use an ID to be more specific.", want)
				}
				byName = g.ID
			}
			if g.ID == want {
				byID = g.ID
			}
		}
		switch {
		case byName != "":
			ids = append(ids, byName)
		case byID != "":
			ids = append(ids, byID)
		default:
			return nil, fail(SecurityGroupNotFound, "Security group %s not found.", want)
		}
	}
	return ids, nil
}

// availableNetworks are the networks on which the user could have a port: the
// project's own and the shared ones.
func (c *Client) availableNetworks(ctx context.Context, req AllocateRequest) ([]network, error) {
	own := url.Values{"tenant_id": {req.ProjectID}, "shared": {"False"}}
	shared := url.Values{"shared": {"True"}}
	if req.special(NetworkAuto) {
		own.Set("admin_state_up", "True")
		shared.Set("admin_state_up", "True")
	}
	var lists [2][]network
	g, ctx := errgroup.WithContext(ctx)
	for i, q := range []url.Values{own, shared} {
		g.Go(func() (err error) {
			lists[i], err = c.listNetworks(ctx, req.Auth, q)
			return err
		})
	}
	err := g.Wait()
	return append(lists[0], lists[1]...), err
}

// choose takes the one network there is when the user named none: more than one
// is ambiguous, none means no interface, or a new topology if that was asked for.
func (c *Client) choose(ctx context.Context, p *plan, nets *[]network) error {
	p.networks = nil
	switch len(*nets) {
	case 1:
		p.networks = []NetworkRequest{{NetworkID: (*nets)[0].ID}}
		return nil
	case 0:
		if !p.req.special(NetworkAuto) {
			return nil
		}
		net, err := c.autoAllocate(ctx, p.req.Auth, p.req.ProjectID)
		if err != nil {
			return err
		}
		*nets = []network{net}
		p.networks = []NetworkRequest{{NetworkID: net.ID}}
		return nil
	}
	return fail(NetworkAmbiguous, "Multiple possible networks found, use a Network ID to be more specific.")
}

func (c *Client) autoAllocate(ctx context.Context, auth openstack.UserAuth, project string) (network, error) {
	var out struct {
		Topology struct{ ID string } `json:"auto_allocated_topology"`
	}
	failed := func(err error) error {
		return failBy(err, UnableToAutoAllocateNetwork, "Unable to automatically allocate a network for project %s", project)
	}
	if err := c.get(ctx, auth, "/v2.0/auto-allocated-topology/"+url.PathEscape(project), nil, &out); err != nil {
		return network{}, failed(err)
	}
	list, err := c.listNetworks(ctx, auth, url.Values{"id": {out.Topology.ID}})
	if err != nil || len(list) != 1 {
		return network{}, failed(err)
	}
	return list[0], nil
}
