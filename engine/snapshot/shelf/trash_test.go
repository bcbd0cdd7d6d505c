package shelf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/gantry-project/gantry/engine/snapshot"
)

// many is a disk that is not removed while the caller waits.
func many(t *testing.T, s *Shelf, key string) {
	t.Helper()
	must(t, s.Prepare(t.Context(), key, nil, func(dir string) error {
		var err error
		for i := range fewEntries {
			err = errors.Join(err, os.Mkdir(filepath.Join(dir, fmt.Sprint(i)), 0o700))
		}
		return err
	}))
}

// gated is a shelf whose removals of disks wait for the gate.
func gated(t *testing.T) (s *Shelf, gate chan error, removed *atomic.Int32) {
	t.Helper()
	gate, removed = make(chan error), &atomic.Int32{}
	s, err := Open(filepath.Join(t.TempDir(), "store"), Options{RemoveDisk: func(dir string) error {
		if there, err := Exists(dir); err != nil || !there {
			return err
		}
		if err := <-gate; err != nil {
			return err
		}
		removed.Add(1)
		return os.RemoveAll(dir)
	}})
	must(t, err)
	return s, gate, removed
}

func TestLargeDisksGoInTheBackground(t *testing.T) {
	s, gate, removed := gated(t)
	many(t, s, "a")
	must(t, s.Remove(t.Context(), "a"))
	if list, err := s.List(t.Context()); err != nil || len(list) > 0 || removed.Load() > 0 {
		t.Errorf("%v, %v, %d removed", list, err, removed.Load())
	}
	// what is under way is nobody's mistake
	if found, err := s.Check(t.Context(), snapshot.CheckRequest{Repair: true}, Hooks{}); err != nil || len(found) > 0 {
		t.Errorf("%+v, %v", found, err)
	}
	// its name is free, but for a second removal
	many(t, s, "a")
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Remove(stopped, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a removal that cannot wait: %v", err)
	}
	gate <- nil
	must(t, s.Remove(t.Context(), "a"))
	gate <- nil
	s.Close()
	if left, err := os.ReadDir(s.Path("active")); err != nil || len(left) > 0 || removed.Load() != 2 {
		t.Errorf("%v, %v, %d removed", left, err, removed.Load())
	}
}

// TestCloseLeavesWhatHasNotBegun, and the next Open removes it.
func TestCloseLeavesWhatHasNotBegun(t *testing.T) {
	s, gate, removed := gated(t)
	for _, key := range []string{"a", "b", "c"} {
		many(t, s, key)
		must(t, s.Remove(t.Context(), key))
	}
	closed := make(chan struct{})
	s.trash.mu.Lock()
	s.trash.closed = true
	s.trash.mu.Unlock()
	go func() { s.Close(); close(closed) }()
	for open := true; open; { // one may have begun before
		select {
		case gate <- nil:
		case <-closed:
			open = false
		}
	}
	left, err := os.ReadDir(s.Path("active"))
	if err != nil || len(left)+int(removed.Load()) != 3 || removed.Load() > 1 {
		t.Errorf("%v, %v, %d removed", left, err, removed.Load())
	}
	again, err := Open(s.Root(), Options{})
	must(t, err)
	for _, key := range []string{"a", "b", "c"} {
		must(t, again.trash.await(t.Context(), again.Path("active", HalfGone+key)))
	}
	again.Close()
	if left, err := os.ReadDir(s.Path("active")); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// TestWhatCannotBeRemovedIsFound by a check, which tries again.
func TestWhatCannotBeRemovedIsFound(t *testing.T) {
	s, gate, _ := gated(t)
	many(t, s, "a")
	must(t, s.Remove(t.Context(), "a"))
	gate <- errors.New("busy")
	must(t, s.trash.await(t.Context(), s.Path("active", HalfGone+"a")))
	for _, repair := range []bool{false, true} {
		if repair {
			go func() { gate <- nil }()
		}
		found, err := s.Check(t.Context(), snapshot.CheckRequest{Repair: repair}, Hooks{})
		if err != nil || len(found) != 1 || found[0].Kind != snapshot.FindingHalfMade || found[0].Mended != repair {
			t.Errorf("%+v, %v", found, err)
		}
	}
}

func TestSmall(t *testing.T) {
	for name, c := range map[string]struct {
		make func(dir string) error
		want bool
	}{
		"empty": {func(string) error { return nil }, true},
		"sparse": {func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "f"), nil, 0o600), os.Truncate(filepath.Join(dir, "f"), 1<<40))
		}, true},
		"long": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "f"), make([]byte, fewBlocks*512+1), 0o600)
		}, false},
		"many": {func(dir string) error {
			var err error
			for i := range fewEntries {
				err = errors.Join(err, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600))
			}
			return err
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, c.make(dir))
			if got := small(dir); got != c.want {
				t.Errorf("small: %v", got)
			}
		})
	}
	if small(filepath.Join(t.TempDir(), "absent")) {
		t.Error("what cannot be read is not small")
	}
}
