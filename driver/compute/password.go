package compute

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/metadata"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// adminUser is the image property that names the account whose password is
// meant, as it stands in system_metadata.
const adminUser = "image_os_admin_user"

// setAdminPassword changes a password inside the guest. What it answers never
// holds the password.
func (m *Manager) setAdminPassword(ctx context.Context, o *op) (any, error) {
	var password *string
	if err := o.arg("new_pass", &password); err != nil {
		return nil, err
	}
	err := m.setPassword(ctx, o, password)
	if messaging.IsRemote(err, "UnexpectedTaskStateError", "UnexpectedDeletingTaskStateError", "InstanceNotFound") {
		return nil, err
	}
	switch {
	case err == nil:
		return nil, nil
	case errors.Is(err, errdefs.ErrUnsupported):
		return nil, fmt.Errorf("%w: %w", messaging.NovaError("SetAdminPasswdNotSupported", 400, "Set admin password is not supported"), err)
	}
	reason := errdefs.PublicText(err, "error setting admin password")
	if errors.Is(err, errdefs.ErrConflict) {
		reason = "instance " + o.uuid() + " is not running"
	}
	return nil, fmt.Errorf("%w: %w",
		messaging.NovaError("InstancePasswordSetFailed", 500, "Failed to set admin password on %s because %s", o.uuid(), reason), err)
}

func (m *Manager) setPassword(ctx context.Context, o *op, password *string) error {
	p, ok := m.dep.Driver.(driver.PasswordSetter)
	if !ok {
		return fmt.Errorf("set password of %s: %w", o.uuid(), errdefs.ErrUnsupported)
	}
	if password == nil {
		return errdefs.WithPublic(fmt.Errorf("set password of %s: none: %w", o.uuid(), errdefs.ErrInvalid), "there is no new password")
	}
	user := o.inst.Strings("system_metadata")[adminUser]
	if err := p.SetPassword(ctx, driver.InstanceUUID(o.uuid()), user, *password); err != nil {
		return fmt.Errorf("set password of %s: %w", o.uuid(), err)
	}
	m.keepPassword(o, *password)
	return m.save(ctx, o.rc, o.inst, map[string]any{"task_state": nil}, Expect{TaskState: []string{taskUpdatingPassword}})
}

// spawn has the driver make the instance; a password that root has got by it is
// kept with the next save of the row.
func (m *Manager) spawn(ctx context.Context, o *op, req driver.SpawnRequest) error {
	set := false
	req.PasswordSet = func() { set = true }
	if err := m.dep.Driver.Spawn(ctx, req); err != nil {
		return fmt.Errorf("spawn %s: %w", o.uuid(), err)
	}
	if set {
		m.keepPassword(o, req.AdminPassword)
	}
	return nil
}

// keepPassword puts a password that the guest has into the row for
// os-server-password, encrypted for the instance's key pair, as libvirt's driver
// does. Without a key of RSA, or with one that cannot take it, what the row has
// stays: the password itself is set all the same.
func (m *Manager) keepPassword(o *op, password string) {
	inst, err := objects.AsInstance(o.inst)
	if err != nil || inst.KeyData() == "" {
		return
	}
	sealed, err := metadata.Encrypt(inst.KeyData(), password)
	if err == nil {
		err = metadata.PutPassword(inst, sealed)
	}
	switch {
	case errors.Is(err, errdefs.ErrUnsupported):
		o.log.Debug().Err(err).Msg("the password cannot be shown: the key pair is not of RSA")
	case err != nil:
		o.log.Warn().Err(err).Msg("the password cannot be shown to the owner of the key pair")
	}
}
