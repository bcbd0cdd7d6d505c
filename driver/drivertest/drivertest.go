// Package drivertest is the conformance suite of the driver contract. Every
// driver, and the fake, passes it:
//
//	drivertest.Run(t, drivertest.Harness{New: …, Request: …})
//
// The suite talks to the contract only. What differs between drivers (a bootable
// image, how a guest is made to end, what counts as left over) comes from the
// Harness. Optional abilities are tested when the driver has them, and
// Capabilities must agree. The package imports the contract and testing.
package drivertest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Harness makes drivers for the suite. Fields marked optional may be nil; the
// tests that need them are then left out.
type Harness struct {
	// New returns a driver on an empty host that lives until the test ends.
	New func(t *testing.T) driver.ComputeDriver
	// Request returns a request that boots: the guest runs until it is
	// stopped, writes at least one line to its console and leaves the terminal
	// in its first modes, so that what is typed is echoed. The suite fills in
	// UUID, Network and Events.
	Request func(t *testing.T) driver.SpawnRequest
	// Network is what Neutron would have allocated, fresh for each call (other
	// ports, other MAC addresses) and without active VIFs. nil means no ports.
	Network func(t *testing.T) objects.NetworkInfo
	// Residue lists everything that the driver's host holds because of
	// instances: the suite compares it before and after.
	Residue func(t *testing.T, d driver.ComputeDriver) []string
	// Unbootable returns a request that can never boot on any host (optional).
	Unbootable func(t *testing.T) driver.SpawnRequest
	// Exit makes the guest end by itself (optional).
	Exit func(t *testing.T, d driver.ComputeDriver, uuid driver.InstanceUUID)
	// Reboot makes the guest reboot itself (optional).
	Reboot func(t *testing.T, d driver.ComputeDriver, uuid driver.InstanceUUID)
	// Restart returns the driver of the service's next life on the same host,
	// without stopping anything (optional).
	Restart func(t *testing.T, d driver.ComputeDriver) driver.ComputeDriver
	// Process names the guest's first process, another for each start (optional).
	Process func(t *testing.T, d driver.ComputeDriver, uuid driver.InstanceUUID) string
}

// Run runs the whole suite.
func Run(t *testing.T, h Harness) {
	tests := []struct {
		name string
		run  func(*testing.T, *env)
	}{
		{"capabilities agree with interfaces", testCapabilities},
		{"resources", testResources},
		{"spawn and destroy", testSpawnDestroy},
		{"spawn twice", testSpawnTwice},
		{"spawn at the same time", testSpawnRace},
		{"spawn without a network", testSpawnNoNetwork},
		{"spawn cancelled", testSpawnCancelled},
		{"spawn without the plugged event", testSpawnNoEvent},
		{"spawn of the unbootable", testUnbootable},
		{"prepare", testPrepare},
		{"destroy while spawning", testDestroyWhileSpawning},
		{"events are expected before plugging", testExpect},
		{"absent instance", testAbsent},
		{"power", testPower},
		{"reboot", testReboot},
		{"pause", testPause},
		{"snapshot", testSnapshot},
		{"image cache", testImageCache},
		{"console", testConsole},
		{"console to type on", testConsoleStream},
		{"diagnostics", testDiagnostics},
		{"password", testPassword},
		{"guest ends by itself", testExit},
		{"guest reboots itself", testGuestReboot},
		{"restart of the service", testRestart},
		{"interfaces come and go", testChangeNetwork},
		{"interfaces of a stopped instance", testChangeNetworkStopped},
		{"interfaces that cannot be", testChangeNetworkRefused},
		{"resize", testResize},
		{"resize that needs a start", testResizeStopped},
		{"resize to a smaller disk", testResizeDown},
		{"move to another host", testMove},
		{"rescue", testRescue},
		{"rescue of a stopped instance", testRescueStopped},
		{"rescue that cannot be", testRescueRefused},
		{"suspend and resume", testSuspend},
		{"suspended instances end", testSuspendEnds},
		{"crash dump", testCrashDump},
		{"quiesce", testQuiesce},
		{"processors of its own", testProcessors},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			d := h.New(t)
			e := &env{h: h, d: d, before: h.Residue(t, d)}
			tc.run(t, e)
			e.clean(t)
		})
	}
}

