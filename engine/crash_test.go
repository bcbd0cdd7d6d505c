package engine_test

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// What the child of TestKilledAtEachPoint is told by its environment.
const (
	crashRoot  = "GANTRY_TEST_CRASH_ROOT"
	crashGroup = "GANTRY_TEST_CRASH_GROUP"
	crashPoint = "GANTRY_TEST_CRASH_POINT"
)

// TestCrashChild lives a container's life, and is killed at the point. It does
// nothing of its own accord.
func TestCrashChild(t *testing.T) {
	root := os.Getenv(crashRoot)
	if root == "" {
		return
	}
	ctx := t.Context()
	h := enginetest.HostAt(t, root, os.Getenv(crashGroup))
	e, _ := h.Engine(t)
	check(t, failpoint.Set(os.Getenv(crashPoint), "kill"))
	check(t, importOCI(t, e, "busybox", archive(t, enginetest.Busybox(t), oneFile(t, "root/told", "news"))))
	run(t, e, "c")
	console(t, e, "c", "with news")
	_, err := e.Update(ctx, "c", engine.LimitsChange{})
	check(t, err)
	built, err := e.Commit(ctx, "c")
	check(t, errors.Join(err, built.Content.Close()))
	_, err = e.CommitImage(ctx, "c", "mine")
	check(t, err)
	check(t, e.Delete(ctx, "c"))
	check(t, e.Create(ctx, engine.CreateRequest{ID: "d", Image: "mine"}))
	check(t, e.Delete(ctx, "d"))
	_, err = e.Collect(ctx, engine.GCOptions{})
	check(t, err)
}

// TestKilledAtEachPoint kills an engine with its runner, as the kernel would, at
// each boundary of each operation. The next one finds a whole container or none,
// never a frozen one, nothing that has no owner, and goes on.
func TestKilledAtEachPoint(t *testing.T) {
	for _, c := range []struct {
		point string
		want  engine.Status // of the container; "" is none
	}{
		{"engine.import.spool", ""},
		{"engine.import.layer", ""},
		{"engine.import.layer:2", ""},
		{"engine.import.record", ""},
		{"engine.create.begin", ""},
		{"engine.create.record", ""},
		{"engine.create.disk", ""},
		{"engine.start.begin", engine.StatusCreated},
		{"engine.start.record", engine.StatusCreated},
		{"engine.start.noted", engine.StatusRunning},
		{"engine.update.record", engine.StatusRunning},
		{"engine.commit.frozen", engine.StatusRunning},
		{"engine.commit.copied", engine.StatusRunning},
		{"engine.commit.packed", engine.StatusRunning},
		{"engine.commit.record", engine.StatusRunning},
		{"engine.layer.unpacked", ""},
		{"engine.layer.swapped", ""},
		{"engine.delete.begin", ""},
		{"engine.delete.ended", ""},
		{"engine.delete.unmounted", ""},
		{"engine.delete.record", ""},
		{"engine.collect.begin", ""},
		{"engine.collect.image", ""},
		{"engine.collect.layer", ""},
	} {
		t.Run(c.point, func(t *testing.T) {
			h := enginetest.NewHost(t)
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashChild$")
			child.Env = append(os.Environ(), "TMPDIR="+t.TempDir(), crashRoot+"="+h.Root, crashGroup+"="+h.Group(), crashPoint+"="+c.point)
			out, err := child.CombinedOutput()
			if status, ok := errors.AsType[*exec.ExitError](err); !ok || status.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v\n%s", err, out)
			}
			e, done := h.Engine(t)
			defer done()
			settled(t, e)
			all, err := e.List(t.Context())
			check(t, err)
			switch {
			case c.want == "" && len(all) != 0:
				t.Errorf("containers %+v", all)
			case c.want != "" && (len(all) != 1 || !slices.Contains([]engine.Status{c.want, engine.StatusStopped}, all[0].Status)):
				// a shell may end with its console, which the lost runner held
				t.Errorf("containers %+v, want one that is %s", all, c.want)
			}
			if found, err := e.Check(t.Context(), engine.CheckOptions{Deep: true}); err != nil || len(found) != 0 {
				t.Errorf("found %+v %v", found, err)
			}
			check(t, e.Delete(t.Context(), "c"))
			_, err = e.Collect(t.Context(), engine.GCOptions{})
			check(t, err)
			if layers, left := entries(t, h, "snapshots/layers"), entries(t, h, "tmp"); layers != 0 || left != 0 {
				t.Errorf("%d layers, %d temporary files left", layers, left)
			}
			nothing(t, h, e)
		})
	}
}
