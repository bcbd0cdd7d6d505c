package engine

import (
	"errors"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/logging"
)

// watch waits for the process in the background, tidies up and tells.
func (e *Engine) watch(id ContainerID, c *container) {
	done := c.done
	// What waits has a frame of its own: there are as many stacks as containers.
	e.watching.Go(func() {
		state, ok := e.awaitEnd(string(id), func(known bool) bool { return e.outlives(id, c, done, known) })
		if ok {
			e.noteEnd(id, c, done, state)
		}
	})
}

// noteEnd tidies up after a process that has ended, and tells.
func (e *Engine) noteEnd(id ContainerID, c *container, done chan struct{}, state ExitState) {
	unlock, err := e.locks.Lock(e.life, id)
	if err != nil {
		return
	}
	if c.done == done && c.running {
		if err := e.ended(e.life, c, state); err != nil {
			e.opts.Log.Warn().Err(err).Str(logging.Container, string(id)).Msg("tidy up container")
		}
	}
	event := Event{Kind: EventExit, Time: time.Now(), ID: id, Exit: c.exit, Asked: c.asked}
	unlock()
	select {
	case e.events <- event:
	case <-e.life.Done():
	}
}

// lookAgain is how long after a runner that cannot answer is asked again.
const lookAgain = 500 * time.Millisecond

// awaitEnd returns how a process of the runner has ended, or ok false when the
// engine closes before. A runner that fails to say has not ended anything: as
// long as lives says that the process does, it is asked again. lives is told
// whether the runner may still know the process.
func (e *Engine) awaitEnd(id string, lives func(known bool) bool) (_ ExitState, ok bool) {
	for {
		exit, err := e.opts.Runner.Wait(e.life, id)
		if e.life.Err() != nil {
			return ExitState{}, false
		}
		if err == nil {
			return ExitState{Exit: exit, Known: true}, true
		}
		known := !errors.Is(err, errdefs.ErrNotFound)
		if known {
			e.opts.Log.Error().Err(err).Str(logging.Container, id).Msg("wait for process")
		}
		if !lives(known) {
			return ExitState{Exit: exit}, e.life.Err() == nil
		}
		again := time.NewTimer(lookAgain)
		select {
		case <-again.C:
		case <-e.life.Done():
			again.Stop()
			return ExitState{}, false
		}
	}
}

// outlives reports whether the process of a container is still there, though
// its runner could not be asked, or does not know it any more: then it is a
// stray from now on.
func (e *Engine) outlives(id ContainerID, c *container, done chan struct{}, known bool) bool {
	unlock, err := e.locks.Lock(e.life, id)
	if err != nil {
		return false
	}
	defer unlock()
	p := process.Process{Pid: c.rec.Pid, StartTime: c.rec.StartTime, BootID: c.rec.BootID}
	switch {
	case c.done != done || !c.running:
		return false
	case known:
		return e.isThere(p)
	case e.strays.of(string(id)) != nil: // and it has ended
		return false
	case e.strays.adopt(string(id), p, e.boot):
		e.unattended(id, c)
		return true
	}
	return false
}

// unattended notes that the runner has lost the process of a container.
func (e *Engine) unattended(id ContainerID, c *container) {
	e.opts.Log.Warn().Str(logging.Container, string(id)).Int("pid", c.rec.Pid).
		Msg("container outlived its keeper: it runs on, its console is lost and its exit will not be known")
	c.unattended = true
}

// isThere reports whether the process is, and is no other with its pid.
func (e *Engine) isThere(p process.Process) bool {
	started, err := linux.StartTime(p.Pid)
	return err == nil && started == p.StartTime && p.BootID == e.boot
}

// watchExec waits for a session in the background.
func (e *Engine) watchExec(s *session) {
	e.watching.Go(func() {
		state, ok := e.awaitEnd(s.runner, func(known bool) bool { return known && e.isThere(s.process) })
		if !ok {
			return
		}
		s.exit = state
		if err := e.opts.Runner.Forget(e.life, s.runner); err != nil {
			e.opts.Log.Warn().Err(err).Str(logging.Container, string(s.container)).Msg("forget exec session")
		}
		close(s.done)
		e.bus.Publish(Event{Kind: EventExecExit, ID: s.container, Exec: s.id, Exit: s.exit})
	})
}
