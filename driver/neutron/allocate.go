package neutron

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

const (
	// maxAtOnce bounds the ports of one instance that are made at a time.
	maxAtOnce = 4
	// undoLimit bounds the clean-up of a failed allocation.
	undoLimit = 60 * time.Second
)

// Allocate creates or adopts the ports of an instance, binds them to req.Host
// and describes them. An instance that asked for no network, or for none in
// particular where there is none, gets an empty result.
//
// On error, cancellation included, created ports are deleted and the user's
// ports unbound; what could not be undone is joined to the error. Failures that
// Nova has a name for are *Error.
func (c *Client) Allocate(ctx context.Context, req AllocateRequest) (*AllocateResult, error) {
	if req.special(NetworkNone) {
		return &AllocateResult{Info: objects.NetworkInfo{}}, nil
	}
	p, err := c.prepare(ctx, req)
	if err != nil {
		return nil, err
	}
	if len(p.networks) == 0 {
		return &AllocateResult{Info: objects.NetworkInfo{}}, nil
	}
	ports, f, err := c.carryOut(ctx, p)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("allocate network of instance %s: %w", req.InstanceUUID, err)
		return nil, errors.Join(err, c.undo(ctx, p, ports, err))
	}
	res := &AllocateResult{}
	for i, r := range p.networks {
		f.preserve[ports[i].ID] = r.PortID != ""
		res.Ports = append(res.Ports, AllocatedPort{ID: ports[i].ID, MAC: ports[i].MAC, Tag: r.Tag, Created: r.PortID == ""})
	}
	res.Info = f.info(ports)
	return res, nil
}

// carryOut makes and binds the ports and meanwhile reads what describes them.
// The ports it returns are those that exist now, in their places; a place whose
// request failed is empty.
func (c *Client) carryOut(ctx context.Context, p *plan) ([]port, *facts, error) {
	ports := make([]port, len(p.networks))
	errs := make([]error, len(p.networks))
	var nets, given []string
	for _, r := range p.networks {
		if !slices.Contains(nets, r.NetworkID) {
			nets = append(nets, r.NetworkID)
		}
		if r.PortID != "" {
			given = append(given, r.PortID)
		}
	}
	// Not errgroup.WithContext: one failure does not stop the others half-way.
	var g errgroup.Group
	g.SetLimit(maxAtOnce + 1)
	var f *facts
	var ferr error
	g.Go(func() error {
		f, ferr = c.gather(ctx, p.req.Auth, nets, given)
		return nil
	})
	for i, r := range p.networks {
		g.Go(func() error {
			if r.PortID != "" {
				ports[i], errs[i] = c.bind(ctx, p, p.given[r.PortID])
			} else {
				ports[i], errs[i] = c.create(ctx, p, r)
			}
			return nil
		})
	}
	_ = g.Wait() // errors are in errs, one for each place
	return ports, f, firstNamed(append(errs, ferr))
}

// firstNamed picks the error to report: one that Nova has a name for, else the first.
func firstNamed(errs []error) error {
	var first error
	for _, err := range errs {
		if _, ok := errors.AsType[*Error](err); ok {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// create makes one port and binds it. The port is returned whenever it exists,
// also beside an error.
func (c *Client) create(ctx context.Context, p *plan, r NetworkRequest) (port, error) {
	body := map[string]any{
		"device_id": p.req.InstanceUUID, "network_id": r.NetworkID, "admin_state_up": true, "tenant_id": p.req.ProjectID,
	}
	if p.groups != nil {
		body["security_groups"] = p.groups
	}
	if r.Address != "" {
		body["fixed_ips"] = []map[string]string{{"ip_address": r.Address}}
	}
	if p.req.Auth.Token != "" && (c.opts.UserCreatesPorts || r.Address != "") {
		made, err := c.createPort(ctx, p.req.Auth, body)
		if err != nil {
			return made, ofCreate(err, r, p.req.InstanceUUID)
		}
		bound, err := c.bind(ctx, p, made)
		if bound.ID == "" {
			bound = made
		}
		return bound, err
	}
	for k, v := range p.binding(r.NetworkID) {
		body[k] = v
	}
	made, err := c.createPort(ctx, p.req.Auth.AsService(), body)
	if err != nil {
		return made, ofCreate(err, r, p.req.InstanceUUID)
	}
	return made, c.settle(ctx, p, made)
}

// bind binds an existing port.
func (c *Client) bind(ctx context.Context, p *plan, given port) (port, error) {
	body := p.binding(given.NetworkID)
	body["device_id"] = p.req.InstanceUUID
	bound, err := c.updatePort(ctx, p.req.Auth.AsService(), given.ID, body)
	if err != nil {
		return given, ofUpdate(err, given.ID)
	}
	return bound, c.settle(ctx, p, bound)
}

// binding is what makes a port this instance's on this host.
func (p *plan) binding(networkID string) map[string]any {
	body := map[string]any{"device_owner": "compute:" + p.req.AvailabilityZone, "binding:host_id": p.req.Host}
	if p.extensions[extDNS] && p.visible[networkID].DNSDomain == "" && p.req.Hostname != "" {
		body["dns_name"] = p.req.Hostname
	}
	return body
}

// settle looks whether the binding holds, and on a network with a DNS domain of
// its own sets the name with the user's token: the record is made in the user's zone.
func (c *Client) settle(ctx context.Context, p *plan, bound port) error {
	switch bound.VIFType {
	case "", vifUnbound, vifBindingFailed:
		return bindingFailed(bound.ID)
	}
	if !p.extensions[extDNS] || p.visible[bound.NetworkID].DNSDomain == "" || p.req.Hostname == "" {
		return nil
	}
	_, err := c.updatePort(ctx, p.req.Auth, bound.ID, map[string]any{"dns_name": p.req.Hostname})
	if errors.Is(err, errdefs.ErrInvalid) {
		return failBy(err, InvalidInput, "Instance hostname %s is not a valid DNS name", p.req.Hostname)
	}
	if err != nil {
		return ofUpdate(err, bound.ID)
	}
	return nil
}

// undo takes back what carryOut did. cause is why.
func (c *Client) undo(ctx context.Context, p *plan, ports []port, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	auth := p.req.Auth.AsService()
	var made, given []port
	for i, r := range p.networks {
		switch {
		case r.PortID != "":
			given = append(given, p.given[r.PortID])
		case ports[i].ID != "":
			made = append(made, ports[i])
		}
	}
	var errs []error
	if errors.Is(cause, errdefs.ErrUnavailable) {
		// A creation without an answer may have succeeded: look.
		lost, err := c.listPorts(ctx, auth, url.Values{"device_id": {p.req.InstanceUUID}, "tenant_id": {p.req.ProjectID}})
		errs = append(errs, err)
		for _, l := range lost {
			_, users := p.given[l.ID]
			if !users && !slices.Contains(p.req.existing, l.ID) && !slices.Contains(portIDs(made), l.ID) {
				made = append(made, l)
			}
		}
	}
	c.log.Debug().Str(logging.Instance, p.req.InstanceUUID).Int("ports", len(made)+len(given)).Msg("taking ports back")
	return errors.Join(append(errs, c.release(ctx, auth, made, given))...)
}
