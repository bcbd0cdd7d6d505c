package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// criuAs puts a stand-in for criu first in PATH.
func criuAs(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "criu"), []byte("#!/bin/sh\n"+script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// A host without criu, or with an old one, says so; the container runs on.
func TestCheckpointIsProbed(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	ctx := t.Context()
	check(t, e.Create(ctx, engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	dir := filepath.Join(t.TempDir(), "images")
	if err := e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: dir}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("of one that does not run: %v", err)
	}
	if err := e.Checkpoint(ctx, "absent", engine.CheckpointRequest{Dir: dir}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of an absent one: %v", err)
	}
	check(t, e.Start(ctx, "c", initRequest))
	criuAs(t, "echo Version: 3.17.1\n")
	err := e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: dir})
	if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "3.17.1 is too old") {
		t.Errorf("with an old criu: %v", err)
	}
	criuAs(t, "case $1 in --version) echo Version: 4.2;; dump) exit 1;; esac\n")
	if err := e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: dir}); err == nil {
		t.Error("a failed dump is none")
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("something is left of a failed dump: %v", err)
	}
	criuAs(t, "case $1 in --version) echo Version: 4.2;; esac\n")
	check(t, e.Checkpoint(ctx, "c", engine.CheckpointRequest{Dir: dir, LeaveRunning: true}))
	if s, err := e.State(ctx, "c"); err != nil || s.Status != engine.StatusRunning {
		t.Errorf("state: %+v, %v", s, err)
	}
	if err := e.Restore(ctx, "c", dir); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("restore of a running one: %v", err)
	}
	check(t, e.Stop(ctx, "c", engine.StopRequest{}))
	t.Setenv("PATH", t.TempDir())
	if err := e.Restore(ctx, "c", dir); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("restore without criu: %v", err)
	}
	check(t, e.Delete(ctx, "c"))
}
