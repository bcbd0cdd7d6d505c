package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/logging"
)

// Open returns an engine on the state in opts.Root. Containers that run are
// adopted and keep running, also when their keeper was lost; those that ended
// while nobody looked, or with the last boot of the host, are tidied up;
// operations that were interrupted are finished or undone (replays). Only what
// carries an id of this engine's directories is ever removed.
//
// The engine lives until Close; ctx bounds the opening only.
func Open(ctx context.Context, opts Options) (*Engine, error) {
	filter, err := filterFor(capabilities)
	if err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	boot := opts.BootID
	if boot == "" {
		if boot, err = linux.BootID(); err != nil {
			return nil, fmt.Errorf("open engine: %w", err)
		}
	}
	if opts.Journal == nil {
		opts.Journal = &store.MemoryJournal{}
	}
	known := &strays{Runner: opts.Runner}
	opts.Runner = known
	linux.GrowFiles(1000) // a container that runs has one
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	e := &Engine{
		opts: opts, filter: filter, boot: boot, strays: known, events: make(chan Event, 64), stop: stop, life: life,
		nursery: process.NewNursery(), containers: map[ContainerID]*container{},
	}
	e.shown.hidden = opts.View.places()
	e.shown.processors.look()
	if err := e.recover(ctx); err != nil {
		e.Close()
		return nil, fmt.Errorf("open engine: %w", err)
	}
	return e, nil
}

// Close stops looking after the containers; they go on. It closes nothing that
// was passed in.
func (e *Engine) Close() {
	e.stop()
	e.bus.Close()
	e.watching.Wait()
	e.nursery.Close()
	e.roots.close()
	e.strays.release()
	if err := os.Remove(e.boots()); err != nil && !errors.Is(err, os.ErrNotExist) {
		e.opts.Log.Warn().Err(err).Msg("images will be verified after the next start of the host")
	}
}

func (e *Engine) recover(ctx context.Context) error {
	if err := os.RemoveAll(e.tmpDir()); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(e.opts.Root, "content")); err != nil { // archives of earlier versions
		return err
	}
	for _, dir := range []string{"ns", "rootfs", "console", "tmp", "recipes"} {
		if err := os.MkdirAll(filepath.Join(e.opts.Root, dir), 0o700); err != nil {
			return err
		}
	}
	hostWentDown, err := e.noteRunning()
	if err != nil {
		return err
	}
	if err := e.replay(ctx); err != nil {
		return err
	}
	records, err := e.opts.Store.Containers(ctx)
	if err != nil {
		return err
	}
	disks, err := e.opts.Snapshots.List(ctx)
	if err != nil {
		return err
	}
	hasDisk := map[string]bool{}
	for _, key := range disks {
		hasDisk[key] = true
	}
	// one question for all: who serves is busy with the containers, too
	processes, err := e.opts.Runner.List(ctx)
	if err != nil {
		return err
	}
	held := map[string]process.Status{}
	for _, p := range processes {
		held[p.ID] = p
	}
	known := map[string]bool{}
	var each together
	for _, rec := range records {
		if !hasDisk[rec.ID] {
			// the record is written before the disk is made and removed after
			// it: this one is half made or half removed
			each.do(func() { e.discard(ctx, rec.ID, "half-made container removed") })
			continue
		}
		known[rec.ID] = true
		status, ok := held[rec.ID]
		each.do(func() { e.adopt(ctx, rec, status, ok) })
	}
	each.wait()
	if err := e.sweep(ctx, known, disks); err != nil {
		return err
	}
	if _, err := e.collectUnused(ctx); err != nil {
		e.opts.Log.Error().Err(err).Msg("remove what interrupted imports have left")
	}
	if hostWentDown {
		e.watching.Go(func() { e.verifyImages(e.life) })
	}
	return nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// discard removes all of a container. What cannot be removed is left for the
