package engine_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// script runs a shell script as the first process of container c.
func script(t *testing.T, e *engine.Engine, text string, limits cgroup.Limits) {
	t.Helper()
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	check(t, e.Start(t.Context(), "c", engine.StartRequest{
		Args: []string{"/bin/sh", "-c", text}, Env: initRequest.Env, ConsoleBytes: 1 << 16,
	}))
}

const forever = "while :; do sleep 1000 & wait $!; done"

func TestStop(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	patient := engine.StopRequest{Timeout: time.Hour}
	for name, tc := range map[string]struct {
		script, ready string
		pause         bool
		req           engine.StopRequest
		code, signal  int
	}{
		"asked":                       {"trap 'exit 7' TERM; echo ready; " + forever, "ready", false, patient, 7, 0},
		"the image's signal":          {"trap 'exit 8' USR1; trap 'exit 9' TERM; echo ready; " + forever, "ready", false, engine.StopRequest{Timeout: time.Hour, Signal: int(unix.SIGUSR1)}, 8, 0},
		"asked twice":                 {"n=0; trap 'n=$((n+1)); [ $n = 2 ] && exit 6' TERM; echo ready; " + forever, "ready", false, engine.StopRequest{Timeout: time.Hour, Retry: 20 * time.Millisecond}, 6, 0},
		"at once":                     {"trap 'exit 7' TERM; echo ready; " + forever, "ready", false, engine.StopRequest{}, 137, 9},
		"out of patience":             {"trap : TERM; echo ready; " + forever, "ready", false, engine.StopRequest{Timeout: 20 * time.Millisecond}, 137, 9},
		"deaf: nobody waits an hour":  {"echo ready; exec sleep 1000", "ready", false, patient, 137, 9},
		"paused: nobody waits either": {"trap 'exit 7' TERM; echo ready; " + forever, "ready", true, patient, 137, 9},
		// it waits in sigtimedwait, takes SIGUSR2 for a power-off, ends its namespace
		"busybox's init": {"ln -s busybox /bin/init; printf '::once:/bin/echo ready\\n::respawn:/bin/sleep 1000\\n' > /etc/inittab; exec /bin/init", "ready", false, patient, 130, 2},
	} {
		t.Run(name, func(t *testing.T) {
			script(t, e, tc.script, limits)
			console(t, e, "c", tc.ready)
			if tc.pause {
				check(t, e.Pause(t.Context(), "c"))
			}
			for range 2 { // a stopped one is success
				check(t, e.Stop(t.Context(), "c", tc.req))
			}
			s, err := e.State(t.Context(), "c")
			if err != nil || s.Status != engine.StatusStopped || !s.Exit.Known || s.Exit.Code != tc.code || s.Exit.Signal != tc.signal || s.Exit.OOM {
				t.Errorf("state %+v %v, want %d, signal %d", s, err, tc.code, tc.signal)
			}
			check(t, e.Delete(t.Context(), "c"))
		})
	}
	if err := e.Stop(t.Context(), "c", patient); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("stop of an absent one: %v", err)
	}
}

func TestStopCancelled(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	script(t, e, "trap 'echo asked' TERM; echo ready; "+forever, limits)
	console(t, e, "c", "ready")
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- e.Stop(ctx, "c", engine.StopRequest{Timeout: time.Hour}) }()
	console(t, e, "c", "asked")
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("stop: %v", err)
	}
	if s, err := e.State(t.Context(), "c"); err != nil || s.Status != engine.StatusRunning {
		t.Errorf("state %+v %v", s, err)
	}
	check(t, e.Delete(t.Context(), "c"))
}

func TestWait(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	if _, err := e.Wait(t.Context(), "c"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	script(t, e, "trap 'exit 4' TERM; echo ready; "+forever, limits)
	console(t, e, "c", "ready")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Wait(ctx, "c"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if exit, err := e.Wait(t.Context(), "c"); err != nil || exit.Code != 4 {
				t.Errorf("wait: %+v %v", exit, err)
			}
		})
	}
	check(t, e.Stop(t.Context(), "c", engine.StopRequest{Timeout: time.Hour}))
	wg.Wait()
	if exit, err := e.Wait(t.Context(), "c"); err != nil || exit.Code != 4 {
		t.Errorf("wait afterwards: %+v %v", exit, err)
	}
	check(t, e.Delete(t.Context(), "c"))
}

// TestOutOfMemory: the reason is told, whoever the kernel chose.
func TestOutOfMemory(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	tight := limits
	tight.MemoryBytes = 16 << 20
	hog := "dd if=/dev/zero of=/dev/null bs=64M count=1"
	for name, text := range map[string]string{"the first process": "exec " + hog, "a child, and the shell says so": hog} {
		t.Run(name, func(t *testing.T) {
			script(t, e, text, tight)
			if ev := <-e.Events(); ev.ID != "c" || !ev.Exit.OOM || ev.Exit.Code != 137 || ev.Asked {
				t.Errorf("event %+v", ev)
			}
			if s, err := e.State(t.Context(), "c"); err != nil || !s.Exit.OOM {
				t.Errorf("state %+v %v", s, err)
			}
			check(t, e.Delete(t.Context(), "c"))
		})
	}
}

// TestOneEventForEachEnd tells what somebody asked for from what nobody did.
func TestOneEventForEachEnd(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	script(t, e, "exit 3", limits)
	if ev := <-e.Events(); ev.Asked || ev.Exit.Code != 3 || !ev.Exit.Known {
		t.Errorf("ended by itself: %+v", ev)
	}
	check(t, e.Start(t.Context(), "c", initRequest))
	check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
	if ev := <-e.Events(); !ev.Asked || ev.Exit.Signal != 9 {
		t.Errorf("stopped: %+v", ev)
	}
	check(t, e.Start(t.Context(), "c", initRequest))
	check(t, e.Delete(t.Context(), "c"))
	if ev := <-e.Events(); !ev.Asked {
		t.Errorf("deleted: %+v", ev)
	}
}
