package fake

import (
	"cmp"
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// SetPassword sets the password of root, the only account of the fake's guests.
func (d *Driver) SetPassword(ctx context.Context, uuid driver.InstanceUUID, user, password string) error {
	user = cmp.Or(user, "root")
	if err := driver.CheckPassword(user, password); err != nil {
		return err
	}
	if err := d.pass(ctx, StepPassword); err != nil {
		return fmt.Errorf("set password of %s: %w", uuid, err)
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("set password of", uuid)
	switch {
	case err != nil:
		return err
	case i.state != driver.PowerRunning:
		return fmt.Errorf("set password of %s: it is %s: %w", uuid, i.state, errdefs.ErrConflict)
	case user != "root":
		return errdefs.WithPublic(fmt.Errorf("set password of %s: user %s: %w", uuid, user, errdefs.ErrUnsupported), "The guest has no user "+user+".")
	}
	i.password = password
	return nil
}

// Password returns root's password as Spawn or SetPassword has made it.
func (d *Driver) Password(uuid driver.InstanceUUID) string {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if i := d.host.instances[uuid]; i != nil {
		return i.password
	}
	return ""
}
