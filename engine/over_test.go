package engine_test

import (
	"errors"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// TestStartOver: a container runs over the disk of another one, which does not
// run, and has its own where it was asked for; what cannot be is refused.
func TestStartOver(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	ctx := t.Context()
	for _, id := range []engine.ContainerID{"c", "below", "busy"} {
		check(t, e.Create(ctx, engine.CreateRequest{ID: id, Image: "busybox", Limits: limits}))
	}
	check(t, e.Start(ctx, "busy", initRequest))
	for id, text := range map[engine.ContainerID]string{"c": "own", "below": "other"} {
		_, err := e.CopyIn(ctx, id, engine.CopyRequest{Path: "/tmp"}, tarOf(t, map[string]string{"whose": text}))
		check(t, err)
	}
	req := engine.StartRequest{
		Args: []string{"/bin/sh", "-c", "cat /tmp/whose; echo .; cat /mnt/own/tmp/whose; echo .; echo new > /mnt/own/tmp/made; echo told; " + forever},
		Env:  initRequest.Env,
	}
	for class, bad := range map[error]struct {
		over engine.ContainerID
		at   string
	}{
		errdefs.ErrNotFound: {"absent", "/mnt/own"}, errdefs.ErrConflict: {"busy", "/mnt/own"}, errdefs.ErrInvalid: {"c", "/mnt/own"},
	} {
		req.Over, req.OwnAt = bad.over, bad.at
		if err := e.Start(ctx, "c", req); !errors.Is(err, class) {
			t.Errorf("over %s at %q: %v", bad.over, bad.at, err)
		}
	}
	req.Over, req.OwnAt = "below", "/mnt/own"
	check(t, e.Start(ctx, "c", req))
	console(t, e, "c", "other.\nown.\ntold")
	check(t, e.Stop(ctx, "c", engine.StopRequest{}))
	check(t, e.Delete(ctx, "below"))
	if got := copyOut(t, e, "/tmp"); got["tmp/made"] != "new\n" || got["tmp/whose"] != "own" {
		t.Errorf("own disk: %q", got)
	}
	for _, id := range []engine.ContainerID{"c", "busy"} {
		check(t, e.Delete(ctx, id))
	}
	unmounted(t, h)
}
