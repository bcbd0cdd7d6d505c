package storetest

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// RunJournal checks the contract of a journal against empty ones made by f.
func RunJournal(t *testing.T, f func(t *testing.T) store.Journal) {
	t.Run("intents", func(t *testing.T) { intents(t, f(t)) })
	t.Run("keys are needed", func(t *testing.T) {
		j := f(t)
		wantClass(t, j.Begin(t.Context(), store.Intent{Op: "create"}), errdefs.ErrInvalid)
		wantClass(t, j.Begin(t.Context(), store.Intent{Op: "a\x00b", ID: "c"}), errdefs.ErrInvalid)
		wantClass(t, j.End(t.Context(), "", "c"), errdefs.ErrInvalid)
	})
}

func intents(t *testing.T, j store.Journal) {
	ctx := t.Context()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	late := store.Intent{Op: "create", ID: "a", Begun: at.Add(time.Second), Data: json.RawMessage(`{"k":1}`)}
	early := store.Intent{Op: "delete", ID: "b", Begun: at}
	must(t, j.Begin(ctx, late), j.Begin(ctx, early), j.Begin(ctx, late))
	list, err := j.Intents(ctx)
	must(t, err)
	same(t, []store.Intent{early, late}, list)
	must(t, j.End(ctx, "create", "a"), j.End(ctx, "create", "a"), j.End(ctx, "create", "b"))
	list, err = j.Intents(ctx)
	must(t, err)
	same(t, []store.Intent{early}, list)
	must(t, j.End(ctx, "delete", "b"))
	if list, err = j.Intents(ctx); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
}
