package engine_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/linux"
)

// intend notes an intent as a killed engine would have left it.
func intend(t *testing.T, h *enginetest.Host, op, id, data string) {
	t.Helper()
	boot, err := linux.BootID()
	check(t, err)
	j, err := store.OpenLog(filepath.Join(h.Root, "journal"), boot)
	check(t, err)
	in := store.Intent{Op: op, ID: id, Begun: time.Now()}
	if data != "" {
		in.Data = []byte(data)
	}
	check(t, errors.Join(j.Begin(t.Context(), in), j.Close()))
}

// settled wants no intent to be left.
func settled(t *testing.T, e *engine.Engine) {
	t.Helper()
	if open, err := e.Intents(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("intents %v %v", open, err)
	}
}

func TestOperationsLeaveNoIntent(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	run(t, e, "c")
	built, err := e.Commit(t.Context(), "c")
	check(t, err)
	check(t, built.Content.Close())
	_, err = e.Collect(t.Context(), engine.GCOptions{})
	check(t, err)
	settled(t, e)
	check(t, e.Delete(t.Context(), "c"))
	if err := e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "unknown"}); err == nil {
		t.Error("created of an unknown image")
	}
	settled(t, e)
}

// TestACreateThatNobodyWasToldOfIsUndone, though all of it was made.
func TestACreateThatNobodyWasToldOfIsUndone(t *testing.T) {
	h, e, done := fixture(t)
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	done()
	intend(t, h, "create", "c", "")
	e, done = h.Engine(t)
	defer done()
	settled(t, e)
	nothing(t, h, e)
}

// TestAStartThatWasCutOffIsUndone: a container that had been started before runs
// again, and its record does not know.
func TestAStartThatWasCutOffIsUndone(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "c")
	done()
	edit(t, h, func(s *store.Bolt) error {
		rec, err := s.Container(t.Context(), "c")
		rec.Pid, rec.StartTime = 0, 0
		return errors.Join(err, s.PutContainer(t.Context(), rec))
	})
	intend(t, h, "start", "c", "")
	e, done = h.Engine(t)
	defer done()
	settled(t, e)
	if s := stateOf(t, e, "c"); s.Status != engine.StatusStopped {
		t.Errorf("%+v", s)
	}
	check(t, e.Start(t.Context(), "c", initRequest))
	check(t, e.Delete(t.Context(), "c"))
	nothing(t, h, e)
}

// TestAStartThatWasNotedStays: its caller was told that it runs, or was about to
// be, and the record was to be written next.
func TestAStartThatWasNotedStays(t *testing.T) {
	t.Run("told", func(t *testing.T) { notedStays(t) })
	t.Run("to be told", func(t *testing.T) { notedStays(t, "start") })
}

// notedStays is of a start that was noted while the operations before were
// under way.
func notedStays(t *testing.T, before ...string) {
	t.Helper()
	h, e, done := fixture(t)
	run(t, e, "c")
	done()
	var noted []byte
	edit(t, h, func(s *store.Bolt) error {
		rec, err := s.Container(t.Context(), "c")
		check(t, err)
		noted, err = json.Marshal(rec)
		check(t, err)
		rec.Pid, rec.StartTime, rec.Started, rec.Args, rec.Session = 0, 0, time.Time{}, nil, store.Session{}
		return s.PutContainer(t.Context(), rec)
	})
	for _, op := range before {
		intend(t, h, op, "c", "")
	}
	intend(t, h, "started", "c", string(noted))
	intend(t, h, "started", "gone", string(noted))
	e, done = h.Engine(t)
	defer done()
	settled(t, e)
	if s := stateOf(t, e, "c"); s.Status != engine.StatusRunning || s.Unattended || len(s.Args) == 0 {
		t.Errorf("%+v", s)
	}
	check(t, e.Delete(t.Context(), "c"))
	nothing(t, h, e)
}

// TestAStartThatWasRecordedStays: the intent is older than its crossing out.
func TestAStartThatWasRecordedStays(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "c")
	done()
	intend(t, h, "start", "c", "")
	intend(t, h, "create", "c", "")
	e, done = h.Engine(t)
	defer done()
	settled(t, e)
	if s := stateOf(t, e, "c"); s.Status != engine.StatusRunning || s.Unattended {
		t.Errorf("%+v", s)
	}
	check(t, e.Delete(t.Context(), "c"))
}

func TestADeleteThatWasCutOffIsFinished(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "c")
	done()
	intend(t, h, "delete", "c", "")
	e, done = h.Engine(t)
	defer done()
	settled(t, e)
	nothing(t, h, e)
}

// TestACommitThatWasCutOffIsThawed: nobody else would.
func TestACommitThatWasCutOffIsThawed(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "c")
	run(t, e, "paused")
	check(t, e.Pause(t.Context(), "c")) // what a commit does
	check(t, e.Pause(t.Context(), "paused"))
	done()
	intend(t, h, "commit", "c", `{"frozen":true}`)
	intend(t, h, "commit", "paused", `{"frozen":false}`)
	e, done = h.Engine(t)
	defer done()
	settled(t, e)
	if s := stateOf(t, e, "c"); s.Status != engine.StatusRunning {
		t.Errorf("%+v", s)
	}
	if s := stateOf(t, e, "paused"); s.Status != engine.StatusPaused {
		t.Errorf("paused before: %+v", s)
	}
	for _, id := range []engine.ContainerID{"c", "paused"} {
		check(t, e.Delete(t.Context(), id))
	}
}

// TestAnUnknownOperationIsKept for the version that knows it.
func TestAnUnknownOperationIsKept(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "c")
	done()
	intend(t, h, "transmogrify", "c", "")
	e, done = h.Engine(t)
	defer done()
	if open, err := e.Intents(t.Context()); err != nil || len(open) != 1 {
		t.Errorf("intents %v %v", open, err)
	}
	if s := stateOf(t, e, "c"); s.Status != engine.StatusRunning {
		t.Errorf("%+v", s)
	}
	check(t, e.Delete(t.Context(), "c"))
}
