package drivertest

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func testAbsent(t *testing.T, e *env) {
	ctx, uuid := t.Context(), NewUUID()
	_, err := e.d.Info(ctx, uuid)
	wantClass(t, "Info", err, errdefs.ErrNotFound)
	wantClass(t, "PowerOn", e.d.PowerOn(ctx, driver.PowerOnRequest{UUID: uuid}), errdefs.ErrNotFound)
	wantClass(t, "PowerOff", e.d.PowerOff(ctx, uuid, driver.PowerOffOptions{}), errdefs.ErrNotFound)
	wantClass(t, "Reboot", e.d.Reboot(ctx, driver.RebootRequest{UUID: uuid, Type: driver.RebootHard}), errdefs.ErrNotFound)
	if p, ok := e.d.(driver.Pauser); ok {
		wantClass(t, "Pause", p.Pause(ctx, uuid), errdefs.ErrNotFound)
		wantClass(t, "Unpause", p.Unpause(ctx, uuid), errdefs.ErrNotFound)
	}
	if s, ok := e.d.(driver.Snapshotter); ok {
		_, err := s.Snapshot(ctx, driver.Credentials{}, uuid)
		wantClass(t, "Snapshot", err, errdefs.ErrNotFound)
	}
	if c, ok := e.d.(driver.ConsoleReader); ok {
		_, err := c.ConsoleOutput(ctx, uuid, -1)
		wantClass(t, "ConsoleOutput", err, errdefs.ErrNotFound)
	}
	if c, ok := e.d.(driver.DiagnosticsReader); ok {
		_, err := c.Diagnostics(ctx, uuid)
		wantClass(t, "Diagnostics", err, errdefs.ErrNotFound)
	}
	if err := e.d.Destroy(ctx, uuid); err != nil {
		t.Errorf("Destroy of an absent instance: %v", err)
	}
}

func testPower(t *testing.T, e *env) {
	req, ctx := e.spawn(t), t.Context()
	on := driver.PowerOnRequest{UUID: req.UUID, VIFs: e.network(t)}
	steps := []struct {
		name string
		do   func() error
		want driver.PowerState
	}{
		{"on while running", func() error { return e.d.PowerOn(ctx, on) }, driver.PowerRunning},
		{"off at once", func() error { return e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}) }, driver.PowerShutdown},
		{"off again", func() error { return e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}) }, driver.PowerShutdown},
		{"on", func() error { return e.d.PowerOn(ctx, on) }, driver.PowerRunning},
		{"on again", func() error { return e.d.PowerOn(ctx, on) }, driver.PowerRunning},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		e.wantState(t, req.UUID, s.want)
	}
	// A stopped instance goes too.
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := e.d.Destroy(ctx, req.UUID); err != nil {
		t.Errorf("Destroy of a stopped instance: %v", err)
	}
}

