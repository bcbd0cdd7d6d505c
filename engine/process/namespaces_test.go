package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestNamespaces(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "ns")
	ids := []IDMap{{0, 1000000, 1000}, {1000, 2000000, 10}}
	user, net, err := CreateNamespaces(t.Context(), dir, ids, ids)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{user, net} {
		if !pinned(p) {
			t.Errorf("%s is not pinned", p)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if _, _, err := CreateNamespaces(t.Context(), dir, ids, ids); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("second call: %v", err)
	}
	for range 2 {
		if err := RemoveNamespaces(dir); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left: %v", err)
	}
}

func TestNamespacesRecoverFromLeftovers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, userPin), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ids := []IDMap{{0, 1000000, 1}}
	if _, _, err := CreateNamespaces(t.Context(), dir, ids, ids); err != nil {
		t.Fatal(err)
	}
	if err := RemoveNamespaces(dir); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("what is not ours must stay: %v, %v", entries, err)
	}
}

func TestNamespacesFailCleanly(t *testing.T) {
	good := []IDMap{{0, 1000000, 65536}}
	for name, maps := range map[string][]IDMap{
		"empty":        nil,
		"host root":    {{0, 0, 1}},
		"no size":      {{0, 1000000, 0}},
		"too large":    {{0, 4294967295, 2}},
		"inside large": {{1 << 31, 1000000, 2}},
		"overlap":      {{0, 1000000, 10}, {5, 2000000, 10}}, // the kernel says so
	} {
		dir := filepath.Join(t.TempDir(), "ns")
		if _, _, err := CreateNamespaces(t.Context(), dir, maps, good); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: something is left", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := filepath.Join(t.TempDir(), "ns")
	if _, _, err := CreateNamespaces(ctx, dir, good, good); err == nil {
		t.Error("cancelled: no error")
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("cancelled: something is left")
	}
}
