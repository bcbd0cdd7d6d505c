package cache_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-project/gantry/glance/cache"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestOneWorkForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g cache.Group[int]
		var calls atomic.Int32
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				v, err := g.Do(t.Context(), "img", func(context.Context) (int, error) {
					calls.Add(1)
					time.Sleep(time.Second)
					return 7, nil
				})
				if v != 7 || err != nil {
					t.Errorf("%d %v", v, err)
				}
			})
		}
		wg.Wait()
		if calls.Load() != 1 {
			t.Errorf("%d works", calls.Load())
		}
		if _, err := g.Do(t.Context(), "img", func(context.Context) (int, error) { calls.Add(1); return 0, errdefs.ErrCorrupt }); !errors.Is(err, errdefs.ErrCorrupt) {
			t.Error(err)
		}
		if calls.Load() != 2 {
			t.Error("a result was kept")
		}
	})
}

func TestKeysAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g cache.Group[string]
		var wg sync.WaitGroup
		for _, k := range []string{"a", "b"} {
			wg.Go(func() {
				if v, _ := g.Do(t.Context(), k, func(context.Context) (string, error) { return k, nil }); v != k {
					t.Errorf("%s got %s", k, v)
				}
			})
		}
		wg.Wait()
	})
}

func TestCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g cache.Group[int]
		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithCancel(t.Context())
		var ended atomic.Bool
		work := func(ctx context.Context) (int, error) {
			<-ctx.Done()
			ended.Store(true)
			time.Sleep(time.Minute) // tidying up
			return 0, ctx.Err()
		}
		var wg sync.WaitGroup
		leave := func(ctx context.Context) func() {
			return func() {
				if _, err := g.Do(ctx, "img", work); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		}
		wg.Go(leave(first))
		synctest.Wait()
		wg.Go(leave(second))
		synctest.Wait()
		cancelFirst()
		synctest.Wait()
		if ended.Load() {
			t.Fatal("the work ended although somebody waits")
		}
		cancelSecond()
		wg.Wait()
		synctest.Wait()
		if !ended.Load() {
			t.Fatal("the work goes on although nobody waits")
		}
		start := time.Now()
		v, err := g.Do(t.Context(), "img", func(context.Context) (int, error) { return 3, nil })
		if v != 3 || err != nil {
			t.Errorf("%d %v", v, err)
		}
		if time.Since(start) != time.Minute {
			t.Errorf("started after %v, beside the abandoned work", time.Since(start))
		}
	})
}

func TestForbiddenIsNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g cache.Group[int]
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := g.Do(t.Context(), "img", func(context.Context) (int, error) {
				time.Sleep(time.Second)
				return 0, errdefs.ErrForbidden
			})
			if !errors.Is(err, errdefs.ErrForbidden) {
				t.Error(err)
			}
		})
		synctest.Wait()
		if v, err := g.Do(t.Context(), "img", func(context.Context) (int, error) { return 5, nil }); v != 5 || err != nil {
			t.Errorf("%d %v", v, err)
		}
		wg.Wait()
	})
}

func TestEndedCaller(t *testing.T) {
	var g cache.Group[int]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := g.Do(ctx, "img", func(context.Context) (int, error) { t.Error("work was started"); return 0, nil })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
