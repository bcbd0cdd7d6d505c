package content_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/content"
)

// TestSpool: what was written is read at random, nothing has a name meanwhile,
// and a second Close is none.
func TestSpool(t *testing.T) {
	dir := t.TempDir()
	s, err := content.NewSpool(dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "two")
	if err := os.WriteFile(file, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	two, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = two.Close() }()
	// the kernel could copy a file by itself, past size and digest
	for _, part := range []io.Reader{strings.NewReader("one"), two} {
		if n, err := io.Copy(s, part); n != 3 || err != nil {
			t.Fatal(n, err)
		}
	}
	got := make([]byte, 3)
	if _, err := s.ReadAt(got, 3); err != nil || string(got) != "two" {
		t.Errorf("%q %v", got, err)
	}
	if s.Size() != 6 || s.Digest() != digest.FromString("onetwo") {
		t.Error(s.Size(), s.Digest())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error("second close:", err)
	}
	if _, err := content.NewSpool(dir + "/none"); err == nil {
		t.Error("a spool in a directory that is not there")
	}
}
