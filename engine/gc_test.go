package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// library imports images that share their lowest layer, used last one hour
// apart: the first is the oldest.
func library(t *testing.T, h *enginetest.Host, refs ...string) (*engine.Engine, func()) {
	t.Helper()
	e, done := h.Engine(t)
	base := enginetest.Busybox(t)
	for _, ref := range refs {
		check(t, importOCI(t, e, ref, archive(t, base, oneFile(t, "root/told", ref))))
	}
	done()
	edit(t, h, func(s *store.Bolt) error {
		var errs []error
		for i, ref := range refs {
			img, err := s.Image(t.Context(), ref)
			img.LastUsed = time.Now().Add(-time.Duration(len(refs)-i) * time.Hour)
			errs = append(errs, err, s.PutImage(t.Context(), img))
		}
		return errors.Join(errs...)
	})
	return h.Engine(t)
}

func TestCollectByAgeAndSize(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := library(t, h, "a", "b", "c")
	defer done()
	ctx := t.Context()
	collect := func(o engine.GCOptions, want ...string) engine.GCReport {
		t.Helper()
		r, err := e.Collect(ctx, o)
		if err != nil || !slices.Equal(r.Images, want) {
			t.Errorf("%+v: %v, want %v: %v", o, r.Images, want, err)
		}
		return r
	}
	day := 24 * time.Hour
	collect(engine.GCOptions{KeepFor: day})
	collect(engine.GCOptions{KeepFor: day, MaxBytes: 1 << 40})
	if r := collect(engine.GCOptions{KeepFor: 150 * time.Minute, DryRun: true}, "a"); len(r.Layers) != 1 {
		t.Errorf("dry run: %+v", r)
	}
	if n := entries(t, h, "snapshots/layers"); n != 4 {
		t.Errorf("%d layers after a dry run", n)
	}
	r := collect(engine.GCOptions{KeepFor: 150 * time.Minute}, "a")
	if len(r.Layers) != 1 || r.Bytes != 1 { // the file with the text "a"
		t.Errorf("%+v", r)
	}
	// a container keeps its image, whatever the size
	check(t, e.Create(ctx, engine.CreateRequest{ID: "k", Image: "b", Limits: limits}))
	collect(engine.GCOptions{KeepFor: day, MaxBytes: 1}, "c")
	collect(engine.GCOptions{})
	check(t, e.Delete(ctx, "k"))
	collect(engine.GCOptions{KeepFor: time.Minute}) // its deletion was a use
	collect(engine.GCOptions{}, "b")
	if n := entries(t, h, "snapshots/layers"); n != 0 {
		t.Errorf("%d layers left", n)
	}
}

func TestLeases(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := library(t, h, "a", "b")
	ctx := t.Context()
	_, err := e.Lease(ctx, engine.LeaseRequest{ID: "l", Holder: "test", TTL: time.Hour, Images: []string{"a"}})
	check(t, err)
	if _, err := e.Lease(ctx, engine.LeaseRequest{ID: "x"}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("without time: %v", err)
	}
	if err := e.RemoveImage(ctx, "a"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("remove: %v", err)
	}
	img, err := e.Image(ctx, "b")
	check(t, err)
	done()
	// it survives a restart, and so does a lease of layers
	var chain []string
	edit(t, h, func(s *store.Bolt) error {
		rec, err := s.Image(ctx, img.Ref)
		chain = rec.Chain
		return err
	})
	e, done = h.Engine(t)
	_, err = e.Lease(ctx, engine.LeaseRequest{ID: "layers", TTL: time.Hour, Layers: chain})
	check(t, err)
	r, err := e.Collect(ctx, engine.GCOptions{})
	if err != nil || !slices.Equal(r.Images, []string{"b"}) || len(r.Layers) != 0 {
		t.Errorf("%+v %v", r, err)
	}
	check(t, e.Release(ctx, "layers"))
	done()
	e, done = h.Engine(t) // opening collects what nothing refers to
	defer done()
	if n := entries(t, h, "snapshots/layers"); n != 2 {
		t.Errorf("%d layers", n)
	}
	_, err = e.Lease(ctx, engine.LeaseRequest{ID: "l", TTL: time.Nanosecond, Images: []string{"a"}})
	check(t, err)
	r, err = e.Collect(ctx, engine.GCOptions{})
	if err != nil || !slices.Equal(r.Images, []string{"a"}) || !slices.Equal(r.Leases, []string{"l"}) {
		t.Errorf("%+v %v", r, err)
	}
	if all, err := e.Leases(ctx); err != nil || len(all) != 0 {
		t.Errorf("leases %v %v", all, err)
	}
}

// TestACollectionThatWasCutOff at each of its steps: no image lacks a layer, and
// the next one finishes.
func TestACollectionThatWasCutOff(t *testing.T) {
	for _, point := range []string{"engine.collect.begin", "engine.collect.image", "engine.collect.layer", "engine.collect.layer:2"} {
		t.Run(point, func(t *testing.T) {
			h := enginetest.NewHost(t)
			e, done := library(t, h, "a", "b", "c")
			check(t, failpoint.Set(point, "error"))
			_, err := e.Collect(t.Context(), engine.GCOptions{KeepFor: 90 * time.Minute})
			name, _, _ := strings.Cut(point, ":")
			check(t, failpoint.Set(name, ""))
			if !errors.Is(err, failpoint.ErrInjected) {
				t.Errorf("error %v", err)
			}
			done()
			e, done = h.Engine(t)
			defer done()
			for _, ref := range []string{"a", "b", "c"} {
				if _, err := e.Image(t.Context(), ref); err != nil {
					continue
				}
				check(t, e.Create(t.Context(), engine.CreateRequest{ID: "x", Image: ref, Limits: limits}))
				check(t, e.Delete(t.Context(), "x"))
			}
			_, err = e.Collect(t.Context(), engine.GCOptions{})
			check(t, err)
			if n := entries(t, h, "snapshots/layers"); n != 0 {
				t.Errorf("%d layers left", n)
			}
		})
	}
}

