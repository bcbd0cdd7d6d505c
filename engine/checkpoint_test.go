package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/checkpoint"
	"github.com/gantry-project/gantry/engine/checkpoint/checkpointtest"
	diskjail "github.com/gantry-project/gantry/engine/disk/jail"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/jail"
	layerjail "github.com/gantry-project/gantry/engine/layer/jail"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == jail.Verb {
		os.Exit(jail.Main(context.Background(), os.Args[2:], append(diskjail.RewriteWorks(), layerjail.Work(), diskjail.Work())...))
	}
	checkpointtest.Main()
	os.Exit(m.Run())
}

// criuAs puts a stand-in for criu first in PATH.
func criuAs(t *testing.T, c checkpointtest.Criu) {
	t.Helper()
	t.Setenv("PATH", filepath.Dir(checkpointtest.Install(t, c))+":"+os.Getenv("PATH"))
}

// restoring is a fixture whose runner restores, with a running container c.
func restoring(t *testing.T) (*engine.Engine, func()) {
	t.Helper()
	h := enginetest.NewHost(t, func(o *process.Options) { o.Restore = checkpoint.Restore })
	e, done := h.Engine(t)
	_, err := e.Import(t.Context(), engine.ImportRequest{Ref: "busybox", Content: bytes.NewReader(enginetest.Busybox(t)), ContainerFormat: "bare", DiskFormat: "raw"})
	check(t, err)
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	check(t, e.Start(t.Context(), "c", initRequest))
	return e, done
}

// idsOf is the first user id of a checkpoint's container.
func idsOf(t *testing.T, dir string) int {
	t.Helper()
	m, err := checkpoint.Read(dir)
	check(t, err)
	var caller struct {
		Base int `json:"id_base"`
	}
	check(t, json.Unmarshal(m.Caller, &caller))
	return caller.Base
}

func status(t *testing.T, e *engine.Engine, want engine.Status) engine.State {
	t.Helper()
	s, err := e.State(t.Context(), "c")
	if err != nil || s.Status != want {
		t.Errorf("state %+v, %v, want %s", s, err, want)
	}
	return s
}

// A host without criu, or with an old one, says so; the container runs on.
func TestCheckpointIsProbed(t *testing.T) {
	e, done := restoring(t)
	defer done()
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "checkpoint")
	req := engine.CheckpointRequest{Dir: dir}
	if err := e.Checkpoint(ctx, "absent", req); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of an absent one: %v", err)
	}
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	if err := e.Checkpoint(ctx, "c", req); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("without criu: %v", err)
	}
	t.Setenv("PATH", path)
	criuAs(t, checkpointtest.Criu{Version: "3.17.1"})
	if err := e.Checkpoint(ctx, "c", req); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "3.17.1 is too old") {
		t.Errorf("with an old criu: %v", err)
	}
	criuAs(t, checkpointtest.Criu{Says: "a socket is connected", Fails: true})
	err := e.Checkpoint(ctx, "c", req)
	if err == nil || !strings.Contains(err.Error(), "a socket is connected") {
		t.Errorf("a failed dump: %v", err)
	}
	if public := errdefs.PublicText(err, ""); public != "The state of the container could not be written." {
		t.Errorf("the tenant is told %q", public)
	}
	check(t, e.Pause(ctx, "c"))
	if err := e.Checkpoint(ctx, "c", req); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("of a paused one: %v", err)
	}
	check(t, e.Resume(ctx, "c"))
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("something is left of failed dumps: %v", err)
	}
	status(t, e, engine.StatusRunning)
	check(t, e.Delete(ctx, "c"))
}

