package runtime_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/runtime"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestLife(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	f.spec.Annotations = map[string]string{"a": "b"}
	f.configure("sh", "-c", "echo begun > /tmp/begun; sleep 1000")
	req := f.request("box")
	req.PidFile = filepath.Join(t.TempDir(), "pid")
	if err := f.Create(ctx, req); err != nil {
		t.Fatal(err)
	}
	s := f.await("box", runtime.Created)
	if pid, err := os.ReadFile(req.PidFile); err != nil || string(pid) != strconv.Itoa(s.Pid) {
		t.Errorf("pid file %q, state %d, %v", pid, s.Pid, err)
	}
	if s.Bundle != f.bundle || s.Annotations["a"] != "b" || s.Rootfs != filepath.Join(f.bundle, "rootfs") {
		t.Errorf("%+v", s)
	}
	class(t, "second create", f.Create(ctx, f.request("box")), errdefs.ErrAlreadyExists)
	class(t, "delete of a created one", f.Delete(ctx, "box", false), errdefs.ErrConflict)
	if _, err := os.Stat(filepath.Join(f.bundle, "rootfs/tmp/begun")); err == nil {
		t.Error("the command runs before start")
	}

	other := f.open() // start by somebody else
	if err := other.Start(ctx, "box"); err != nil {
		t.Fatal(err)
	}
	f.await("box", runtime.Running)
	class(t, "second start", f.Start(ctx, "box"), errdefs.ErrConflict)
	class(t, "delete of a running one", other.Delete(ctx, "box", false), errdefs.ErrConflict)
	if pids, err := f.Processes(ctx, "box"); err != nil || len(pids) == 0 {
		t.Errorf("processes %v, %v", pids, err)
	}
	if st, err := f.Stats(ctx, "box"); err != nil || st.Pids == 0 {
		t.Errorf("%+v, %v", st, err)
	}

	if err := f.Kill(ctx, "box", int(unix.SIGKILL), false); err != nil {
		t.Fatal(err)
	}
	f.await("box", runtime.Stopped)
	class(t, "kill of a dead one", f.Kill(ctx, "box", int(unix.SIGTERM), false), errdefs.ErrConflict)
	class(t, "start of a dead one", f.Start(ctx, "box"), errdefs.ErrConflict)
	class(t, "pause of a dead one", f.Pause(ctx, "box"), errdefs.ErrConflict)
	if err := other.Delete(ctx, "box", false); err != nil {
		t.Fatal(err)
	}
	class(t, "second delete", f.Delete(ctx, "box", false), errdefs.ErrNotFound)
	if err := f.Delete(ctx, "box", true); err != nil {
		t.Errorf("second delete by force: %v", err)
	}
}

func TestUnknownAndBadIDs(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	f.configure("true")
	for id, want := range map[string]error{
		"absent": errdefs.ErrNotFound, "": errdefs.ErrInvalid, "a/b": errdefs.ErrInvalid, "..": errdefs.ErrInvalid, ".hidden": errdefs.ErrInvalid,
		"a b": errdefs.ErrInvalid, "a\x00": errdefs.ErrInvalid, "ä": errdefs.ErrInvalid, strings.Repeat("x", 200): errdefs.ErrInvalid,
	} {
		_, err := f.State(ctx, id)
		class(t, "state "+id, err, want)
		class(t, "start "+id, f.Start(ctx, id), want)
		class(t, "kill "+id, f.Kill(ctx, id, 15, false), want)
		class(t, "delete "+id, f.Delete(ctx, id, false), want)
		class(t, "pause "+id, f.Pause(ctx, id), want)
		class(t, "resume "+id, f.Resume(ctx, id), want)
		class(t, "update "+id, f.Update(ctx, id, &specs.LinuxResources{}), want)
		_, err = f.Exec(ctx, runtime.ExecRequest{ID: id})
		class(t, "exec "+id, err, want)
		if want != errdefs.ErrNotFound {
			class(t, "create "+id, f.Create(ctx, f.request(id)), want)
		}
	}
	if _, err := f.State(ctx, "absent"); !strings.Contains(err.Error(), "container does not exist") {
		t.Errorf("%v: other engines look for runc's text", err)
	}
}

