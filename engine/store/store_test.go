package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/engine/store/storetest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func open(t testing.TB, name string) *store.Bolt {
	t.Helper()
	s, err := store.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestBolt(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, filepath.Join(t.TempDir(), "state", "store.db")) })
}

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemory() })
}

func TestRecordsSurviveReopening(t *testing.T) {
	name := filepath.Join(t.TempDir(), "store.db")
	s := open(t, name)
	made, err := s.CreateContainer(t.Context(), storetest.Container("c"))
	if err := errors.Join(err, s.PutImage(t.Context(), storetest.Image("r")),
		s.PutLease(t.Context(), store.Lease{ID: "l"}), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, name)
	c, err := s.Container(t.Context(), "c")
	if d := cmp.Diff(made, c); d != "" || err != nil {
		t.Error(d, err)
	}
	if other, err := s.CreateContainer(t.Context(), storetest.Container("d")); err != nil || other.IDBase == made.IDBase {
		t.Error(other.IDBase, err)
	}
	if list, err := s.Leases(t.Context()); err != nil || len(list) != 1 {
		t.Error(list, err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
}

// TestDamagedRecordIsIsolated flips single bytes of one record: it is named,
// kept, and does not hide the others.
func TestDamagedRecordIsIsolated(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"flipped digit": func(b []byte) []byte { return bytes.Replace(b, []byte(`"pid":42`), []byte(`"pid":43`), 1) },
		"torn":          func(b []byte) []byte { return b[:len(b)/2] },
		"empty":         func([]byte) []byte { return []byte{} },
		"newer":         func(b []byte) []byte { return bytes.Replace(b, []byte(`"v":1`), []byte(`"v":9`), 1) },
		"no record":     func([]byte) []byte { return []byte(`{"v":1,"crc32c":0}`) },
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "store.db")
			s := open(t, file)
			if err := errors.Join(s.PutContainer(t.Context(), storetest.Container("bad")),
				s.PutContainer(t.Context(), storetest.Container("good")), s.Close()); err != nil {
				t.Fatal(err)
			}
			edit(t, file, func(tx *bolt.Tx) error {
				b := tx.Bucket([]byte("containers"))
				return b.Put([]byte("bad"), damage(bytes.Clone(b.Get([]byte("bad")))))
			})
			s = open(t, file)
			if _, err := s.Container(t.Context(), "bad"); !errors.Is(err, errdefs.ErrCorrupt) || !strings.Contains(err.Error(), "bad") {
				t.Error(err)
			}
			list, err := s.Containers(t.Context())
			if err != nil || len(list) != 1 || list[0].ID != "good" {
				t.Error(list, err)
			}
			if bad, err := s.Damaged(t.Context()); err != nil || !slices.Equal(bad, []string{"containers/bad"}) {
				t.Error(bad, err)
			}
			if _, err := s.CreateContainer(t.Context(), storetest.Container("bad")); !errors.Is(err, errdefs.ErrAlreadyExists) {
				t.Error(err)
			}
			// What it refers to is not known, so no image may go.
			if err := s.DeleteImage(t.Context(), "ref"); !errors.Is(err, errdefs.ErrConflict) {
				t.Error(err)
			}
			if err := s.DeleteContainer(t.Context(), "bad"); err != nil {
				t.Error(err)
			}
		})
	}
}

func edit(t *testing.T, file string, fn func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(file, 0o600, nil)
	if err == nil {
		err = errors.Join(db.Update(fn), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestForeignFileIsCorrupt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(file, bytes.Repeat([]byte("not a database"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(file); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Error(err)
	}
}

func TestSecondOwnerIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	open(t, file)
	if _, err := store.Open(file); !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), file) {
		t.Error(err)
	}
}

func TestBlocksRunOut(t *testing.T) {
	var taken []uint32
	for base := store.FirstID; base+store.IDBlock < 1<<31; base += store.IDBlock {
		taken = append(taken, base)
	}
	if base, err := store.FreeBlock(slices.Values(taken)); !errors.Is(err, errdefs.ErrExhausted) {
		t.Error(base, err)
	}
	last := taken[len(taken)-1]
	if base, err := store.FreeBlock(slices.Values(taken[:len(taken)-1])); base != last || err != nil {
		t.Error(base, err)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"v":1,"crc32c":1,"record":{"id":"x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c store.Container
		if err := store.Decode(data, &c); err != nil && !errors.Is(err, errdefs.ErrCorrupt) {
			t.Error(err)
		}
	})
}

func BenchmarkPutContainer(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "store.db"))
	for b.Loop() {
		if err := s.PutContainer(b.Context(), storetest.Container("c")); err != nil {
			b.Fatal(err)
		}
	}
}
