package compute

import (
	"context"
	"sync"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/keylock"
	"github.com/gantry-project/gantry/internal/logging"
)

// Manager serves Nova's compute RPC and owns the life of the instances of one
// host. It is safe for concurrent use.
type Manager struct {
	dep Deps
	opt Options
	log zerolog.Logger

	// locks serialises the work on one instance.
	locks   keylock.Map[string]
	builds  slots
	uploads slots
	waiters waiters
	active  activities
	refresh refreshes
	running operations
	probe   chan struct{} // read by Watch
	quiets  quiets

	background sync.WaitGroup
	closing    chan struct{}
	closeOnce  sync.Once
}

// New returns a manager. It starts nothing by itself.
func New(dep Deps, opt Options, log zerolog.Logger) *Manager {
	return &Manager{
		dep: dep, opt: opt,
		log:     log.With().Str(logging.Host, opt.Host).Logger(),
		builds:  newSlots(opt.MaxConcurrentBuilds),
		uploads: newSlots(opt.MaxConcurrentSnapshots),
		closing: make(chan struct{}), probe: make(chan struct{}),
	}
}

// Close ends the work that the manager does by itself. Running builds may
// finish until ctx ends; then they are cancelled, which makes them clean up
// and go back to the scheduler, for which conductor must still be reached.
// Close the RPC server first and its transport last.
func (m *Manager) Close(ctx context.Context) error {
	m.endQuiets(ctx)
	done := make(chan struct{})
	go func() { m.background.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	m.closeOnce.Do(func() { close(m.closing) })
	<-done
	return ctx.Err()
}

// goBackground runs fn beside the message that asked for it: its context
// outlives the message's and ends when Close loses patience.
func (m *Manager) goBackground(ctx context.Context, fn func(context.Context)) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	m.background.Go(func() {
		done := make(chan struct{})
		defer close(done)
		go func() {
			select {
			case <-m.closing:
				cancel(errClosing)
			case <-done:
				cancel(nil)
			}
		}()
		fn(ctx)
	})
}

// Lock waits for the lock of an instance. The periodic and recovery tasks take
// it around what they do to an instance by themselves; the exported verbs of
// Manager take it on their own.
func (m *Manager) Lock(ctx context.Context, uuid string) (unlock func(), err error) {
	return m.locks.Lock(ctx, uuid)
}

// Busy reports whether a build, delete or snapshot of the instance is under
// way in this process.
func (m *Manager) Busy(uuid string) bool { return m.active.any(uuid) }

// instanceLog is the logger for work on one instance.
func (m *Manager) instanceLog(rc messaging.RequestContext, inst *objects.Object) zerolog.Logger {
	return m.log.With().Str(logging.Instance, inst.String("uuid")).Str(logging.Request, rc.RequestID()).Logger()
}

// slots bounds how many may do something at once; nil means no bound.
type slots chan struct{}

func newSlots(n int) slots {
	if n <= 0 {
		return nil
	}
	return make(slots, n)
}

// take waits for a slot and returns the function that gives it back.
func (s slots) take(ctx context.Context) (free func(), err error) {
	if s == nil {
		return func() {}, nil
	}
	select {
	case s <- struct{}{}:
		return sync.OnceFunc(func() { <-s }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