// Nothing is left of a creation that fails, whatever it fails at, and the id
// may be used again.
func TestFailedCreate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		want   error
		change func(f *fixture, req *runtime.CreateRequest)
	}{
		{"no config", errdefs.ErrInvalid, func(f *fixture, req *runtime.CreateRequest) { req.Bundle = f.t.TempDir() }},
		{"no root file system", errdefs.ErrInvalid, func(f *fixture, _ *runtime.CreateRequest) { f.spec.Root.Path = "absent" }},
		{"relative working directory", errdefs.ErrInvalid, func(f *fixture, _ *runtime.CreateRequest) { f.spec.Process.Cwd = "x" }},
		{"unknown file system", errdefs.ErrInvalid, func(f *fixture, _ *runtime.CreateRequest) {
			f.spec.Mounts = append(f.spec.Mounts, specs.Mount{Destination: "/x", Type: "nosuchfs", Source: "none"})
		}},
		{"terminal without a socket", errdefs.ErrInvalid, func(f *fixture, _ *runtime.CreateRequest) { f.spec.Process.Terminal = true }},
		{"socket without a terminal", errdefs.ErrInvalid, func(_ *fixture, req *runtime.CreateRequest) { req.ConsoleSocket = "/x" }},
		{"quota below the kernel's", errdefs.ErrInvalid, func(f *fixture, _ *runtime.CreateRequest) {
			q := int64(1)
			f.spec.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &q}
		}},
		{"hook that fails", nil, func(f *fixture, _ *runtime.CreateRequest) {
			f.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
		}},
		{"pid file in no directory", nil, func(f *fixture, req *runtime.CreateRequest) { req.PidFile = f.bundle + "/absent/pid" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			req := f.request("box")
			tt.change(f, &req)
			f.configure("sleep", "1000")
			err := f.Create(t.Context(), req)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Fatalf("%v, want class %v", err, tt.want)
			}
			_, err = f.State(t.Context(), "box")
			class(t, "state", err, errdefs.ErrNotFound)
			*f.spec = *runtime.Template()
			f.spec.Process.Terminal = false
			f.create("box", "true")
		})
	}
}

func TestStartReportsTheCommand(t *testing.T) {
	f := newFixture(t)
	f.create("box", "nosuch")
	class(t, "start", f.Start(t.Context(), "box"), errdefs.ErrInvalid)
	f.await("box", runtime.Stopped)
	if err := f.Delete(t.Context(), "box", false); err != nil {
		t.Error(err)
	}
}

func TestConcurrentCreate(t *testing.T) {
	f := newFixture(t)
	f.configure("sleep", "1000")
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		r := f.open()
		wg.Go(func() { errs[i] = r.Create(t.Context(), f.request("box")) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			class(t, "create", err, errdefs.ErrAlreadyExists)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d won", won, len(errs))
	}
}

func TestRun(t *testing.T) {
	f := newFixture(t)
	f.configure("sh", "-c", "echo out; id -u; exit 7")
	req := runtime.RunRequest{CreateRequest: f.request("box")}
	req.Stdio[1] = output(t)
	status, err := f.Run(t.Context(), req)
	if err != nil || status != 7 || text(t, req.Stdio[1]) != "out\n0\n" {
		t.Errorf("%d, %v, %q", status, err, text(t, req.Stdio[1]))
	}
	_, err = f.State(t.Context(), "box")
	class(t, "state", err, errdefs.ErrNotFound)

	f.configure("sh", "-c", "kill -TERM $$")
	f.spec.Linux.Namespaces = append([]specs.LinuxNamespace{}, f.spec.Linux.Namespaces[1:]...) // the host's pids
	f.configure("sh", "-c", "kill -TERM $$")
	if status, err = f.Run(t.Context(), runtime.RunRequest{CreateRequest: f.request("box")}); err != nil || status != 128+15 {
		t.Errorf("%d, %v", status, err)
	}
	f.configure("nosuch")
	_, err = f.Run(t.Context(), runtime.RunRequest{CreateRequest: f.request("box")})
	class(t, "run", err, errdefs.ErrInvalid)
}

func TestRunPassesSignals(t *testing.T) {
	f := newFixture(t)
	f.configure("sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done")
	signals := make(chan os.Signal, 1)
	req := runtime.RunRequest{CreateRequest: f.request("box"), Signals: signals}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	req.Stdio[1] = in
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = out.Read(make([]byte, 6))
		signals <- unix.SIGTERM
	})
	status, err := f.Run(t.Context(), req)
	in.Close()
	wg.Wait()
	if err != nil || status != 9 {
		t.Errorf("%d, %v", status, err)
	}
}

func TestExec(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	f.create("box", "sleep", "1000")
	command := func(args ...string) func(*specs.Process) (*specs.Process, error) {
		return func(p *specs.Process) (*specs.Process, error) {
			p.Args = args
			return p, nil
		}
	}
	if err := f.Start(ctx, "box"); err != nil {
		t.Fatal(err)
	}
	req := runtime.ExecRequest{ID: "box", Process: command("sh", "-c", "readlink /proc/self/ns/pid; readlink /proc/1/ns/pid; exit 3")}
	req.Stdio[1] = output(t)
	status, err := f.open().Exec(ctx, req)
	lines := strings.Fields(text(t, req.Stdio[1]))
	if err != nil || status != 3 || len(lines) != 2 || lines[0] != lines[1] {
		t.Errorf("%d, %v, %q", status, err, lines)
	}
	_, err = f.open().Exec(ctx, runtime.ExecRequest{ID: "box", Process: command("nosuch")})
	class(t, "exec of nothing", err, errdefs.ErrInvalid)

	pidFile := filepath.Join(t.TempDir(), "pid")
	if _, err := f.open().Exec(ctx, runtime.ExecRequest{ID: "box", Process: command("sleep", "1000"), Detach: true, PidFile: pidFile}); err != nil {
		t.Fatal(err)
	}
	pids, err := f.Processes(ctx, "box")
	if data, _ := os.ReadFile(pidFile); err != nil || len(pids) != 2 || !strings.Contains(strconv.Itoa(pids[0])+" "+strconv.Itoa(pids[1]), string(data)) {
		t.Errorf("%v, %v, pid file %q", pids, err, data)
	}

	if err := f.Pause(ctx, "box"); err != nil {
		t.Fatal(err)
	}
	f.await("box", runtime.Paused)
	_, err = f.open().Exec(ctx, runtime.ExecRequest{ID: "box", Process: command("true")})
	class(t, "exec in a paused one", err, errdefs.ErrConflict)
	class(t, "second pause", f.Pause(ctx, "box"), errdefs.ErrConflict)
	if err := f.Resume(ctx, "box"); err != nil {
		t.Fatal(err)
	}
	f.await("box", runtime.Running)
	class(t, "second resume", f.Resume(ctx, "box"), errdefs.ErrConflict)
}

