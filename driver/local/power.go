package local

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Destroy leaves nothing of the instance. Container and links go side by side:
// each costs the kernel's grace periods, and neither needs the other.
func (d *Driver) Destroy(ctx context.Context, uuid driver.InstanceUUID) error {
	unlock, err := d.plugs.Lock(ctx, uuid)
	if err != nil {
		return fmt.Errorf("destroy %s: %w", uuid, err)
	}
	defer unlock()
	var links error
	var wg sync.WaitGroup
	wg.Go(func() { links = d.unplug(ctx, uuid) })
	if err = d.opts.Engine.Delete(ctx, container(uuid)); err == nil {
		err = d.opts.Engine.Delete(ctx, rescueDisk(uuid))
	}
	wg.Wait()
	if err := errors.Join(err, links, d.dropDrive(uuid), d.dropMemory(uuid), d.dropDump(uuid), d.forgetMoves(uuid)); err != nil {
		return fmt.Errorf("destroy %s: %w", uuid, err)
	}
	return nil
}

// Info reports the state.
func (d *Driver) Info(ctx context.Context, uuid driver.InstanceUUID) (driver.Info, error) {
	s, err := d.opts.Engine.State(ctx, container(uuid))
	if err != nil {
		return driver.Info{}, fmt.Errorf("state of %s: %w", uuid, err)
	}
	info := infoOf(s)
	if g, err := guestOf(s); err == nil {
		info.Rescued = g.Own != nil
		if d.suspended(s, g) {
			info.State, info.Reason = driver.PowerSuspended, ""
		}
	}
	return info, nil
}

func infoOf(s engine.State) driver.Info {
	switch s.Status {
	case engine.StatusRunning:
		return driver.Info{State: driver.PowerRunning}
	case engine.StatusPaused:
		return driver.Info{State: driver.PowerPaused}
	case engine.StatusCreated:
		if arrived(s) {
			return driver.Info{State: driver.PowerShutdown, Reason: "stopped"}
		}
		return driver.Info{State: driver.PowerNoState, Reason: "never started"}
	case engine.StatusStopped:
	}
	return endOf(s.Exit)
}

// arrived reports whether an instance that has not run here is whole.
func arrived(s engine.State) bool {
	g, err := guestOf(s)
	return err == nil && g.Arrived
}

// endOf is the state of an instance that does not run. One that reboots itself
// does, for all that anybody is to know.
func endOf(e engine.ExitState) driver.Info {
	info := driver.Info{State: driver.PowerShutdown, Reason: describeExit(e)}
	switch {
	case e.Cause == engine.CauseGuestReboot:
		return driver.Info{State: driver.PowerRunning}
	case e.OOM, e.Known && e.Cause == "" && (e.Code != 0 || e.Signal != 0):
		info.State = driver.PowerCrashed
	}
	return info
}

// Instances lists what is here.
func (d *Driver) Instances(ctx context.Context) ([]driver.InstanceUUID, error) {
	states, _, err := d.instances(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]driver.InstanceUUID, len(states))
	for i, s := range states {
		out[i] = driver.InstanceUUID(s.ID)
	}
	return out, nil
}

// PowerOn starts a stopped instance.
func (d *Driver) PowerOn(ctx context.Context, req driver.PowerOnRequest) error {
	s, err := d.opts.Engine.State(ctx, container(req.UUID))
	if err != nil {
		return fmt.Errorf("power on %s: %w", req.UUID, err)
	}
	if s.Status == engine.StatusRunning {
		return nil
	}
	if g, err := guestOf(s); err == nil && d.suspended(s, g) {
		if err := d.goOn(ctx, s, g, req.VIFs); err != nil {
			return fmt.Errorf("resume %s: %w", req.UUID, err)
		}
		return nil
	}
	if s.Status == engine.StatusPaused {
		return fmt.Errorf("power on %s: it is paused: %w", req.UUID, errdefs.ErrConflict)
	}
	if err := d.resume(ctx, req.UUID, s, req.VIFs); err != nil {
		return fmt.Errorf("power on %s: %w", req.UUID, err)
	}
	return nil
}

// resume plugs what is missing and starts the first process.
func (d *Driver) resume(ctx context.Context, uuid driver.InstanceUUID, s engine.State, vifs objects.NetworkInfo) error {
	g, err := guestOf(s)
	if err != nil {
		return err
	}
	if err := d.Plug(ctx, uuid, vifs); err != nil {
		return err
	}
	return d.start(ctx, uuid, g, networkFiles(vifs))
}

// PowerOff stops the instance.
func (d *Driver) PowerOff(ctx context.Context, uuid driver.InstanceUUID, opts driver.PowerOffOptions) error {
	s, err := d.opts.Engine.State(ctx, container(uuid))
	if err != nil {
		return fmt.Errorf("power off %s: %w", uuid, err)
	}
	g, err := guestOf(s)
	if err != nil {
		return fmt.Errorf("power off %s: %w", uuid, err)
	}
	if err := d.opts.Engine.Stop(ctx, s.ID, engine.StopRequest{Signal: g.StopSignal, Timeout: opts.Timeout, Retry: opts.RetryInterval}); err != nil {
		return fmt.Errorf("power off %s: %w", uuid, err)
	}
	return d.dropMemory(uuid)
}

// Reboot stops and starts; disk and network namespace stay.
func (d *Driver) Reboot(ctx context.Context, req driver.RebootRequest) error {
	off := req.Off
	if req.Type == driver.RebootHard {
		off = driver.PowerOffOptions{}
	}
	if err := d.PowerOff(ctx, req.UUID, off); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	if err := d.PowerOn(ctx, driver.PowerOnRequest{UUID: req.UUID, VIFs: req.VIFs}); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	return nil
}

// Pause freezes the instance's processes.
func (d *Driver) Pause(ctx context.Context, uuid driver.InstanceUUID) error {
	if err := d.forgetSuspension(ctx, uuid); err != nil {
		return fmt.Errorf("pause %s: %w", uuid, err)
	}
	return d.opts.Engine.Pause(ctx, container(uuid))
}

// Unpause thaws them.
func (d *Driver) Unpause(ctx context.Context, uuid driver.InstanceUUID) error {
	return d.opts.Engine.Resume(ctx, container(uuid))
}

// Plug makes the network match vifs.
func (d *Driver) Plug(ctx context.Context, uuid driver.InstanceUUID, vifs objects.NetworkInfo) error {
	unlock, err := d.plugs.Lock(ctx, uuid)
	if err != nil {
		return fmt.Errorf("plug %s: %w", uuid, err)
	}
	defer unlock()
	return d.plug(ctx, uuid, vifs)
}

// plug is Plug for who holds d.plugs.
func (d *Driver) plug(ctx context.Context, uuid driver.InstanceUUID, vifs objects.NetworkInfo) error {
	netns, err := d.opts.Engine.NetNS(ctx, container(uuid))
	if err != nil {
		return fmt.Errorf("plug %s: %w", uuid, err)
	}
	plan, err := d.networkPlan(ctx, uuid, netns, vifs)
	if err != nil {
		return fmt.Errorf("plug %s: %w", uuid, err)
	}
	if err := d.opts.Network.Set(ctx, plan); err != nil {
		return fmt.Errorf("plug %s: %w", uuid, err)
	}
	d.reboots.plugged(uuid, vifs)
	return nil
}
