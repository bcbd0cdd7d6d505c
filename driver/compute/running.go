package compute

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Operation is one that is under way.
type Operation struct {
	// Name is the RPC method.
	Name string
	// Instance is empty for operations of the host, Request for those that
	// nobody has asked for.
	Instance, Request string
	Since             time.Time
}

// operations are those under way. The zero value is ready.
type operations struct {
	mu sync.Mutex
	m  map[*op]Operation // guarded by mu
}

// begin registers one until done is called.
func (r *operations) begin(o *op) (done func()) {
	x := Operation{Name: o.name, Request: o.rc.RequestID(), Since: time.Now()}
	if o.inst != nil {
		x.Instance = o.uuid()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = map[*op]Operation{}
	}
	r.m[o] = x
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.m, o)
	}
}

// Operations lists what is under way, the oldest first: messages, builds, and
// what the manager does by itself. Some wait for the lock of their instance.
func (m *Manager) Operations() []Operation {
	m.running.mu.Lock()
	defer m.running.mu.Unlock()
	list := slices.Collect(maps.Values(m.running.m))
	slices.SortFunc(list, func(a, b Operation) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// Locks tells for each instance whose lock somebody has or wants how many do.
func (m *Manager) Locks() map[string]int { return m.locks.Held() }

// Alive asks whether Watch takes what happens. The error says that it did not
// until ctx ended. A driver without events has nothing to watch.
func (m *Manager) Alive(ctx context.Context) error {
	if _, watches := m.dep.Driver.(driver.EventSource); !watches {
		return nil
	}
	select {
	case m.probe <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("events of instances are not taken: %w", ctx.Err())
	}
}

// Outcomes of operations, for Options.Observe.
const (
	OutcomeOK      = "ok"
	OutcomeRefused = "refused"
	OutcomeFailed  = "failed"
)

// outcome tells what was refused, as somebody asked for what cannot be, from
// what has failed.
func outcome(err error) string {
	remote, isRemote := errors.AsType[*messaging.RemoteError](err)
	switch {
	case err == nil:
		return OutcomeOK
	case errors.Is(err, errdefs.ErrUnsupported), gone(err), isRemote && (remote.Code >= 400 && remote.Code < 500 || remote.Module == "builtins"):
		return OutcomeRefused
	}
	return OutcomeFailed
}

func (m *Manager) observe(method string, err error, took time.Duration) {
	if m.opt.Observe != nil {
		m.opt.Observe(method, outcome(err), took)
	}
}
