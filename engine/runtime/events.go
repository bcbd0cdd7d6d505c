package runtime

import (
	"context"
	"errors"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Watch calls see with the counters every interval, and with "oom" when
// processes were killed for memory, until the container ends, ctx ends, or see
// fails. Where the kernel does not tell of memory, there is no "oom".
func (r *Runtime) Watch(ctx context.Context, id string, interval time.Duration, see func(Event) error) error {
	_, g, err := r.live(ctx, "watch", id, Running, Created, Paused)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	killed := make(chan struct{}, 1)
	go func() {
		for _, err := range g.Events(ctx) {
			if err != nil {
				return
			}
			select {
			case killed <- struct{}{}:
			default:
			}
		}
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		var e Event
		select {
		case <-ctx.Done():
			return nil
		case <-killed:
			e = Event{Type: "oom", ID: id}
		case <-tick.C:
			s, err := r.Stats(ctx, id)
			if errors.Is(err, errdefs.ErrConflict) || errors.Is(err, errdefs.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			e = StatsEvent(id, s)
		}
		if err := see(e); err != nil {
			return err
		}
	}
}
