package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// silent is a runner that cannot say, a few times, how processes end.
type silent struct {
	process.Runner
	why   error
	left  atomic.Int32
	asked chan struct{} // one for each Wait
}

func (s *silent) Wait(ctx context.Context, id string) (process.Exit, error) {
	s.asked <- struct{}{}
	if s.left.Add(-1) >= 0 {
		return process.Exit{}, fmt.Errorf("wait for process %s: %w", id, s.why)
	}
	return s.Runner.Wait(ctx, id)
}

// A keeper that is away, or has forgotten, ends no container: it runs on, with
// its exec sessions, and how it ends is known if anybody knows.
func TestARunnerThatCannotSayEndsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		why        error
		unattended bool
	}{
		"away":      {errdefs.ErrUnavailable, false},
		"forgotten": {errdefs.ErrNotFound, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := enginetest.NewHost(t)
			s := &silent{Runner: h.Runner, why: c.why, asked: make(chan struct{}, 100)}
			s.left.Store(2)
			if c.unattended {
				s.left.Store(1)
			}
			h.Runner = s
			e, done := h.Engine(t)
			defer done()
			_, err := e.Import(t.Context(), engine.ImportRequest{Ref: "busybox", Content: bytes.NewReader(enginetest.Busybox(t)), ContainerFormat: "bare", DiskFormat: "raw"})
			check(t, err)
			run(t, e, "c")
			before := state(t, e)
			<-s.asked
			if c.unattended {
				await(t, func() bool { return state(t, e).Unattended })
			} else {
				<-s.asked
				<-s.asked
			}
			now := state(t, e)
			if now.Status != engine.StatusRunning || now.Process != before.Process || now.Unattended != c.unattended {
				t.Errorf("%+v, was %+v", now, before)
			}
			check(t, e.Stop(t.Context(), "c", engine.StopRequest{Timeout: time.Minute}))
			if exit := state(t, e).Exit; exit.Known == c.unattended {
				t.Errorf("ended with %+v", exit)
			}
			check(t, e.Delete(t.Context(), "c"))
		})
	}
}

func state(t *testing.T, e *engine.Engine) engine.State {
	t.Helper()
	st, err := e.State(t.Context(), "c")
	check(t, err)
	return st
}

// How an exec session has ended while no engine ran is known to the next.
func TestExecEndsUnwatched(t *testing.T) {
	h, e, done := fixture(t)
	defer func() { done() }()
	run(t, e, "c")
	r, w, err := os.Pipe()
	check(t, err)
	s, err := e.Exec(t.Context(), "c", engine.ExecRequest{Args: []string{"sh", "-c", "read x; exit 9"}, Stdio: [3]*os.File{r, nil, nil}})
	r.Close()
	check(t, err)
	done()
	w.Close()
	await(t, func() bool {
		st, err := h.Runner.Status(t.Context(), "c."+s.ID)
		return err == nil && !st.Running
	})
	e, done = h.Engine(t)
	exit, err := e.ExecWait(t.Context(), "c", s.ID)
	if err != nil || !exit.Known || exit.Code != 9 {
		t.Errorf("ended %+v %v", exit, err)
	}
	if left, err := h.Runner.List(t.Context()); err != nil || len(left) != 1 {
		t.Errorf("the runner knows %+v %v", left, err)
	}
	check(t, e.Delete(t.Context(), "c"))
}
