package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/engine/store/storetest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func openLog(t testing.TB, name, boot string) *store.Log {
	t.Helper()
	l, err := store.OpenLog(name, boot)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestLog(t *testing.T) {
	storetest.RunJournal(t, func(t *testing.T) store.Journal { return openLog(t, filepath.Join(t.TempDir(), "journal"), "boot") })
}

func TestMemoryJournal(t *testing.T) {
	storetest.RunJournal(t, func(*testing.T) store.Journal { return new(store.MemoryJournal) })
}

func intent(id string) store.Intent {
	return store.Intent{Op: "start", ID: id, Begun: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func TestIntentsOutliveTheirWriterAndNotTheBoot(t *testing.T) {
	name := filepath.Join(t.TempDir(), "journal")
	l := openLog(t, name, "one")
	check(t, errors.Join(l.Begin(t.Context(), intent("a")), l.Begin(t.Context(), intent("b")), l.End(t.Context(), "start", "a")))
	// as a killed writer leaves it: not closed
	if boot, list, err := store.ReadLog(name); boot != "one" || err != nil || !cmp.Equal(list, []store.Intent{intent("b")}) {
		t.Error(boot, list, err)
	}
	l = openLog(t, name, "one")
	if list, err := l.Intents(t.Context()); err != nil || !cmp.Equal(list, []store.Intent{intent("b")}) {
		t.Error(list, err)
	}
	l = openLog(t, name, "two")
	if list, err := l.Intents(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("after a reboot: %v %v", list, err)
	}
	check(t, l.Close())
	if err := l.Begin(t.Context(), intent("c")); !errors.Is(err, errdefs.ErrConflict) {
		t.Error(err)
	}
}

// TestALongLogIsWrittenAnew keeps one intent open over many others.
func TestALongLogIsWrittenAnew(t *testing.T) {
	name := filepath.Join(t.TempDir(), "journal")
	l := openLog(t, name, "boot")
	check(t, l.Begin(t.Context(), intent("open")))
	for i := range 5000 {
		id := fmt.Sprint(i)
		check(t, errors.Join(l.Begin(t.Context(), intent(id)), l.End(t.Context(), "start", id)))
	}
	if info, err := os.Stat(name); err != nil || info.Size() > 300<<10 {
		t.Error(info.Size(), err)
	}
	if _, list, err := store.ReadLog(name); err != nil || !cmp.Equal(list, []store.Intent{intent("open")}) {
		t.Error(list, err)
	}
}

// TestATornLogKeepsWhatWasBegun cuts the file at every byte.
func TestATornLogKeepsWhatWasBegun(t *testing.T) {
	name := filepath.Join(t.TempDir(), "journal")
	l := openLog(t, name, "boot")
	var ends []int64 // of the file after each intent
	for _, id := range []string{"a", "b", "c"} {
		check(t, l.Begin(t.Context(), intent(id)))
		info, err := os.Stat(name)
		check(t, err)
		ends = append(ends, info.Size())
	}
	data, err := os.ReadFile(name)
	check(t, err)
	for n := range data {
		torn := filepath.Join(t.TempDir(), "journal")
		check(t, os.WriteFile(torn, data[:n], 0o600))
		_, list, err := store.ReadLog(torn)
		want := len(slices.Collect(func(yield func(int64) bool) {
			for _, end := range ends {
				if end <= int64(n) && !yield(end) {
					return
				}
			}
		}))
		if err != nil || len(list) != want {
			t.Fatalf("%d bytes: %d intents, want %d: %v", n, len(list), want, err)
		}
	}
}

// TestAJournalOnAFullDisk: nothing can begin, and nothing that has begun is lost.
func TestAJournalOnAFullDisk(t *testing.T) {
	dir := small(t, "64k")
	name := filepath.Join(dir, "journal")
	l := openLog(t, name, "boot")
	check(t, errors.Join(l.Begin(t.Context(), intent("a")), l.Begin(t.Context(), intent("b"))))
	room := fill(t, dir)
	var err error
	n := 0
	for ; err == nil; n++ {
		err = l.Begin(t.Context(), intent(fmt.Sprint(n)))
	}
	if !errors.Is(err, errdefs.ErrExhausted) {
		t.Error(err)
	}
	// an end is never refused for room, and a crash does not bring it back
	check(t, errors.Join(l.End(t.Context(), "start", "a"), l.End(t.Context(), "start", "b")))
	_, list, err := store.ReadLog(name)
	if err != nil || len(list) != n-1 {
		t.Errorf("%d intents, want %d: %v", len(list), n-1, err)
	}
	room()
	check(t, l.Begin(t.Context(), intent("z")))
	if _, list, err := store.ReadLog(name); err != nil || !slices.ContainsFunc(list, func(in store.Intent) bool { return in.ID == "z" }) {
		t.Error(list, err)
	}
}

func TestALogOfAnotherVersionIsRefused(t *testing.T) {
	name := filepath.Join(t.TempDir(), "journal")
	data := []byte(`{"v":2,"crc32c":1,"record":{"boot":"x"}}` + "\n")
	check(t, os.WriteFile(name, data, 0o600))
	if _, err := store.OpenLog(name, "boot"); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Error(err)
	}
	if after, err := os.ReadFile(name); err != nil || !bytes.Equal(after, data) {
		t.Error("it was changed", err)
	}
}

func FuzzLog(f *testing.F) {
	f.Add([]byte("{\"v\":1,\"crc32c\":1,\"record\":{\"boot\":\"x\"}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(t.TempDir(), "journal")
		check(t, os.WriteFile(name, data, 0o600))
		_, list, err := store.ReadLog(name)
		if errors.Is(err, errdefs.ErrUnsupported) {
			return
		}
		check(t, err)
		l := openLog(t, name, "boot")
		if err := l.Begin(t.Context(), intent("new")); err != nil {
			t.Fatal(err)
		}
		if len(list) > bytes.Count(data, []byte("\n")) {
			t.Error("more intents than lines")
		}
	})
}

func BenchmarkLog(b *testing.B) {
	l := openLog(b, filepath.Join(b.TempDir(), "journal"), "boot")
	for b.Loop() {
		if err := errors.Join(l.Begin(b.Context(), intent("a")), l.End(b.Context(), "start", "a")); err != nil {
			b.Fatal(err)
		}
	}
}
