package compute

import (
	"context"
	"sync"
)

// kind is a long work on an instance that others must know of.
type kind string

const (
	kindBuild    kind = "build"
	kindDelete   kind = "delete"
	kindSnapshot kind = "snapshot"
)

// activity is one such work. refresh is set when the network of the instance
// changed meanwhile.
type activity struct {
	cancel  context.CancelCauseFunc
	refresh bool // guarded by activities.mu
}

type activityKey struct {
	uuid string
	kind kind
}

// recentBuilds is how many ended builds are remembered, so that a message that
// comes again does not build again.
const recentBuilds = 512

// activities is what runs now. The zero value is ready.
type activities struct {
	mu     sync.Mutex
	m      map[activityKey]*activity // guarded by mu
	built  map[string]struct{}       // guarded by mu
	recent []string                  // guarded by mu; built in the order of time
}

// begin registers work under a context that cancel can end; false says that
// the same kind is under way already. end must be called; it reports whether
// the network changed meanwhile.
func (a *activities) begin(ctx context.Context, uuid string, k kind) (_ context.Context, end func() bool, ok bool) {
	ctx, cancel := context.WithCancelCause(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.m == nil {
		a.m = map[activityKey]*activity{}
	}
	key := activityKey{uuid, k}
	if a.m[key] != nil {
		cancel(nil)
		return nil, nil, false
	}
	mine := &activity{cancel: cancel}
	a.m[key] = mine
	return ctx, sync.OnceValue(func() bool {
		cancel(nil)
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.m, key)
		return mine.refresh
	}), true
}

// once reports whether a build is seen for the first time.
func (a *activities) once(build string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.built == nil {
		a.built = map[string]struct{}{}
	}
	if _, seen := a.built[build]; seen {
		return false
	}
	if len(a.recent) >= recentBuilds {
		delete(a.built, a.recent[0])
		a.recent = a.recent[1:]
	}
	a.built[build] = struct{}{}
	a.recent = append(a.recent, build)
	return true
}

// cancel ends builds and snapshots of the instance.
func (a *activities) cancel(uuid string, cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range []kind{kindBuild, kindSnapshot} {
		if x := a.m[activityKey{uuid, k}]; x != nil {
			x.cancel(cause)
		}
	}
}

// running reports whether work of that kind is under way.
func (a *activities) running(uuid string, k kind) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.m[activityKey{uuid, k}] != nil
}

func (a *activities) any(uuid string) bool {
	return a.running(uuid, kindBuild) || a.running(uuid, kindDelete) || a.running(uuid, kindSnapshot)
}

// postpone asks the running build for a refresh of the network at its end. It
// reports false when no build runs.
func (a *activities) postpone(uuid string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.m[activityKey{uuid, kindBuild}]
	if x != nil {
		x.refresh = true
	}
	return x != nil
}
