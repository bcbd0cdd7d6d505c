package periodic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/logging"
)

const (
	// DefaultSpacing is the interval of a task whose option is 0
	// (oslo_service.periodic_task.DEFAULT_INTERVAL).
	DefaultSpacing = 60 * time.Second
	// MinTimeout is the least that a run without a Timeout of its own may take.
	MinTimeout = 10 * time.Minute
)

// Task is one thing to do again and again.
type Task struct {
	// Name is for the log, in Nova's words.
	Name string
	// Spacing is the interval as Nova's options have it: 0 means
	// DefaultSpacing, a negative one switches the task off.
	Spacing time.Duration
	// AtStart runs the task once as soon as the scheduler's first delay has
	// passed instead of one interval later (run_immediately).
	AtStart bool
	// Timeout bounds one run; 0 means the larger of Spacing and MinTimeout.
	Timeout time.Duration
	// Run does it. Its context ends at the bound or with the scheduler.
	Run func(ctx context.Context) error
}

// Options of a Scheduler.
type Options struct {
	// FuzzyDelay is the most that the first run of all tasks is put off, so
	// that hosts started together do not call together (periodic_fuzzy_delay,
	// 60 s in Nova). 0 means no delay.
	FuzzyDelay time.Duration
	// Jitter picks the delay from 0 to limit; nil means at random.
	Jitter func(limit time.Duration) time.Duration
}

// Scheduler runs tasks. A task never overlaps itself; a slow or stuck one does
// not hold up the others. A run that takes longer than its interval drops the
// runs it missed.
type Scheduler struct {
	log   zerolog.Logger
	opts  Options
	tasks []Task
}

// NewScheduler returns a scheduler of the tasks that are not switched off.
func NewScheduler(log zerolog.Logger, opts Options, tasks ...Task) *Scheduler {
	s := &Scheduler{log: log, opts: opts}
	if s.opts.Jitter == nil {
		s.opts.Jitter = func(limit time.Duration) time.Duration { return rand.N(limit) }
	}
	for _, t := range tasks {
		if t.Spacing < 0 {
			log.Debug().Str(logging.Step, t.Name).Msg("periodic task is switched off")
			continue
		}
		if t.Spacing == 0 {
			t.Spacing = DefaultSpacing
		}
		if t.Timeout == 0 {
			t.Timeout = max(t.Spacing, MinTimeout)
		}
		s.tasks = append(s.tasks, t)
	}
	return s
}

// Names returns the names of the tasks that will run, in the order given.
func (s *Scheduler) Names() []string {
	names := make([]string, len(s.tasks))
	for i, t := range s.tasks {
		names[i] = t.Name
	}
	return names
}

// Run runs the tasks until ctx ends, waits for those under way, and returns
// nil. Call it once.
func (s *Scheduler) Run(ctx context.Context) error {
	if s.opts.FuzzyDelay > 0 && !sleep(ctx, s.opts.Jitter(s.opts.FuzzyDelay)) {
		return nil
	}
	var wg sync.WaitGroup
	for _, t := range s.tasks {
		wg.Go(func() { s.loop(ctx, t) })
	}
	wg.Wait()
	return nil
}

// loop runs one task at the multiples of its spacing.
func (s *Scheduler) loop(ctx context.Context, t Task) {
	log := s.log.With().Str(logging.Step, t.Name).Logger()
	next := time.Now()
	failing := false
	if !t.AtStart {
		next = next.Add(t.Spacing)
	}
	for sleep(ctx, time.Until(next)) {
		began := time.Now()
		err := once(ctx, t)
		if ctx.Err() != nil {
			return
		}
		failing = report(log, err, failing, time.Since(began))
		if missed := time.Since(next) / t.Spacing; missed > 0 {
			log.Warn().Dur(logging.Took, time.Since(began)).Msg("periodic task is slower than its interval")
			next = next.Add(missed * t.Spacing)
		}
		next = next.Add(t.Spacing)
	}
}

// report logs the first failure of a row of failures as a warning, the others
// for developers, and the end of the row.
func report(log zerolog.Logger, err error, failing bool, took time.Duration) bool {
	switch {
	case err != nil && !failing:
		log.Warn().Err(err).Dur(logging.Took, took).Msg("periodic task failed, will be repeated")
	case err != nil:
		log.Debug().Err(err).Dur(logging.Took, took).Msg("periodic task failed again")
	case failing:
		log.Info().Dur(logging.Took, took).Msg("periodic task works again")
	default:
		log.Debug().Dur(logging.Took, took).Msg("periodic task done")
	}
	return err != nil
}

// once runs the task within its bound. A panic becomes an error: what one task
// trips over must not stop the heartbeat and the messages of the others.
func once(ctx context.Context, t Task) (err error) {
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("periodic task %s: panic: %v\n%s", t.Name, p, debug.Stack())
		}
	}()
	return t.Run(ctx)
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