func testReboot(t *testing.T, e *env) {
	req, ctx := e.spawn(t), t.Context()
	again := driver.RebootRequest{UUID: req.UUID, VIFs: e.network(t)}
	for _, kind := range []driver.RebootType{driver.RebootHard, driver.RebootSoft} {
		again.Type = kind
		if err := e.d.Reboot(ctx, again); err != nil {
			t.Fatalf("Reboot %s: %v", kind, err)
		}
		e.wantState(t, req.UUID, driver.PowerRunning)
	}
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	again.Type = driver.RebootHard
	if err := e.d.Reboot(ctx, again); err != nil {
		t.Fatalf("hard reboot of a stopped instance: %v", err)
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
}

func testPause(t *testing.T, e *env) {
	p, ok := e.d.(driver.Pauser)
	if !ok {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	for _, do := range []func() error{
		func() error { return p.Pause(ctx, req.UUID) }, func() error { return p.Pause(ctx, req.UUID) },
	} {
		if err := do(); err != nil {
			t.Fatalf("Pause: %v", err)
		}
		e.wantState(t, req.UUID, driver.PowerPaused)
	}
	for range 2 {
		if err := p.Unpause(ctx, req.UUID); err != nil {
			t.Fatalf("Unpause: %v", err)
		}
		e.wantState(t, req.UUID, driver.PowerRunning)
	}
	// A paused instance can be stopped, and a stopped one cannot be paused.
	if err := p.Pause(ctx, req.UUID); err != nil {
		t.Fatal(err)
	}
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatalf("PowerOff of a paused instance: %v", err)
	}
	e.wantState(t, req.UUID, driver.PowerShutdown)
	wantClass(t, "Pause of a stopped instance", p.Pause(ctx, req.UUID), errdefs.ErrConflict)
	// A paused instance can be destroyed.
	if err := e.d.PowerOn(ctx, driver.PowerOnRequest{UUID: req.UUID, VIFs: e.network(t)}); err != nil {
		t.Fatal(err)
	}
	if err := p.Pause(ctx, req.UUID); err != nil {
		t.Fatal(err)
	}
	if err := e.d.Destroy(ctx, req.UUID); err != nil {
		t.Errorf("Destroy of a paused instance: %v", err)
	}
}

func testCapabilities(t *testing.T, e *env) {
	c := e.d.Capabilities()
	_, recoverer := e.d.(driver.Recoverer)
	_, snapshotter := e.d.(driver.Snapshotter)
	_, pauser := e.d.(driver.Pauser)
	_, console := e.d.(driver.ConsoleReader)
	_, streamer := e.d.(driver.ConsoleStreamer)
	_, diagnostics := e.d.(driver.DiagnosticsReader)
	_, events := e.d.(driver.EventSource)
	_, cacher := e.d.(driver.ImageCacher)
	_, preparer := e.d.(driver.Preparer)
	_, setter := e.d.(driver.PasswordSetter)
	_, attacher := e.d.(driver.InterfaceAttacher)
	_, migrator := e.d.(driver.Migrator)
	_, rescuer := e.d.(driver.Rescuer)
	_, suspender := e.d.(driver.Suspender)
	_, dumper := e.d.(driver.CrashDumper)
	_, quiescer := e.d.(driver.Quiescer)
	for _, x := range []struct {
		name      string
		says, has bool
	}{
		{"Recover", c.Recover, recoverer},
		{"Snapshot", c.Snapshot, snapshotter},
		{"Pause", c.Pause, pauser},
		{"Console", c.Console, console},
		{"ConsoleStream", c.ConsoleStream, streamer},
		{"Diagnostics", c.Diagnostics, diagnostics},
		{"Events", c.Events, events},
		{"CacheImages", c.CacheImages, cacher},
		{"Prepare", c.Prepare, preparer},
		{"AttachInterface", c.AttachInterface, attacher},
		{"SetPassword", c.SetPassword, setter},
		{"Resize", c.Resize, migrator},
		{"Rescue", c.Rescue, rescuer},
		{"Suspend", c.Suspend, suspender},
		{"CrashDump", c.CrashDump, dumper},
		{"Quiesce", c.Quiesce, quiescer},
		{"Migrate", c.Migrate, c.Migrate && c.Resize},
	} {
		if x.says != x.has {
			t.Errorf("capability %s is %t, but the interface is there: %t", x.name, x.says, x.has)
		}
	}
	if again := e.d.Capabilities(); again != c {
		t.Errorf("capabilities change: %+v, then %+v", c, again)
	}
}

func testResources(t *testing.T, e *env) {
	r, err := e.d.Resources(t.Context())
	if err != nil {
		t.Fatalf("Resources: %v", err)
	}
	if r.Node == "" || r.HypervisorType == "" {
		t.Errorf("Node %q, HypervisorType %q: want both", r.Node, r.HypervisorType)
	}
	if r.VCPUs < 1 || r.MemoryMB < 1 || r.DiskGB < 0 || r.DiskFreeGB > r.DiskGB || r.Uptime < 0 {
		t.Errorf("implausible: %+v", r)
	}
	if says := slices.Contains(r.Traits, "COMPUTE_NET_ATTACH_INTERFACE"); says != e.d.Capabilities().AttachInterface {
		t.Errorf("trait of interfaces that come and go: %t, the capability says otherwise", says)
	}
	for _, trait := range r.Traits {
		if trait == "COMPUTE_NODE" || strings.ToUpper(trait) != trait {
			t.Errorf("trait %q", trait)
		}
	}
	// Totals, not free amounts: an instance changes none of them.
	e.spawn(t)
	after, err := e.d.Resources(t.Context())
	if err != nil {
		t.Fatalf("Resources: %v", err)
	}
	if after.VCPUs != r.VCPUs || after.MemoryMB != r.MemoryMB || after.DiskGB != r.DiskGB || after.Node != r.Node ||
		!reflect.DeepEqual(after.Traits, r.Traits) {
		t.Errorf("totals change with an instance:\n  %+v\n  %+v", r, after)
	}
}
