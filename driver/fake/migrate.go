package fake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// The steps of a move.
const (
	StepExpect  Step = "expect migration"
	StepMigrate Step = "migrate disk"
	StepFinish  Step = "finish migration"
	StepRevert  Step = "finish revert migration"
	StepConfirm Step = "confirm migration"
)

var _ driver.Migrator = (*Driver)(nil)

// disk is what goes from host to host.
type disk struct {
	Boots   int
	Console []byte
}

func expectationOf(uuid driver.InstanceUUID) string { return "expectation " + string(uuid) }

// ExpectMigration notes that the instance comes.
func (d *Driver) ExpectMigration(ctx context.Context, uuid driver.InstanceUUID) (string, error) {
	if err := d.pass(ctx, StepExpect); err != nil {
		return "", err
	}
	d.host.add(uuid, expectationOf(uuid))
	return "fake", nil
}

// MigrateDiskAndPowerOff refuses a smaller disk, and stops a guest that cannot
// have the size as it runs.
func (d *Driver) MigrateDiskAndPowerOff(ctx context.Context, req driver.MigrateRequest) (string, error) {
	if err := d.pass(ctx, StepMigrate); err != nil {
		return "", err
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("migrate", req.UUID)
	if err != nil {
		return "", err
	}
	if req.New.RootGB < req.Old.RootGB {
		err := fmt.Errorf("migrate %s: %d GB to %d: %w", req.UUID, req.Old.RootGB, req.New.RootGB, errdefs.ErrInvalid)
		return "", errdefs.WithPublic(err, "Unable to resize disk down.")
	}
	info, err := json.Marshal(disk{i.boots, i.console})
	if req.Peer != "" || !maps.Equal(req.Old.ExtraSpecs, req.New.ExtraSpecs) {
		d.host.halt(req.UUID, i)
	}
	return string(info), err
}

// halt must be called with mu held.
func (h *Host) halt(uuid driver.InstanceUUID, i *instance) {
	if i.state != driver.PowerShutdown {
		i.state, i.reason = driver.PowerShutdown, "stopped"
	}
	delete(h.residue, processOf(uuid))
}

// FinishMigration gives the instance its new size.
func (d *Driver) FinishMigration(ctx context.Context, req driver.FinishMigrationRequest) (err error) {
	if err := d.pass(ctx, StepFinish); err != nil {
		return err
	}
	if !req.Moved {
		return d.resize(req.UUID, req.Flavor, req.PowerOn)
	}
	d.host.mu.Lock()
	_, expected := d.host.residue[expectationOf(req.UUID)]
	present := d.host.instances[req.UUID]
	d.host.mu.Unlock()
	if present != nil && !present.making {
		return d.resize(req.UUID, req.Flavor, req.PowerOn)
	}
	var from disk
	if !expected || req.DiskInfo == "" {
		return fmt.Errorf("finish migration of %s: %w", req.UUID, errdefs.ErrNotFound)
	}
	if err := json.Unmarshal([]byte(req.DiskInfo), &from); err != nil {
		return fmt.Errorf("finish migration of %s: %w: %w", req.UUID, errdefs.ErrInvalid, err)
	}
	if err := d.host.reserve(req.SpawnRequest); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			d.host.mu.Lock()
			defer d.host.mu.Unlock()
			d.host.drop(req.UUID)
			d.host.residue[expectationOf(req.UUID)] = req.UUID
			delete(d.host.instances, req.UUID)
		}
	}()
	d.host.add(req.UUID, diskOf(req.UUID), logOf(req.UUID))
	vifs, err := req.Network.Wait(ctx)
	if err != nil {
		return err
	}
	if err := d.plug(ctx, req.SpawnRequest, vifs); err != nil {
		return err
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i := d.host.instances[req.UUID]
	i.vifs, i.making, i.boots, i.console, i.state = vifs, false, from.Boots, from.Console, driver.PowerShutdown
	delete(d.host.residue, expectationOf(req.UUID))
	if req.PowerOn {
		d.host.boot(req.UUID, i)
	}
	return nil
}

// resize gives an instance that is here a size.
func (d *Driver) resize(uuid driver.InstanceUUID, flavor driver.Flavor, on bool) error {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("resize", uuid)
	if err != nil {
		return err
	}
	i.request.Flavor = flavor
	if on && i.state == driver.PowerShutdown {
		d.host.boot(uuid, i)
	}
	return nil
}

// FinishRevertMigration gives it its old size.
func (d *Driver) FinishRevertMigration(ctx context.Context, req driver.RevertMigrationRequest) error {
	if err := d.pass(ctx, StepRevert); err != nil {
		return err
	}
	d.host.mu.Lock()
	i, err := d.host.get("revert", req.UUID)
	if err == nil && len(req.VIFs) > 0 {
		d.host.replug(req.UUID, i, req.VIFs)
	}
	d.host.mu.Unlock()
	return errors.Join(err, d.resize(req.UUID, req.Flavor, req.PowerOn))
}

// ConfirmMigration removes an instance that has gone.
func (d *Driver) ConfirmMigration(ctx context.Context, uuid driver.InstanceUUID, moved bool) error {
	if err := d.pass(ctx, StepConfirm); err != nil {
		return err
	}
	if moved {
		return d.Destroy(ctx, uuid)
	}
	return nil
}
