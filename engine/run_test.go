package engine_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

var runRequest = engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}

// runPoints are the steps of Run.
var runPoints = []string{
	"engine.create.begin", "engine.create.record", "engine.create.disk", "engine.start.begin", "engine.start.record",
}

func TestRun(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	for _, point := range runPoints {
		check(t, failpoint.Set(point, "error"))
		if err := e.Run(t.Context(), runRequest, initRequest); !errors.Is(err, failpoint.ErrInjected) {
			t.Errorf("%s: error %v", point, err)
		}
		check(t, failpoint.Set(point, ""))
		nothing(t, h, e)
		settled(t, e)
	}
	missing := initRequest
	missing.Args = []string{"/missing"}
	if err := e.Run(t.Context(), runRequest, missing); err == nil {
		t.Error("a command that there is not has run")
	}
	nothing(t, h, e)
	unknown := runRequest
	unknown.Image = "unknown"
	if err := e.Run(t.Context(), unknown, initRequest); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("an unknown image: %v", err)
	}
	nothing(t, h, e)
	check(t, e.Run(t.Context(), runRequest, initRequest))
	if err := e.Run(t.Context(), runRequest, initRequest); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("twice: %v", err)
	}
	if st, err := e.State(t.Context(), "c"); err != nil || st.Status != engine.StatusRunning {
		t.Errorf("%+v, %v", st, err)
	}
	check(t, e.Delete(t.Context(), "c"))
	nothing(t, h, e)
}

const crashRun = "GANTRY_TEST_CRASH_RUN"

// TestCrashRunChild runs a container, and is killed at the point. It does
// nothing of its own accord.
func TestCrashRunChild(t *testing.T) {
	root := os.Getenv(crashRun)
	if root == "" {
		return
	}
	h := enginetest.HostAt(t, root, os.Getenv(crashGroup))
	e, _ := h.Engine(t)
	check(t, importOCI(t, e, "busybox", archive(t, enginetest.Busybox(t))))
	check(t, failpoint.Set(os.Getenv(crashPoint), "kill"))
	check(t, e.Run(t.Context(), runRequest, initRequest))
}

// TestKilledInRun: of an engine that is killed in the middle of Run the next one
// finds a container that does not run or none, and nothing that has no owner.
func TestKilledInRun(t *testing.T) {
	for _, point := range runPoints {
		t.Run(point, func(t *testing.T) {
			h := enginetest.NewHost(t)
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashRunChild$")
			child.Env = append(os.Environ(), "TMPDIR="+t.TempDir(), crashRun+"="+h.Root, crashGroup+"="+h.Group(), crashPoint+"="+point)
			out, err := child.CombinedOutput()
			if status, ok := errors.AsType[*exec.ExitError](err); !ok || status.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v\n%s", err, out)
			}
			e, done := h.Engine(t)
			defer done()
			settled(t, e)
			all, err := e.List(t.Context())
			check(t, err)
			made := strings.HasPrefix(point, "engine.start.")
			if made && (len(all) != 1 || all[0].Status != engine.StatusCreated) || !made && len(all) != 0 {
				t.Errorf("containers %+v", all)
			}
			if found, err := e.Check(t.Context(), engine.CheckOptions{Deep: true}); err != nil || len(found) != 0 {
				t.Errorf("found %+v %v", found, err)
			}
			check(t, e.Delete(t.Context(), "c"))
			nothing(t, h, e)
		})
	}
}
