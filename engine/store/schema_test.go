package store_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/engine/store/storetest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// old unpacks a database that a program of that schema wrote: the containers
// one and two and their image.
func old(t *testing.T, schema string) string {
	t.Helper()
	packed, err := os.Open(filepath.Join("testdata", schema+".db.gz"))
	check(t, err)
	defer packed.Close()
	r, err := gzip.NewReader(packed)
	check(t, err)
	data, err := io.ReadAll(r)
	check(t, err)
	name := filepath.Join(t.TempDir(), "store.db")
	check(t, os.WriteFile(name, data, 0o600))
	return name
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// oldRecords wants what the old program wrote.
func oldRecords(t *testing.T, s store.Reader) {
	t.Helper()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	var want []store.Container
	for i, id := range []string{"one", "two"} {
		want = append(want, store.Container{
			ID: id, Image: "ref", Chain: []string{"sha256:aa", "sha256:bb"}, Labels: map[string]string{"k": id},
			IDBase:  store.FirstID + uint32(i)*store.IDBlock,
			Limits:  cgroup.Limits{MemoryBytes: 1 << 30, SwapBytes: -1, Pids: 512, Devices: []cgroup.Device{{Type: 'c', Major: 1, Minor: -1, Access: "rw"}}},
			Created: at, Started: at.Add(1), Args: []string{"/bin/sh"}, Pid: 42, StartTime: 1 << 60, BootID: "boot",
		})
	}
	got, err := s.Containers(t.Context())
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	img, err := s.Image(t.Context(), "ref")
	if d := cmp.Diff(store.Image{
		Ref: "ref", Chain: []string{"sha256:aa", "sha256:bb"}, DiffIDs: []string{"sha256:cc", "sha256:dd"},
		Config: image.Config{Env: []string{"A=b"}, Cmd: []string{"x"}, User: "1"}, RootFS: true, SizeBytes: 5, Imported: at, LastUsed: at,
	}, img); d != "" || err != nil {
		t.Error(d, err)
	}
	if leases, err := s.Leases(t.Context()); err != nil || len(leases) != 0 {
		t.Error(leases, err)
	}
	if bad, err := s.Damaged(t.Context()); err != nil || len(bad) != 0 {
		t.Error(bad, err)
	}
}

func TestOldSchemasAreBroughtUpToDate(t *testing.T) {
	for _, schema := range []string{"schema1", "schema2"} {
		t.Run(schema, func(t *testing.T) {
			name := old(t, schema)
			before, err := os.ReadFile(name)
			check(t, err)
			// who only reads sees the same, and changes nothing
			r, err := store.OpenReadOnly(name)
			check(t, err)
			oldRecords(t, r)
			check(t, r.Close())
			if after, err := os.ReadFile(name); err != nil || !bytes.Equal(before, after) {
				t.Error("a reader changed the store", err)
			}
			s := open(t, name)
			oldRecords(t, s)
			c, err := s.CreateContainer(t.Context(), storetest.Container("new"))
			if c.IDBase != store.FirstID+2*store.IDBlock || err != nil {
				t.Error(c.IDBase, err)
			}
			check(t, errors.Join(s.PutLease(t.Context(), store.Lease{ID: "l"}), s.DeleteContainer(t.Context(), "new"), s.DeleteLease(t.Context(), "l"), s.Close()))
			s = open(t, name)
			img, err := s.Image(t.Context(), "ref")
			check(t, err)
			img.LastUsed = img.Imported // a container that was deleted was made of it
			check(t, s.PutImage(t.Context(), img))
			oldRecords(t, s)
		})
	}
}

func TestADamagedOldRecordStays(t *testing.T) {
	name := old(t, "schema1")
	edit(t, name, func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("containers"))
		return b.Put([]byte("torn"), bytes.Clone(b.Get([]byte("one")))[:20])
	})
	s := open(t, name)
	if bad, err := s.Damaged(t.Context()); err != nil || !slices.Equal(bad, []string{"containers/torn"}) {
		t.Error(bad, err)
	}
}

func TestUnknownSchemasAreRefused(t *testing.T) {
	for name, value := range map[string][]byte{
		"newer": binary.BigEndian.AppendUint64(nil, 4), "zero": binary.BigEndian.AppendUint64(nil, 0), "short": {1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "store.db")
			check(t, open(t, file).Close())
			edit(t, file, func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("schema"), value) })
			before, err := os.ReadFile(file)
			check(t, err)
			want := errdefs.ErrUnsupported
			if name == "short" {
				want = errdefs.ErrCorrupt
			}
			if _, err := store.Open(file); !errors.Is(err, want) || !strings.Contains(err.Error(), file) {
				t.Error(err)
			}
			if _, err := store.OpenReadOnly(file); !errors.Is(err, want) {
				t.Error(err)
			}
			if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
				t.Error("the store was changed", err)
			}
		})
	}
}

func TestReadingWhileNobodyOwnsIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	if _, err := store.OpenReadOnly(file); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
	s := open(t, file)
	check(t, s.PutContainer(t.Context(), storetest.Container("c")))
	if _, err := store.OpenReadOnly(file); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("while a service has it: %v", err)
	}
	check(t, s.Close())
	one, err := store.OpenReadOnly(file)
	check(t, err)
	two, err := store.OpenReadOnly(file)
	check(t, err)
	if list, err := two.Containers(t.Context()); err != nil || len(list) != 1 {
		t.Error(list, err)
	}
	check(t, errors.Join(one.Close(), two.Close()))
	check(t, open(t, file).Close())
}
