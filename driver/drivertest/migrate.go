package drivertest

import (
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func resizer(e *env) (driver.Migrator, bool) {
	m, ok := e.d.(driver.Migrator)
	return m, ok && e.d.Capabilities().Resize
}

// process names the guest's first process, "" where the harness cannot.
func (e *env) process(t *testing.T, uuid driver.InstanceUUID) string {
	t.Helper()
	if e.h.Process == nil {
		return ""
	}
	return e.h.Process(t, e.d, uuid)
}

// larger is a flavor that a running guest can be given.
func larger(f driver.Flavor) driver.Flavor {
	f.Name += ".large"
	f.MemoryMB *= 2
	f.VCPUs++
	f.RootGB++
	return f
}

// finish is the request that ends a move of an instance.
func (e *env) finish(t *testing.T, from driver.SpawnRequest, to driver.Flavor, info string, on bool) driver.FinishMigrationRequest {
	t.Helper()
	req := driver.FinishMigrationRequest{SpawnRequest: from, DiskInfo: info, Old: from.Flavor, PowerOn: on}
	req.Flavor, req.Network, req.Events = to, Ready(e.network(t)), &Events{}
	return req
}

// A guest gets more of everything, and its old size again, as it runs.
func testResize(t *testing.T, e *env) {
	m, ok := resizer(e)
	if !ok {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	first, to := e.process(t, req.UUID), larger(req.Flavor)
	same := func(what string) {
		t.Helper()
		e.wantState(t, req.UUID, driver.PowerRunning)
		if now := e.process(t, req.UUID); now != first {
			t.Errorf("%s: the first process is %s, was %s", what, now, first)
		}
	}
	for round := range 2 {
		info, err := m.MigrateDiskAndPowerOff(ctx, driver.MigrateRequest{UUID: req.UUID, Old: req.Flavor, New: to})
		if err != nil {
			t.Fatalf("MigrateDiskAndPowerOff: %v", err)
		}
		for range 2 { // a later life repeats it
			if err := m.FinishMigration(ctx, e.finish(t, req, to, info, true)); err != nil {
				t.Fatalf("FinishMigration: %v", err)
			}
		}
		same("resized")
		if r, ok := e.d.(driver.DiagnosticsReader); ok && first != "" {
			if got, err := r.Diagnostics(ctx, req.UUID); err != nil || got.NumCPUs != to.VCPUs || got.MemoryMaxBytes != to.MemoryMB<<20 {
				t.Errorf("diagnostics of the resized guest: %+v, %v", got, err)
			}
		}
		if round == 1 {
			break
		}
		for range 2 {
			err := m.FinishRevertMigration(ctx, driver.RevertMigrationRequest{UUID: req.UUID, Flavor: req.Flavor, VIFs: e.network(t), PowerOn: true})
			if err != nil {
				t.Fatalf("FinishRevertMigration: %v", err)
			}
		}
		same("reverted")
	}
	for range 2 {
		if err := m.ConfirmMigration(ctx, req.UUID, false); err != nil {
			t.Fatalf("ConfirmMigration: %v", err)
		}
	}
	same("confirmed")
}

// A stopped guest stays stopped.
func testResizeStopped(t *testing.T, e *env) {
	m, ok := resizer(e)
	if !ok {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	to := larger(req.Flavor)
	info, err := m.MigrateDiskAndPowerOff(ctx, driver.MigrateRequest{UUID: req.UUID, Old: req.Flavor, New: to})
	if err == nil {
		err = m.FinishMigration(ctx, e.finish(t, req, to, info, false))
	}
	if err != nil {
		t.Fatalf("resize: %v", err)
	}
	e.wantState(t, req.UUID, driver.PowerShutdown)
	if err := e.d.PowerOn(ctx, driver.PowerOnRequest{UUID: req.UUID, VIFs: e.network(t)}); err != nil {
		t.Fatalf("PowerOn: %v", err)
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
}

func testResizeDown(t *testing.T, e *env) {
	m, ok := resizer(e)
	if !ok {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	first, smaller := e.process(t, req.UUID), req.Flavor
	smaller.RootGB--
	_, err := m.MigrateDiskAndPowerOff(ctx, driver.MigrateRequest{UUID: req.UUID, Old: req.Flavor, New: smaller})
	wantClass(t, "a smaller disk", err, errdefs.ErrInvalid)
	if errdefs.PublicText(err, "") == "" {
		t.Error("a smaller disk: nothing for the tenant")
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
	if now := e.process(t, req.UUID); now != first {
		t.Errorf("the first process is %s, was %s", now, first)
	}
	_, err = m.MigrateDiskAndPowerOff(ctx, driver.MigrateRequest{UUID: NewUUID(), Old: req.Flavor, New: req.Flavor})
	wantClass(t, "of nothing", err, errdefs.ErrNotFound)
}

// An instance goes to another host, comes back, and goes for good.
func testMove(t *testing.T, e *env) {
	m, ok := resizer(e)
	if !ok || !e.d.Capabilities().Migrate {
		return
	}
	there := &env{h: e.h, d: e.h.New(t)}
	there.before = e.h.Residue(t, there.d)
	other, ok := there.d.(driver.Migrator)
	if !ok {
		t.Fatal("the other host's driver is no Migrator")
	}
	req, ctx := e.spawn(t), t.Context()
	to := larger(req.Flavor)
	err := other.FinishMigration(ctx, moved(there.finish(t, req, to, "", true)))
	wantClass(t, "FinishMigration of what nobody expects", err, errdefs.ErrNotFound)
	for _, back := range []bool{true, false} {
		peer, err := other.ExpectMigration(ctx, req.UUID)
		if err != nil || peer == "" || len(peer) > 255 {
			t.Fatalf("ExpectMigration = %q, %v", peer, err)
		}
		info, err := m.MigrateDiskAndPowerOff(ctx, driver.MigrateRequest{UUID: req.UUID, Peer: peer, Old: req.Flavor, New: to})
		if err != nil {
			t.Fatalf("MigrateDiskAndPowerOff: %v", err)
		}
		e.wantState(t, req.UUID, driver.PowerShutdown)
		if err := other.FinishMigration(ctx, moved(there.finish(t, req, to, info, true))); err != nil {
			t.Fatalf("FinishMigration: %v", err)
		}
		if err := other.FinishMigration(ctx, moved(there.finish(t, req, to, "", true))); err != nil {
			t.Errorf("FinishMigration again: %v", err)
		}
		there.wantState(t, req.UUID, driver.PowerRunning)
		e.wantState(t, req.UUID, driver.PowerShutdown)
		if !back {
			break
		}
		if err := there.d.Destroy(ctx, req.UUID); err != nil {
			t.Fatal(err)
		}
		there.asBefore(t)
		err = m.FinishRevertMigration(ctx, driver.RevertMigrationRequest{UUID: req.UUID, Flavor: req.Flavor, VIFs: e.network(t), PowerOn: true})
		if err != nil {
			t.Fatalf("FinishRevertMigration: %v", err)
		}
		e.wantState(t, req.UUID, driver.PowerRunning)
	}
	for range 2 {
		if err := m.ConfirmMigration(ctx, req.UUID, true); err != nil {
			t.Fatalf("ConfirmMigration: %v", err)
		}
	}
	there.wantState(t, req.UUID, driver.PowerRunning)
	if err := there.d.Destroy(ctx, req.UUID); err != nil {
		t.Fatal(err)
	}
	there.asBefore(t)
}

func moved(req driver.FinishMigrationRequest) driver.FinishMigrationRequest {
	req.Moved = true
	return req
}