func TestRestore(t *testing.T) {
	e, done := restoring(t)
	defer done()
	ctx := t.Context()
	dir, left := filepath.Join(t.TempDir(), "checkpoint"), filepath.Join(t.TempDir(), "checkpoint")
	criuAs(t, checkpointtest.Criu{})
	check(t, e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: left, LeaveRunning: true}))
	criuAs(t, checkpointtest.Criu{Command: []string{"/bin/sh", "-c", "echo restored; read line; echo told $line; exit 3"}, IDs: idsOf(t, left)})
	if err := e.Restore(ctx, "c", engine.RestoreRequest{Dir: left}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("restore of a running one: %v", err)
	}
	before := status(t, e, engine.StatusRunning)
	check(t, e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: dir}))
	status(t, e, engine.StatusStopped)
	if err := e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: filepath.Join(t.TempDir(), "x")}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("of one that does not run: %v", err)
	}
	check(t, e.Restore(ctx, "c", engine.RestoreRequest{Dir: dir, ConsoleBytes: 1 << 16}))
	after := status(t, e, engine.StatusRunning)
	if after.Process == before.Process || strings.Join(after.Args, " ") != strings.Join(before.Args, " ") {
		t.Errorf("restored %+v, was %+v", after, before)
	}
	console(t, e, "c", "restored")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/"+t.Name()) {
			t.Errorf("mount on the host: %s", line)
		}
	}
	con, err := e.Attach(ctx, "c", 0)
	check(t, err)
	_, err = con.Write([]byte("so\n"))
	check(t, errors.Join(err, con.Close()))
	if exit, err := e.Wait(ctx, "c"); err != nil || !exit.Known || exit.Code != 3 {
		t.Errorf("exit %+v, %v", exit, err)
	}
	console(t, e, "c", "told so")
	check(t, e.Start(ctx, "c", initRequest)) // still possible
	check(t, e.Delete(ctx, "c"))
}

// A restore that fails leaves the container stopped and the checkpoint.
func TestRestoreFails(t *testing.T) {
	e, done := restoring(t)
	defer done()
	dir := filepath.Join(t.TempDir(), "checkpoint")
	run := []string{"/bin/sh", "-c", "sleep 1000"}
	criuAs(t, checkpointtest.Criu{Command: run})
	check(t, e.Checkpoint(t.Context(), "c", engine.CheckpointRequest{Dir: dir}))
	m, err := checkpoint.Read(dir)
	check(t, err)
	ids := idsOf(t, dir)
	altered := func(old, changed string) string {
		other := t.TempDir()
		m := m
		m.Caller = json.RawMessage(strings.Replace(string(m.Caller), old, changed, 1))
		data, err := json.Marshal(m)
		check(t, errors.Join(err, os.WriteFile(filepath.Join(other, "gantry.json"), data, 0o600)))
		return other
	}
	for name, tt := range map[string]struct {
		dir, point, want string
		criu             checkpointtest.Criu
		is               error
	}{
		"relative":        {dir: "x", is: errdefs.ErrInvalid},
		"no checkpoint":   {dir: t.TempDir(), is: errdefs.ErrNotFound},
		"another's":       {dir: altered(`"id": "c"`, `"id": "d"`), is: errdefs.ErrConflict, want: `of container "d"`},
		"other ids":       {dir: altered(`"id_base": 1`, `"id_base": 2`), is: errdefs.ErrConflict, want: "user ids"},
		"old criu":        {criu: checkpointtest.Criu{Version: "4.1"}, is: errdefs.ErrUnsupported},
		"criu refuses":    {criu: checkpointtest.Criu{Says: "file /bin/sh has bad size", Fails: true}, want: "file /bin/sh has bad size"},
		"criu dies":       {criu: checkpointtest.Criu{Dies: true}, want: "without an answer"},
		"before anything": {point: "engine.start.begin", want: "injected"},
		"record":          {point: "engine.start.record", want: "injected"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.dir == "" {
				tt.dir = dir
			}
			tt.criu.Command, tt.criu.IDs = run, ids
			criuAs(t, tt.criu)
			if tt.point != "" {
				check(t, failpoint.Set(tt.point, "error"))
				defer func() { check(t, failpoint.Set(tt.point, "")) }()
			}
			err := e.Restore(t.Context(), "c", engine.RestoreRequest{Dir: tt.dir})
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one of %q", err, tt.want)
			}
			if public := errdefs.PublicText(err, ""); strings.Contains(public, "/") {
				t.Errorf("the tenant is told %q", public)
			}
			status(t, e, engine.StatusStopped)
		})
	}
	criuAs(t, checkpointtest.Criu{Command: run, IDs: ids})
	check(t, e.Restore(t.Context(), "c", engine.RestoreRequest{Dir: dir}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: filepath.Join(t.TempDir(), "x")}); err == nil {
		t.Error("a checkpoint after the end of its context")
	}
	check(t, e.Delete(t.Context(), "c"))
}
