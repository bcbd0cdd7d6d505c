// Package keylock is a mutex for each key of a set that grows and shrinks by
// itself. It imports only the standard library.
package keylock

import (
	"context"
	"sync"
)

type entry struct {
	sem  chan struct{}
	refs int
}

// Map holds the locks. The zero value is ready; safe for concurrent use.
type Map[K comparable] struct {
	mu sync.Mutex
	m  map[K]*entry // guarded by mu
}

// Lock waits until key is free or ctx ends. On nil the caller owns the key and
// must call the returned function once.
func (l *Map[K]) Lock(ctx context.Context, key K) (unlock func(), err error) {
	l.mu.Lock()
	if l.m == nil {
		l.m = make(map[K]*entry)
	}
	e := l.m[key]
	if e == nil {
		e = &entry{sem: make(chan struct{}, 1)}
		l.m[key] = e
	}
	e.refs++
	l.mu.Unlock()

	select {
	case e.sem <- struct{}{}:
		return sync.OnceFunc(func() { <-e.sem; l.release(key, e) }), nil
	case <-ctx.Done():
		l.release(key, e)
		return nil, ctx.Err()
	}
}

func (l *Map[K]) release(key K, e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.refs--; e.refs == 0 {
		delete(l.m, key)
	}
}

// Held tells for each key that somebody has or wants how many do: the owner and
// those that wait.
func (l *Map[K]) Held() map[K]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := make(map[K]int, len(l.m))
	for key, e := range l.m {
		held[key] = e.refs
	}
	return held
}
