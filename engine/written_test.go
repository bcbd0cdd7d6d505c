package engine_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// A container goes to another host with what it has written and nothing else;
// it goes on there, and the first one too.
func TestWrittenMakesTheSameDiskElsewhere(t *testing.T) {
	_, here, done := fixture(t)
	defer done()
	h, there, done := fixture(t)
	defer done()
	ctx := t.Context()
	start := func(e *engine.Engine, script string) {
		t.Helper()
		check(t, e.Start(ctx, "c", engine.StartRequest{Args: []string{"/bin/sh", "-c", script + "; " + forever}, Env: initRequest.Env}))
	}
	check(t, here.Create(ctx, engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	start(here, "echo hello > /root/kept; rm /bin/true; mkdir -p /a/b; chown 7:8 /a/b; head -c 3000000 /dev/urandom > /a/b/c; md5sum /a/b/c; echo written")
	want := console(t, here, "c", "written")
	_, err := here.Written(ctx, "c")
	if !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("of one that runs: %v", err)
	}
	check(t, here.Stop(ctx, "c", engine.StopRequest{}))
	_, err = here.Written(ctx, "x")
	if !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of none: %v", err)
	}

	stream := func() []byte {
		t.Helper()
		r, err := here.Written(ctx, "c")
		check(t, err)
		raw, err := io.ReadAll(r)
		check(t, err)
		check(t, r.Close())
		return raw
	}
	first := stream()
	if again := stream(); !bytes.Equal(first, again) || len(first) > 4<<20 {
		t.Errorf("streams of %d and %d bytes", len(first), len(again))
	}
	cut := errors.New("the other host went down")
	for _, broken := range []io.Reader{
		io.MultiReader(bytes.NewReader(first[:len(first)/2]), iotest.ErrReader(cut)),
		bytes.NewReader(first[:len(first)/2]),
		strings.NewReader("this is no layer. " + strings.Repeat("x", 1000)),
	} {
		if err := there.Create(ctx, engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits, Written: broken}); err == nil {
			t.Fatal("made of half a disk")
		}
		if n := entries(t, h, "snapshots/active"); n != 0 {
			t.Errorf("%d disks are left", n)
		}
	}
	check(t, there.Create(ctx, engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits, Written: bytes.NewReader(first)}))
	start(there, "cat /root/kept; test -e /bin/true || echo removed; stat -c %u:%g /a/b; md5sum /a/b/c; echo read")
	got := console(t, there, "c", "read")
	for _, line := range []string{"hello", "removed", "7:8", strings.Fields(want)[0]} {
		if !strings.Contains(got, line) {
			t.Errorf("there: %q lacks %q", got, line)
		}
	}
	check(t, errors.Join(here.Delete(ctx, "c"), there.Delete(ctx, "c")))
}

// A start of the container ends the stream: what it would send next is not what
// it has begun with.
func TestWrittenEndsWhenTheContainerStarts(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	ctx := t.Context()
	check(t, e.Create(ctx, engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	check(t, e.Start(ctx, "c", engine.StartRequest{Args: []string{"/bin/sh", "-c", "head -c 8000000 /dev/zero > /root/z; echo written; " + forever}, Env: initRequest.Env}))
	console(t, e, "c", "written")
	for _, step := range []struct {
		what string
		end  func() error
	}{
		{"another stream", func() error {
			r, err := e.Written(ctx, "c")
			return errors.Join(err, r.Close())
		}},
		{"a start", func() error { return e.Start(ctx, "c", initRequest) }},
		{"a delete", func() error { return e.Delete(ctx, "c") }},
	} {
		check(t, e.Stop(ctx, "c", engine.StopRequest{}))
		r, err := e.Written(ctx, "c")
		check(t, err)
		_, err = r.Read(make([]byte, 100))
		check(t, err)
		check(t, step.end())
		if _, err := io.Copy(io.Discard, r); !errors.Is(err, errdefs.ErrAborted) {
			t.Errorf("%s: the stream ends with %v", step.what, err)
		}
		check(t, r.Close())
	}
}