// A record whose process number belongs to another process by now is that of a
// stopped container, and nobody else is signalled.
func TestReusedPid(t *testing.T) {
	f := newFixture(t)
	f.create("box", "sleep", "1000")
	path := filepath.Join(f.root, "box", "state.json")
	var rec map[string]any
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &rec)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Kill(t.Context(), "box", int(unix.SIGKILL), false); err != nil {
		t.Fatal(err)
	}
	f.await("box", runtime.Stopped)
	process, ok := rec["process"].(map[string]any)
	if !ok {
		t.Fatal(rec)
	}
	process["pid"] = os.Getpid()
	if data, err = json.Marshal(rec); err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s, err := f.State(t.Context(), "box"); err != nil || s.Status != runtime.Stopped {
		t.Errorf("%+v, %v", s, err)
	}
	class(t, "kill", f.Kill(t.Context(), "box", 0, false), errdefs.ErrConflict)
	if err := f.Delete(t.Context(), "box", true); err != nil {
		t.Error(err)
	}
}

func TestDamagedRecord(t *testing.T) {
	f := newFixture(t)
	f.create("box", "sleep", "1000")
	if err := os.WriteFile(filepath.Join(f.root, "box", "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := f.State(t.Context(), "box")
	class(t, "state", err, errdefs.ErrCorrupt)
	class(t, "delete", f.Delete(t.Context(), "box", false), errdefs.ErrCorrupt)
	if _, err := f.List(t.Context()); err == nil {
		t.Error("list says nothing of it")
	}
	if err := f.Delete(t.Context(), "box", true); err != nil {
		t.Error(err)
	}
}

func TestUpdate(t *testing.T) {
	f := newFixture(t)
	f.create("box", "sleep", "1000")
	n := int64(17)
	if err := f.Update(t.Context(), "box", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}}); err != nil {
		t.Fatal(err)
	}
	if s, err := f.Stats(t.Context(), "box"); err != nil || s.PidsLimit != n {
		t.Errorf("%+v, %v", s, err)
	}
	bad := int64(-5)
	class(t, "bad limit", f.Update(t.Context(), "box", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &bad}}), errdefs.ErrInvalid)
	if s, err := f.Stats(t.Context(), "box"); err != nil || s.PidsLimit != n {
		t.Errorf("after a refused update: %+v, %v", s, err)
	}
}

func TestHooks(t *testing.T) {
	f := newFixture(t)
	log := filepath.Join(t.TempDir(), "log")
	hook := func(point string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "read -r l; echo " + point + " \"$l\" >> " + log}}}
	}
	f.spec.Hooks = &specs.Hooks{CreateRuntime: hook("createRuntime"), Poststart: hook("poststart"), Poststop: hook("poststop")}
	f.configure("true")
	if _, err := f.Run(t.Context(), runtime.RunRequest{CreateRequest: f.request("box")}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"createRuntime creating", "poststart running", "poststop stopped"}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%q", lines)
	}
	for i, line := range lines {
		point, state, _ := strings.Cut(line, " ")
		var s specs.State
		if err := json.Unmarshal([]byte(state), &s); err != nil || point+" "+string(s.Status) != want[i] || s.ID != "box" {
			t.Errorf("%q, want %s: %v", line, want[i], err)
		}
	}
}

func TestKillAll(t *testing.T) {
	f := newFixture(t)
	f.create("box", "sleep", "1000")
	if err := f.Kill(t.Context(), "box", int(unix.SIGKILL), true); err != nil {
		t.Fatal(err)
	}
	f.await("box", runtime.Stopped)
	if err := f.Kill(t.Context(), "box", int(unix.SIGKILL), true); err != nil {
		t.Errorf("of none: %v", err)
	}
}

// Create that is cut off by its context leaves nothing.
func TestCreateCancelled(t *testing.T) {
	f := newFixture(t)
	f.configure("sleep", "1000")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Create(ctx, f.request("box")); err == nil {
		t.Fatal("created")
	}
	_, err := f.State(t.Context(), "box")
	class(t, "state", err, errdefs.ErrNotFound)
}
