package neutron

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// InfoRequest asks for the present network of an instance.
type InfoRequest struct {
	InstanceUUID string
	// Known is the info cache. It gives the order of the interfaces and says
	// which ports are the user's; ports that it lacks come after it, oldest first.
	Known objects.NetworkInfo
	// RequestID goes along with the requests.
	RequestID string
}

func (r InfoRequest) auth() openstack.UserAuth { return openstack.UserAuth{RequestID: r.RequestID} }

// Info reads the ports of an instance and describes them. No ports is an empty
// list. It uses the service's credentials, and two rounds of requests.
func (c *Client) Info(ctx context.Context, req InfoRequest) (objects.NetworkInfo, error) {
	ports, err := c.listPorts(ctx, req.auth(), url.Values{"device_id": {req.InstanceUUID}})
	if err != nil {
		return nil, fmt.Errorf("list ports of instance %s: %w", req.InstanceUUID, err)
	}
	return c.describe(ctx, req, inOrder(ports, req.Known))
}

// RefreshPort reads one port of the instance again and returns Known with it
// replaced, added, or, if it is gone or on another instance, removed.
func (c *Client) RefreshPort(ctx context.Context, req InfoRequest, portID string) (objects.NetworkInfo, error) {
	i := slices.IndexFunc(req.Known, func(v objects.VIF) bool { return v.ID == portID })
	out := slices.Clone(req.Known)
	p, err := c.showPort(ctx, req.auth(), portID)
	switch {
	case errors.Is(err, errdefs.ErrNotFound), err == nil && p.DeviceID != req.InstanceUUID:
		if i >= 0 {
			out = slices.Delete(out, i, i+1)
		}
		return out, nil
	case err != nil:
		return nil, fmt.Errorf("read port %s: %w", portID, err)
	}
	fresh, err := c.describe(ctx, req, []port{p})
	if err != nil {
		return nil, err
	}
	if i < 0 {
		return append(out, fresh...), nil
	}
	out[i] = fresh[0]
	return out, nil
}

func (c *Client) describe(ctx context.Context, req InfoRequest, ports []port) (objects.NetworkInfo, error) {
	if len(ports) == 0 {
		return objects.NetworkInfo{}, nil
	}
	f, err := c.gather(ctx, req.auth(), networksOf(ports), portIDs(ports))
	if err != nil {
		return nil, fmt.Errorf("describe network of instance %s: %w", req.InstanceUUID, err)
	}
	for _, v := range req.Known {
		if v.PreserveOnDelete {
			f.preserve[v.ID] = true
		}
	}
	return f.info(ports), nil
}

func (f *facts) info(ports []port) objects.NetworkInfo {
	out := make(objects.NetworkInfo, 0, len(ports))
	for _, p := range ports {
		out = append(out, f.vif(p))
	}
	return out
}

// gather reads, all at a time, what network_info says of the networks, and the
// floating addresses of the given ports (none for new ones).
func (c *Client) gather(ctx context.Context, auth openstack.UserAuth, networks, ports []string) (*facts, error) {
	f := &facts{
		networks: map[string]network{}, subnets: map[string]subnet{}, dhcp: map[string]string{}, metadata: map[string]string{},
		floating: map[string][]string{}, preserve: map[string]bool{}, bridge: c.opts.OVSBridge,
	}
	auth = auth.AsService() // provider attributes and DHCP ports are not for users
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		list, err := c.listNetworks(ctx, auth, url.Values{"id": networks})
		for _, n := range list {
			f.networks[n.ID] = n
		}
		return err
	})
	g.Go(func() error {
		var out struct{ Subnets []subnet }
		err := c.get(ctx, auth, "/v2.0/subnets", url.Values{"network_id": networks}, &out)
		for _, s := range out.Subnets {
			f.subnets[s.ID] = s
		}
		return err
	})
	g.Go(func() error {
		list, err := c.listPorts(ctx, auth, url.Values{"network_id": networks, "device_owner": {ownerDHCP, ownerDistributed}})
		for _, p := range list {
			servers := f.dhcp
			if p.DeviceOwner == ownerDistributed {
				servers = f.metadata
			}
			for _, ip := range p.FixedIPs {
				servers[ip.SubnetID] = ip.Address
			}
		}
		return err
	})
	if len(ports) > 0 {
		g.Go(func() error { return c.gatherFloating(ctx, auth, ports, f) })
	}
	return f, g.Wait()
}

func (c *Client) gatherFloating(ctx context.Context, auth openstack.UserAuth, ports []string, f *facts) error {
	var out struct {
		IPs []floatingIP `json:"floatingips"`
	}
	err := c.get(ctx, auth, "/v2.0/floatingips", url.Values{"port_id": ports}, &out)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil // a cloud without routers has no such resource
	}
	for _, ip := range out.IPs {
		key := floatKey(ip.PortID, ip.Fixed)
		f.floating[key] = append(f.floating[key], ip.Floating)
	}
	return err
}

// inOrder sorts ports by their place in known; others follow, oldest first.
func inOrder(ports []port, known objects.NetworkInfo) []port {
	at := make(map[string]int, len(known))
	for i, v := range known {
		at[v.ID] = i
	}
	place := func(p port) int {
		if i, ok := at[p.ID]; ok {
			return i
		}
		return len(known)
	}
	slices.SortStableFunc(ports, func(a, b port) int {
		if d := place(a) - place(b); d != 0 {
			return d
		}
		if d := strings.Compare(a.CreatedAt, b.CreatedAt); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	return ports
}

func networksOf(ports []port) []string {
	var out []string
	for _, p := range ports {
		if !slices.Contains(out, p.NetworkID) {
			out = append(out, p.NetworkID)
		}
	}
	return out
}

func portIDs(ports []port) []string {
	out := make([]string, len(ports))
	for i, p := range ports {
		out[i] = p.ID
	}
	return out
}
