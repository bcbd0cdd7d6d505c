package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

var (
	limits      = cgroup.Limits{MemoryBytes: 64 << 20, SwapBytes: -1, CPUQuota: 100000, CPUPeriod: 100000, Pids: 512}
	initRequest = engine.StartRequest{
		Hostname: "guest", Candidates: [][]string{{"/sbin/init"}, {"/bin/sh"}},
		Env: []string{"PATH=/bin:/sbin"}, ConsoleBytes: 1 << 16,
	}
)

// fixture is an engine with the busybox image.
func fixture(t *testing.T) (*enginetest.Host, *engine.Engine, func()) {
	t.Helper()
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	if _, err := e.Import(t.Context(), engine.ImportRequest{Ref: "busybox", Content: bytes.NewReader(enginetest.Busybox(t)), ContainerFormat: "bare", DiskFormat: "raw"}); err != nil {
		t.Fatal(err)
	}
	return h, e, done
}

// console polls the console for a text.
func console(t *testing.T, e *engine.Engine, id engine.ContainerID, want string) string {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var out []byte
	for range 12000 {
		var err error
		if out, err = e.Console(t.Context(), id, -1); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(out), want) {
			return string(out)
		}
		<-tick.C
	}
	t.Fatalf("the console says %q, not %q", out, want)
	return ""
}

func run(t *testing.T, e *engine.Engine, id engine.ContainerID) {
	t.Helper()
	if err := e.Create(t.Context(), engine.CreateRequest{ID: id, Image: "busybox", Limits: limits}); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context(), id, initRequest); err != nil {
		t.Fatal(err)
	}
}

