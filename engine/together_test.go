package engine_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/linux"
)

// meeting is a runner whose Forget waits until others are in it, and that is
// never asked for one process only.
type meeting struct {
	process.Runner
	others chan struct{} // closed when all are there

	mu    sync.Mutex
	await int // guarded by mu: how many are to come
	asked int // guarded by mu
}

func (m *meeting) Forget(ctx context.Context, id string) error {
	m.mu.Lock()
	if m.await--; m.await == 0 {
		close(m.others)
	}
	m.mu.Unlock()
	select {
	case <-m.others:
	case <-time.After(time.Minute):
		return errors.New("one comes after the other")
	}
	return m.Runner.Forget(ctx, id)
}

func (m *meeting) Status(ctx context.Context, id string) (process.Status, error) {
	m.mu.Lock()
	m.asked++
	m.mu.Unlock()
	return m.Runner.Status(ctx, id)
}

// An engine that opens settles what was interrupted, and tidies up after what
// has ended, for many containers at once: it has to answer soon. The last step of
// each waits here for that of the others.
func TestManyAreSettledTogether(t *testing.T) {
	h, e, done := fixture(t)
	ids := []engine.ContainerID{"a", "b", "c", "d"}
	for _, id := range ids {
		check(t, e.Create(t.Context(), engine.CreateRequest{ID: id, Image: "busybox", Limits: limits}))
	}
	done()
	boot, err := linux.BootID()
	check(t, err)
	journal, err := store.OpenLog(filepath.Join(h.Root, "journal"), boot)
	check(t, err)
	for _, id := range ids {
		check(t, journal.Begin(t.Context(), store.Intent{Op: "start", ID: string(id), Begun: time.Now()}))
	}
	check(t, journal.Close())
	runner := h.Runner
	meet := func() *meeting {
		m := &meeting{Runner: runner, await: len(ids), others: make(chan struct{})}
		h.Runner = m
		return m
	}
	meet()
	e, done = h.Engine(t)
	if open, err := e.Intents(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("intents %v, %v", open, err)
	}
	h.Runner = runner
	done()
	e, done = h.Engine(t)
	for _, id := range ids {
		check(t, e.Start(t.Context(), id, initRequest))
	}
	done()
	for _, id := range ids {
		check(t, runner.Signal(t.Context(), string(id), int(unix.SIGKILL)))
		_, err := runner.Wait(t.Context(), string(id))
		check(t, err)
	}
	m := meet()
	e, done = h.Engine(t)
	defer done()
	for _, id := range ids {
		if s, err := e.State(t.Context(), id); err != nil || s.Status != engine.StatusStopped || s.Exit.Signal != int(unix.SIGKILL) {
			t.Errorf("state %+v, %v", s, err)
		}
		check(t, e.Delete(t.Context(), id))
	}
	if m.asked != 0 {
		t.Errorf("the runner was asked %d times for one process", m.asked)
	}
}
