package local

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
)

// change says what a new flavor needs. It is pure.
type change struct {
	// restart says that the guest has to be started anew to have it.
	restart bool
}

// changeTo judges a flavor for an instance that has another one. errdefs.ErrInvalid:
// the instance cannot have it.
func changeTo(from, to driver.Flavor) (change, error) {
	no := func(what string) (change, error) {
		return change{}, errdefs.WithPublic(fmt.Errorf("flavor %s to %s: %s: %w", from.Name, to.Name, what, errdefs.ErrInvalid), what)
	}
	switch {
	case to.RootGB < from.RootGB:
		return no("Unable to resize disk down.")
	case to.EphemeralGB != from.EphemeralGB || to.SwapMB != from.SwapMB:
		return no("The ephemeral and swap disks of a server cannot be changed.")
	case runtimeOf(to) != runtimeOf(from):
		return no("The flavor asks for another runtime.")
	}
	if err := possible(to); err != nil {
		return change{}, err
	}
	profile, nesting, err := profileOf(to)
	if err != nil {
		return change{}, err
	}
	if _, err := trafficOf(to); err != nil {
		return change{}, err
	}
	hadProfile, hadNesting, _ := profileOf(from) // it runs with them, whatever is judged now
	return change{restart: profile != hadProfile || nesting != hadNesting}, nil
}

// MigrateDiskAndPowerOff implements driver.Migrator.
func (d *Driver) MigrateDiskAndPowerOff(ctx context.Context, req driver.MigrateRequest) (string, error) {
	s, err := d.opts.Engine.State(ctx, container(req.UUID))
	if err != nil {
		return "", fmt.Errorf("migrate %s: %w", req.UUID, err)
	}
	g, err := guestOf(s)
	if err != nil {
		return "", fmt.Errorf("migrate %s: %w", req.UUID, err)
	}
	need, err := changeTo(req.Old, req.New)
	if err == nil && req.Peer == "" { // else they are the other host's
		_, err = d.limitsFor(req.New)
	}
	if err != nil {
		return "", fmt.Errorf("migrate %s: %w", req.UUID, err)
	}
	if req.Peer != "" {
		return d.offer(ctx, req, s, g)
	}
	if need.restart {
		if err := d.PowerOff(ctx, req.UUID, req.Off); err != nil {
			return "", fmt.Errorf("migrate %s: %w", req.UUID, err)
		}
	}
	return "{}", failpoint.Hit("resize.begun")
}

