package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
	"github.com/gantry-project/gantry/internal/undo"
	"github.com/gantry-project/gantry/netbridge"
)

// Spawn makes an instance and starts it. The disk is prepared while Neutron
// still allocates the ports; the ports are plugged, and awaited, before the
// first process starts.
func (d *Driver) Spawn(ctx context.Context, req driver.SpawnRequest) (err error) {
	var undone undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("spawn %s: %w", req.UUID, err), undone.Unwind(ctx))
		}
	}()
	began := time.Now()
	step := func(name string) error {
		d.opts.Log.Debug().Str(logging.Instance, string(req.UUID)).Str(logging.Step, name).
			Dur(logging.Took, time.Since(began)).Msg("spawn step")
		return failpoint.Hit("spawn." + name)
	}

	g, img, err := d.plan(ctx, req)
	if err != nil {
		return err
	}
	if err := step("image"); err != nil {
		return err
	}
	netns, err := d.create(ctx, req, g, diskFor(req.Flavor, img), &undone)
	if err != nil {
		return err
	}
	if err := step("create"); err != nil {
		return err
	}
	if err := d.injectPassword(ctx, container(req.UUID), req); err != nil {
		return err
	}
	vifs, err := d.connect(ctx, req, netns, &undone)
	if err != nil {
		return err
	}
	if err := step("network"); err != nil {
		return err
	}
	first, err := firstFiles(req, g, vifs)
	if err != nil {
		return err
	}
	if err := d.makeDrive(req, g, vifs, &undone); err != nil {
		return err
	}
	if err := d.start(ctx, req.UUID, g, append(first, networkFiles(vifs)...)); err != nil {
		return err
	}
	if err := step("start"); err != nil {
		return err
	}
	if err := d.settle(ctx, req.UUID); err != nil {
		return err
	}
	undone.Release()
	return nil
}

// Prepare implements driver.Preparer.
func (d *Driver) Prepare(ctx context.Context, req driver.SpawnRequest) error {
	g, _, err := d.plan(ctx, req)
	if err == nil {
		_, err = firstFiles(req, g, nil)
	}
	if err != nil {
		return fmt.Errorf("prepare %s: %w", req.UUID, err)
	}
	return nil
}

// plan brings the image and refuses what cannot run here.
func (d *Driver) plan(ctx context.Context, req driver.SpawnRequest) (guest, engine.ImageInfo, error) {
	if err := possible(req.Flavor); err != nil {
		return guest{}, engine.ImageInfo{}, err
	}
	if _, err := d.limitsFor(req.Flavor); err != nil {
		return guest{}, engine.ImageInfo{}, err
	}
	if err := d.opts.Engine.CheckRuntime(runtimeOf(req.Flavor)); err != nil {
		return guest{}, engine.ImageInfo{}, errdefs.WithPublic(fmt.Errorf("flavor %s: %w", req.Flavor.Name, err),
			"The flavor asks for a runtime that this host does not have.")
	}
	if err := d.verify(req.Image); err != nil {
		return guest{}, engine.ImageInfo{}, err
	}
	img, err := d.ensureImage(ctx, req.Credentials, req.Image)
	if err != nil {
		return guest{}, img, err
	}
	if err := fits(req.Flavor, img); err != nil {
		return guest{}, img, err
	}
	g, err := guestFor(req, img)
	return g, img, err
}

// create makes the container: disk, ids, namespaces, no process.
func (d *Driver) create(ctx context.Context, req driver.SpawnRequest, g guest, disk snapshot.Limit, undone *undo.Stack) (netns string, err error) {
	return d.createFrom(ctx, req, g, disk, nil, undone)
}

// createFrom is create of an instance that has written to its disk elsewhere.
func (d *Driver) createFrom(ctx context.Context, req driver.SpawnRequest, g guest, disk snapshot.Limit, written io.Reader, undone *undo.Stack) (netns string, err error) {
	labels, err := g.labels()
	if err != nil {
		return "", err
	}
	limits, err := d.limitsFor(req.Flavor)
	if err != nil {
		return "", err
	}
	id := container(req.UUID)
	if err := d.opts.Engine.Create(ctx, engine.CreateRequest{
		ID: id, Image: g.Image, Labels: labels, Limits: limits, Disk: disk,
		Runtime: runtimeOf(req.Flavor), Written: written,
	}); err != nil {
		return "", err
	}
	undone.Push("create", func(ctx context.Context) error { return d.opts.Engine.Delete(ctx, id) })
	return d.opts.Engine.NetNS(ctx, id)
}

// makeDrive makes the config drive, if the instance has one.
func (d *Driver) makeDrive(req driver.SpawnRequest, g guest, vifs objects.NetworkInfo, undone *undo.Stack) error {
	if req.Drive == nil {
		return nil
	}
	files, err := req.Drive(vifs)
	if err != nil {
		return err
	}
	undone.Push("config drive", func(context.Context) error { return d.dropDrive(req.UUID) })
	return d.keepDrive(req.UUID, g, files)
}

