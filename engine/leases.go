package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// LeaseRequest keeps things from garbage collection for a while.
type LeaseRequest struct {
	// ID names the lease; a present one is replaced, which renews it.
	ID string
	// Holder says who needs it, for people.
	Holder string
	// TTL is how long it holds from now.
	TTL time.Duration
	// Images are references, Layers chain ids. They need not be here yet.
	Images, Layers []string
}

// Lease takes or renews a lease. It survives the engine and ends with Release
// or by its time. What the engine's own operations need while they run needs no
// lease: take one for what spans several of them, as an image from its import
// to the container that is made of it.
func (e *Engine) Lease(ctx context.Context, req LeaseRequest) (store.Lease, error) {
	if req.TTL <= 0 {
		return store.Lease{}, fmt.Errorf("lease %s for %s: %w", req.ID, req.TTL, errdefs.ErrInvalid)
	}
	now := time.Now()
	l := store.Lease{
		ID: req.ID, Holder: req.Holder, Created: now, Expires: now.Add(req.TTL),
		Images: req.Images, Layers: req.Layers,
	}
	// not between a collector's look at the leases and its removal
	e.layers.mu.Lock()
	defer e.layers.mu.Unlock()
	if err := e.opts.Store.PutLease(ctx, l); err != nil {
		return store.Lease{}, fmt.Errorf("take lease %s: %w", req.ID, err)
	}
	return l, nil
}

// Release ends a lease. Absent is nil.
func (e *Engine) Release(ctx context.Context, id string) error {
	if err := e.opts.Store.DeleteLease(ctx, id); err != nil {
		return fmt.Errorf("release lease %s: %w", id, err)
	}
	return nil
}

// Leases lists the leases; those that have expired go with the next Collect.
func (e *Engine) Leases(ctx context.Context) ([]store.Lease, error) { return e.opts.Store.Leases(ctx) }

// uses counts the operations under way that need a thing, by its name. The zero
// value is ready.
type uses struct {
	mu   sync.Mutex
	held map[string]int // guarded by mu
}

// hold keeps the things until release is called, which may be more than once.
func (u *uses) hold(names ...string) (release func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.held == nil {
		u.held = map[string]int{}
	}
	for _, n := range names {
		u.held[n]++
	}
	return sync.OnceFunc(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		for _, n := range names {
			if u.held[n]--; u.held[n] == 0 {
				delete(u.held, n)
			}
		}
	})
}

// unless runs fn if no operation needs the thing, and lets none begin to
// meanwhile. It reports whether it ran.
func (u *uses) unless(name string, fn func() error) (ran bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.held[name] > 0 {
		return false, nil
	}
	return true, fn()
}