// FinishMigration implements driver.Migrator.
func (d *Driver) FinishMigration(ctx context.Context, req driver.FinishMigrationRequest) error {
	if req.Moved {
		return d.receive(ctx, req)
	}
	err := d.resize(ctx, req.UUID, req.Flavor, req.Off)
	if err == nil {
		err = failpoint.Hit("resize.limits")
	}
	if err == nil && req.PowerOn {
		err = d.ensureRunning(ctx, req.UUID, req.Network)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("finish migration of %s: %w", req.UUID, err)
	if errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return errors.Join(err, d.resize(context.WithoutCancel(ctx), req.UUID, req.Old, req.Off))
}

// FinishRevertMigration implements driver.Migrator.
func (d *Driver) FinishRevertMigration(ctx context.Context, req driver.RevertMigrationRequest) error {
	err := d.withdraw(req.UUID)
	if err == nil {
		err = d.resize(ctx, req.UUID, req.Flavor, req.Off)
	}
	if err == nil && req.PowerOn {
		err = d.ensureRunning(ctx, req.UUID, readyNetwork(req.VIFs))
	}
	if err != nil {
		return fmt.Errorf("finish revert of %s: %w", req.UUID, err)
	}
	return nil
}

// ConfirmMigration implements driver.Migrator.
func (d *Driver) ConfirmMigration(ctx context.Context, uuid driver.InstanceUUID, moved bool) error {
	if !moved {
		return nil
	}
	if err := d.withdraw(uuid); err != nil {
		return fmt.Errorf("confirm migration of %s: %w", uuid, err)
	}
	return d.Destroy(ctx, uuid)
}

// resize gives an instance the limits of a flavor, a running one as it runs.
// Where more memory is in use than the flavor has, the guest is stopped first.
func (d *Driver) resize(ctx context.Context, uuid driver.InstanceUUID, f driver.Flavor, off driver.PowerOffOptions) error {
	s, err := d.opts.Engine.State(ctx, container(uuid))
	if err != nil {
		return err
	}
	change, err := d.limitsChange(ctx, s, f)
	if err != nil {
		return err
	}
	_, err = d.opts.Engine.Update(ctx, s.ID, change)
	if errors.Is(err, errdefs.ErrConflict) && (s.Status == engine.StatusRunning || s.Status == engine.StatusPaused) {
		d.opts.Log.Info().Err(err).Str(logging.Instance, string(uuid)).Msg("the guest is stopped to have the smaller size")
		if err := d.PowerOff(ctx, uuid, off); err != nil {
			return err
		}
		_, err = d.opts.Engine.Update(ctx, s.ID, change)
	}
	return err
}

// limitsChange is what Update has to do. The disk has a new limit only where it
// has one.
func (d *Driver) limitsChange(ctx context.Context, s engine.State, f driver.Flavor) (engine.LimitsChange, error) {
	g, err := guestOf(s)
	if err != nil {
		return engine.LimitsChange{}, err
	}
	if g.Profile, g.Nesting, err = profileOf(f); err != nil {
		return engine.LimitsChange{}, err
	}
	if g.Traffic, err = trafficOf(f); err != nil {
		return engine.LimitsChange{}, err
	}
	g.VCPUs, g.MemoryMB, g.Processors = f.VCPUs, f.MemoryMB, f.Processors
	limits, err := d.limitsFor(f)
	if err != nil {
		return engine.LimitsChange{}, err
	}
	out := limitsOf(limits)
	if out.Labels, err = g.labels(); err != nil {
		return out, err
	}
	if s.DiskEnforced == (snapshot.Limit{}) {
		return out, nil
	}
	img, err := d.opts.Engine.Image(ctx, g.Image)
	if errors.Is(err, errdefs.ErrNotFound) {
		err = fmt.Errorf("image of %s: %w", s.ID, errdefs.ErrConflict) // the instance is there
	}
	if err != nil {
		return out, err
	}
	disk := diskFor(f, img)
	if s.DiskEnforced.Bytes != 0 || disk.Bytes == 0 {
		out.DiskBytes = &disk.Bytes
	}
	if s.DiskEnforced.Inodes != 0 || disk.Inodes == 0 {
		out.DiskInodes = &disk.Inodes
	}
	return out, nil
}

// limitsOf is a change to all limits that follow from a flavor.
func limitsOf(l cgroup.Limits) engine.LimitsChange {
	if l.BlockIO == nil {
		l.BlockIO = &cgroup.BlockIO{} // takes away what there is
	}
	return engine.LimitsChange{
		MemoryBytes: &l.MemoryBytes, SwapBytes: &l.SwapBytes, CPUQuota: &l.CPUQuota, CPUPeriod: &l.CPUPeriod,
		CPUShares: &l.CPUShares, Pids: &l.Pids, CPUSet: &l.CPUSet, BlockIO: l.BlockIO,
	}
}

// ensureRunning starts an instance that does not run; the network of one that
// does is made to match.
func (d *Driver) ensureRunning(ctx context.Context, uuid driver.InstanceUUID, net driver.NetworkSource) error {
	vifs, err := net.Wait(ctx)
	if err != nil {
		return err
	}
	s, err := d.opts.Engine.State(ctx, container(uuid))
	if err != nil {
		return err
	}
	if s.Status == engine.StatusRunning {
		return d.Plug(ctx, uuid, vifs)
	}
	return d.PowerOn(ctx, driver.PowerOnRequest{UUID: uuid, VIFs: vifs})
}

// readyNetwork is a NetworkSource that has its answer.
type readyNetwork objects.NetworkInfo

// Wait implements driver.NetworkSource.
func (n readyNetwork) Wait(context.Context) (objects.NetworkInfo, error) {
	return objects.NetworkInfo(n), nil
}
