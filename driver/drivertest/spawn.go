package drivertest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func testSpawnDestroy(t *testing.T, e *env) {
	req := e.spawn(t)
	e.wantState(t, req.UUID, driver.PowerRunning)
	uuids, err := e.d.Instances(t.Context())
	if err != nil || !slices.Equal(uuids, []driver.InstanceUUID{req.UUID}) {
		t.Errorf("Instances = %v, %v", uuids, err)
	}
	if err := e.d.Destroy(t.Context(), req.UUID); err != nil {
		t.Fatalf("Destroy: %v", err)
	}
	_, err = e.d.Info(t.Context(), req.UUID)
	wantClass(t, "Info after Destroy", err, errdefs.ErrNotFound)
	e.asBefore(t)
	if err := e.d.Destroy(t.Context(), req.UUID); err != nil {
		t.Errorf("second Destroy: %v", err)
	}
	// The same UUID may come again.
	if err := e.d.Spawn(t.Context(), req); err != nil {
		t.Errorf("Spawn after Destroy: %v", err)
	}
}

func testSpawnTwice(t *testing.T, e *env) {
	req := e.spawn(t)
	wantClass(t, "second Spawn", e.d.Spawn(t.Context(), req), errdefs.ErrAlreadyExists)
	e.wantState(t, req.UUID, driver.PowerRunning)
}

func testSpawnRace(t *testing.T, e *env) {
	req := e.request(t)
	e.spawned = append(e.spawned, req.UUID)
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = e.d.Spawn(t.Context(), req) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		wantClass(t, "losing Spawn", err, errdefs.ErrAlreadyExists)
	}
	if won != 1 {
		t.Errorf("%d spawns of one instance succeeded, want 1: %v", won, errs)
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
}

// retry shows that after a failed Spawn the host is as before and that the
// same UUID can be spawned.
func (e *env) retry(t *testing.T, req driver.SpawnRequest) {
	t.Helper()
	e.asBefore(t)
	_, err := e.d.Info(t.Context(), req.UUID)
	wantClass(t, "Info after a failed Spawn", err, errdefs.ErrNotFound)
	req.Network, req.Events = Ready(e.network(t)), &Events{}
	e.spawned = append(e.spawned, req.UUID)
	if err := e.d.Spawn(t.Context(), req); err != nil {
		t.Errorf("Spawn after a failed one: %v", err)
		return
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
}

func testSpawnNoNetwork(t *testing.T, e *env) {
	req := e.request(t)
	cause := errors.New("no port for you")
	req.Network = FailedNetwork(cause)
	if err := e.d.Spawn(t.Context(), req); !errors.Is(err, cause) {
		t.Errorf("Spawn = %v, want the error of the network source", err)
	}
	e.retry(t, req)
}

func testSpawnCancelled(t *testing.T, e *env) {
	req := e.request(t)
	network, asked := StalledNetwork()
	req.Network = network
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.d.Spawn(ctx, req) }()
	<-asked
	cancel()
	if err := <-done; err == nil {
		t.Error("a cancelled Spawn succeeded")
	}
	e.retry(t, req)
}

func testSpawnNoEvent(t *testing.T, e *env) {
	if len(e.network(t)) == 0 {
		return // nothing to wait for
	}
	req := e.request(t)
	events := &Events{Err: errNoEvent}
	req.Events = events
	wantClass(t, "Spawn", e.d.Spawn(t.Context(), req), errdefs.ErrUnavailable)
	if events.Open() != 0 {
		t.Error("an expectation was left open")
	}
	e.retry(t, req)
}

func testUnbootable(t *testing.T, e *env) {
	if e.h.Unbootable == nil {
		return
	}
	req := e.fill(t, e.h.Unbootable(t))
	wantClass(t, "Spawn", e.d.Spawn(t.Context(), req), errdefs.ErrInvalid)
	e.asBefore(t)
}

// A request can be tried beside the instance that it is to replace, which does
// not notice.
func testPrepare(t *testing.T, e *env) {
	p, ok := e.d.(driver.Preparer)
	if !ok {
		return
	}
	old := e.spawn(t)
	held := e.h.Residue(t, e.d)
	next := e.h.Request(t)
	next.UUID = old.UUID
	if err := p.Prepare(t.Context(), next); err != nil {
		t.Errorf("Prepare: %v", err)
	}
	if e.h.Unbootable != nil {
		bad := e.h.Unbootable(t)
		bad.UUID = old.UUID
		wantClass(t, "Prepare of the unbootable", p.Prepare(t.Context(), bad), errdefs.ErrInvalid)
	}
	if got := e.h.Residue(t, e.d); !slices.Equal(got, held) {
		t.Errorf("left on the host:\n  before %q\n  after  %q", held, got)
	}
	e.wantState(t, old.UUID, driver.PowerRunning)
	if err := e.d.Destroy(t.Context(), old.UUID); err != nil {
		t.Fatal(err)
	}
	next.Network, next.Events = Ready(e.network(t)), &Events{}
	if err := e.d.Spawn(t.Context(), next); err != nil {
		t.Errorf("Spawn of what was prepared: %v", err)
	}
}

func testDestroyWhileSpawning(t *testing.T, e *env) {
	req := e.request(t)
	network, asked := StalledNetwork()
	req.Network = network
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.d.Spawn(ctx, req) }()
	<-asked
	cancel()
	if err := e.d.Destroy(t.Context(), req.UUID); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if err := <-done; err == nil {
		t.Error("a cancelled Spawn succeeded")
	}
	if err := e.d.Destroy(t.Context(), req.UUID); err != nil {
		t.Errorf("Destroy after Spawn: %v", err)
	}
	e.asBefore(t)
}

func testExpect(t *testing.T, e *env) {
	req := e.request(t)
	vifs := e.network(t)
	req.Network = Ready(vifs)
	events := &Events{}
	req.Events = events
	e.spawned = append(e.spawned, req.UUID)
	if err := e.d.Spawn(t.Context(), req); err != nil {
		t.Fatalf("Spawn: %v", err)
	}
	var want []string
	for _, v := range vifs {
		want = append(want, v.ID)
	}
	slices.Sort(want)
	if got := events.Expected(); !slices.Equal(got, want) {
		t.Errorf("expected events of %v, want %v", got, want)
	}
	if events.Open() != 0 {
		t.Error("an expectation was left open")
	}
	if len(vifs) > 0 && events.Waited() == 0 {
		t.Error("nobody waited for the events")
	}
}
