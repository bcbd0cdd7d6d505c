package local_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/local"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// A frozen guest is the same guest afterwards; one that the host has ended is
// started by a resume.
func TestSuspendFreezes(t *testing.T) {
	r := newRig(t)
	req := request()
	check(t, r.driver.Spawn(t.Context(), req))
	pid := func() int { return must(r.engine.State(t.Context(), engine.ContainerID(req.UUID)))(t).Process.Pid }
	was := pid()
	check(t, r.driver.Suspend(t.Context(), req.UUID))
	check(t, r.driver.Resume(t.Context(), driver.PowerOnRequest{UUID: req.UUID}))
	if now := pid(); now != was {
		t.Errorf("first process %d, was %d", now, was)
	}
	check(t, r.driver.Suspend(t.Context(), req.UUID))
	check(t, r.engine.Stop(t.Context(), engine.ContainerID(req.UUID), engine.StopRequest{})) // as a reboot of the host
	r.wantInfo(t, req.UUID, driver.Info{State: driver.PowerShutdown, Reason: "stopped"})
	check(t, r.driver.Resume(t.Context(), driver.PowerOnRequest{UUID: req.UUID}))
	r.wantInfo(t, req.UUID, driver.Info{State: driver.PowerRunning})
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// What cannot be written to the disk runs on, and what a killed service has left
// of it is removed.
func TestSuspendThatCannotBe(t *testing.T) {
	r := newRig(t)
	r.end()
	r.suspend = local.SuspendCheckpoint
	r.open(t)
	t.Setenv("PATH", t.TempDir()) // without criu
	req := request()
	check(t, r.driver.Spawn(t.Context(), req))
	before := r.residue(t)
	err := r.driver.Suspend(t.Context(), req.UUID)
	if !errors.Is(err, errdefs.ErrUnsupported) || errdefs.PublicText(err, "") == "" {
		t.Errorf("without criu: %v", err)
	}
	check(t, failpoint.Set("suspend.noted", "error"))
	err = r.driver.Suspend(t.Context(), req.UUID)
	check(t, failpoint.Set("suspend.noted", ""))
	if !errors.Is(err, failpoint.ErrInjected) {
		t.Errorf("cut off: %v", err)
	}
	half := filepath.Join(r.host.Root, "suspended", string(req.UUID))
	check(t, os.MkdirAll(half, 0o700))
	r.end()
	r.open(t)
	must(r.driver.Recover(t.Context()))(t)
	r.wantInfo(t, req.UUID, driver.Info{State: driver.PowerRunning})
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a checkpoint: %v", err)
	}
	asBefore(t, r, before)
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}
