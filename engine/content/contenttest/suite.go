// Package contenttest holds the conformance suite of engine/content: what each
// Store must do. It imports the contract and testing only.
package contenttest

import (
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/content"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Factory makes an empty Store that lives as long as t.
type Factory func(t *testing.T) content.Store

// Run checks the contract against stores made by f.
func Run(t *testing.T, f Factory) {
	for name, check := range map[string]func(*testing.T, content.Store){
		"commit publishes":          commitPublishes,
		"unfinished is invisible":   unfinishedInvisible,
		"wrong digest is refused":   wrongDigest,
		"second commit is success":  secondCommit,
		"closed writer refuses":     closedWriter,
		"malformed digests refused": malformedDigests,
		"delete keeps open readers": deleteKeepsReaders,
		"absent is not found":       absent,
		"simultaneous writers":      simultaneous,
	} {
		t.Run(name, func(t *testing.T) { check(t, f(t)) })
	}
}

// Put commits data and returns its digest.
func Put(t *testing.T, s content.Store, data string) digest.Digest {
	t.Helper()
	w, err := s.Writer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
	info, err := w.Commit(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return info.Digest
}

func read(t *testing.T, s content.Store, d digest.Digest) string {
	t.Helper()
	r, err := content.ReadVerified(t.Context(), s, d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func wantClass(t *testing.T, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Fatalf("got error %v, want class %v", err, class)
	}
}

func commitPublishes(t *testing.T, s content.Store) {
	want := digest.FromString("hello")
	w, err := s.Writer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"he", "", "llo"} {
		if _, err := io.WriteString(w, part); err != nil {
			t.Fatal(err)
		}
	}
	if w.Size() != 5 || w.Digest() != want {
		t.Fatalf("writer says %d bytes, %s", w.Size(), w.Digest())
	}
	info, err := w.Commit(t.Context(), want)
	if err != nil || info.Digest != want || info.Size != 5 || info.Created.IsZero() {
		t.Fatalf("commit: %+v, %v", info, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, want); got != "hello" {
		t.Fatalf("read %q", got)
	}
	empty := Put(t, s, "")
	list, err := s.List(t.Context())
	if err != nil || len(list) != 2 || list[0].Digest > list[1].Digest {
		t.Fatalf("list: %v, %v", list, err)
	}
	if got := read(t, s, empty); got != "" {
		t.Fatalf("empty blob reads %q", got)
	}
}

func unfinishedInvisible(t *testing.T, s content.Store) {
	w, err := s.Writer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "half"); err != nil {
		t.Fatal(err)
	}
	_, err = s.Open(t.Context(), w.Digest())
	wantClass(t, err, errdefs.ErrNotFound)
	d := w.Digest()
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = s.Info(t.Context(), d)
	wantClass(t, err, errdefs.ErrNotFound)
}

func wrongDigest(t *testing.T, s content.Store) {
	w, err := s.Writer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := io.WriteString(w, "content"); err != nil {
		t.Fatal(err)
	}
	_, err = w.Commit(t.Context(), digest.FromString("other"))
	wantClass(t, err, errdefs.ErrCorrupt)
	if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
		t.Fatalf("list: %v, %v", list, err)
	}
}

func secondCommit(t *testing.T, s content.Store) {
	a, b := Put(t, s, "same"), Put(t, s, "same")
	if a != b || read(t, s, a) != "same" {
		t.Fatalf("%s and %s", a, b)
	}
}

func closedWriter(t *testing.T, s content.Store) {
	w, err := s.Writer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = w.Write([]byte("x"))
	wantClass(t, err, errdefs.ErrConflict)
	_, err = w.Commit(t.Context(), "")
	wantClass(t, err, errdefs.ErrConflict)
}

func malformedDigests(t *testing.T, s content.Store) {
	good := Put(t, s, "x")
	for _, d := range []string{
		"", "sha256:", "../../x", "sha256:../../../etc/passwd", strings.ToUpper(string(good)),
		string(good)[:40], good.Encoded(), "sha512:" + strings.Repeat("a", 128), string(good) + "0",
	} {
		_, err := s.Open(t.Context(), digest.Digest(d))
		wantClass(t, err, errdefs.ErrInvalid)
		_, err = s.Info(t.Context(), digest.Digest(d))
		wantClass(t, err, errdefs.ErrInvalid)
		wantClass(t, s.Delete(t.Context(), digest.Digest(d)), errdefs.ErrInvalid)
	}
}

func deleteKeepsReaders(t *testing.T, s content.Store) {
	d := Put(t, s, "kept")
	b, err := s.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := s.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), d); err != nil {
		t.Fatalf("second delete: %v", err)
	}
	data := make([]byte, b.Size())
	if _, err := b.ReadAt(data, 0); err != nil && err != io.EOF || string(data) != "kept" {
		t.Fatalf("read %q, %v", data, err)
	}
}

func absent(t *testing.T, s content.Store) {
	_, err := s.Open(t.Context(), digest.FromString("absent"))
	wantClass(t, err, errdefs.ErrNotFound)
	if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
		t.Fatalf("list: %v, %v", list, err)
	}
}

func simultaneous(t *testing.T, s content.Store) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			w, err := s.Writer(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Close()
			if _, err := io.WriteString(w, "shared"); err != nil {
				t.Error(err)
			}
			if _, err := w.Commit(t.Context(), digest.FromString("shared")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := s.List(t.Context()); err != nil || len(list) != 1 {
		t.Fatalf("list: %v, %v", list, err)
	}
}
