package engine_test

import (
	"errors"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

func TestUpdate(t *testing.T) {
	h, e, done := fixture(t)
	defer func() { done() }()
	pids := func(n int64) engine.LimitsChange { return engine.LimitsChange{Pids: &n} }
	if _, err := e.Update(t.Context(), "c", pids(5)); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	// the shell is refused a process some time
	count := `(while sleep 1000 & do :; done) 2>/dev/null; echo refused`
	script(t, e, `read go; `+count, limits)
	got, err := e.Update(t.Context(), "c", pids(9))
	if err != nil || got.Pids != 9 || got.MemoryBytes != limits.MemoryBytes {
		t.Fatalf("update: %+v %v", got, err)
	}
	for name, change := range map[string]engine.LimitsChange{
		"negative":             pids(-1),
		"unlimited processes":  pids(0),
		"memory below the use": {MemoryBytes: ptr(int64(1 << 12))},
		"cpu set of nothing":   {CPUSet: ptr("a")},
		"quota below the least": {
			Pids: ptr(int64(77)), CPUQuota: ptr(int64(1)),
		},
	} {
		if _, err := e.Update(t.Context(), "c", change); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	check(t, failpoint.Set("engine.update.record", "error"))
	_, err = e.Update(t.Context(), "c", pids(100))
	check(t, failpoint.Set("engine.update.record", ""))
	if !errors.Is(err, failpoint.ErrInjected) {
		t.Errorf("record fails: %v", err)
	}
	s, err := e.State(t.Context(), "c")
	if err != nil || s.Limits.Pids != 9 || s.Limits.MemoryBytes != limits.MemoryBytes {
		t.Errorf("after failures: %+v %v", s, err)
	}
	group, err := h.Cgroups.Open(t.Context(), "c")
	check(t, err)
	if use, err := group.Stats(t.Context()); err != nil || use.Pids > 9 {
		t.Errorf("stats %+v %v", use, err)
	}
	// it is recorded: the next engine and the next start know
	done()
	e, done = h.Engine(t)
	if s, err := e.State(t.Context(), "c"); err != nil || s.Limits.Pids != 9 {
		t.Errorf("next engine: %+v %v", s, err)
	}
	check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
	if _, err := e.Update(t.Context(), "c", pids(6)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Update(t.Context(), "c", engine.LimitsChange{CPUQuota: ptr(int64(1))}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("stopped, bad: %v", err)
	}
	check(t, e.Start(t.Context(), "c", engine.StartRequest{Args: []string{"/bin/sh", "-c", count}, Env: initRequest.Env, ConsoleBytes: 1 << 16}))
	console(t, e, "c", "refused")
	check(t, e.Delete(t.Context(), "c"))
}

func ptr[T any](v T) *T { return &v }

func TestTop(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	script(t, e, "echo ready; "+forever, limits)
	console(t, e, "c", "ready")
	list, err := e.Top(t.Context(), "c")
	if err != nil || len(list) == 0 {
		t.Fatalf("top: %+v %v", list, err)
	}
	if p := list[0]; p.Pid != 1 || p.HostPid <= 1 || p.UID != 0 || p.Parent != 0 || len(p.Args) != 3 || p.MemoryBytes <= 0 || p.State == "" {
		t.Errorf("first process %+v", p)
	}
	for _, p := range list[1:] {
		if p.Pid < 2 || p.Parent != 1 {
			t.Errorf("child %+v", p)
		}
	}
	check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
	if _, err := e.Top(t.Context(), "c"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("stopped: %v", err)
	}
	check(t, e.Delete(t.Context(), "c"))
	if _, err := e.Top(t.Context(), "c"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
}
