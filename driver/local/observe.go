package local

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/logging"
)

// Recover removes instances whose Spawn was cut off before they ran, and the
// links of instances that are gone. The engine has adopted its containers when
// it was opened.
func (d *Driver) Recover(ctx context.Context) ([]driver.InstanceUUID, error) {
	states, parts, err := d.instances(ctx)
	if err != nil {
		return nil, err
	}
	var here []driver.InstanceUUID
	known := map[string]bool{}
	for _, s := range states {
		uuid := driver.InstanceUUID(s.ID)
		if s.Status == engine.StatusCreated && !arrived(s) {
			if err := d.Destroy(ctx, uuid); err != nil {
				return nil, fmt.Errorf("remove a half-made instance: %w", err)
			}
			d.opts.Log.Warn().Str(logging.Instance, string(uuid)).Msg("half-made instance removed")
			continue
		}
		here = append(here, uuid)
		known[string(uuid)] = true
	}
	if err := d.sweepRescues(ctx, states, parts); err != nil {
		return nil, err
	}
	if err := d.sweepMemories(states); err != nil {
		return nil, err
	}
	if err := d.sweepDumps(known); err != nil {
		return nil, err
	}
	if err := errors.Join(d.sweepDrives(known), d.sweepMoves(func(id string) bool { return !known[id] })); err != nil {
		return nil, err
	}
	owners, err := d.opts.Network.Owners(ctx)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, owner := range owners {
		if known[owner] {
			continue
		}
		if err := d.unplug(ctx, driver.InstanceUUID(owner)); err != nil {
			return nil, fmt.Errorf("remove links of %s: %w", owner, err)
		}
		d.opts.Log.Warn().Str(logging.Instance, owner).Msg("links of an unknown instance removed")
	}
	d.followShared(ctx, states)
	d.recoverReboots(ctx, states)
	return here, nil
}

// ConsoleOutput returns the end of the console log.
func (d *Driver) ConsoleOutput(ctx context.Context, uuid driver.InstanceUUID, lines int) ([]byte, error) {
	out, err := d.opts.Engine.Console(ctx, container(uuid), lines)
	if err != nil {
		return nil, fmt.Errorf("console of %s: %w", uuid, err)
	}
	return out, nil
}

// Diagnostics describes the use of a running instance.
func (d *Driver) Diagnostics(ctx context.Context, uuid driver.InstanceUUID) (driver.Diagnostics, error) {
	s, err := d.opts.Engine.State(ctx, container(uuid))
	if err != nil {
		return driver.Diagnostics{}, fmt.Errorf("diagnostics of %s: %w", uuid, err)
	}
	g, err := guestOf(s)
	if err != nil {
		return driver.Diagnostics{}, err
	}
	use, err := d.opts.Engine.Stats(ctx, container(uuid))
	if err != nil {
		return driver.Diagnostics{}, fmt.Errorf("diagnostics of %s: %w", uuid, err)
	}
	out := driver.Diagnostics{
		State: infoOf(s).State, CPUTime: use.CPUTime, NumCPUs: g.VCPUs,
		MemoryMaxBytes: g.MemoryMB * mib, MemoryUsed: use.MemoryBytes,
	}
	if !s.Started.IsZero() {
		out.Uptime = time.Since(s.Started)
	}
	nics, err := d.opts.Network.Stats(ctx, string(uuid))
	if err != nil {
		return out, fmt.Errorf("diagnostics of %s: %w", uuid, err)
	}
	for _, n := range nics {
		out.NICs = append(out.NICs, driver.NICDiagnostics{
			MAC: n.MAC, RxBytes: n.RxBytes, RxPackets: n.RxPackets, RxErrors: n.RxErrors, RxDrop: n.RxDrop,
			TxBytes: n.TxBytes, TxPackets: n.TxPackets, TxErrors: n.TxErrors, TxDrop: n.TxDrop,
		})
	}
	return out, nil
}

// Events returns the channel of unasked changes.
func (d *Driver) Events() <-chan driver.LifecycleEvent { return d.events }

// forward turns the engine's events into the driver's, and starts guests that
// have rebooted themselves.
func (d *Driver) forward(ctx context.Context) {
	var restarts sync.WaitGroup
	defer restarts.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-d.opts.Engine.Events():
			uuid := driver.InstanceUUID(e.ID)
			switch {
			case e.Asked:
			case e.Exit.Cause == engine.CauseGuestReboot:
				restarts.Go(func() {
					if reason := d.again(ctx, uuid); reason != "" {
						d.tell(ctx, uuid, reason)
					}
				})
			default:
				d.tell(ctx, uuid, describeExit(e.Exit))
			}
		}
	}
}

// tell sends an event.
func (d *Driver) tell(ctx context.Context, uuid driver.InstanceUUID, reason string) {
	select {
	case d.events <- driver.LifecycleEvent{UUID: uuid, Reason: reason}:
	case <-ctx.Done():
	}
}
