package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

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
	written, late := make(chan struct{}), e.late.join()
	c.written, c.late = written, late
	ctx = context.WithoutCancel(ctx)
	e.watching.Go(func() {
		defer close(written)
		select {
		case <-late.due:
		case <-e.life.Done():
		}
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

// recordLag is how late the record of a start may be: those of others that begin
// meanwhile are written with it, as one transaction.
const recordLag = 50 * time.Millisecond

// lateRecords brings the records of starts together. The zero value is ready.
type lateRecords struct {
	mu   sync.Mutex
	last *lateBatch // guarded by mu
}

// lateBatch are records that are written at one time, when due is closed.
type lateBatch struct {
	due  chan struct{}
	once sync.Once
}

// join returns the batch that is next.
func (l *lateRecords) join() *lateBatch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last != nil {
		select {
		case <-l.last.due:
		default:
			return l.last
		}
	}
	l.last = &lateBatch{due: make(chan struct{})}
	time.AfterFunc(recordLag, l.last.hurry)
	return l.last
}

// hurry makes it due.
func (b *lateBatch) hurry() { b.once.Do(func() { close(b.due) }) }

// awaitRecord returns when the record of the last start is written: another
// must not come before it. The caller holds the container's lock.
func (c *container) awaitRecord() {
	if c.written != nil {
		c.late.hurry()
		<-c.written
		c.written, c.late = nil, nil
	}
}

// WithStarts returns the records with what the open intents of a journal tell of
// starts: for readers while no engine runs. A start that another one has
// followed, or a removal, is passed over.
func WithStarts(records []store.Container, open []store.Intent) ([]store.Container, error) {
	out := slices.Clone(records)
	for _, in := range open {
		if in.Op != opStarted {
			continue
		}
		var rec store.Container
		if err := json.Unmarshal(in.Data, &rec); err != nil {
			return nil, fmt.Errorf("start of container %s: %w: %w", in.ID, errdefs.ErrCorrupt, err)
		}
		i := slices.IndexFunc(out, func(c store.Container) bool { return c.ID == in.ID })
		if i >= 0 && news(rec, out[i]) {
			out[i] = rec
		}
	}
	return out, nil
}

// news says that a noted start is later than what the record knows.
func news(rec, now store.Container) bool {
	return now.Created.Equal(rec.Created) && now.Started.Before(rec.Started)
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
	case !news(rec, now):
		return nil
	}
	return e.opts.Store.PutContainer(ctx, rec)
}
