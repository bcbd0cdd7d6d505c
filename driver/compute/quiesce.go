package compute

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// quiets are the guests whose files are held still, each with what lets it go when
// nobody does. The zero value is ready.
type quiets struct {
	mu sync.Mutex
	m  map[string]*time.Timer // guarded by mu
}

// set starts the time of a guest anew.
func (q *quiets) set(uuid string, limit time.Duration, end func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.m == nil {
		q.m = map[string]*time.Timer{}
	}
	if old := q.m[uuid]; old != nil {
		old.Stop()
	}
	q.m[uuid] = time.AfterFunc(limit, end)
}

// take forgets a guest and reports whether it was known.
func (q *quiets) take(uuid string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.m[uuid]
	if t == nil {
		return false
	}
	t.Stop()
	delete(q.m, uuid)
	return true
}

func (q *quiets) all() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]string, 0, len(q.m))
	for uuid := range q.m {
		out = append(out, uuid)
	}
	return out
}

// quiesceInstance holds the guest's files still until unquiesce_instance, for
// QuiesceTimeout at the longest. Nova goes on without where it is refused, unless
// the image demands it (os_require_quiesce).
func (m *Manager) quiesceInstance(ctx context.Context, o *op) (any, error) {
	q, ok := m.dep.Driver.(driver.Quiescer)
	if !ok {
		return nil, quiesceRefused(o, errdefs.ErrUnsupported)
	}
	uuid := o.uuid()
	if err := q.Quiesce(ctx, driver.InstanceUUID(uuid)); err != nil {
		return nil, quiesceRefused(o, err)
	}
	log := o.log
	m.quiets.set(uuid, m.opt.QuiesceTimeout, func() {
		log.Warn().Msg("nobody has ended the quiet time of the guest")
		if err := m.unquiesce(context.WithoutCancel(ctx), uuid); err != nil {
			log.Error().Err(err).Msg("end of a quiet time")
		}
	})
	return nil, nil
}

func (m *Manager) unquiesceInstance(ctx context.Context, o *op) (any, error) {
	if _, ok := m.dep.Driver.(driver.Quiescer); !ok {
		return nil, quiesceRefused(o, errdefs.ErrUnsupported)
	}
	if err := m.unquiesce(ctx, o.uuid()); err != nil {
		return nil, quiesceRefused(o, err)
	}
	return nil, nil
}

// unquiesce lets a guest go on; one that has ended meanwhile needs nothing.
func (m *Manager) unquiesce(ctx context.Context, uuid string) error {
	m.quiets.take(uuid)
	q, ok := m.dep.Driver.(driver.Quiescer)
	if !ok {
		return nil
	}
	err := q.Unquiesce(ctx, driver.InstanceUUID(uuid))
	if errors.Is(err, errdefs.ErrConflict) || errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// endQuiets lets all guests go on: the service ends.
func (m *Manager) endQuiets(ctx context.Context) {
	for _, uuid := range m.quiets.all() {
		if err := m.unquiesce(ctx, uuid); err != nil {
			m.log.Error().Err(err).Str(logging.Instance, uuid).Msg("end of a quiet time")
		}
	}
}

func quiesceRefused(o *op, err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return fmt.Errorf("%w: %w",
		messaging.NovaError("InstanceQuiesceNotSupported", 400, "Quiescing is not supported in instance %s", o.uuid()), err)
}
