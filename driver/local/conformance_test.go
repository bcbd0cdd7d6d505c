package local_test

import (
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/drivertest"
	"github.com/gantry-project/gantry/engine"
)

// TestConformance runs the contract's suite on the real engine and the real
// links.
func TestConformance(t *testing.T) {
	var rigs sync.Map // driver to *rig
	of := func(t *testing.T, d driver.ComputeDriver) *rig {
		t.Helper()
		v, _ := rigs.Load(d)
		r, ok := v.(*rig)
		if !ok {
			t.Fatal("a driver of no rig")
		}
		return r
	}
	drivertest.Run(t, drivertest.Harness{
		New: func(t *testing.T) driver.ComputeDriver {
			r := newRig(t)
			rigs.Store(r.driver, r)
			return r.driver
		},
		Request: func(*testing.T) driver.SpawnRequest { return request() },
		Network: port,
		Residue: func(t *testing.T, d driver.ComputeDriver) []string { return of(t, d).residue(t) },
		Unbootable: func(*testing.T) driver.SpawnRequest {
			req := request()
			req.Image.ID = garbage
			return req
		},
		Exit: func(t *testing.T, d driver.ComputeDriver, uuid driver.InstanceUUID) {
			check(t, of(t, d).host.Runner.Signal(t.Context(), string(uuid), int(unix.SIGKILL)))
		},
		Reboot: func(t *testing.T, d driver.ComputeDriver, uuid driver.InstanceUUID) { of(t, d).reboot(t, uuid) },
		Process: func(t *testing.T, d driver.ComputeDriver, uuid driver.InstanceUUID) string {
			s, err := of(t, d).engine.State(t.Context(), engine.ContainerID(uuid))
			check(t, err)
			return fmt.Sprint(s.Process.Pid, s.Started)
		},
		Restart: func(t *testing.T, d driver.ComputeDriver) driver.ComputeDriver {
			r := of(t, d)
			r.end()
			r.open(t)
			rigs.Store(r.driver, r)
			return r.driver
		},
	})
}
