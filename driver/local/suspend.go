package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
)

// SuspendMode is how guests are put aside.
type SuspendMode string

// The modes. An empty one is SuspendCheckpoint.
const (
	// SuspendCheckpoint writes the processes to the disk by criu and ends them:
	// their memory is free, and a reboot of the host does not matter.
	SuspendCheckpoint SuspendMode = "checkpoint"
	// SuspendFreeze holds them still where they are: the memory stays in use, and
	// a reboot of the host ends them.
	SuspendFreeze SuspendMode = "freeze"
)

// suspension is noted before a guest is put aside. It is true of the one start
// that it names, and only while that is frozen or has been ended for it: only a
// pause has to take it back.
type suspension struct {
	Mode  SuspendMode `json:"mode"`
	Start time.Time   `json:"start"`
}

// suspended reports whether the instance is put aside.
func (d *Driver) suspended(s engine.State, g guest) bool {
	if g.Suspended == nil || !g.Suspended.Start.Equal(s.Started) {
		return false
	}
	switch g.Suspended.Mode {
	case SuspendFreeze:
		return s.Status == engine.StatusPaused
	case SuspendCheckpoint:
		_, err := os.Stat(d.memoryOf(s.ID))
		return s.Status == engine.StatusStopped && s.Exit.Cause == engine.CauseStopped && err == nil
	}
	return false
}

// memoryOf is the directory of the checkpoint of an instance. It holds the memory
// of a tenant.
func (d *Driver) memoryOf(id engine.ContainerID) string {
	return filepath.Join(d.memories(), string(id))
}

func (d *Driver) memories() string { return filepath.Join(d.opts.StorePath, "suspended") }

// Suspend implements driver.Suspender.
func (d *Driver) Suspend(ctx context.Context, uuid driver.InstanceUUID) error {
	if err := d.suspend(ctx, uuid); err != nil {
		return fmt.Errorf("suspend %s: %w", uuid, err)
	}
	return nil
}

func (d *Driver) suspend(ctx context.Context, uuid driver.InstanceUUID) error {
	s, err := d.opts.Engine.State(ctx, container(uuid))
	if err != nil {
		return err
	}
	g, err := guestOf(s)
	if err != nil || d.suspended(s, g) {
		return err
	}
	if s.Status != engine.StatusRunning {
		return fmt.Errorf("it is %s: %w", s.Status, errdefs.ErrConflict)
	}
	mode := SuspendCheckpoint
	if d.opts.Suspend == SuspendFreeze {
		mode = SuspendFreeze
	}
	if mode == SuspendCheckpoint && g.Own != nil {
		return errdefs.WithPublic(fmt.Errorf("rescued: %w", errdefs.ErrUnsupported), "A rescued instance cannot be suspended.")
	}
	g.Suspended = &suspension{Mode: mode, Start: s.Started}
	if err := d.relabel(ctx, uuid, g); err != nil {
		return err
	}
	if err := failpoint.Hit("suspend.noted"); err != nil {
		return err
	}
	if mode == SuspendFreeze {
		return d.opts.Engine.Pause(ctx, s.ID)
	}
	if err := errors.Join(os.RemoveAll(d.memoryOf(s.ID)), os.MkdirAll(d.memories(), 0o700)); err != nil {
		return err
	}
	err = d.opts.Engine.Checkpoint(ctx, s.ID, engine.CheckpointRequest{Dir: d.memoryOf(s.ID)})
	if errors.Is(err, errdefs.ErrUnsupported) {
		err = errdefs.WithPublic(err, "This host cannot suspend the instance.")
	}
	return err
}

// Resume implements driver.Suspender.
func (d *Driver) Resume(ctx context.Context, req driver.PowerOnRequest) error {
	return d.PowerOn(ctx, req)
}

// goOn lets a suspended instance go on.
func (d *Driver) goOn(ctx context.Context, s engine.State, g guest, vifs objects.NetworkInfo) error {
	uuid := driver.InstanceUUID(s.ID)
	if g.Suspended.Mode == SuspendFreeze {
		if err := d.Plug(ctx, uuid, vifs); err != nil {
			return err
		}
		return d.opts.Engine.Resume(ctx, s.ID)
	}
	if err := d.opts.Engine.Restore(ctx, s.ID, engine.RestoreRequest{Dir: d.memoryOf(s.ID), ConsoleBytes: d.opts.ConsoleBytes}); err != nil {
		return err
	}
	if err := failpoint.Hit("suspend.restored"); err != nil {
		return err
	}
	// its network namespace is a new one
	err := d.Plug(ctx, uuid, vifs)
	if e := os.RemoveAll(d.memoryOf(s.ID)); e != nil { // the next suspension, or a delete, removes it
		d.opts.Log.Warn().Err(e).Str(logging.Instance, string(uuid)).Msg("checkpoint of a resumed instance")
	}
	return err
}

// forgetSuspension takes the note of an earlier suspension back from a guest that
// runs: frozen for another reason it is not a suspended one.
func (d *Driver) forgetSuspension(ctx context.Context, uuid driver.InstanceUUID) error {
	s, err := d.opts.Engine.State(ctx, container(uuid))
	if err != nil {
		return err
	}
	g, err := guestOf(s)
	if err != nil || g.Suspended == nil || s.Status != engine.StatusRunning {
		return err
	}
	g.Suspended = nil
	return d.relabel(ctx, uuid, g)
}

// dropMemory removes what a suspension has kept.
func (d *Driver) dropMemory(uuid driver.InstanceUUID) error {
	if err := os.RemoveAll(d.memoryOf(container(uuid))); err != nil {
		return fmt.Errorf("remove memory: %w", err)
	}
	return nil
}

// sweepMemories removes the checkpoints of instances that are not suspended.
func (d *Driver) sweepMemories(states []engine.State) error {
	keep := map[string]bool{}
	for _, s := range states {
		g, err := guestOf(s)
		keep[string(s.ID)] = err == nil && d.suspended(s, g)
	}
	entries, err := os.ReadDir(d.memories())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list suspended instances: %w", err)
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			if err := os.RemoveAll(filepath.Join(d.memories(), e.Name())); err != nil {
				return fmt.Errorf("remove memory: %w", err)
			}
		}
	}
	return nil
}
