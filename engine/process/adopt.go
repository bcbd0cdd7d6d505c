package process

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/logging"
	"golang.org/x/sys/unix"
)

// adopt goes on where the runner before this one was stopped. It is called
// before anybody else has the Local. What cannot be adopted is logged and left
// out: it must not keep the others from being looked after.
func (w *watch) adopt() error {
	if err := w.guard.take(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	records, err := w.guard.queue.drain(func(err error) { w.log.Error().Err(err).Msg("parked record is dropped") })
	if err != nil {
		w.log.Error().Err(err).Msg("some of what is parked may be lost")
	}
	births := map[uint64]*proc{}
	for _, id := range slices.Sorted(maps.Keys(records)) {
		r := records[id]
		p, err := w.adoptOne(r)
		if err != nil {
			w.log.Error().Err(err).Str(logging.Container, id).Msg("process is not adopted")
		}
		if p != nil {
			w.l.procs[id] = p
			births[p.birth] = p
		}
	}
	w.mover.resume(func(birth uint64) *proc { return births[birth] }, func(err error) {
		w.log.Warn().Err(err).Msg("console output is lost")
	})
	w.compact()
	for _, p := range births {
		if p.exited {
			continue
		}
		if err := w.register(p); err != nil {
			return fmt.Errorf("watch process %s: %w", p.id, err)
		}
	}
	if len(births) > 0 {
		w.log.Info().Int("processes", len(births)).Msg("processes adopted")
	}
	return nil
}

// adoptOne makes a process of a record, nil if there is none to know. It takes
// the record's descriptors.
func (w *watch) adoptOne(r *found) (*proc, error) {
	if r.Forgotten || r.Process.BootID != w.l.bootID {
		closeFds(r.fds...)
		return nil, nil
	}
	p := &proc{
		id: r.ID, process: r.Process, started: true, ended: make(chan struct{}), fd: -1, slot: -1,
		birth: r.Birth, exitsFrom: r.ExitsFrom, logPath: r.Log, logLimit: r.Limit, foreign: r.Foreign,
	}
	if r.Exit != nil {
		closeFds(r.fds...)
		p.exit, p.exited = *r.Exit, true
		close(p.ended)
		return p, nil
	}
	if len(r.fds) == 0 {
		fd, err := reopen(r.Process)
		if err != nil {
			return nil, err
		}
		r.fds = []int{fd}
	}
	p.fd = r.fds[0]
	if !w.seat(p, r.Slot) {
		closeFds(r.fds...)
		return nil, fmt.Errorf("no room: %w", errdefs.ErrExhausted)
	}
	var errs []error
	if r.Console && len(r.fds) > 1 {
		var err error
		if p.console, err = openConsole(r.fds[1]); err != nil {
			p.console = nil
			errs = append(errs, fmt.Errorf("console: %w", err))
		}
	} else {
		closeFds(r.fds[1:]...)
	}
	if r.Log != "" {
		var err error
		if p.log, err = conlog.NewWriter(r.Log, r.Limit); err != nil {
			p.log = nil
			errs = append(errs, err)
		}
	}
	return p, errors.Join(errs...)
}

// reopen finds a process whose descriptor did not survive.
func reopen(p Process) (int, error) {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open %d: %w", p.Pid, err)
	}
	// Of the process that fd is of: it is there after fd is.
	if started, err := linux.StartTime(p.Pid); err != nil || started != p.StartTime {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("pid %d is another process now: %w", p.Pid, errdefs.ErrNotFound)
	}
	return fd, nil
}

// Suspend stops the runner between two instructions of its own, for good: the
// next runner with its guard goes on. It waits, at most limit, for starts that
// are under way; further ones fail with errdefs.ErrUnavailable. Other methods
// may wait for ever afterwards.
func (l *Local) Suspend(limit time.Duration) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	idle := make(chan struct{})
	go func() { // ends with the process, which is to be replaced
		defer close(idle)
		l.starts.Wait()
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
	l.nursery.Close()
	l.watch.stop()
	l.watch.mu.Lock() // for ever
}
