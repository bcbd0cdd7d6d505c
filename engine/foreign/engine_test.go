package foreign_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/foreign"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// engineOn is an engine that has the runtime by the name "other", and an image.
func engineOn(t *testing.T, runtime string) *engine.Engine {
	t.Helper()
	h := enginetest.NewHost(t)
	h.Runtimes = map[string]string{"other": runtime}
	parent := t.TempDir()
	check(t, os.Chmod(filepath.Dir(parent), 0o711))
	log := zerolog.New(zerolog.NewTestWriter(t))
	f, err := foreign.New(t.Context(), foreign.Options{Dir: filepath.Join(parent, "f"), Log: log})
	check(t, err)
	l, err := process.New(process.Options{Log: log, Foreign: f})
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	h.Runner = l
	e, done := h.Engine(t)
	t.Cleanup(done)
	_, err = e.Import(t.Context(), engine.ImportRequest{
		Ref: "busybox", Content: bytes.NewReader(enginetest.Busybox(t)), ContainerFormat: "bare", DiskFormat: "raw",
	})
	check(t, err)
	return e
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A container of another runtime has the life of any: limits and filter of the
// engine's, a console, sessions, a second start, an end that is known.
func TestEngine(t *testing.T) {
	each(t, programs(), func(t *testing.T, p program, runtime string) {
		if !p.group {
			refuseGroup(t, engineOn(t, runtime))
			return
		}
		e, ctx := engineOn(t, runtime), t.Context()
		limits := cgroup.Limits{MemoryBytes: 64 << 20, Pids: 64}
		check(t, e.Create(ctx, engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits, Runtime: "other"}))
		start := engine.StartRequest{
			Hostname: "guest", Env: []string{"PATH=/bin"}, ConsoleBytes: 1 << 16,
			Files: []process.File{{Path: "/etc/seed", Data: []byte("seed\n"), Mode: 0o644}},
			Args: []string{"/bin/sh", "-c", "/bin/busybox cat /etc/seed; /bin/busybox hostname; /bin/busybox grep Seccomp: /proc/self/status;" +
				"echo ready; trap 'exit 3' TERM; while :; do /bin/busybox sleep 1000 & wait $!; done"},
		}
		for range 2 {
			check(t, e.Start(ctx, "c", start))
			console := await(t, e, "c", "ready")
			for _, want := range []string{"seed\n", "guest\n", "Seccomp:\t2\n"} {
				if !strings.Contains(console, want) {
					t.Errorf("console %q lacks %q", console, want)
				}
			}
			stats, err := e.Stats(ctx, "c")
			if err != nil || stats.MemoryBytes == 0 || stats.Pids == 0 {
				t.Errorf("stats of its group: %+v, %v", stats, err)
			}
			s, err := e.Exec(ctx, "c", engine.ExecRequest{Args: []string{"/bin/sh", "-c", "exit 5"}})
			check(t, err)
			if exit, err := e.ExecWait(ctx, "c", s.ID); err != nil || exit.Code != 5 {
				t.Errorf("session: %+v, %v", exit, err)
			}
			check(t, e.Stop(ctx, "c", engine.StopRequest{Signal: 15, Timeout: time.Minute}))
			if exit, err := e.Wait(ctx, "c"); err != nil || exit.Code != 3 || !exit.Known {
				t.Errorf("end: %+v, %v", exit, err)
			}
		}
		check(t, e.Delete(ctx, "c"))
	})
}

// refuseGroup: a runtime that only takes control groups of its own cannot run
// an engine's containers, and leaves nothing when it is asked to.
func refuseGroup(t *testing.T, e *engine.Engine) {
	t.Helper()
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Runtime: "other"}))
	err := e.Start(t.Context(), "c", engine.StartRequest{Args: []string{"/bin/sh"}, ConsoleBytes: 1 << 16})
	if err == nil || !strings.Contains(err.Error(), "control group") {
		t.Errorf("start: %v", err)
	}
	check(t, e.Delete(t.Context(), "c"))
}

// A runtime that the operator has not named makes nothing.
func TestUnknownRuntime(t *testing.T) {
	e := engineOn(t, "/nowhere/runtime")
	err := e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Runtime: "/bin/sh"})
	if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "runtime") {
		t.Errorf("unknown: %v", err)
	}
	if _, err := e.State(t.Context(), "c"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("something is left: %v", err)
	}
	// a named one that is not installed
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Runtime: "other"}))
	err = e.Start(t.Context(), "c", engine.StartRequest{Args: []string{"/bin/sh"}, ConsoleBytes: 1 << 16})
	if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "/nowhere/runtime") {
		t.Errorf("not installed: %v", err)
	}
	check(t, e.Delete(t.Context(), "c"))
}

// await returns the console when it says what is wanted.
func await(t *testing.T, e *engine.Engine, id engine.ContainerID, want string) string {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		log, err := e.Console(t.Context(), id, -1)
		if err == nil && strings.Contains(string(log), want) {
			return string(log)
		}
		if time.Now().After(deadline) {
			t.Fatalf("console of %s: %q, %v", id, log, err)
		}
	}
}
