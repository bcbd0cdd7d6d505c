package network

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// notifyTries is how often events are sent to a Nova that is not there.
const notifyTries = 5

// notifier sends events in order, many at a time when they come fast.
type notifier struct {
	to   Events // nil: nobody
	log  zerolog.Logger
	wake chan struct{}

	mu    sync.Mutex
	queue []Event // guarded by mu
}

func newNotifier(to Events, log zerolog.Logger) *notifier {
	return &notifier{to: to, log: log, wake: make(chan struct{}, 1)}
}

// send queues events; it does not wait.
func (n *notifier) send(events []Event) {
	if n.to == nil || len(events) == 0 {
		return
	}
	n.mu.Lock()
	n.queue = append(n.queue, events...)
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default: // it is awake
	}
}

// run sends what is queued until ctx ends.
func (n *notifier) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.wake:
		}
		n.mu.Lock()
		batch := n.queue
		n.queue = nil
		n.mu.Unlock()
		n.deliver(ctx, batch)
	}
}

func (n *notifier) deliver(ctx context.Context, batch []Event) {
	wait := 10 * time.Millisecond
	for try := 1; ; try++ {
		err := n.to.ServerExternalEvents(ctx, batch)
		if err == nil || ctx.Err() != nil {
			return
		}
		if try == notifyTries || !errors.Is(err, errdefs.ErrUnavailable) {
			n.log.Error().Err(err).Int("events", len(batch)).Msg("events are not delivered")
			return
		}
		if !pause(ctx, wait) {
			return
		}
		wait *= 4
	}
}
