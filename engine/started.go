package engine

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
)

// noteStarted writes down that the container's process runs: in the journal,
// which costs no fsync and outlives this engine, and soon after in the records.
// After a loss of power in between the record says that the container was never
// started; no process of it is left then to be found.
func (e *Engine) noteStarted(ctx context.Context, c *container) error {
	rec := c.rec
	if _, volatile := e.opts.Journal.(*store.MemoryJournal); volatile {
		return e.opts.Store.PutContainer(ctx, rec)
	}
	end, err := e.begin(ctx, opStarted, rec.ID, rec)
	if err != nil {
		return err
	}
	written := make(chan struct{})
	c.written = written
	ctx = context.WithoutCancel(ctx)
	e.watching.Go(func() {
		defer close(written)
		if failpoint.Hit("engine.start.noted") != nil {
			return
		}
		if err := e.opts.Store.PutContainer(ctx, rec); err != nil {
			// the intent stays for the next engine
			e.opts.Log.Error().Err(err).Str(logging.Container, rec.ID).Msg("record of a start")
			return
		}
		end()
	})
	return nil
}

// awaitRecord returns when the record of the last start is written: another
// must not come before it. The caller holds the container's lock.
func (c *container) awaitRecord() {
	if c.written != nil {
		<-c.written
		c.written = nil
	}
}

// finishStarted writes the record of a start that an earlier engine noted,
// unless a later one is there.
func (e *Engine) finishStarted(ctx context.Context, in store.Intent) error {
	var rec store.Container
	if err := json.Unmarshal(in.Data, &rec); err != nil {
		return err
	}
	now, err := e.opts.Store.Container(ctx, in.ID)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return nil
	case err != nil:
		return err
	case !now.Created.Equal(rec.Created) || !now.Started.Before(rec.Started):
		return nil
	}
	return e.opts.Store.PutContainer(ctx, rec)
}