func TestLifeOfAContainer(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	ctx := t.Context()
	run(t, e, "one")
	console(t, e, "one", "up as 1 with nothing")
	if err := e.Create(ctx, engine.CreateRequest{ID: "one", Image: "busybox"}); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("second create: %v", err)
	}
	if err := e.Start(ctx, "one", initRequest); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("second start: %v", err)
	}
	if use, err := e.Stats(ctx, "one"); err != nil || use.MemoryBytes <= 0 || use.Pids < 1 {
		t.Errorf("stats %+v %v", use, err)
	}
	for range 2 { // idempotent
		if err := e.Pause(ctx, "one"); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := e.State(ctx, "one"); err != nil || s.Status != engine.StatusPaused {
		t.Errorf("paused: %+v %v", s, err)
	}
	if err := e.Resume(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	if err := e.Stop(ctx, "one", engine.StopRequest{Timeout: 20 * time.Second, Retry: time.Second}); err != nil {
		t.Fatal(err)
	}
	s, err := e.State(ctx, "one")
	if err != nil || s.Status != engine.StatusStopped || !s.Exit.Known || s.Exit.Code != 0 {
		t.Errorf("stopped: %+v %v", s, err)
	}
	if ev := <-e.Events(); ev.ID != "one" {
		t.Errorf("event %+v", ev)
	}
	// the disk and the console survive a start
	if err := e.Start(ctx, "one", initRequest); err != nil {
		t.Fatal(err)
	}
	out := console(t, e, "one", "bye")
	if strings.Count(out, "up as 1") > 2 {
		t.Errorf("console %q", out)
	}
	if err := e.Delete(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	if err := e.Delete(ctx, "one"); err != nil {
		t.Errorf("second delete: %v", err)
	}
	if _, err := e.State(ctx, "one"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("state after delete: %v", err)
	}
}

func TestTwoContainersShareLayersAndNothingElse(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	run(t, e, "one")
	run(t, e, "two")
	a, b := mapOf(t, e, "one"), mapOf(t, e, "two")
	if a == b {
		t.Errorf("both have the ids %s", a)
	}
	layers, err := os.ReadDir(filepath.Join(h.Root, "snapshots/layers"))
	if err != nil || len(layers) != 1 {
		t.Errorf("layers %v %v", layers, err)
	}
	for _, id := range []engine.ContainerID{"one", "two"} {
		if err := e.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func mapOf(t *testing.T, e *engine.Engine, id engine.ContainerID) string {
	t.Helper()
	s, err := e.State(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", s.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestContainersOutliveTheEngine(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "on")
	run(t, e, "ends")
	run(t, e, "frozen")
	before := console(t, e, "on", "up as 1")
	pid := func(e *engine.Engine, id engine.ContainerID) int {
		s, err := e.State(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return s.Process.Pid
	}
	onPid, endsPid := pid(e, "on"), pid(e, "ends")
	if err := e.Pause(t.Context(), "frozen"); err != nil {
		t.Fatal(err)
	}
	done()

	if err := unix.Kill(endsPid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Runner.Wait(t.Context(), "ends"); err != nil {
		t.Fatal(err)
	}
	e, done = h.Engine(t)
	defer done()
	if got := pid(e, "on"); got != onPid {
		t.Errorf("adopted pid %d, was %d", got, onPid)
	}
	if s, err := e.State(t.Context(), "ends"); err != nil || s.Status != engine.StatusStopped || s.Exit.Signal != 9 {
		t.Errorf("ended meanwhile: %+v %v", s, err)
	}
	if s, err := e.State(t.Context(), "frozen"); err != nil || s.Status != engine.StatusPaused {
		t.Errorf("paused: %+v %v", s, err)
	}
	if after := console(t, e, "on", "up as 1"); !strings.HasPrefix(after, before) {
		t.Errorf("console %q, was %q", after, before)
	}
	for _, id := range []engine.ContainerID{"on", "ends", "frozen"} {
		if err := e.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func TestAFailedStepLeavesNothingAndTheNextTryWorks(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	for _, point := range []string{"engine.create.record", "engine.create.disk", "engine.start.record"} {
		if err := failpoint.Set(point, "error"); err != nil {
			t.Fatal(err)
		}
		err := e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits})
		if err == nil {
			err = e.Start(t.Context(), "c", initRequest)
			if s, serr := e.State(t.Context(), "c"); serr != nil || s.Status != engine.StatusCreated {
				t.Errorf("%s: state %+v %v", point, s, serr)
			}
			if derr := e.Delete(t.Context(), "c"); derr != nil {
				t.Errorf("%s: %v", point, derr)
			}
		}
		if !errors.Is(err, failpoint.ErrInjected) {
			t.Errorf("%s: error %v", point, err)
		}
		if err := failpoint.Set(point, ""); err != nil {
			t.Fatal(err)
		}
		if all, err := e.List(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("%s: left %v %v", point, all, err)
		}
	}
	run(t, e, "c")
	if err := e.Delete(t.Context(), "c"); err != nil {
		t.Error(err)
	}
}

func TestCommandsThatCannotRun(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	for name, args := range map[string][]string{"missing": {"/bin/nowhere"}, "directory": {"/etc"}, "no program": {"/etc/passwd"}} {
		if err := e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}); err != nil {
			t.Fatal(err)
		}
		err := e.Start(t.Context(), "c", engine.StartRequest{Args: args, ConsoleBytes: 1 << 16})
		if !errors.Is(err, errdefs.ErrInvalid) || errdefs.PublicText(err, "") == "" {
			t.Errorf("%s: %v", name, err)
		}
		if err := e.Delete(t.Context(), "c"); err != nil {
			t.Error(err)
		}
	}
}

func TestCommitCarriesChangesIntoANewImage(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	ctx := t.Context()
	if err := e.Create(ctx, engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}); err != nil {
		t.Fatal(err)
	}
	req := initRequest
	req.Files = []process.File{{Path: "/root/told", Data: []byte("news"), Mode: 0o644}}
	if err := e.Start(ctx, "c", req); err != nil {
		t.Fatal(err)
	}
	console(t, e, "c", "with news")
	out, err := e.Commit(ctx, "c")
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if _, err := io.Copy(&archive, out.Content); err != nil {
		t.Fatal(err)
	}
	if err := out.Content.Close(); err != nil {
		t.Fatal(err)
	}
	if int64(archive.Len()) != out.Size {
		t.Errorf("%d bytes, said %d", archive.Len(), out.Size)
	}
	info, err := e.Import(ctx, engine.ImportRequest{Ref: "snap", Content: &archive, ContainerFormat: "docker", DiskFormat: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Create(ctx, engine.CreateRequest{ID: "again", Image: "snap", Limits: limits}); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(ctx, "again", engine.StartRequest{Args: info.Config.Cmd, Env: initRequest.Env, ConsoleBytes: 1 << 16}); err != nil {
		t.Fatal(err)
	}
	console(t, e, "again", "with news")
	for _, id := range []engine.ContainerID{"c", "again"} {
		if err := e.Delete(ctx, id); err != nil {
			t.Error(err)
		}
	}
}

func TestDamagedImportLeavesNothing(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	bad := io.MultiReader(bytes.NewReader(enginetest.Busybox(t)[:4096]), failing{})
	if _, err := e.Import(t.Context(), engine.ImportRequest{Ref: "bad", Content: bad}); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("import: %v", err)
	}
	cut := bytes.NewReader(enginetest.Busybox(t)[:40960])
	if _, err := e.Import(t.Context(), engine.ImportRequest{Ref: "cut", Content: cut}); err == nil {
		t.Error("a cut archive was imported")
	}
	if left := files(t, filepath.Join(h.Root, "tmp")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errdefs.ErrCorrupt }

func TestDeleteOvertakesAStop(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	ctx := t.Context()
	if err := e.Create(ctx, engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}); err != nil {
		t.Fatal(err)
	}
	deaf := engine.StartRequest{Args: []string{"/bin/sh", "-c", "trap : TERM; echo ready; while :; do sleep 1000 & wait $!; done"}, Env: initRequest.Env, ConsoleBytes: 1 << 16}
	if err := e.Start(ctx, "c", deaf); err != nil {
		t.Fatal(err)
	}
	console(t, e, "c", "ready")
	stopped := make(chan error, 1)
	go func() {
		stopped <- e.Stop(context.WithoutCancel(ctx), "c", engine.StopRequest{Timeout: time.Hour, Retry: time.Hour})
	}()
	if err := e.Delete(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("stop: %v", err)
	}
}
