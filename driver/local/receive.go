package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/local/courier"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
	"github.com/gantry-project/gantry/internal/undo"
)

// movePatience is how long the other host may be away while its disk is fetched.
const movePatience = 2 * time.Minute

// receive makes an instance that comes from another host. One that an earlier
// life has made is gone on with.
func (d *Driver) receive(ctx context.Context, req driver.FinishMigrationRequest) (err error) {
	var undone undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("receive %s: %w", req.UUID, err), undone.Unwind(ctx))
		}
	}()
	s, err := d.opts.Engine.State(ctx, container(req.UUID))
	if errors.Is(err, errdefs.ErrNotFound) {
		if err := d.take(ctx, req, &undone); err != nil {
			return err
		}
		s, err = d.opts.Engine.State(ctx, container(req.UUID))
	}
	if err != nil {
		return err
	}
	g, err := guestOf(s)
	if err != nil {
		return err
	}
	if !g.Arrived {
		return fmt.Errorf("it is here and has not come from elsewhere: %w", errdefs.ErrConflict)
	}
	if s.Status != engine.StatusRunning {
		if err := d.settleIn(ctx, req, g, &undone); err != nil {
			return err
		}
	}
	if err := removeMove(d.expectationFile(req.UUID)); err != nil {
		return err
	}
	undone.Release()
	return nil
}

// settleIn connects an instance that has come, and starts it if asked. It waits
// for no event: the ports were bound to this host before, and Neutron may have
// told so already (as nova/virt/libvirt/driver.py, finish_migration).
func (d *Driver) settleIn(ctx context.Context, req driver.FinishMigrationRequest, g guest, undone *undo.Stack) error {
	netns, err := d.opts.Engine.NetNS(ctx, container(req.UUID))
	if err != nil {
		return err
	}
	vifs, err := req.Network.Wait(ctx)
	if err != nil {
		return err
	}
	if err := d.wire(ctx, req.UUID, netns, vifs, undone); err != nil {
		return err
	}
	if err := failpoint.Hit("move.connected"); err != nil {
		return err
	}
	if !req.PowerOn {
		return nil
	}
	return d.start(ctx, req.UUID, g, networkFiles(vifs))
}

// take fetches image, config drive and disk.
func (d *Driver) take(ctx context.Context, req driver.FinishMigrationRequest, undone *undo.Stack) error {
	from, info, err := d.sourceOf(req)
	if err != nil {
		return err
	}
	if err := possible(req.Flavor); err != nil {
		return err
	}
	began := time.Now()
	g := info.Guest
	g.Arrived, g.Own, g.Suspended = true, nil, nil // what a start was put aside as stays where it was
	g.VCPUs, g.MemoryMB = req.Flavor.VCPUs, req.Flavor.MemoryMB
	if g.Profile, g.Nesting, err = profileOf(req.Flavor); err != nil {
		return err
	}
	if g.Traffic, err = trafficOf(req.Flavor); err != nil {
		return err
	}
	img, err := d.base(ctx, req.Credentials, info.Image, from)
	if err != nil {
		return err
	}
	g.Image = img.Ref
	if g.Drive {
		undone.Push("config drive", func(context.Context) error { return d.dropDrive(req.UUID) })
		if err := d.takeDrive(ctx, req.UUID, from); err != nil {
			return err
		}
	}
	if err := failpoint.Hit("move.image"); err != nil {
		return err
	}
	disk, err := from.Open(ctx, diskStream)
	if err != nil {
		return err
	}
	spawn := req.SpawnRequest
	_, err = d.createFrom(ctx, spawn, g, diskFor(req.Flavor, img), disk, undone)
	if err = errors.Join(err, disk.Close()); err != nil {
		return err
	}
	d.opts.Log.Info().Str(logging.Instance, string(req.UUID)).Str("source", from.Address).Dur(logging.Took, time.Since(began)).Msg("disk fetched")
	return failpoint.Hit("move.disk")
}

// sourceOf is where the instance comes from, errdefs.ErrNotFound if nobody
// expects it.
func (d *Driver) sourceOf(req driver.FinishMigrationRequest) (from courier.Source, info diskInfo, err error) {
	var e expectation
	if err := readMove(d.expectationFile(req.UUID), &e); err != nil {
		return from, info, err
	}
	if req.DiskInfo == "" {
		return from, info, fmt.Errorf("nobody says where its disk is: %w", errdefs.ErrNotFound)
	}
	if err := json.Unmarshal([]byte(req.DiskInfo), &info); err != nil {
		return from, info, fmt.Errorf("disk info: %w: %w", errdefs.ErrInvalid, err)
	}
	if info.Version != diskInfoVersion || info.Image == "" {
		return from, info, fmt.Errorf("disk info of version %d: %w", info.Version, errdefs.ErrUnsupported)
	}
	return courier.Source{
		Address: info.Address, Name: string(req.UUID), Own: e.Own, Peer: info.Key, Patience: movePatience, Log: d.opts.Log,
	}, info, nil
}

// broughtSuffix marks the reference of an image that came from the host of an
// instance and not from the image service: it is only what is below the disk.
const broughtSuffix = ".moved"

// base is the image below the disk: it is here, or the image service has it, or
// else it comes from the host that the instance comes from.
func (d *Driver) base(ctx context.Context, cred driver.Credentials, ref string, from courier.Source) (engine.ImageInfo, error) {
	ref = strings.TrimSuffix(ref, broughtSuffix)
	info, err := d.opts.Engine.Image(ctx, ref)
	if err == nil {
		return info, nil
	}
	if err = d.fetchBase(ctx, cred, ref, 0); err == nil {
		return d.opts.Engine.Image(ctx, ref)
	}
	if ctx.Err() != nil || errors.Is(err, errdefs.ErrExhausted) {
		return info, err
	}
	d.opts.Log.Info().Err(err).Str(logging.Image, ref).Str("source", from.Address).Msg("the image of a moved instance comes from where it was")
	ref += broughtSuffix
	return d.images.Do(ctx, ref, func(ctx context.Context) (engine.ImageInfo, error) {
		if info, err := d.opts.Engine.Image(ctx, ref); err == nil {
			return info, nil
		}
		body, err := from.Open(ctx, imageStream)
		if err != nil {
			return info, err
		}
		info, err := d.opts.Engine.Import(ctx, engine.ImportRequest{Ref: ref, Content: body, DiskFormat: "raw", ContainerFormat: "docker"})
		return info, errors.Join(err, body.Close())
	})
}

// takeDrive fetches the config drive.
func (d *Driver) takeDrive(ctx context.Context, uuid driver.InstanceUUID, from courier.Source) error {
	body, err := from.Open(ctx, driveStream)
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(body, 2*maxDrive+1)) // it is base64 there
	if err = errors.Join(err, body.Close()); err != nil {
		return err
	}
	var files []driver.File
	if err := json.Unmarshal(raw, &files); err != nil {
		return fmt.Errorf("config drive: %w: %w", errdefs.ErrCorrupt, err)
	}
	if err := os.MkdirAll(d.drives(), 0o700); err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	return atomicfile.Write(d.driveFile(uuid), raw, 0o600)
}
