package fake

import (
	"context"
	"fmt"
	"slices"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// BadFormat is a disk format that can never boot here.
const BadFormat = "vmdk"

// Spawn makes the instance: image, disk, network, links, start.
func (d *Driver) Spawn(ctx context.Context, req driver.SpawnRequest) (err error) {
	if err := d.host.reserve(req); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			d.host.mu.Lock()
			defer d.host.mu.Unlock()
			d.host.drop(req.UUID)
			delete(d.host.instances, req.UUID)
		}
	}()
	if err := d.pass(ctx, StepImage); err != nil {
		return err
	}
	if err := refuse(req); err != nil {
		return err
	}
	d.host.mu.Lock()
	d.host.use(req.Image.ID)
	d.host.mu.Unlock()
	if err := d.pass(ctx, StepDisk); err != nil {
		return err
	}
	d.host.add(req.UUID, diskOf(req.UUID), logOf(req.UUID))
	vifs, err := req.Network.Wait(ctx)
	if err != nil {
		return err
	}
	if err := d.pass(ctx, StepNetwork); err != nil {
		return err
	}
	if err := d.plug(ctx, req, vifs); err != nil {
		return err
	}
	if err := d.pass(ctx, StepStart); err != nil {
		return err
	}
	if req.AdminPassword != "" && req.PasswordSet != nil {
		req.PasswordSet()
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i := d.host.instances[req.UUID]
	i.vifs, i.making, i.password = vifs, false, req.AdminPassword
	d.host.boot(req.UUID, i)
	return nil
}

// Prepare reads the image and refuses what Spawn refuses.
func (d *Driver) Prepare(ctx context.Context, req driver.SpawnRequest) error {
	if err := d.pass(ctx, StepPrepare); err != nil {
		return err
	}
	if err := refuse(req); err != nil {
		return err
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	d.host.use(req.Image.ID)
	return nil
}

func refuse(req driver.SpawnRequest) error {
	if req.Image.DiskFormat == BadFormat {
		err := fmt.Errorf("spawn %s: disk format %s: %w", req.UUID, BadFormat, errdefs.ErrInvalid)
		return errdefs.WithPublic(err, "Image format "+BadFormat+" cannot be booted.")
	}
	if own := req.Flavor.Processors; len(own) > 0 && (int64(len(own)) != req.Flavor.VCPUs || !slices.Contains(given(), own[0])) {
		return fmt.Errorf("spawn %s: processors %v for %d VCPUs: %w", req.UUID, own, req.Flavor.VCPUs, errdefs.ErrInvalid)
	}
	if req.Flavor.MemoryMB > 256<<10 {
		return fmt.Errorf("spawn %s: %d MiB: %w", req.UUID, req.Flavor.MemoryMB, errdefs.ErrExhausted)
	}
	return nil
}

func (h *Host) reserve(req driver.SpawnRequest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.instances[req.UUID] != nil {
		return fmt.Errorf("spawn %s: %w", req.UUID, errdefs.ErrAlreadyExists)
	}
	h.instances[req.UUID] = &instance{request: req, making: true}
	return nil
}

func (h *Host) add(uuid driver.InstanceUUID, things ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, what := range things {
		h.residue[what] = uuid
	}
}

// plug registers the wait, makes the links and waits.
func (d *Driver) plug(ctx context.Context, req driver.SpawnRequest, vifs objects.NetworkInfo) error {
	var waited []string
	for _, v := range vifs {
		if !v.Active {
			waited = append(waited, v.ID)
		}
	}
	exp := req.Events.Expect(req.UUID, waited)
	defer exp.Cancel()
	if err := d.pass(ctx, StepPlug); err != nil {
		return err
	}
	for _, v := range vifs {
		d.host.add(req.UUID, linkOf(v.ID))
	}
	return exp.Wait(ctx)
}

// Destroy removes the instance. One that is being made is left to its Spawn.
func (d *Driver) Destroy(ctx context.Context, uuid driver.InstanceUUID) error {
	if err := d.pass(ctx, StepDestroy); err != nil {
		return fmt.Errorf("destroy %s: %w", uuid, err)
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if i := d.host.instances[uuid]; i != nil && i.making {
		return nil
	}
	d.host.drop(uuid)
	if i := d.host.instances[uuid]; i != nil {
		i.hangUp()
	}
	delete(d.host.instances, uuid)
	return nil
}

// Recover removes what was being made and keeps the rest.
func (d *Driver) Recover(ctx context.Context) ([]driver.InstanceUUID, error) {
	d.host.mu.Lock()
	for uuid, i := range d.host.instances {
		delete(d.host.residue, quietOf(uuid))
		if i.making {
			d.host.drop(uuid)
			delete(d.host.instances, uuid)
		}
	}
	d.host.mu.Unlock()
	return d.Instances(ctx)
}

// Plug makes the links match vifs.
func (d *Driver) Plug(_ context.Context, uuid driver.InstanceUUID, vifs objects.NetworkInfo) error {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	i, err := d.host.get("plug", uuid)
	if err != nil {
		return err
	}
	d.host.replug(uuid, i, vifs)
	return nil
}

// replug must be called with mu held.
func (h *Host) replug(uuid driver.InstanceUUID, i *instance, vifs objects.NetworkInfo) {
	h.drop(uuid, "link ")
	i.vifs = vifs
	for _, v := range vifs {
		h.residue[linkOf(v.ID)] = uuid
	}
}

// Abandon leaves a half-made instance on the host, as a crash in the middle
// of a Spawn would.
func (h *Host) Abandon(uuid driver.InstanceUUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.instances[uuid] = &instance{making: true}
	h.residue[diskOf(uuid)] = uuid
}
