package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/engine/store/storetest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// atOnce makes n changes wait for one transaction, and returns their errors.
func atOnce(t *testing.T, s *store.Bolt, n int, change func(i int) error) []error {
	t.Helper()
	waiting, release := s.Hold()
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = change(i) })
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for waiting() < n {
		<-tick.C
	}
	release()
	all.Wait()
	return errs
}

// TestSimultaneousChangesShareATransaction, and are all there afterwards.
func TestSimultaneousChangesShareATransaction(t *testing.T) {
	name := filepath.Join(t.TempDir(), "store.db")
	s := open(t, name)
	before := s.Transactions()
	const n = 20
	errs := atOnce(t, s, n, func(i int) error {
		_, err := s.CreateContainer(t.Context(), storetest.Container(fmt.Sprint(i)))
		return err
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if got := s.Transactions() - before; got != 1 {
		t.Errorf("%d transactions", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	list, err := open(t, name).Containers(t.Context())
	if err != nil || len(list) != n {
		t.Fatalf("%d, %v", len(list), err)
	}
	blocks := map[uint32]bool{}
	for _, c := range list {
		blocks[c.IDBase] = true
	}
	if len(blocks) != n {
		t.Errorf("%d blocks of ids for %d containers", len(blocks), n)
	}
}

// TestOneFailsAndNotItsNeighbours: the same container is made twice among others.
func TestOneFailsAndNotItsNeighbours(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	const n = 10
	errs := atOnce(t, s, n, func(i int) error {
		_, err := s.CreateContainer(t.Context(), storetest.Container(fmt.Sprint(i/2)))
		return err
	})
	for i := 0; i < n; i += 2 {
		a, b := errs[i], errs[i+1]
		if (a == nil) == (b == nil) || !errors.Is(errors.Join(a, b), errdefs.ErrAlreadyExists) {
			t.Errorf("container %d: %v; %v", i/2, a, b)
		}
	}
	if list, err := s.Containers(t.Context()); err != nil || len(list) != n/2 {
		t.Errorf("%d, %v", len(list), err)
	}
}
