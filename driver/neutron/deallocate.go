package neutron

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// DeallocateRequest says whose ports to take away.
type DeallocateRequest struct {
	InstanceUUID string
	// Known is the info cache: ports marked preserve_on_delete stay.
	Known objects.NetworkInfo
	// Preserve names further ports of the user, from the request of the build.
	Preserve  []string
	RequestID string
}

// Deallocate deletes the ports that were made for the instance and unbinds
// those of the user. Ports that Neutron does not show on the instance any more
// are left alone, whoever has them now. Nothing there is success.
func (c *Client) Deallocate(ctx context.Context, req DeallocateRequest) error {
	auth := openstack.UserAuth{RequestID: req.RequestID}
	ports, err := c.listPorts(ctx, auth, url.Values{"device_id": {req.InstanceUUID}})
	if err != nil {
		return fmt.Errorf("deallocate network of instance %s: %w", req.InstanceUUID, err)
	}
	keep := map[string]bool{}
	for _, id := range req.Preserve {
		keep[id] = true
	}
	for _, v := range req.Known {
		keep[v.ID] = keep[v.ID] || v.PreserveOnDelete
	}
	var made, given []port
	for _, p := range ports {
		if keep[p.ID] {
			given = append(given, p)
		} else {
			made = append(made, p)
		}
	}
	if err := c.release(ctx, auth, made, given); err != nil {
		return fmt.Errorf("deallocate network of instance %s: %w", req.InstanceUUID, err)
	}
	return nil
}

// release deletes made and unbinds given, a few at a time. Absent ones are
// fine. It tries all and joins the errors.
func (c *Client) release(ctx context.Context, auth openstack.UserAuth, made, given []port) error {
	errs := make([]error, len(made)+len(given))
	var g errgroup.Group
	g.SetLimit(maxAtOnce)
	for i, p := range made {
		g.Go(func() error {
			if err := c.deletePort(ctx, auth, p.ID); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				errs[i] = fmt.Errorf("delete port %s: %w", p.ID, err)
			}
			return nil
		})
	}
	for i, p := range given {
		g.Go(func() error {
			if err := c.unbind(ctx, auth, p); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				errs[len(made)+i] = fmt.Errorf("unbind port %s: %w", p.ID, err)
			}
			return nil
		})
	}
	_ = g.Wait() // errors are in errs
	return errors.Join(errs...)
}

// unbind gives a port back to its owner.
func (c *Client) unbind(ctx context.Context, auth openstack.UserAuth, p port) error {
	body := map[string]any{
		"device_id": "", "device_owner": "", "binding:host_id": nil, "binding:profile": cleanProfile(p.Profile),
	}
	ext, err := c.loadExtensions(ctx, auth)
	if err != nil {
		return err
	}
	if ext[extDNS] {
		body["dns_name"] = ""
	}
	_, err = c.updatePort(ctx, auth, p.ID, body)
	return err
}

// hostKeys are the entries of binding:profile that speak of the host
// (nova/network/neutron.py, _unbind_ports and constants).
var hostKeys = [...]string{
	"allocation", "arq_uuid", "card_serial_number", "migrating_to", "num_vfs", "pci_slot", "pci_vendor_info",
	"pf_mac_address", "physical_network", "vf_num",
}

// cleanProfile drops what speaks of the host and keeps the user's own entries.
func cleanProfile(raw json.RawMessage) map[string]any {
	out := map[string]any{}
	if json.Unmarshal(raw, &out) != nil || out == nil {
		return map[string]any{}
	}
	for _, k := range hostKeys {
		delete(out, k)
	}
	return out
}
