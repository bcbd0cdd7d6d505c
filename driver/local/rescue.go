package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
	"github.com/gantry-project/gantry/internal/undo"
)

// A rescue system's disk is that of a container beside the instance's, which
// never runs: the instance's own container starts over it. So process, network,
// limits and console stay the instance's. What tells whether an instance is
// rescued is the label of its container, which is changed in one step; a disk
// that no label names is removed by Recover.
const (
	// rescuePlace is where the rescue system finds the instance's disk.
	rescuePlace = "/mnt/rescue"
	// rescueLabel marks the container of a rescue disk.
	rescueLabel  = "gantry.rescue"
	rescueSuffix = "-rescue"
)

func rescueDisk(uuid driver.InstanceUUID) engine.ContainerID {
	return container(uuid) + rescueSuffix
}

// instances are the containers that are instances, and not parts of one.
func (d *Driver) instances(ctx context.Context) (whole, parts []engine.State, err error) {
	states, err := d.opts.Engine.List(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("list instances: %w", err)
	}
	for _, s := range states {
		if s.Labels[rescueLabel] != "" {
			parts = append(parts, s)
		} else {
			whole = append(whole, s)
		}
	}
	return whole, parts, nil
}

// Rescue implements driver.Rescuer.
func (d *Driver) Rescue(ctx context.Context, req driver.RescueRequest) error {
	if err := d.rescue(ctx, req); err != nil {
		return fmt.Errorf("rescue %s: %w", req.UUID, err)
	}
	return nil
}

func (d *Driver) rescue(ctx context.Context, req driver.RescueRequest) error {
	s, err := d.opts.Engine.State(ctx, container(req.UUID))
	if err != nil {
		return err
	}
	own, err := guestOf(s)
	if err != nil {
		return err
	}
	if own.Own != nil {
		own = *own.Own
	}
	if runtimeOf(req.Flavor) != "" {
		return errdefs.WithPublic(fmt.Errorf("runtime %s: %w", runtimeOf(req.Flavor), errdefs.ErrUnsupported),
			"Instances of another runtime cannot be rescued.")
	}
	req.Drive = nil
	g, img, err := d.plan(ctx, req.SpawnRequest)
	if err != nil {
		return err
	}
	vifs, err := req.Network.Wait(ctx)
	if err != nil {
		return err
	}
	first, err := firstFiles(req.SpawnRequest, g, vifs)
	if err != nil {
		return err
	}
	g.Drive, g.Profile, g.Nesting, g.Own = own.Drive, own.Profile, own.Nesting, &own
	var undone undo.Stack
	if s.Status == engine.StatusRunning || s.Status == engine.StatusPaused {
		undone.Push("start", func(ctx context.Context) error {
			return d.PowerOn(ctx, driver.PowerOnRequest{UUID: req.UUID, VIFs: vifs})
		})
	}
	undone.Push("own system", func(ctx context.Context) error { return d.ownSystem(ctx, req.UUID) })
	err = d.PowerOff(ctx, req.UUID, req.Off)
	if err == nil {
		err = d.replaceSystem(ctx, req, g, img)
	}
	if err == nil {
		err = d.Plug(ctx, req.UUID, vifs)
	}
	if err == nil {
		err = d.start(ctx, req.UUID, g, append(first, networkFiles(vifs)...))
	}
	if err == nil {
		err = failpoint.Hit("rescue.started")
	}
	if err == nil {
		err = d.settle(ctx, req.UUID)
	}
	if err != nil {
		return errors.Join(err, undone.Unwind(ctx))
	}
	undone.Release()
	return nil
}

// replaceSystem makes the disk of the rescue system and has the instance's label
// say that its starts are over it.
func (d *Driver) replaceSystem(ctx context.Context, req driver.RescueRequest, g guest, img engine.ImageInfo) error {
	if err := failpoint.Hit("rescue.stopped"); err != nil {
		return err
	}
	if err := d.ownSystem(ctx, req.UUID); err != nil {
		return err
	}
	limits, err := d.limitsFor(req.Flavor)
	if err != nil {
		return err
	}
	id := rescueDisk(req.UUID)
	err = d.opts.Engine.Create(ctx, engine.CreateRequest{
		ID: id, Image: g.Image, Labels: map[string]string{rescueLabel: string(req.UUID)}, Limits: limits, Disk: diskFor(req.Flavor, img),
	})
	if err == nil {
		err = failpoint.Hit("rescue.disk")
	}
	if err == nil {
		err = d.injectPassword(ctx, id, req.SpawnRequest)
	}
	if err == nil {
		err = d.relabel(ctx, req.UUID, g)
	}
	if err != nil {
		return err
	}
	return failpoint.Hit("rescue.labelled")
}

// relabel writes down what a start of the instance runs.
func (d *Driver) relabel(ctx context.Context, uuid driver.InstanceUUID, g guest) error {
	labels, err := g.labels()
	if err == nil {
		_, err = d.opts.Engine.Update(ctx, container(uuid), engine.LimitsChange{Labels: labels})
	}
	return err
}

// ownSystem makes a stopped instance one that is not rescued. Idempotent.
func (d *Driver) ownSystem(ctx context.Context, uuid driver.InstanceUUID) error {
	s, err := d.opts.Engine.State(ctx, container(uuid))
	if err != nil {
		return err
	}
	g, err := guestOf(s)
	if err != nil {
		return err
	}
	if g.Own != nil {
		if err := d.opts.Engine.Stop(ctx, s.ID, engine.StopRequest{}); err != nil {
			return err
		}
		if err := d.relabel(ctx, uuid, *g.Own); err != nil {
			return err
		}
		if err := failpoint.Hit("unrescue.labelled"); err != nil {
			return err
		}
	}
	return d.opts.Engine.Delete(ctx, rescueDisk(uuid))
}

// Unrescue implements driver.Rescuer. Nobody waits for a rescue system to end:
// what it has written to the instance's disk is the kernel's to keep.
func (d *Driver) Unrescue(ctx context.Context, req driver.UnrescueRequest) error {
	err := d.ownSystem(ctx, req.UUID)
	if err == nil {
		err = failpoint.Hit("unrescue.removed")
	}
	if err == nil && req.PowerOn {
		err = d.ensureRunning(ctx, req.UUID, readyNetwork(req.VIFs))
	}
	if err != nil {
		return fmt.Errorf("unrescue %s: %w", req.UUID, err)
	}
	return nil
}

// startOver makes a start of a rescued instance one of its rescue system.
func startOver(req *engine.StartRequest, uuid driver.InstanceUUID) {
	req.Over, req.OwnAt = rescueDisk(uuid), rescuePlace
}

// sweepRescues removes the disks of rescue systems that no instance has.
func (d *Driver) sweepRescues(ctx context.Context, whole, parts []engine.State) error {
	rescued := map[engine.ContainerID]bool{}
	for _, s := range whole {
		var g guest
		if err := json.Unmarshal([]byte(s.Labels[guestLabel]), &g); err == nil && g.Own != nil {
			rescued[s.ID+rescueSuffix] = true
		}
	}
	for _, s := range parts {
		if rescued[s.ID] {
			continue
		}
		if err := d.opts.Engine.Delete(ctx, s.ID); err != nil {
			return fmt.Errorf("remove a rescue disk: %w", err)
		}
		d.opts.Log.Warn().Str(logging.Instance, s.Labels[rescueLabel]).Msg("rescue disk of no rescued instance removed")
	}
	return nil
}
