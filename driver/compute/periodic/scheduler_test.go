package periodic

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// clock records when a task ran, in seconds since it was made.
type clock struct {
	mu    sync.Mutex
	began time.Time
	at    []int
}

func newClock() *clock { return &clock{began: time.Now()} }

func (c *clock) tick(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = append(c.at, int(time.Since(c.began)/time.Second))
	return nil
}

// runFor runs the tasks for d of fake time.
func runFor(t *testing.T, d time.Duration, opts Options, tasks ...Task) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := NewScheduler(zerolog.Nop(), opts, tasks...).Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestSpacing(t *testing.T) {
	tests := []struct {
		name    string
		spacing time.Duration
		atStart bool
		delay   time.Duration
		want    []int
	}{
		{"each spacing", 40 * time.Second, false, 0, []int{40, 80, 120}},
		{"zero is a minute", 0, false, 0, []int{60, 120}},
		{"negative is off", -1, true, 0, nil},
		{"at start", 50 * time.Second, true, 0, []int{0, 50, 100}},
		{"after the delay", 50 * time.Second, true, 7 * time.Second, []int{7, 57, 107}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClock()
				opts := Options{FuzzyDelay: tt.delay, Jitter: func(d time.Duration) time.Duration { return d }}
				runFor(t, 125*time.Second, opts, Task{Name: "x", Spacing: tt.spacing, AtStart: tt.atStart, Run: c.tick})
				if !slices.Equal(c.at, tt.want) {
					t.Errorf("ran at %v, want %v", c.at, tt.want)
				}
			})
		})
	}
}

func TestSlowTaskNeverOverlapsAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, quick := newClock(), newClock()
		running := 0
		runFor(t, 60*time.Second, Options{},
			Task{Name: "slow", Spacing: 10 * time.Second, Run: func(ctx context.Context) error {
				if running++; running > 1 {
					t.Error("overlap")
				}
				_ = slow.tick(ctx)
				sleep(ctx, 25*time.Second)
				running--
				return nil
			}},
			Task{Name: "quick", Spacing: 20 * time.Second, Run: quick.tick})
		if want := []int{10, 40}; !slices.Equal(slow.at, want) {
			t.Errorf("slow ran at %v, want %v", slow.at, want)
		}
		if want := []int{20, 40}; !slices.Equal(quick.at[:2], want) {
			t.Errorf("quick ran at %v, want %v", quick.at, want)
		}
	})
}

func TestRunIsBoundedAndFailureIsNotTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck, broken := newClock(), newClock()
		runFor(t, 35*time.Second, Options{},
			Task{Name: "stuck", Spacing: 10 * time.Second, Timeout: 5 * time.Second, Run: func(ctx context.Context) error {
				_ = stuck.tick(ctx)
				<-ctx.Done()
				return ctx.Err()
			}},
			Task{Name: "panics", Spacing: 10 * time.Second, Run: func(ctx context.Context) error {
				_ = broken.tick(ctx)
				panic("boom")
			}})
		for name, c := range map[string]*clock{"stuck": stuck, "panics": broken} {
			if want := []int{10, 20, 30}; !slices.Equal(c.at, want) {
				t.Errorf("%s ran at %v, want %v", name, c.at, want)
			}
		}
	})
}

func TestEndDuringTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		runFor(t, time.Second, Options{FuzzyDelay: time.Minute, Jitter: func(d time.Duration) time.Duration { return d }},
			Task{Name: "x", AtStart: true, Run: c.tick})
		if len(c.at) != 0 {
			t.Errorf("ran at %v", c.at)
		}
	})
}

func TestFailuresAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		log := zerolog.New(&out).Level(zerolog.InfoLevel)
		runs := 0
		task := Task{Name: "x", Spacing: 10 * time.Second, Run: func(context.Context) error {
			if runs++; runs <= 3 {
				return errors.New("conductor is away")
			}
			return nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 65*time.Second)
		defer cancel()
		if err := NewScheduler(log, Options{}, task).Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(out.String(), "\n"); got != 2 || !strings.Contains(out.String(), "works again") {
			t.Errorf("log has %d lines:\n%s", got, out.String())
		}
	})
}
