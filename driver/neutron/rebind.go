package neutron

import (
	"context"
	"fmt"
	"net/url"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/driver/objects"
)

// RebindRequest moves the ports of an instance to a host.
type RebindRequest struct {
	InfoRequest

	AvailabilityZone string
	// Host is the name under which the host's network agent is known.
	Host string
}

// Rebind binds the ports that the instance has to another host, keeping their
// addresses, and describes them. Ports that are bound there already are not
// touched. A binding that fails is PortBindingFailed; the ports then stay with
// the instance, for the next host or for Deallocate.
func (c *Client) Rebind(ctx context.Context, req RebindRequest) (objects.NetworkInfo, error) {
	ports, err := c.listPorts(ctx, req.auth(), url.Values{"device_id": {req.InstanceUUID}})
	if err != nil {
		return nil, fmt.Errorf("list ports of instance %s: %w", req.InstanceUUID, err)
	}
	ports = inOrder(ports, req.Known)
	errs := make([]error, len(ports))
	var g errgroup.Group
	g.SetLimit(maxAtOnce)
	for i, p := range ports {
		g.Go(func() error {
			ports[i], errs[i] = c.rebind(ctx, req, p)
			return nil
		})
	}
	_ = g.Wait() // errors are in errs
	if err := firstNamed(errs); err != nil {
		return nil, fmt.Errorf("bind ports of instance %s: %w", req.InstanceUUID, err)
	}
	return c.describe(ctx, req.InfoRequest, ports)
}

func (c *Client) rebind(ctx context.Context, req RebindRequest, p port) (port, error) {
	if p.HostID == req.Host && p.VIFType != vifBindingFailed && p.VIFType != vifUnbound {
		return p, nil
	}
	bound, err := c.updatePort(ctx, req.auth(), p.ID, map[string]any{
		"device_owner": "compute:" + req.AvailabilityZone, "binding:host_id": req.Host,
	})
	if err != nil {
		return p, ofUpdate(err, p.ID)
	}
	if bound.VIFType == vifBindingFailed || bound.VIFType == vifUnbound {
		return bound, bindingFailed(p.ID)
	}
	return bound, nil
}
