package neutron

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// AttachRequest asks for one more port of an instance that exists.
type AttachRequest struct {
	// AllocateRequest names at most one network or port; none is the one
	// network that there is. SecurityGroups do not count: Neutron chooses, as
	// with stock Nova.
	AllocateRequest
	// Known is the info cache.
	Known objects.NetworkInfo
}

// AttachResult is what Attach did.
type AttachResult struct {
	Port AllocatedPort
	// Info is the whole network of the instance, the new port last.
	Info objects.NetworkInfo
}

// Attach creates or adopts one port beside those that the instance has, and
// binds it to req.Host. A port of the user that is on any instance, this one
// included, is PortInUse. On error the new port is deleted, or unbound if it is
// the user's, and the other ports of the instance are not touched.
//
// Source: nova/compute/manager.py, _attach_interface.
func (c *Client) Attach(ctx context.Context, req AttachRequest) (*AttachResult, error) {
	auth := req.Auth.AsService()
	before, err := c.listPorts(ctx, auth, url.Values{"device_id": {req.InstanceUUID}})
	if err != nil {
		return nil, fmt.Errorf("list ports of instance %s: %w", req.InstanceUUID, err)
	}
	req.existing, req.SecurityGroups = portIDs(before), nil
	for _, n := range req.Networks {
		if slices.Contains(req.existing, n.PortID) {
			return nil, fail(PortInUse, "Port %s is still in use.", n.PortID)
		}
	}
	got, err := c.Allocate(ctx, req.AllocateRequest)
	if err != nil {
		return nil, err
	}
	if len(got.Ports) != 1 {
		return nil, fail(AttachNoNetwork, "No specific network was requested and none are available for project '%s'.", req.ProjectID)
	}
	res := &AttachResult{Port: got.Ports[0]}
	known := append(slices.DeleteFunc(slices.Clone(req.Known), func(v objects.VIF) bool { return v.ID == res.Port.ID }), got.Info...)
	if len(before) == 0 {
		res.Info = got.Info
		return res, nil
	}
	res.Info, err = c.Info(ctx, InfoRequest{InstanceUUID: req.InstanceUUID, Known: known, RequestID: req.Auth.RequestID})
	if err == nil && !slices.ContainsFunc(res.Info, func(v objects.VIF) bool { return v.ID == res.Port.ID }) {
		err = failBy(nil, PortNotFound, "Port id %s could not be found.", res.Port.ID) // deleted by somebody
	}
	if err != nil {
		undo := DetachRequest{InstanceUUID: req.InstanceUUID, PortID: res.Port.ID, Preserve: !res.Port.Created, RequestID: req.Auth.RequestID}
		return nil, errors.Join(err, c.Detach(context.WithoutCancel(ctx), undo))
	}
	return res, nil
}

// DetachRequest says which port an instance is to lose.
type DetachRequest struct {
	InstanceUUID, PortID string
	// Preserve says that the port is the user's: it is unbound, not deleted.
	Preserve  bool
	RequestID string
}

// Detach deletes the port, or gives it back to the user. A port that is gone, or
// on another instance by now, is left as it is, which is success.
func (c *Client) Detach(ctx context.Context, req DetachRequest) error {
	auth := openstack.UserAuth{RequestID: req.RequestID}
	p, err := c.showPort(ctx, auth, req.PortID)
	switch {
	case errors.Is(err, errdefs.ErrNotFound), err == nil && p.DeviceID != req.InstanceUUID:
		return nil
	case err != nil:
	case req.Preserve:
		err = c.release(ctx, auth, nil, []port{p})
	default:
		err = c.release(ctx, auth, []port{p}, nil)
	}
	if err != nil {
		return fmt.Errorf("detach port %s of instance %s: %w", req.PortID, req.InstanceUUID, err)
	}
	return nil
}

// AddressRequest asks for a fixed address more or less.
type AddressRequest struct {
	InfoRequest

	// NetworkID is where AddAddress adds one.
	NetworkID string
	// Address is the one that RemoveAddress removes.
	Address string
	// Auth is the user's: Neutron decides whether the user may.
	Auth openstack.UserAuth
}

// AddAddress gives the instance's port on the network one more address, of the
// first subnet that has one, and returns the whole network.
// NetworkNotFoundForInstance: it has no port there, or no subnet gives one.
func (c *Client) AddAddress(ctx context.Context, req AddressRequest) (objects.NetworkInfo, error) {
	missing := func(err error) error {
		if status, ok := errors.AsType[*openstack.StatusError](err); ok && (status.Type == "IpAddressGenerationFailure" || status.Type == "NoMoreFixedIps") {
			return failBy(err, NoMoreFixedIps, "No fixed IP addresses available for network: %s", req.NetworkID)
		}
		return failBy(err, NetworkNotFoundForInstance, "Network could not be found for instance %s.", req.InstanceUUID)
	}
	var subnets struct{ Subnets []subnet }
	if err := c.get(ctx, req.Auth, "/v2.0/subnets", url.Values{"network_id": {req.NetworkID}}, &subnets); err != nil {
		return nil, fmt.Errorf("list subnets of network %s: %w", req.NetworkID, err)
	}
	ports, err := c.listPorts(ctx, req.auth(), url.Values{"device_id": {req.InstanceUUID}, "network_id": {req.NetworkID}})
	if err != nil {
		return nil, fmt.Errorf("list ports of instance %s: %w", req.InstanceUUID, err)
	}
	var last error
	for _, p := range ports {
		for _, s := range subnets.Subnets {
			ips := fixedOf(p, "")
			_, last = c.updatePort(ctx, req.Auth, p.ID, map[string]any{"fixed_ips": append(ips, map[string]string{"subnet_id": s.ID})})
			if last == nil {
				return c.Info(ctx, req.InfoRequest)
			}
		}
	}
	return nil, missing(last)
}

// RemoveAddress takes an address from the port of the instance that has it, and
// returns the whole network. FixedIPNotFoundForInstance if none has.
func (c *Client) RemoveAddress(ctx context.Context, req AddressRequest) (objects.NetworkInfo, error) {
	ports, err := c.listPorts(ctx, req.auth(), url.Values{"device_id": {req.InstanceUUID}})
	if err != nil {
		return nil, fmt.Errorf("list ports of instance %s: %w", req.InstanceUUID, err)
	}
	for _, p := range ports {
		if !slices.ContainsFunc(p.FixedIPs, func(ip fixedIP) bool { return ip.Address == req.Address }) {
			continue
		}
		if _, err := c.updatePort(ctx, req.Auth, p.ID, map[string]any{"fixed_ips": fixedOf(p, req.Address)}); err != nil {
			return nil, fmt.Errorf("remove address %s of port %s: %w", req.Address, p.ID, err)
		}
		return c.Info(ctx, req.InfoRequest)
	}
	return nil, fail(FixedIPNotFoundForInstance, "Instance %s does not have fixed IP '%s'.", req.InstanceUUID, req.Address)
}

// fixedOf lists the addresses of a port but one, as an update wants them.
func fixedOf(p port, without string) []map[string]string {
	out := []map[string]string{}
	for _, ip := range p.FixedIPs {
		if ip.Address != without {
			out = append(out, map[string]string{"subnet_id": ip.SubnetID, "ip_address": ip.Address})
		}
	}
	return out
}
