package engine_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/gantry-project/gantry/engine"
)

func TestBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b engine.Bus
		b.Publish(engine.Event{ID: "nobody listens"})
		one, two := b.Subscribe(), b.Subscribe()
		for _, id := range []engine.ContainerID{"a", "b"} {
			b.Publish(engine.Event{Kind: engine.EventStart, ID: id})
		}
		for _, s := range []*engine.Subscription{one, two} {
			for _, want := range []engine.ContainerID{"a", "b"} {
				if ev, err := s.Next(t.Context()); err != nil || ev.ID != want || ev.Time.IsZero() {
					t.Errorf("event %+v %v, want %s", ev, err, want)
				}
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { _, err := one.Next(ctx); result <- err }()
		synctest.Wait()
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		go func() { _, err := one.Next(t.Context()); result <- err }()
		synctest.Wait()
		one.Close()
		if err := <-result; !errors.Is(err, io.EOF) {
			t.Errorf("closed: %v", err)
		}
		b.Publish(engine.Event{ID: "last"})
		b.Close()
		if ev, err := two.Next(t.Context()); err != nil || ev.ID != "last" {
			t.Errorf("before the end: %+v %v", ev, err)
		}
		if _, err := two.Next(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("end of the bus: %v", err)
		}
		if _, err := b.Subscribe().Next(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestBusTellsTheSlow: the newest are kept, the others counted.
func TestBusTellsTheSlow(t *testing.T) {
	var b engine.Bus
	s := b.Subscribe()
	const all = 1000
	for range all {
		b.Publish(engine.Event{Kind: engine.EventStart, ID: "c"})
	}
	ev, err := s.Next(t.Context())
	if err != nil || ev.Kind != engine.EventMissed || ev.Missed == 0 {
		t.Fatalf("first %+v %v", ev, err)
	}
	for range all - ev.Missed {
		if ev, err := s.Next(t.Context()); err != nil || ev.Kind != engine.EventStart {
			t.Fatalf("%+v %v", ev, err)
		}
	}
	b.Close()
	if _, err := s.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
}

func TestEventsOfALife(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	s := e.Subscribe()
	defer s.Close()
	script(t, e, "trap 'exit 7' TERM; echo ready; "+forever, limits)
	console(t, e, "c", "ready")
	check(t, e.Pause(t.Context(), "c"))
	check(t, e.Pause(t.Context(), "c")) // no news
	check(t, e.Resume(t.Context(), "c"))
	check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
	check(t, e.Delete(t.Context(), "c"))
	check(t, e.Delete(t.Context(), "c")) // no news
	var got []engine.EventKind
	for len(got) == 0 || got[len(got)-1] != engine.EventDelete {
		ev, err := s.Next(t.Context())
		if err != nil || ev.ID != "c" {
			t.Fatalf("%+v %v", ev, err)
		}
		if ev.Kind == engine.EventExit && (!ev.Asked || ev.Exit.Signal != 9) {
			t.Errorf("exit %+v", ev)
		}
		got = append(got, ev.Kind)
	}
	want := []engine.EventKind{engine.EventCreate, engine.EventStart, engine.EventPause, engine.EventResume, engine.EventExit, engine.EventDelete}
	if !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}
