package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Journal keeps intents: an operation is written down before its first side
// effect and crossed out after its last, so that after a crash whatever is
// still there was interrupted, and is finished or undone. Bolt and Memory are
// journals beside being stores. Records are durable when a method returns.
type Journal interface {
	// Begin writes an intent. One that is there already, by operation and id,
	// is replaced: a step may run twice.
	Begin(ctx context.Context, in Intent) error
	// End crosses an intent out. Absent is nil.
	End(ctx context.Context, op, id string) error
	// Intents returns what has begun and not ended, oldest first.
	Intents(ctx context.Context) ([]Intent, error)
}

// Intent is an operation under way on one thing.
type Intent struct {
	// Op is the operation ("create"), ID what it works on.
	Op string `json:"op"`
	ID string `json:"id"`
	// Data is the operation's own, to finish or undo it; may be nil.
	Data  json.RawMessage `json:"data,omitempty"`
	Begun time.Time       `json:"begun"`
}

var (
	_ Journal = (*Bolt)(nil)
	_ Journal = (*Memory)(nil)
)

// intentKey is the key of an intent; neither part may hold its separator.
func intentKey(op, id string) (string, error) {
	if op == "" || id == "" || strings.ContainsRune(op+id, 0) {
		return "", fmt.Errorf("intent %q of %q: %w", op, id, errdefs.ErrInvalid)
	}
	return op + "\x00" + id, nil
}

func byAge(a, b Intent) int {
	return cmp.Or(a.Begun.Compare(b.Begun), cmp.Compare(a.Op, b.Op), cmp.Compare(a.ID, b.ID))
}

// Begin implements Journal.
func (b *Bolt) Begin(_ context.Context, in Intent) error {
	key, err := intentKey(in.Op, in.ID)
	if err != nil {
		return err
	}
	return b.put(bucketJournal, key, in)
}

// End implements Journal.
func (b *Bolt) End(_ context.Context, op, id string) error {
	key, err := intentKey(op, id)
	if err != nil {
		return err
	}
	return b.remove(key, bucketJournal)
}

// Intents implements Journal.
func (b *Bolt) Intents(context.Context) ([]Intent, error) {
	out, err := list[Intent](b, bucketJournal, func(string) {})
	slices.SortFunc(out, byAge)
	return out, err
}

// Begin implements Journal.
func (m *Memory) Begin(_ context.Context, in Intent) error {
	key, err := intentKey(in.Op, in.ID)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.journal[key] = in
	return nil
}

// End implements Journal.
func (m *Memory) End(_ context.Context, op, id string) error {
	key, err := intentKey(op, id)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.journal, key)
	return nil
}

// Intents implements Journal.
func (m *Memory) Intents(context.Context) ([]Intent, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.journal), byAge), nil
}