// TestNothingGoesWhileARecordIsDamaged: who knows what it needs.
func TestNothingGoesWhileARecordIsDamaged(t *testing.T) {
	h := enginetest.NewHost(t)
	_, done := library(t, h, "a")
	done()
	db, err := bolt.Open(filepath.Join(h.Root, "gantry.db"), 0o600, nil)
	check(t, err)
	check(t, errors.Join(db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("leases")).Put([]byte("bad"), []byte(`{"v":1}`))
	}), db.Close()))
	e, done := h.Engine(t)
	defer done()
	if r, err := e.Collect(t.Context(), engine.GCOptions{}); err != nil || len(r.Images)+len(r.Layers) != 0 {
		t.Errorf("%+v %v", r, err)
	}
}

// TestCollectingDuringChurn: imports, boots, commits and removals go on while
// everything unused is collected all the time. No boot misses a layer.
func TestCollectingDuringChurn(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	base := enginetest.Busybox(t)
	archives := [][]byte{archive(t, base, oneFile(t, "root/told", "one")), archive(t, base, oneFile(t, "root/told", "two"))}
	stop := make(chan struct{})
	var collector, workers sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := e.Collect(t.Context(), engine.GCOptions{}); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for w := range 4 {
		workers.Go(func() {
			for i := range 8 {
				if err := churn(t.Context(), t, e, fmt.Sprintf("w%d-%d", w, i), fmt.Sprint("ref", i%2), archives[i%2]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	close(stop)
	collector.Wait()
	_, err := e.Collect(t.Context(), engine.GCOptions{})
	check(t, err)
	if layers, left := entries(t, h, "snapshots/layers"), entries(t, h, "tmp"); layers != 0 || left != 0 {
		t.Errorf("%d layers, %d temporary files left", layers, left)
	}
	settled(t, e)
	nothing(t, h, e)
}

// An image that comes again under its name while a collection that has just
// removed it goes on keeps its layers.
func TestImportDuringCollection(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	data := archive(t, enginetest.Busybox(t), oneFile(t, "root/told", "one"))
	check(t, importOCI(t, e, "ref", data))
	held := filepath.Join(t.TempDir(), "held")
	check(t, failpoint.Set("engine.collect.image", "hold:"+held))
	defer func() { check(t, failpoint.Set("engine.collect.image", "")) }()
	var collector sync.WaitGroup
	collector.Go(func() {
		if _, err := e.Collect(t.Context(), engine.GCOptions{}); err != nil {
			t.Error(err)
		}
	})
	await(t, func() bool { _, err := os.Stat(held); return err == nil })
	check(t, importOCI(t, e, "ref", data))
	check(t, os.Remove(held))
	collector.Wait()
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "late", Image: "ref", Limits: limits}))
	check(t, e.Delete(t.Context(), "late"))
}

// A disk that has no name yet keeps layers from being removed. What is removed at
// that moment, of another image, goes when it has one.
func TestCollectingWhileADiskIsMade(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	base := enginetest.Busybox(t)
	check(t, importOCI(t, e, "kept", archive(t, base, oneFile(t, "root/told", "one"))))
	check(t, importOCI(t, e, "unused", archive(t, base, oneFile(t, "root/told", "two"))))
	lease, err := e.Lease(t.Context(), engine.LeaseRequest{ID: "kept", TTL: time.Hour, Images: []string{"kept"}})
	check(t, err)
	staged, removing := filepath.Join(t.TempDir(), "staged"), filepath.Join(t.TempDir(), "removing")
	check(t, failpoint.Set("engine.create.staged", "hold:"+staged))
	check(t, failpoint.Set("engine.collect.layer", "hold:"+removing))
	var both sync.WaitGroup
	both.Go(func() {
		if err := e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "kept", Limits: limits}); err != nil {
			t.Error(err)
		}
	})
	await(t, func() bool { _, err := os.Stat(staged); return err == nil })
	both.Go(func() {
		if _, err := e.Collect(t.Context(), engine.GCOptions{}); err != nil {
			t.Error(err)
		}
	})
	await(t, func() bool { _, err := os.Stat(removing); return err == nil })
	for _, point := range []string{"engine.collect.layer", "engine.create.staged"} {
		check(t, failpoint.Set(point, ""))
	}
	check(t, errors.Join(os.Remove(removing), os.Remove(staged)))
	ended := make(chan struct{})
	go func() {
		both.Wait()
		close(ended)
	}()
	await(t, func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	if _, err := e.Image(t.Context(), "unused"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("the unused image: %v", err)
	}
	check(t, e.Delete(t.Context(), "c"))
	check(t, e.Release(t.Context(), lease.ID))
}

// churn is one boot: lease, import, create, commit, delete.
func churn(ctx context.Context, t *testing.T, e *engine.Engine, id, ref string, data []byte) error {
	if _, err := e.Lease(ctx, engine.LeaseRequest{ID: id, TTL: time.Minute, Images: []string{ref}}); err != nil {
		return err
	}
	if err := importOCI(t, e, ref, data); err != nil {
		return err
	}
	cid := engine.ContainerID(id)
	if err := e.Create(ctx, engine.CreateRequest{ID: cid, Image: ref, Limits: limits}); err != nil {
		return err
	}
	if err := e.Release(ctx, id); err != nil {
		return err
	}
	built, err := e.Commit(ctx, cid)
	if err != nil {
		return err
	}
	return errors.Join(built.Content.Close(), e.Delete(ctx, cid))
}
