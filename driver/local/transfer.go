package local

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// ExpectMigration implements driver.Migrator.
func (d *Driver) ExpectMigration(_ context.Context, uuid driver.InstanceUUID) (string, error) {
	return "", fmt.Errorf("expect %s: %w", uuid, errdefs.ErrUnsupported)
}

func (d *Driver) offer(_ context.Context, req driver.MigrateRequest) (string, error) {
	return "", fmt.Errorf("offer %s: %w", req.UUID, errdefs.ErrUnsupported)
}

func (d *Driver) receive(_ context.Context, req driver.FinishMigrationRequest) error {
	return fmt.Errorf("receive %s: %w", req.UUID, errdefs.ErrUnsupported)
}

func (d *Driver) withdraw(context.Context, driver.InstanceUUID) error { return nil }
