//go:build criu

package engine_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/checkpoint"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/process"
)

// These tests need a real criu in PATH (make criu).

func criuFixture(t *testing.T) (*enginetest.Host, *engine.Engine, func()) {
	t.Helper()
	h := enginetest.NewHost(t, func(o *process.Options) { o.Restore = checkpoint.Restore })
	e, done := h.Engine(t)
	_, err := e.Import(t.Context(), engine.ImportRequest{Ref: "busybox", Content: bytes.NewReader(enginetest.Busybox(t)), ContainerFormat: "bare", DiskFormat: "raw"})
	check(t, err)
	return h, e, done
}

func TestCriu(t *testing.T) {
	_, e, done := criuFixture(t)
	defer done()
	ctx := t.Context()
	check(t, e.Create(ctx, engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	r := initRequest
	r.Args = []string{"/bin/sh", "-c", "n=0; trap 'n=$((n+1)); echo counted $n' USR1; trap 'echo ended $n; exit 7' TERM; echo ready; while :; do sleep 1000 & wait $!; done"}
	check(t, e.Start(ctx, "c", r))
	console(t, e, "c", "ready")
	check(t, e.Kill(ctx, "c", 10))
	console(t, e, "c", "counted 1")
	dir := filepath.Join(t.TempDir(), "images")
	check(t, e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: dir}))
	s, err := e.State(ctx, "c")
	check(t, err)
	if s.Status != engine.StatusStopped {
		t.Errorf("after the checkpoint: %+v", s)
	}
	check(t, e.Restore(ctx, "c", engine.RestoreRequest{Dir: dir, ConsoleBytes: 1 << 16}))
	check(t, e.Kill(ctx, "c", 10))
	console(t, e, "c", "counted 2")
	check(t, e.Stop(ctx, "c", engine.StopRequest{Timeout: 20e9}))
	out := console(t, e, "c", "ended 2")
	if strings.Count(out, "ready") != 1 {
		t.Errorf("console %q", out)
	}
	s, err = e.State(ctx, "c")
	if err != nil || !s.Exit.Known || s.Exit.Code != 7 {
		t.Errorf("exit: %+v %v", s, err)
	}
	check(t, e.Delete(ctx, "c"))
}
