package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Journal keeps intents: an operation is written down before its first side
// effect and crossed out after its last, so that after a crash whatever is
// still there was interrupted, and is finished or undone.
//
// It is about what the service does to the running kernel (processes, mounts,
// groups, freezes): an intent survives the end of the process that wrote it, by
// whatever signal, and is void after a reboot, since all it speaks of is gone
// then. What must be found after a loss of power is in the records, which are
// written first and removed last. So an intent costs one write to the page
// cache and no fsync.
type Journal interface {
	// Begin writes an intent. One that is there already, by operation and id,
	// is replaced: a step may run twice. errdefs.ErrExhausted and ErrUnavailable
	// as in Store; errdefs.ErrInvalid for an intent without operation or id.
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

// MemoryJournal is a Journal that ends with the process. The zero value is
// ready.
type MemoryJournal struct {
	mu   sync.Mutex
	open map[string]Intent // guarded by mu
}

var _ Journal = (*MemoryJournal)(nil)

// Begin implements Journal.
func (m *MemoryJournal) Begin(_ context.Context, in Intent) error {
	key, err := intentKey(in.Op, in.ID)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open == nil {
		m.open = map[string]Intent{}
	}
	m.open[key] = in
	return nil
}

// End implements Journal.
func (m *MemoryJournal) End(_ context.Context, op, id string) error {
	key, err := intentKey(op, id)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.open, key)
	return nil
}

// Intents implements Journal.
func (m *MemoryJournal) Intents(context.Context) ([]Intent, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.open), byAge), nil
}
