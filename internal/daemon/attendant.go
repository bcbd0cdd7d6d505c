package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/logging"
	"github.com/gantry-project/gantry/internal/systemd"
)

// attendant is whom the service manager and the operator of the host speak with
// while a service runs. It tells the manager how the service fares, feeds the
// watchdog as long as all checks pass, and answers signals: SIGHUP rereads the
// configuration, SIGUSR2 asks for a report.
type attendant struct {
	report report

	notify  *systemd.Notifier
	reread  func() error // nil: SIGHUP does what it does to every program
	reports func() string
	log     zerolog.Logger

	mu     sync.Mutex
	checks []vital // guarded by mu
	served bool    // guarded by mu: messages are taken
	ending bool    // guarded by mu
	status string  // guarded by mu: what was said last
	broker func() string
}

// vital is something without which the service does not work, and which only a
// restart brings back.
type vital struct {
	name string
	// check ends with ctx.
	check func(ctx context.Context) error
}

// attendantOptions of attend.
type attendantOptions struct {
	// reread reads the configuration again; nil for a service that has none.
	reread func() error
	// reportDir tells where reports go: a directory, or nothing for standard
	// error.
	reportDir func() string
	log       zerolog.Logger
}

// attend begins, until done is called. Once ctx ends it says that the service
// stops.
func attend(ctx context.Context, o attendantOptions) (_ *attendant, done func(), err error) {
	a := &attendant{reread: o.reread, reports: o.reportDir, log: o.log}
	if a.notify, err = systemd.FromEnvironment(); err != nil {
		return nil, nil, err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGUSR2)
	if a.reread != nil {
		signal.Notify(signals, syscall.SIGHUP)
	}
	forget := context.AfterFunc(ctx, a.stopping)
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { a.answer(life, signals) })
	running.Go(func() { a.guard(life) })
	return a, func() {
		forget()
		signal.Stop(signals)
		end()
		running.Wait()
	}, nil
}

// say tells the service manager. What it does not hear is not missed.
func (a *attendant) say(states ...string) {
	if err := a.notify.Send(states...); err != nil {
		a.log.Debug().Err(err).Msg("the service manager does not listen")
	}
}

// state tells what the service does, if that is new.
func (a *attendant) state(text string) {
	a.mu.Lock()
	same := a.status == text
	a.status = text
	a.mu.Unlock()
	if !same {
		a.say(systemd.Status(text))
	}
}

// watch adds what the watchdog depends on.
func (a *attendant) watch(name string, check func(ctx context.Context) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.checks = append(a.checks, vital{name, check})
}

// ready tells that messages are taken. broker is asked for a word about the
// connection, for the status.
func (a *attendant) ready(broker func() string) {
	a.mu.Lock()
	a.served, a.broker = true, broker
	a.mu.Unlock()
	a.say(systemd.Ready)
	a.serving()
}

// serving tells the status of a service that takes messages.
func (a *attendant) serving() {
	a.mu.Lock()
	broker, tell := a.broker, a.served && !a.ending
	a.mu.Unlock()
	if tell {
		a.state("serving; broker " + broker())
	}
}

// stopping tells that the service ends, and nobody checks it any more: the
// manager has a time limit of its own for that.
func (a *attendant) stopping() {
	a.mu.Lock()
	a.ending, a.checks = true, nil
	a.mu.Unlock()
	a.say(systemd.Stopping)
	a.state("stopping; instances go on")
}

// answer takes signals.
func (a *attendant) answer(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			if s == syscall.SIGHUP {
				a.reload()
				continue
			}
			file, err := a.report.deliver(ctx, a.reports())
			a.log.Err(err).Str("file", file).Msg("report of the service's state")
		}
	}
}

// reload reads the configuration again. Whatever comes of it, the service goes on.
func (a *attendant) reload() {
	a.say(systemd.Reloading())
	if err := a.reread(); err != nil {
		a.log.Error().Err(err).Msg("the configuration cannot be used; the service goes on with what it has")
	}
	a.mu.Lock()
	served := a.served
	a.mu.Unlock()
	if served {
		a.say(systemd.Ready)
	}
}

// idleStatus is the time between two looks at the status where no watchdog asks
// for more.
const idleStatus = 30 * time.Second

// guard feeds the watchdog, three times in its interval, and keeps the status
// true.
func (a *attendant) guard(ctx context.Context) {
	if a.notify == nil {
		return
	}
	period := idleStatus
	if w := a.notify.Watchdog(); w > 0 {
		period = w / 3
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if a.alive(ctx, period) {
			a.say(systemd.Alive)
		}
		a.serving()
	}
}

// alive makes all checks at a time; each gets that long.
func (a *attendant) alive(ctx context.Context, limit time.Duration) bool {
	a.mu.Lock()
	checks := append([]vital(nil), a.checks...)
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var dead atomic.Bool
	var wg sync.WaitGroup
	for _, v := range checks {
		wg.Go(func() {
			if err := v.within(ctx); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
				dead.Store(true)
				a.log.Error().Err(err).Str(logging.Step, v.name).Msg("the service does not work; the watchdog is not fed")
			}
		})
	}
	wg.Wait()
	return !dead.Load()
}

// within is the check, or an error if it does not end with ctx: it may wait for a
// lock that nobody gives back.
func (v vital) within(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- v.check(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(time.Second):
		return fmt.Errorf("no answer: %w", ctx.Err())
	}
}
