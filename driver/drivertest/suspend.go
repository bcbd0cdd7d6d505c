package drivertest

import (
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// A guest is put aside and goes on, also in another life of the service. That it
// is the same guest is for the implementation's own tests: its processes may have
// new names.
func testSuspend(t *testing.T, e *env) {
	if !e.d.Capabilities().Suspend {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	for _, restart := range []bool{false, true} {
		for range 2 {
			if err := e.d.(driver.Suspender).Suspend(ctx, req.UUID); err != nil {
				t.Fatalf("Suspend: %v", err)
			}
			e.wantState(t, req.UUID, driver.PowerSuspended)
		}
		if restart && e.h.Restart != nil && e.d.Capabilities().Recover {
			e.d = e.h.Restart(t, e.d)
			if _, err := e.d.(driver.Recoverer).Recover(ctx); err != nil {
				t.Fatal(err)
			}
			e.wantState(t, req.UUID, driver.PowerSuspended)
		}
		for range 2 {
			if err := e.d.(driver.Suspender).Resume(ctx, driver.PowerOnRequest{UUID: req.UUID, VIFs: e.network(t)}); err != nil {
				t.Fatalf("Resume: %v", err)
			}
			e.wantState(t, req.UUID, driver.PowerRunning)
		}
	}
	// a pause is none
	if p, ok := e.d.(driver.Pauser); ok {
		if err := p.Pause(ctx, req.UUID); err != nil {
			t.Fatal(err)
		}
		e.wantState(t, req.UUID, driver.PowerPaused)
		wantClass(t, "Suspend of the paused", e.d.(driver.Suspender).Suspend(ctx, req.UUID), errdefs.ErrConflict)
	}
}

func testSuspendEnds(t *testing.T, e *env) {
	s, ok := e.d.(driver.Suspender)
	if !ok || !e.d.Capabilities().Suspend {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	suspend := func() {
		t.Helper()
		if err := s.Suspend(ctx, req.UUID); err != nil {
			t.Fatalf("Suspend: %v", err)
		}
	}
	suspend()
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	e.wantState(t, req.UUID, driver.PowerShutdown)
	wantClass(t, "Suspend of the stopped", s.Suspend(ctx, req.UUID), errdefs.ErrConflict)
	if err := s.Resume(ctx, driver.PowerOnRequest{UUID: req.UUID, VIFs: e.network(t)}); err != nil {
		t.Fatalf("Resume of the stopped: %v", err)
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
	suspend()
	if err := e.d.Reboot(ctx, driver.RebootRequest{UUID: req.UUID, Type: driver.RebootHard, VIFs: e.network(t)}); err != nil {
		t.Fatalf("Reboot of the suspended: %v", err)
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
	absent := NewUUID()
	wantClass(t, "Suspend of the absent", s.Suspend(ctx, absent), errdefs.ErrNotFound)
	wantClass(t, "Resume of the absent", s.Resume(ctx, driver.PowerOnRequest{UUID: absent}), errdefs.ErrNotFound)
	suspend() // and is destroyed
}
