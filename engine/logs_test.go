package engine_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func logs(t *testing.T, e *engine.Engine, req engine.LogsRequest) string {
	t.Helper()
	r, err := e.Logs(t.Context(), "c", req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestLogs(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	if _, err := e.Logs(t.Context(), "c", engine.LogsRequest{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	script(t, e, "trap 'echo asked; exit 0' TERM; echo one; echo two; echo ready; "+forever, limits)
	console(t, e, "c", "ready")
	for name, tc := range map[string]struct {
		req  engine.LogsRequest
		want string
	}{
		"all":  {engine.LogsRequest{}, "one\ntwo\nready\n"},
		"tail": {engine.LogsRequest{Lines: 2}, "two\nready\n"},
		"none": {engine.LogsRequest{Lines: -1}, ""},
	} {
		if got := logs(t, e, tc.req); got != tc.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := e.Logs(ctx, "c", engine.LogsRequest{Follow: true, Lines: -1})
	check(t, err)
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	check(t, r.Close())
	result := make(chan string, 1)
	go func() { result <- logs(t, e, engine.LogsRequest{Follow: true, Lines: 1}) }()
	check(t, e.Kill(t.Context(), "c", int(unix.SIGTERM)))
	// the follower ends with the container and has all of it
	if got := <-result; !strings.HasSuffix(got, "asked\n") {
		t.Errorf("followed: %q", got)
	}
	if got := logs(t, e, engine.LogsRequest{Follow: true, Lines: 1}); got != "asked\n" {
		t.Errorf("following a stopped one: %q", got)
	}
	check(t, e.Delete(t.Context(), "c"))
}

func TestKill(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	script(t, e, "trap 'echo usr1' USR1; echo ready; "+forever, limits)
	console(t, e, "c", "ready")
	check(t, e.Kill(t.Context(), "c", int(unix.SIGUSR1)))
	console(t, e, "c", "usr1")
	for _, sig := range []int{0, -1, 65} {
		if err := e.Kill(t.Context(), "c", sig); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("signal %d: %v", sig, err)
		}
	}
	check(t, e.Kill(t.Context(), "c", 9))
	if err := e.Kill(t.Context(), "c", 9); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("kill of a dead one: %v", err)
	}
	check(t, e.Delete(t.Context(), "c"))
	if err := e.Kill(t.Context(), "c", 9); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
}

// TestConsoleOfAnEarlierVersion: it kept each log in a directory of its own.
// The container goes on there, and its log is found and removed.
func TestConsoleOfAnEarlierVersion(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "c")
	console(t, e, "c", "up as 1")
	check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
	done()
	dir := filepath.Join(h.Root, "console")
	old := filepath.Join(dir, "c", "console.log")
	check(t, errors.Join(os.Mkdir(filepath.Dir(old), 0o700), os.Rename(filepath.Join(dir, "c.log"), old)))
	e, done = h.Engine(t)
	defer done()
	console(t, e, "c", "up as 1")
	check(t, os.Truncate(old, 0))
	check(t, e.Start(t.Context(), "c", initRequest))
	console(t, e, "c", "up as 1")
	if info, err := os.Stat(old); err != nil || info.Size() == 0 {
		t.Errorf("%v, %v", info, err)
	}
	check(t, e.Delete(t.Context(), "c"))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
