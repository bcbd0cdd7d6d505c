package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// The operations that note an intent. What an interrupted one has left is found
// by the records as well, but for what is in the kernel only: a freeze, limits,
// a process that no record knows.
const (
	opCreate  = "create"
	opStart   = "start"
	opStarted = "started" // until the record says so
	opDelete  = "delete"
	opImport  = "import"
	opCommit  = "commit"
	opCollect = "collect"
	opUpdate  = "update"
	opView    = "view" // of a chain, to export or compare it
)

// replays say what Open does with the intents that an earlier engine of this
// boot left open: each operation is finished or undone, so that its caller, who
// heard nothing, finds one or the other and never a half. Replays are
// idempotent. They run before containers are adopted.
//
// An operation that is not here is known to the records alone: the sweeps of
// Open look after what it left.
func (e *Engine) replays() map[string]func(context.Context, store.Intent) error {
	return map[string]func(context.Context, store.Intent) error{
		opCreate:  e.undoCreate,
		opStart:   e.undoStart,
		opStarted: e.finishStarted,
		opDelete:  e.finishDelete,
		opCommit:  e.undoCommit,
		opUpdate:  e.undoUpdate,
		opImport:  nothingToReplay, // layers and blobs without an image are swept
		opCollect: nothingToReplay, // and so are layers whose image has gone
		opView:    nothingToReplay, // and mounts that no container has
	}
}

func nothingToReplay(context.Context, store.Intent) error { return nil }

// begin notes an intent; the returned function crosses it out and is called
// when the operation has ended, one way or the other.
func (e *Engine) begin(ctx context.Context, op, id string, data any) (end func(), err error) {
	in := store.Intent{Op: op, ID: id, Begun: time.Now()}
	if data != nil {
		if in.Data, err = json.Marshal(data); err != nil {
			return nil, err
		}
	}
	if err := e.opts.Journal.Begin(ctx, in); err != nil {
		return nil, fmt.Errorf("note intent: %w", err)
	}
	return func() {
		if err := e.opts.Journal.End(context.WithoutCancel(ctx), op, id); err != nil {
			e.opts.Log.Warn().Err(err).Str(logging.Step, op).Str(logging.Container, id).Msg("cross out intent")
		}
	}, nil
}

// Intents lists the operations under way, the oldest first.
func (e *Engine) Intents(ctx context.Context) ([]store.Intent, error) {
	open, err := e.opts.Journal.Intents(ctx)
	return slices.DeleteFunc(open, func(in store.Intent) bool { return in.Op == opStarted }), err
}

// replay finishes or undoes what was interrupted. What cannot be keeps its
// intent for the next start and is logged: it must not keep the other
// containers from being looked after.
func (e *Engine) replay(ctx context.Context) error {
	open, err := e.opts.Journal.Intents(ctx)
	if err != nil {
		return err
	}
	ofOne := map[string][]store.Intent{} // in their order; those of others do not touch
	for _, in := range open {
		ofOne[in.ID] = append(ofOne[in.ID], in)
	}
	var each together
	for _, list := range ofOne {
		each.do(func() {
			for i, in := range list {
				run := e.replays()[in.Op]
				if in.Op == opStart && slices.ContainsFunc(list[i+1:], func(later store.Intent) bool { return later.Op == opStarted }) {
					run = nothingToReplay // it was noted after all
				}
				e.settle(ctx, in, run)
			}
		})
	}
	each.wait()
	return nil
}

// settle does what run does for an intent, and crosses it out.
func (e *Engine) settle(ctx context.Context, in store.Intent, run func(context.Context, store.Intent) error) {
	log := e.opts.Log.With().Str(logging.Step, in.Op).Str(logging.Container, in.ID).Logger()
	if run == nil {
		log.Error().Msg("an operation that this version does not know was interrupted")
		return
	}
	if err := run(ctx, in); err != nil {
		log.Error().Err(err).Msg("replay interrupted operation")
		return
	}
	if err := e.opts.Journal.End(ctx, in.Op, in.ID); err != nil {
		log.Error().Err(err).Msg("cross out intent")
		return
	}
	log.Warn().Msg("interrupted operation settled")
}

// undoCreate: nobody was told of the container. One that was started since is
// another.
func (e *Engine) undoCreate(ctx context.Context, in store.Intent) error {
	rec, err := e.opts.Store.Container(ctx, in.ID)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return nil // the record is made first and removed last
	case err != nil:
		return err
	case !rec.Started.IsZero():
		return nil
	}
	return e.removeAll(ctx, in.ID)
}

// undoStart ends a process that was not recorded; its caller was told nothing.
func (e *Engine) undoStart(ctx context.Context, in store.Intent) error {
	rec, err := e.opts.Store.Container(ctx, in.ID)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	status, err := e.opts.Runner.Status(ctx, in.ID)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	held := err == nil
	recorded := process.Process{Pid: rec.Pid, StartTime: rec.StartTime, BootID: rec.BootID}
	if rec.Pid != 0 && (!held || status.Process == recorded) {
		return nil // it was recorded after all
	}
	if _, err := e.end(ctx, in.ID); err != nil {
		return err
	}
	return errors.Join(e.opts.Runner.Forget(ctx, in.ID), e.unmount(ctx, ContainerID(in.ID)), e.ungroup(ctx, in.ID))
}

// finishDelete: a container that was made after the deletion began is another.
func (e *Engine) finishDelete(ctx context.Context, in store.Intent) error {
	rec, err := e.opts.Store.Container(ctx, in.ID)
	if err == nil && rec.Created.After(in.Begun) {
		return nil
	}
	return e.removeAll(ctx, in.ID)
}

// commitIntent is the data of opCommit.
type commitIntent struct {
	// Frozen is true when the commit freezes the container, which was running.
	Frozen bool `json:"frozen"`
}

// undoCommit thaws what the commit has frozen. Files of it have no names.
func (e *Engine) undoCommit(ctx context.Context, in store.Intent) error {
	var data commitIntent
	if err := json.Unmarshal(in.Data, &data); err != nil || !data.Frozen {
		return err
	}
	group, err := e.opts.Cgroups.Open(ctx, in.ID)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return group.Thaw(ctx)
}

// undoUpdate gives a disk, and a running container, the limits of the record.
func (e *Engine) undoUpdate(ctx context.Context, in store.Intent) error {
	rec, err := e.opts.Store.Container(ctx, in.ID)
	if err != nil {
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil
		}
		return err
	}
	e.restoreDiskLimit(ctx, rec)
	group, err := e.opts.Cgroups.Open(ctx, in.ID)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return group.Update(ctx, rec.Limits)
}
