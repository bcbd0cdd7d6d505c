package content_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/content"
	"github.com/gantry-project/gantry/engine/content/contenttest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestDir(t *testing.T) {
	contenttest.Run(t, func(t *testing.T) content.Store {
		s, err := content.NewDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestMemory(t *testing.T) {
	contenttest.Run(t, func(*testing.T) content.Store { return new(content.Memory) })
}

func TestDirSurvivesRestartWithoutLeftovers(t *testing.T) {
	root := t.TempDir()
	s, err := content.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	d := contenttest.Put(t, s, "kept")
	w, err := s.Writer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "lost in a crash"); err != nil {
		t.Fatal(err)
	}
	s, err = content.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(root, "ingest")); len(left) != 0 {
		t.Fatalf("left over: %v", left)
	}
	if _, err := s.Info(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
}

func TestDamagedBlobIsCorrupt(t *testing.T) {
	root := t.TempDir()
	s, err := content.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]string{"flipped": "Hello", "shorter": "hell", "longer": "hello!"} {
		d := contenttest.Put(t, s, "hello")
		path := filepath.Join(root, "blobs", "sha256", d.Encoded())
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := content.ReadVerified(t.Context(), s, d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r); !errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("%s: got %v", name, err)
		}
		_ = r.Close()
	}
}

func TestVerifierChecksSize(t *testing.T) {
	d := digest.FromString("abc")
	for size, ok := range map[int64]bool{3: true, -1: true, 2: false, 4: false} {
		_, err := io.ReadAll(content.NewVerifier(strings.NewReader("abc"), d, size))
		if (err == nil) != ok {
			t.Errorf("size %d: %v", size, err)
		}
	}
}
