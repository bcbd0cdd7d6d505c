package drivertest

import (
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// A guest whose memory is kept goes on, and the file goes with the instance.
func testCrashDump(t *testing.T, e *env) {
	c, ok := e.d.(driver.CrashDumper)
	if !ok || !e.d.Capabilities().CrashDump {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	was := e.process(t, req.UUID)
	for range 2 {
		if err := c.CrashDump(ctx, req.UUID); err != nil {
			t.Fatalf("CrashDump: %v", err)
		}
		e.wantState(t, req.UUID, driver.PowerRunning)
	}
	if now := e.process(t, req.UUID); now != was {
		t.Errorf("the first process is %s, was %s", now, was)
	}
	if p, ok := e.d.(driver.Pauser); ok {
		if err := p.Pause(ctx, req.UUID); err != nil {
			t.Fatal(err)
		}
		if err := c.CrashDump(ctx, req.UUID); err != nil {
			t.Errorf("CrashDump of the paused: %v", err)
		}
		e.wantState(t, req.UUID, driver.PowerPaused)
	}
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	wantClass(t, "CrashDump of the stopped", c.CrashDump(ctx, req.UUID), errdefs.ErrConflict)
	wantClass(t, "CrashDump of the absent", c.CrashDump(ctx, NewUUID()), errdefs.ErrNotFound)
}

// A guest that is held still shows it to nobody, can be stopped, and goes on in
// the next life of the service.
func testQuiesce(t *testing.T, e *env) {
	if !e.d.Capabilities().Quiesce {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	q := func() driver.Quiescer { return e.d.(driver.Quiescer) }
	for _, do := range []func() error{
		func() error { return q().Quiesce(ctx, req.UUID) },
		func() error { return q().Quiesce(ctx, req.UUID) },
		func() error { return q().Unquiesce(ctx, req.UUID) },
		func() error { return q().Unquiesce(ctx, req.UUID) },
		func() error { return q().Quiesce(ctx, req.UUID) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		e.wantState(t, req.UUID, driver.PowerRunning)
	}
	if e.h.Restart != nil && e.d.Capabilities().Recover {
		e.d = e.h.Restart(t, e.d)
		if _, err := e.d.(driver.Recoverer).Recover(ctx); err != nil {
			t.Fatal(err)
		}
		e.wantState(t, req.UUID, driver.PowerRunning)
		if err := q().Quiesce(ctx, req.UUID); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatalf("PowerOff of the quiet: %v", err)
	}
	e.wantState(t, req.UUID, driver.PowerShutdown)
	wantClass(t, "Quiesce of the stopped", q().Quiesce(ctx, req.UUID), errdefs.ErrConflict)
	wantClass(t, "Unquiesce of the stopped", q().Unquiesce(ctx, req.UUID), errdefs.ErrConflict)
	wantClass(t, "Quiesce of the absent", q().Quiesce(ctx, NewUUID()), errdefs.ErrNotFound)
}
