//go:build functional && criu

package crash

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
)

// A restored container is one like the others: it outlives service, keeper and
// guard, its console goes on, and how it ends is known. Needs a criu in PATH (make
// criu).
func TestRestoredOutlivesKills(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	start := sh("n=0; trap 'n=$((n+1)); echo counted $n' USR1; trap 'echo ended $n; exit 7' TERM; echo ready; while :; do sleep 1000 & wait $!; done")
	if _, err := h.api.Create(ctx, api.Create{ID: "c", Image: image, Start: &start}); err != nil {
		t.Fatal(err)
	}
	says := func(want string) {
		t.Helper()
		until(t, patience, "the console says "+want, func() bool { return strings.Contains(h.console(t, "c", api.LogsRequest{}), want) })
	}
	says("ready")
	dir := filepath.Join(t.TempDir(), "checkpoint")
	if err := h.api.Checkpoint(ctx, "c", api.Checkpoint{Dir: dir}, api.Change{}); err != nil {
		t.Fatal(err)
	}
	if c, err := h.api.Container(ctx, "c"); err != nil || c.Status != engine.StatusStopped {
		t.Fatalf("after the checkpoint: %+v, %v", c, err)
	}
	c, err := h.api.Restore(ctx, "c", api.Restore{Dir: dir}, api.Change{})
	if err != nil {
		t.Fatal(err)
	}
	signal := func(want string) {
		t.Helper()
		if err := h.api.Kill(ctx, "c", int(syscall.SIGUSR1), api.Change{}); err != nil {
			t.Fatal(err)
		}
		says(want)
	}
	signal("counted 1")
	h.killKeeper(t)()
	signal("counted 2")
	h.end(t, syscall.SIGKILL)
	h.start(t, "")
	signal("counted 3")
	if now, err := h.api.Container(ctx, "c"); err != nil || now.Pid != c.Pid || now.Status != engine.StatusRunning {
		t.Errorf("after the kills %+v, %v; it was %+v", now, err, c)
	}
	if _, err := h.api.Stop(ctx, "c", api.Stop{Timeout: patience.Seconds()}, api.Change{}); err != nil {
		t.Fatal(err)
	}
	says("ended 3")
	if exit, err := h.api.Wait(ctx, "c"); err != nil || !exit.Known || exit.Code != 7 {
		t.Errorf("exit %+v, %v", exit, err)
	}
	// how it ends is not known everywhere then (docs/keeper.md)
	if _, err := h.api.Restore(ctx, "c", api.Restore{Dir: dir}, api.Change{}); err != nil {
		t.Fatal(err)
	}
	h.killGuard(t)()
	if err := h.api.Kill(ctx, "c", int(syscall.SIGUSR1), api.Change{}); err != nil {
		t.Fatal(err)
	}
	until(t, patience, "the console says it again", func() bool {
		return strings.Count(h.console(t, "c", api.LogsRequest{}), "counted 1") == 2
	})
	if err := h.api.Remove(ctx, "c", true, api.Change{}); err != nil {
		t.Error(err)
	}
	h.close(t)
}
