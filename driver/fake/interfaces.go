package fake

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// ChangeNetwork makes the links match change.After.
func (d *Driver) ChangeNetwork(ctx context.Context, change driver.NetworkChange) error {
	d.host.mu.Lock()
	_, err := d.host.get("change network", change.UUID)
	d.host.mu.Unlock()
	if err != nil {
		return err
	}
	if err := plugs(change.After); err != nil {
		return fmt.Errorf("change network of %s: %w", change.UUID, err)
	}
	if err := d.pass(ctx, StepChange); err != nil {
		return fmt.Errorf("change network of %s: %w", change.UUID, err)
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("change network", change.UUID)
	if err != nil {
		return err
	}
	d.host.replug(change.UUID, i, change.After)
	return nil
}

// VIFs is the network that the instance has on the host.
func (d *Driver) VIFs(uuid driver.InstanceUUID) objects.NetworkInfo {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if i := d.host.instances[uuid]; i != nil {
		return i.vifs
	}
	return nil
}

// plugs refuses what no link can be made for.
func plugs(vifs objects.NetworkInfo) error {
	seen := map[string]bool{}
	for _, v := range vifs {
		switch {
		case v.Type == "binding_failed" || v.Type == "unbound":
			return errdefs.WithPublic(fmt.Errorf("port %s: vif type %q: %w", v.ID, v.Type, errdefs.ErrUnavailable), "Binding failed for port "+v.ID+".")
		case v.Type != "bridge" && v.Type != "tap" && v.Type != "":
			return errdefs.WithPublic(fmt.Errorf("port %s: vif type %q: %w", v.ID, v.Type, errdefs.ErrUnsupported), "Port "+v.ID+" cannot be plugged.")
		case v.Address != "" && seen[v.Address]:
			return fmt.Errorf("port %s: mac %s twice: %w", v.ID, v.Address, errdefs.ErrInvalid)
		}
		seen[v.Address] = true
	}
	return nil
}
