package cell_test

import (
	"errors"
	"testing"
	"time"

	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestPurgeLeavesNothingOfWhatWasDeletedLongAgo(t *testing.T) {
	s := newStore(t)
	gone, kept := create(t, s, building("p", "gone")), create(t, s, building("p", "kept"))
	if _, err := s.DestroyInstance(t.Context(), gone.UUID(), cell.AnyHost); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Purge(t.Context(), time.Now().Add(-time.Hour)); err != nil || n != 0 {
		t.Fatalf("too early: %d, %v", n, err)
	}
	if _, err := s.AnyInstance(t.Context(), gone.UUID()); err != nil {
		t.Errorf("a deleted one that is to be kept: %v", err)
	}
	if n, err := s.Purge(t.Context(), time.Now().Add(time.Hour)); err != nil || n != 1 {
		t.Fatalf("purged %d, %v", n, err)
	}
	if _, err := s.AnyInstance(t.Context(), gone.UUID()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("still there: %v", err)
	}
	if actions, err := s.Actions(t.Context(), gone.UUID(), cell.ActionQuery{}); err != nil || len(actions) != 0 {
		t.Errorf("%d actions, %v", len(actions), err)
	}
	if actions, err := s.Actions(t.Context(), kept.UUID(), cell.ActionQuery{}); err != nil || len(actions) != 1 {
		t.Errorf("the other one's: %d actions, %v", len(actions), err)
	}
}

func TestPrimeReadsAll(t *testing.T) {
	s := newStore(t)
	for range 120 {
		create(t, s, building("p", "x"))
	}
	if err := s.Prime(t.Context()); err != nil {
		t.Error(err)
	}
	if all, err := s.ListInstances(t.Context(), cell.InstanceQuery{}); err != nil || len(all) != 120 {
		t.Errorf("%d, %v", len(all), err)
	}
}