// connect waits for the ports, plugs them and waits until Neutron says that
// they carry traffic.
func (d *Driver) connect(ctx context.Context, req driver.SpawnRequest, netns string, undone *undo.Stack) (objects.NetworkInfo, error) {
	vifs, err := req.Network.Wait(ctx)
	if err != nil {
		return nil, err
	}
	expected := req.Events.Expect(req.UUID, inactive(vifs))
	defer expected.Cancel()
	if err := d.wire(ctx, req.UUID, netns, vifs, undone); err != nil {
		return nil, err
	}
	if err := failpoint.Hit("spawn.plugged"); err != nil {
		return nil, err
	}
	if err := expected.Wait(ctx); err != nil {
		return nil, err
	}
	return vifs, nil
}

// wire plugs the ports.
func (d *Driver) wire(ctx context.Context, uuid driver.InstanceUUID, netns string, vifs objects.NetworkInfo, undone *undo.Stack) error {
	plan, err := d.networkPlan(ctx, uuid, netns, vifs)
	if err != nil {
		return err
	}
	undone.Push("plug", func(ctx context.Context) error { return d.unplug(ctx, uuid) })
	if err := d.opts.Network.Set(ctx, plan); err != nil {
		return err
	}
	d.reboots.plugged(uuid, vifs)
	return nil
}

// unplug removes the host ends. An empty plan needs no namespace.
func (d *Driver) unplug(ctx context.Context, uuid driver.InstanceUUID) error {
	d.reboots.forget(uuid)
	return d.opts.Network.Set(ctx, netbridge.Plan{Owner: string(uuid)})
}

// inactive lists the ports whose event is still to come.
func inactive(vifs objects.NetworkInfo) []string {
	var ids []string
	for _, v := range vifs {
		if !v.Active {
			ids = append(ids, v.ID)
		}
	}
	return ids
}

// start runs the first process.
func (d *Driver) start(ctx context.Context, uuid driver.InstanceUUID, g guest, files []process.File) error {
	req, err := d.startRequest(uuid, g, files)
	if err != nil {
		return err
	}
	return d.opts.Engine.Start(ctx, container(uuid), req)
}

func (d *Driver) startRequest(uuid driver.InstanceUUID, g guest, files []process.File) (engine.StartRequest, error) {
	req := engine.StartRequest{
		Hostname: g.Hostname, Args: g.Args, Candidates: g.Candidates, Env: g.Env, Cwd: g.Cwd, User: g.User,
		Files: files, ConsoleBytes: d.opts.ConsoleBytes, Profile: g.Profile, Nesting: g.Nesting,
	}
	if g.Own != nil {
		startOver(&req, uuid)
	}
	if !g.Drive {
		return req, nil
	}
	return req, d.mountDrive(&req, uuid)
}

// settle fails when the first process fails at once, so that a tenant sees the
// reason instead of an instance that was active for a moment.
func (d *Driver) settle(ctx context.Context, uuid driver.InstanceUUID) error {
	if d.opts.StartGrace <= 0 {
		return nil
	}
	short, cancel := context.WithTimeout(ctx, d.opts.StartGrace)
	defer cancel()
	exit, err := d.opts.Engine.Wait(short, container(uuid))
	if err != nil || exit.Code == 0 || exit.Cause == engine.CauseGuestReboot {
		return ctx.Err() // still running, done with success, or about to come again
	}
	text := "The instance's first process ended at once: " + describeExit(exit) + "."
	if line := d.lastLine(ctx, uuid); line != "" {
		text += " Its last words: " + line
	}
	return errdefs.WithPublic(fmt.Errorf("first process %s: %w", describeExit(exit), errdefs.ErrInvalid), text)
}

// lastLine is the last line of the console, cut to what fits into a fault.
func (d *Driver) lastLine(ctx context.Context, uuid driver.InstanceUUID) string {
	out, err := d.opts.Engine.Console(ctx, container(uuid), 1)
	if err != nil {
		return ""
	}
	line := strings.TrimSpace(string(bytes.ToValidUTF8(out, []byte("?"))))
	return line[:min(len(line), 100)]
}

// runtimeOf is the runtime of the operator's that a flavor asks for, "" for the
// engine's own. Properties of images have no say in it.
func runtimeOf(f driver.Flavor) string { return f.ExtraSpecs["gantry:runtime"] }

// fits refuses an image that is larger than the flavor's disk.
func fits(f driver.Flavor, img engine.ImageInfo) error {
	if f.RootGB <= 0 || img.SizeBytes <= f.RootGB*gib {
		return nil
	}
	return errdefs.WithPublic(fmt.Errorf("image of %d bytes in %d GB: %w", img.SizeBytes, f.RootGB, errdefs.ErrInvalid),
		"The flavor's disk of "+gigabytes(f.RootGB)+" is too small for the image, which unpacks to "+
			gigabytes((img.SizeBytes+gib-1)/gib)+".")
}

// describeExit says how a process ended, for people.
func describeExit(e engine.ExitState) string {
	switch {
	case !e.Known:
		return "ended unseen"
	case e.OOM:
		return "killed: out of memory"
	case e.Cause == engine.CauseStopped:
		return "stopped"
	case e.Cause == engine.CauseGuestOff:
		return "powered off from inside"
	case e.Cause == engine.CauseGuestReboot:
		return "rebooted from inside"
	case e.Signal != 0:
		return fmt.Sprintf("killed by signal %d", e.Signal)
	}
	return fmt.Sprintf("exited with status %d", e.Code)
}