// env is one test's driver.
type env struct {
	h       Harness
	d       driver.ComputeDriver
	before  []string
	spawned []driver.InstanceUUID
}

// clean destroys what the test made and compares the host with before.
func (e *env) clean(t *testing.T) {
	t.Helper()
	for _, uuid := range e.spawned {
		if err := e.d.Destroy(t.Context(), uuid); err != nil {
			t.Errorf("Destroy(%s) at the end: %v", uuid, err)
		}
	}
	e.asBefore(t)
}

func (e *env) asBefore(t *testing.T) {
	t.Helper()
	if after := e.h.Residue(t, e.d); !slices.Equal(after, e.before) {
		t.Errorf("left on the host:\n  before %q\n  after  %q", e.before, after)
	}
	uuids, err := e.d.Instances(t.Context())
	if err != nil || len(uuids) != 0 {
		t.Errorf("Instances = %v, %v, want none", uuids, err)
	}
}

// request returns a bootable request whose network and events are there.
func (e *env) request(t *testing.T) driver.SpawnRequest {
	t.Helper()
	return e.fill(t, e.h.Request(t))
}

func (e *env) fill(t *testing.T, req driver.SpawnRequest) driver.SpawnRequest {
	t.Helper()
	req.UUID = NewUUID()
	req.Network = Ready(e.network(t))
	req.Events = &Events{}
	return req
}

func (e *env) network(t *testing.T) objects.NetworkInfo {
	t.Helper()
	if e.h.Network == nil {
		return nil
	}
	return e.h.Network(t)
}

// spawn boots one instance and fails the test if it cannot.
func (e *env) spawn(t *testing.T) driver.SpawnRequest {
	t.Helper()
	req := e.request(t)
	e.spawned = append(e.spawned, req.UUID)
	if err := e.d.Spawn(t.Context(), req); err != nil {
		t.Fatalf("Spawn: %v", err)
	}
	return req
}

func (e *env) wantState(t *testing.T, uuid driver.InstanceUUID, want ...driver.PowerState) {
	t.Helper()
	got, err := e.d.Info(t.Context(), uuid)
	if err != nil {
		t.Fatalf("Info: %v", err)
	}
	if !slices.Contains(want, got.State) {
		t.Fatalf("state = %s (%s), want %v", got.State, got.Reason, want)
	}
}

func wantClass(t *testing.T, what string, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("%s: error %v, want the class %q", what, err, class)
	}
}

// wait polls until ok or half a minute has passed.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// NewUUID returns a random UUID.
func NewUUID() driver.InstanceUUID {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return driver.InstanceUUID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

// Ready is a NetworkSource that has its answer.
func Ready(vifs objects.NetworkInfo) driver.NetworkSource {
	return sourceFunc(func(context.Context) (objects.NetworkInfo, error) { return vifs, nil })
}

// FailedNetwork is a NetworkSource whose allocation has failed.
func FailedNetwork(err error) driver.NetworkSource {
	return sourceFunc(func(context.Context) (objects.NetworkInfo, error) { return nil, err })
}

// StalledNetwork is a NetworkSource that never answers. The channel is closed
// when it is first asked.
func StalledNetwork() (driver.NetworkSource, <-chan struct{}) {
	asked := make(chan struct{})
	first := true
	return sourceFunc(func(ctx context.Context) (objects.NetworkInfo, error) {
		if first {
			first = false
			close(asked)
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}), asked
}

type sourceFunc func(context.Context) (objects.NetworkInfo, error)

func (f sourceFunc) Wait(ctx context.Context) (objects.NetworkInfo, error) { return f(ctx) }

// errNoEvent is what the suite's waiter answers when told to fail.
var errNoEvent = fmt.Errorf("no network-vif-plugged event: %w", errdefs.ErrUnavailable)
