// Package cache shares the work of making something from an image between all
// who want it at the same time: twelve boots of one image are one download.
//
// It keeps no result: what was made is stored by whoever does the work. It
// knows nothing of images either; the key is the image's id and hash. It
// imports only errdefs and the standard library.
package cache

import (
	"context"
	"errors"
	"sync"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Group runs one work at a time for each key. The zero value is ready; safe for
// concurrent use; must not be copied after the first use.
type Group[V any] struct {
	mu sync.Mutex
	m  map[string]*flight[V] // guarded by mu
}

// flight is one work under way. waiters is guarded by the group's mutex; value
// and err may be read when done is closed.
type flight[V any] struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	value   V
	err     error
}

// Do returns what work returns, and calls it only if no work for key is under
// way; otherwise it waits for that one's result.
//
// The context of work has the values of the first caller's but not its end: it
// ends when nobody waits any more. A caller whose ctx ends leaves at once with
// ctx's error. Who comes while an abandoned work is still tidying up waits for
// that and then starts anew, so two works for a key never overlap.
//
// An error goes to all who wait, except errdefs.ErrForbidden: the credentials
// were the first caller's, so each of the others tries with its own work.
func (g *Group[V]) Do(ctx context.Context, key string, work func(context.Context) (V, error)) (V, error) {
	var none V
	for {
		if err := ctx.Err(); err != nil {
			return none, err
		}
		f, mine, joined := g.join(ctx, key, work)
		select {
		case <-f.done:
		case <-ctx.Done():
			if joined {
				g.leave(f)
			}
			return none, ctx.Err()
		}
		switch {
		case !joined: // an abandoned one: now there is room
		case !mine && errors.Is(f.err, errdefs.ErrForbidden):
		default:
			return f.value, f.err
		}
	}
}

// join takes part in the work for key, starting it if there is none. An
// abandoned one can only be waited for: joined is false.
func (g *Group[V]) join(ctx context.Context, key string, work func(context.Context) (V, error)) (f *flight[V], mine, joined bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f = g.m[key]; f != nil {
		if f.waiters == 0 {
			return f, false, false
		}
		f.waiters++
		return f, false, true
	}
	f = &flight[V]{done: make(chan struct{}), waiters: 1}
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if g.m == nil {
		g.m = make(map[string]*flight[V])
	}
	g.m[key] = f
	go g.run(ctx, key, f, work)
	return f, true, true
}

func (g *Group[V]) run(ctx context.Context, key string, f *flight[V], work func(context.Context) (V, error)) {
	defer f.cancel()
	f.value, f.err = work(ctx)
	g.mu.Lock()
	delete(g.m, key)
	g.mu.Unlock()
	close(f.done)
}

func (g *Group[V]) leave(f *flight[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel()
	}
}
