package shelf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func newShelf(t *testing.T) *Shelf {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func id(name string) string { return digest.FromString(name).String() }

// written is a directory of a disk with something in it.
func written(t *testing.T, s *Shelf) string {
	t.Helper()
	must(t, s.Prepare(t.Context(), "c", nil, func(dir string) error {
		return errors.Join(os.Mkdir(filepath.Join(dir, "upper"), 0o755), os.WriteFile(filepath.Join(dir, "upper", "f"), []byte("x"), 0o600))
	}))
	return s.Path("active", "c", "upper")
}

func TestTakeLayer(t *testing.T) {
	s := newShelf(t)
	from := written(t, s)
	must(t, s.TakeLayer(t.Context(), id("a"), from))
	dir, err := s.Layer(t.Context(), id("a"))
	must(t, err)
	if data, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
	if there, err := Exists(from); there || err != nil {
		t.Errorf("it is still there, %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v; want fs and manifest", entries, err)
	}
}

// TestTakeLayerGivesBack: when it fails, and when the process or the machine
// dies on the way, what a container has written is where it was.
func TestTakeLayerGivesBack(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	t.Run("failure", func(t *testing.T) {
		s := newShelf(t)
		from := written(t, s)
		if err := s.TakeLayer(ctx, id("a"), from); err == nil {
			t.Fatal("no error")
		}
		if there, err := Exists(filepath.Join(from, "f")); !there || err != nil {
			t.Errorf("the content is gone, %v", err)
		}
		if layers, err := s.Layers(t.Context()); len(layers) != 0 || err != nil {
			t.Error(layers, err)
		}
	})
	t.Run("crash", func(t *testing.T) {
		s := newShelf(t)
		from := written(t, s)
		tmp := s.Path("layers", HalfMade+"crash")
		must(t, os.Mkdir(tmp, 0o700), os.Symlink("active/c/upper", filepath.Join(tmp, origin)), os.Rename(from, filepath.Join(tmp, "fs")))
		_, err := Open(s.Root(), Options{})
		must(t, err)
		if there, err := Exists(filepath.Join(from, "f")); !there || err != nil {
			t.Errorf("the content is gone, %v", err)
		}
		if there, err := Exists(tmp); there || err != nil {
			t.Errorf("the half made layer is still there, %v", err)
		}
	})
	t.Run("a link that leads out", func(t *testing.T) {
		s := newShelf(t)
		out := t.TempDir()
		tmp := s.Path("layers", HalfMade+"evil")
		must(t, os.MkdirAll(filepath.Join(tmp, "fs"), 0o700), os.Symlink(out+"/x", filepath.Join(tmp, origin)))
		_, err := Open(s.Root(), Options{})
		must(t, err)
		if entries, err := os.ReadDir(out); err != nil || len(entries) != 0 {
			t.Error(entries, err)
		}
	})
}

// TestManifestNotices everything that can become different without a change of
// the name.
func TestManifestNotices(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"truncated":    func(d string) error { return os.Truncate(d+"/a", 0) },
		"removed":      func(d string) error { return os.Remove(d + "/d/b") },
		"added":        func(d string) error { return os.WriteFile(d+"/new", nil, 0o600) },
		"renamed":      func(d string) error { return os.Rename(d+"/a", d+"/z") },
		"mode":         func(d string) error { return os.Chmod(d+"/a", 0o600) },
		"owner":        func(d string) error { return os.Lchown(d+"/a", 5, 5) },
		"link":         func(d string) error { return errors.Join(os.Remove(d+"/l"), os.Symlink("other", d+"/l")) },
		"content gone": os.RemoveAll,
		"manifest cut": func(d string) error { return os.Truncate(d+"/../manifest", 10) },
		"manifest 0":   func(d string) error { return os.WriteFile(d+"/../manifest", make([]byte, 100), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			must(t, s.Unpack(t.Context(), id("a"), func(dir string) error {
				return errors.Join(os.WriteFile(dir+"/a", []byte("content"), 0o644), os.Mkdir(dir+"/d", 0o755), os.WriteFile(dir+"/d/b", nil, 0o644), os.Symlink("a", dir+"/l"))
			}))
			dir, err := s.Layer(t.Context(), id("a"))
			must(t, err)
			if found, err := s.Check(t.Context(), snapshot.CheckRequest{}, Hooks{}); err != nil || len(found) != 0 {
				t.Fatal(found, err)
			}
			must(t, damage(dir))
			found, err := s.Check(t.Context(), snapshot.CheckRequest{Repair: true}, Hooks{})
			if err != nil || len(found) != 1 || found[0].Kind != snapshot.FindingDamagedLayer || found[0].What != id("a") || found[0].Mended {
				t.Errorf("%+v, %v", found, err)
			}
		})
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"v":1,"entries":3,"bytes":10,"digest":"` + strings.Repeat("a", 64) + `"}`))
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil {
			if !errors.Is(err, errdefs.ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		if m.Entries < 1 || m.Bytes < 0 || len(m.Digest) != 64 {
			t.Errorf("%+v", m)
		}
	})
}

// TestChainOfEarlierVersions: their disks name the record by a symbolic link,
// and so do those whose record can have no more names.
func TestChainOfEarlierVersions(t *testing.T) {
	s := newShelf(t)
	must(t, s.PutLayer(t.Context(), id("a"), func(dir string) error { return os.Mkdir(dir, 0o755) }))
	must(t, s.Prepare(t.Context(), "new", []string{id("a")}, func(string) error { return nil }))
	must(t, s.Prepare(t.Context(), "old", []string{id("a")}, func(string) error { return nil }))
	record := ChainRecord([]string{id("a")})
	must(t, os.Remove(s.Path("active", "old", "chain-"+record)), os.Symlink(record, s.Path("active", "old", "chain")))
	for _, key := range []string{"new", "old"} {
		if chain, err := s.Chain(key); err != nil || len(chain) != 1 || chain[0] != id("a") {
			t.Errorf("%s: %v, %v", key, chain, err)
		}
	}
	for _, gone := range []string{"new", "old"} {
		must(t, s.Remove(t.Context(), gone))
		again, err := Open(s.Root(), Options{})
		must(t, err)
		there, err := Exists(again.Path("chains", record))
		if want := gone == "new"; err != nil || there != want {
			t.Errorf("without %s the record is there: %v, %v", gone, there, err)
		}
	}
}

// TestFirstDisksOfAChain are made at the same time, and have one record.
func TestFirstDisksOfAChain(t *testing.T) {
	s := newShelf(t)
	must(t, s.PutLayer(t.Context(), id("a"), func(dir string) error { return os.Mkdir(dir, 0o755) }))
	var all sync.WaitGroup
	const n = 30
	for i := range n {
		all.Go(func() {
			if err := s.Prepare(t.Context(), fmt.Sprint(i), []string{id("a")}, func(string) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i := range n {
		if chain, err := s.Chain(fmt.Sprint(i)); err != nil || len(chain) != 1 {
			t.Errorf("%d: %v, %v", i, chain, err)
		}
	}
}

// TestDamagedChains: a record that is not what its name says is never taken for
// a shorter chain.
func TestDamagedChains(t *testing.T) {
	for name, damage := range map[string]func(s *Shelf, own, record string) error{
		"torn":  func(_ *Shelf, own, _ string) error { return os.Truncate(own, 10) },
		"empty": func(_ *Shelf, own, _ string) error { return os.Truncate(own, 0) },
		"other": func(_ *Shelf, own, _ string) error {
			return errors.Join(os.Remove(own), os.WriteFile(own, []byte(id("b")), 0o600))
		},
		"directory": func(_ *Shelf, own, _ string) error { return errors.Join(os.Remove(own), os.Mkdir(own, 0o700)) },
		"link": func(s *Shelf, own, record string) error {
			return errors.Join(os.Remove(own), os.Symlink(filepath.Base(record), s.Path("active", "c", "chain")), os.Remove(record))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			must(t, s.PutLayer(t.Context(), id("a"), func(dir string) error { return os.Mkdir(dir, 0o755) }))
			must(t, s.Prepare(t.Context(), "c", []string{id("a")}, func(string) error { return nil }))
			record := ChainRecord([]string{id("a")})
			must(t, damage(s, s.Path("active", "c", "chain-"+record), s.Path("chains", record)))
			if chain, err := s.Chain("c"); !errors.Is(err, errdefs.ErrCorrupt) {
				t.Errorf("%v, %v", chain, err)
			}
			if err := s.RemoveLayer(t.Context(), id("a")); err == nil {
				t.Error("a layer was removed that a damaged disk may need")
			}
		})
	}
}

// TestCopyOfAStore: a copy that knows nothing of second names has two files of
// each record, and is as good.
func TestCopyOfAStore(t *testing.T) {
	s := newShelf(t)
	must(t, s.PutLayer(t.Context(), id("a"), func(dir string) error { return os.Mkdir(dir, 0o755) }))
	must(t, s.Prepare(t.Context(), "c", []string{id("a")}, func(string) error { return nil }))
	own := s.Path("active", "c", "chain-"+ChainRecord([]string{id("a")}))
	text, err := os.ReadFile(own)
	must(t, err, os.Remove(own), os.WriteFile(own, text, 0o600))
	again, err := Open(s.Root(), Options{})
	must(t, err)
	must(t, again.Prepare(t.Context(), "d", []string{id("a")}, func(string) error { return nil }))
	for _, key := range []string{"c", "d"} {
		if chain, err := again.Chain(key); err != nil || len(chain) != 1 {
			t.Errorf("%s: %v, %v", key, chain, err)
		}
	}
}
