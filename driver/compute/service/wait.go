package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	earlyPings   = 10
	earlyTimeout = 10 * time.Second
	longestPause = 30 * time.Second
)

// awaitConductor pings until a conductor answers: ten tries of ten seconds,
// then with the messaging layer's own timeout, until ctx ends.
func (s *Service) awaitConductor(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		err := s.ping(ctx, attempt)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for nova-conductor: %w", ctx.Err())
		}
		if !passing(err) {
			return fmt.Errorf("ping nova-conductor: %w", err)
		}
		level := zerolog.DebugLevel
		if attempt == 0 || attempt%earlyPings == earlyPings-1 {
			level = zerolog.WarnLevel
		}
		s.log.WithLevel(level).Err(err).Int("attempt", attempt+1).Msg("no nova-conductor answers, waiting for one")
		if errors.Is(err, messaging.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
			continue // it has waited already
		}
		if !sleep(ctx, backoff(attempt)) {
			return fmt.Errorf("wait for nova-conductor: %w", ctx.Err())
		}
	}
}

func (s *Service) ping(ctx context.Context, attempt int) error {
	if attempt < earlyPings {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, earlyTimeout)
		defer cancel()
	}
	return s.conductor.Ping(ctx, messaging.AdminContext())
}

// refusal is an error that waiting does not mend.
type refusal struct{ error }

// Unwrap returns the error itself.
func (r refusal) Unwrap() error { return r.error }

// isRefusal says that the error is a judgement of ours, not a call that found
// nobody.
func isRefusal(err error) bool {
	_, refused := errors.AsType[refusal](err)
	return refused || errors.Is(err, errdefs.ErrUnsupported)
}

// noAnswer says that the error is of a call that found nobody.
func noAnswer(err error) bool {
	return errors.Is(err, messaging.ErrTimeout) || errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

// backoff is the pause after the given failed attempt: 1 s, doubled, at most 30 s.
func backoff(attempt int) time.Duration {
	return min(time.Second<<min(attempt, 10), longestPause)
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
