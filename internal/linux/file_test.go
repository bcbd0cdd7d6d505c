package linux_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-project/gantry/internal/linux"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"empty": 0, "small": 10, "page": 4096, "more": 4097, "large": 100_000} {
		t.Run(name, func(t *testing.T) {
			want := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, want, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := linux.ReadFile(path)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v; want %d", len(got), err, size)
			}
		})
	}
	if got, err := linux.ReadFile("/proc/self/mountinfo"); err != nil || len(got) == 0 {
		t.Errorf("a file of the kernel: %d bytes, %v", len(got), err)
	}
	var path *os.PathError
	if _, err := linux.ReadFile(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &path) {
		t.Errorf("absent: %v", err)
	}
	if _, err := linux.ReadFile(dir); err == nil {
		t.Error("a directory was read")
	}
}