// next start: it must not keep the other containers from being looked after.
func (e *Engine) discard(ctx context.Context, id, why string) {
	if err := e.removeAll(ctx, id); err != nil {
		e.opts.Log.Error().Err(err).Str(logging.Container, id).Msg("remove left-over")
		return
	}
	e.opts.Log.Warn().Str(logging.Container, id).Msg(why)
}

// together runs what waits for the kernel, for the disk and for the end of
// processes: many containers at once, so that an engine answers soon.
type together struct {
	turns chan struct{}
	all   sync.WaitGroup
}

// atOnce is how many: those that write records share a commit.
const atOnce = 16

func (t *together) do(fn func()) {
	if t.turns == nil {
		t.turns = make(chan struct{}, atOnce)
	}
	t.turns <- struct{}{}
	t.all.Go(func() {
		defer func() { <-t.turns }()
		fn()
	})
}

func (t *together) wait() { t.all.Wait() }

// adopt takes over one recorded container as the kernel has it now; status is
// what the runner says of its process, if it holds one. A failure to tidy up is
// logged.
func (e *Engine) adopt(ctx context.Context, rec store.Container, status process.Status, held bool) {
	c := &container{rec: rec}
	id := ContainerID(rec.ID)
	c.exit = ExitState{
		Exit:  process.Exit{Code: rec.ExitCode, Signal: rec.ExitSignal, Time: rec.Exited},
		OOM:   rec.ExitOOM,
		Known: rec.ExitKnown,
		Cause: ExitCause(rec.ExitCause),
	}
	e.remember(id, c)
	if !held {
		e.tidied(id, e.settleUnknown(ctx, c))
		return
	}
	// the runner knows better than a record that was cut off between the
	// start and its own writing
	c.rec.Pid, c.rec.StartTime, c.rec.BootID = status.Process.Pid, status.Process.StartTime, status.Process.BootID
	switch {
	case !status.Running:
		c.running, c.done = true, make(chan struct{})
		e.tidied(id, e.ended(ctx, c, ExitState{Exit: status.Exit, Known: true}))
	case c.rec.Started.IsZero():
		// killed before the start was recorded: the caller never heard of it
		c.running, c.done = true, make(chan struct{})
		e.tidied(id, e.kill(ctx, c))
	default:
		e.takeOver(ctx, id, c)
	}
}

// tidied logs a failure to tidy up after a container that has ended.
func (e *Engine) tidied(id ContainerID, err error) {
	if err != nil {
		e.opts.Log.Error().Err(err).Str(logging.Container, string(id)).Msg("tidy up container")
	}
}

// sweep removes what no record knows. A disk without a record cannot come from
// an interrupted call, since records are written first and removed last: the
// record was damaged or lost. Such a container is left alone, all of it.
func (e *Engine) sweep(ctx context.Context, known map[string]bool, disks []string) error {
	for _, id := range disks {
		if !known[id] {
			known[id] = true
			e.opts.Log.Error().Str(logging.Container, id).Msg("a disk has no readable record; it and all of its container are left as they are")
		}
	}
	found := map[string]bool{}
	groups, err := e.opts.Cgroups.List(ctx)
	if err != nil {
		return err
	}
	for _, name := range groups {
		found[name] = true
	}
	for _, dir := range []string{"ns", "rootfs", "console"} {
		entries, err := os.ReadDir(filepath.Join(e.opts.Root, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			name := entry.Name()
			if dir == "console" {
				name = consoleOf(name)
			}
			found[name] = true
		}
	}
	processes, err := e.opts.Runner.List(ctx)
	if err != nil {
		return err
	}
	for _, p := range processes {
		if _, _, session := splitRunnerID(p.ID); session {
			e.adoptExec(ctx, p)
			continue
		}
		found[p.ID] = true
	}
	for id := range found {
		if !known[id] && validID(ContainerID(id)) == nil {
			e.discard(ctx, id, "left-over without a record removed")
		}
	}
	return nil
}
