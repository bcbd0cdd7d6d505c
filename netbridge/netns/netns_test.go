//go:build linux

package netns_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/netns"
)

func id(t *testing.T, path string) string {
	t.Helper()
	s, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNewOpenDo(t *testing.T) {
	const self = "/proc/thread-self/ns/net"
	own := id(t, self)
	f, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if id(t, path) == own {
		t.Fatal("not a new namespace")
	}
	g, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	want := errors.New("from inside")
	var inside string
	if err := netns.Do(g, func() error { inside = id(t, self); return want }); !errors.Is(err, want) {
		t.Fatalf("Do = %v", err)
	}
	if inside != id(t, path) {
		t.Fatalf("was in %s", inside)
	}
	if err := netns.Do(nil, func() error { inside = id(t, self); return nil }); err != nil || inside != own {
		t.Fatalf("Do(nil) in %s: %v", inside, err)
	}
	// No thread of ours stays behind.
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(tasks) == 0 {
		t.Fatal(tasks, err)
	}
	for _, task := range tasks {
		if s, err := os.Readlink(task); err == nil && s != own {
			t.Fatalf("%s is in %s", task, s)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/nonexistent", file, "/proc/self/ns/mnt", t.TempDir()} {
		if f, err := netns.Open(path); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("Open(%s) = %v, %v", path, f, err)
		}
	}
}
