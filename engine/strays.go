package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// strays is the runner of an engine: the one that was passed in, and beside it
// the first processes that outlived their runner. A stray is not our child: it
// can be signalled and its end is seen, by a pidfd, but not how it ended, and
// nobody reads its console. The methods keep the contract of process.Runner,
// but for Wait, whose error says for an ended stray that its exit is not known.
type strays struct {
	process.Runner

	mu   sync.Mutex
	held map[string]*stray // guarded by mu
}

type stray struct {
	process process.Process
	pidfd   *os.File
	done    chan struct{} // closed when it has ended
}

// adopt takes over the process, if it still is the one that the record names:
// by pid, start time and boot, so that another with the same pid never is.
func (s *strays) adopt(id string, p process.Process, boot string) bool {
	if p.Pid <= 0 || p.BootID != boot {
		return false
	}
	fd, err := linux.PidfdOpen(p.Pid)
	if err != nil {
		return false
	}
	// after the descriptor: from now on the pid cannot become another's
	if started, err := linux.StartTime(p.Pid); err != nil || started != p.StartTime {
		_ = fd.Close()
		return false
	}
	st := &stray{process: p, pidfd: fd, done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[string]*stray{}
	}
	s.held[id] = st
	go func() { // ends with the process, or when release closes the descriptor
		if linux.AwaitPidfd(fd) == nil {
			close(st.done)
		}
	}()
	return true
}

// release lets all go; the processes run on.
func (s *strays) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, st := range s.held {
		_ = st.pidfd.Close()
		delete(s.held, id)
	}
}

// of returns the stray of the id, nil if there is none.
func (s *strays) of(id string) *stray {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[id]
}

func (st *stray) running() bool {
	select {
	case <-st.done:
		return false
	default:
		return true
	}
}

// Start implements process.Runner.
func (s *strays) Start(ctx context.Context, id string, spec process.Spec) (process.Process, error) {
	if s.of(id) != nil {
		return process.Process{}, fmt.Errorf("process %s: %w", id, errdefs.ErrAlreadyExists)
	}
	return s.Runner.Start(ctx, id, spec)
}

// Signal implements process.Runner.
func (s *strays) Signal(ctx context.Context, id string, sig int) error {
	st := s.of(id)
	if st == nil {
		return s.Runner.Signal(ctx, id, sig)
	}
	if !st.running() {
		return fmt.Errorf("signal process %s: it has ended: %w", id, errdefs.ErrNotFound)
	}
	if err := linux.PidfdSignal(st.pidfd, sig); err != nil {
		return fmt.Errorf("signal process %s: %w", id, err)
	}
	return nil
}

// Status implements process.Runner.
func (s *strays) Status(ctx context.Context, id string) (process.Status, error) {
	if st := s.of(id); st != nil {
		return process.Status{ID: id, Process: st.process, Running: st.running()}, nil
	}
	return s.Runner.Status(ctx, id)
}

// List implements process.Runner.
func (s *strays) List(ctx context.Context) ([]process.Status, error) {
	all, err := s.Runner.List(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, st := range s.held {
		all = append(all, process.Status{ID: id, Process: st.process, Running: st.running()})
	}
	return all, err
}

// Wait implements process.Runner; errdefs.ErrNotFound when a stray has ended.
func (s *strays) Wait(ctx context.Context, id string) (process.Exit, error) {
	st := s.of(id)
	if st == nil {
		return s.Runner.Wait(ctx, id)
	}
	select {
	case <-st.done:
		return process.Exit{Time: time.Now()}, fmt.Errorf("process %s: how it ended: %w", id, errdefs.ErrNotFound)
	case <-ctx.Done():
		return process.Exit{}, ctx.Err()
	}
}

// Forget implements process.Runner.
func (s *strays) Forget(ctx context.Context, id string) error {
	st := s.of(id)
	if st == nil {
		return s.Runner.Forget(ctx, id)
	}
	if st.running() {
		return fmt.Errorf("forget process %s: it runs: %w", id, errdefs.ErrConflict)
	}
	s.mu.Lock()
	delete(s.held, id)
	s.mu.Unlock()
	return errors.Join(st.pidfd.Close(), s.Runner.Forget(ctx, id))
}
