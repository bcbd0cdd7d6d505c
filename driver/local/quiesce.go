package local

import (
	"context"

	"github.com/gantry-project/gantry/driver"
)

// Quiesce implements driver.Quiescer.
func (d *Driver) Quiesce(ctx context.Context, uuid driver.InstanceUUID) error {
	return d.opts.Engine.Quiesce(ctx, container(uuid))
}

// Unquiesce implements driver.Quiescer.
func (d *Driver) Unquiesce(ctx context.Context, uuid driver.InstanceUUID) error {
	return d.opts.Engine.Unquiesce(ctx, container(uuid))
}
