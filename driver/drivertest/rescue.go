package drivertest

import (
	"slices"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// rescue is a request for another system in the place of an instance.
func (e *env) rescue(t *testing.T, of driver.SpawnRequest) driver.RescueRequest {
	t.Helper()
	req := driver.RescueRequest{SpawnRequest: e.h.Request(t)}
	req.UUID, req.Flavor, req.Network, req.Events = of.UUID, of.Flavor, Ready(e.network(t)), &Events{}
	req.AdminPassword = "let me in"
	return req
}

func (e *env) wantRescued(t *testing.T, uuid driver.InstanceUUID, want bool) {
	t.Helper()
	if info, err := e.d.Info(t.Context(), uuid); err != nil || info.Rescued != want {
		t.Errorf("Info = %+v, %v, want rescued %t", info, err, want)
	}
}

// Another system runs in an instance's place, over stops, starts and lives of
// the service, until it is told to go. That it sees the instance's disk is for
// the implementation's own tests.
func testRescue(t *testing.T, e *env) {
	if !e.d.Capabilities().Rescue {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	own := e.process(t, req.UUID)
	wantRunning := func(rescued bool) {
		t.Helper()
		e.wantState(t, req.UUID, driver.PowerRunning)
		e.wantRescued(t, req.UUID, rescued)
	}
	for range 2 { // the second replaces the first
		if err := e.d.(driver.Rescuer).Rescue(ctx, e.rescue(t, req)); err != nil {
			t.Fatalf("Rescue: %v", err)
		}
		wantRunning(true)
		if now := e.process(t, req.UUID); own != "" && now == own {
			t.Error("the guest runs on")
		}
	}
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	e.wantRescued(t, req.UUID, true)
	if err := e.d.PowerOn(ctx, driver.PowerOnRequest{UUID: req.UUID, VIFs: e.network(t)}); err != nil {
		t.Fatalf("PowerOn of the rescued: %v", err)
	}
	wantRunning(true)
	if e.h.Restart != nil && e.d.Capabilities().Recover {
		e.d = e.h.Restart(t, e.d)
		found, err := e.d.(driver.Recoverer).Recover(ctx)
		if err != nil || !slices.Equal(found, []driver.InstanceUUID{req.UUID}) {
			t.Fatalf("Recover = %v, %v", found, err)
		}
		wantRunning(true)
	}
	if err := e.d.Reboot(ctx, driver.RebootRequest{UUID: req.UUID, Type: driver.RebootHard, VIFs: e.network(t)}); err != nil {
		t.Fatalf("Reboot of the rescued: %v", err)
	}
	wantRunning(true)
	for range 2 {
		err := e.d.(driver.Rescuer).Unrescue(ctx, driver.UnrescueRequest{UUID: req.UUID, VIFs: e.network(t), PowerOn: true})
		if err != nil {
			t.Fatalf("Unrescue: %v", err)
		}
		wantRunning(false)
	}
	// a rescued instance goes with all that it has
	if err := e.d.(driver.Rescuer).Rescue(ctx, e.rescue(t, req)); err != nil {
		t.Fatalf("Rescue: %v", err)
	}
}

// A stopped instance runs while it is rescued, and stays as its user wants it.
func testRescueStopped(t *testing.T, e *env) {
	r, ok := e.d.(driver.Rescuer)
	if !ok || !e.d.Capabilities().Rescue {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	held := e.h.Residue(t, e.d)
	if err := r.Rescue(ctx, e.rescue(t, req)); err != nil {
		t.Fatalf("Rescue: %v", err)
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
	if err := r.Unrescue(ctx, driver.UnrescueRequest{UUID: req.UUID}); err != nil {
		t.Fatalf("Unrescue: %v", err)
	}
	e.wantState(t, req.UUID, driver.PowerShutdown)
	e.wantRescued(t, req.UUID, false)
	if got := e.h.Residue(t, e.d); len(got) != len(held) {
		t.Errorf("left on the host:\n  before %q\n  after  %q", held, got)
	}
}

func testRescueRefused(t *testing.T, e *env) {
	r, ok := e.d.(driver.Rescuer)
	if !ok || !e.d.Capabilities().Rescue {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	held, own := e.h.Residue(t, e.d), e.process(t, req.UUID)
	absent := req
	absent.UUID = NewUUID()
	wantClass(t, "Rescue of the absent", r.Rescue(ctx, e.rescue(t, absent)), errdefs.ErrNotFound)
	wantClass(t, "Unrescue of the absent", r.Unrescue(ctx, driver.UnrescueRequest{UUID: absent.UUID}), errdefs.ErrNotFound)
	if e.h.Unbootable != nil {
		bad := e.rescue(t, req)
		bad.Image = e.h.Unbootable(t).Image
		wantClass(t, "Rescue by the unbootable", r.Rescue(ctx, bad), errdefs.ErrInvalid)
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
	e.wantRescued(t, req.UUID, false)
	if now := e.process(t, req.UUID); now != own {
		t.Errorf("the first process is %s, was %s", now, own)
	}
	if got := e.h.Residue(t, e.d); !slices.Equal(got, held) {
		t.Errorf("left on the host:\n  before %q\n  after  %q", held, got)
	}
}
