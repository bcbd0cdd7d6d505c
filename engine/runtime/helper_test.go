package runtime_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine/runtime"
)

// fixture is a runtime with a root of its own and a bundle whose root file
// system is busybox.
type fixture struct {
	*runtime.Runtime
	t      *testing.T
	root   string
	bundle string
	spec   *specs.Spec
	groups string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, root: filepath.Join(t.TempDir(), "root"), bundle: t.TempDir(), spec: runtime.Template()}
	f.groups = "gantry-test-" + filepath.Base(filepath.Dir(f.bundle))
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(f.bundle, "rootfs", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.bundle, "rootfs/bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "true", "cat", "id", "tty", "ls", "readlink"} {
		if err := os.Symlink("busybox", filepath.Join(f.bundle, "rootfs/bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	f.spec.Process.Terminal = false
	f.spec.Root.Readonly = false
	f.Runtime = f.open()
	t.Cleanup(f.sweep)
	return f
}

// open is another process's view of the same root.
func (f *fixture) open() *runtime.Runtime {
	f.t.Helper()
	r, err := runtime.New(f.t.Context(), runtime.Options{Root: f.root, Groups: f.groups, Log: zerolog.New(zerolog.NewTestWriter(f.t))})
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// sweep deletes what is left and checks that nothing is.
func (f *fixture) sweep() {
	ctx := f.t.Context()
	if ctx.Err() != nil {
		ctx = context.WithoutCancel(ctx)
	}
	list, err := f.List(ctx)
	if err != nil {
		f.t.Error(err)
	}
	for _, s := range list {
		if err := f.Delete(ctx, s.ID, true); err != nil {
			f.t.Error(err)
		}
	}
	if left, _ := os.ReadDir(f.root); len(left) > 0 {
		f.t.Errorf("%s holds %v", f.root, left)
	}
	trees, _ := filepath.Glob("/sys/fs/cgroup/*/" + f.groups)
	more, _ := filepath.Glob("/sys/fs/cgroup/" + f.groups)
	for _, dir := range append(trees, more...) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			f.t.Errorf("control group is left: %v", err)
		}
	}
}

// configure writes config.json for a command.
func (f *fixture) configure(args ...string) {
	f.t.Helper()
	f.spec.Process.Args = args
	data, err := json.Marshal(f.spec)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.bundle, "config.json"), data, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) request(id string) runtime.CreateRequest {
	return runtime.CreateRequest{ID: id, Bundle: f.bundle}
}

// create makes a container of a command.
func (f *fixture) create(id string, args ...string) {
	f.t.Helper()
	f.configure(args...)
	if err := f.Create(f.t.Context(), f.request(id)); err != nil {
		f.t.Fatal(err)
	}
}

// await polls until a container has the status.
func (f *fixture) await(id string, want runtime.Status) runtime.State {
	f.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(2 * time.Minute)
	for {
		s, err := f.State(f.t.Context(), id)
		if err != nil {
			f.t.Fatal(err)
		}
		if s.Status == want {
			return s
		}
		select {
		case <-tick.C:
		case <-end:
			f.t.Fatalf("%s is %s, want %s", id, s.Status, want)
		}
	}
}

// class checks an error's class.
func class(t *testing.T, op string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want class %v", op, err, want)
	}
}

// output is a file for a command's standard output.
func output(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func text(t *testing.T, f *os.File) string {
	t.Helper()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
