package processtest

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// attach attaches for the time of the test.
func attach(t *testing.T, h Harness, id string) io.ReadWriteCloser {
	t.Helper()
	con, err := h.Runner.Attach(bounded(t), id, 0)
	if err != nil {
		t.Fatalf("attach to %s: %v", id, err)
	}
	t.Cleanup(func() { _ = con.Close() })
	return con
}

// reads fails unless the next bytes are want.
func reads(t *testing.T, con io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(con, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v, want %q", got[:n], err, want)
	}
}

func terminalSpec(t *testing.T, h Harness, args ...string) process.Spec {
	t.Helper()
	spec := h.Spec(t, args...)
	spec.Terminal = true
	return spec
}

// testAttach: a terminal echoes to all that are attached.
func testAttach(t *testing.T, h Harness) {
	start(t, h, "talks", terminalSpec(t, h, "sleep", "1000"))
	a, b := attach(t, h, "talks"), attach(t, h, "talks")
	if _, err := io.WriteString(a, "hello\n"); err != nil {
		t.Error(err)
	}
	reads(t, a, "hello\r\n")
	reads(t, b, "hello\r\n")
	if err := a.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if n, err := a.Read(make([]byte, 1)); err == nil || n != 0 || errors.Is(err, io.EOF) {
		t.Errorf("read after close: %d, %v", n, err)
	}
	c := attach(t, h, "talks")
	if _, err := io.WriteString(b, "more\n"); err != nil {
		t.Error(err)
	}
	reads(t, b, "more\r\n")
	reads(t, c, "more\r\n") // nothing of what was before
	if err := h.Runner.Signal(bounded(t), "talks", 9); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("read at the end: %d, %v", n, err)
		}
	}
}

// testAttachHistory: who comes later reads first what was said, and then what
// is said, each byte once.
func testAttachHistory(t *testing.T, h Harness) {
	start(t, h, "old", terminalSpec(t, h, "sleep", "1000"))
	a := attach(t, h, "old")
	past := func(history int) io.ReadWriteCloser {
		t.Helper()
		con, err := h.Runner.Attach(bounded(t), "old", history)
		if err != nil {
			t.Fatalf("attach: %v", err)
		}
		t.Cleanup(func() { _ = con.Close() })
		return con
	}
	empty := past(100)
	for _, line := range []string{"one", "two", "three"} {
		if _, err := io.WriteString(a, line+"\n"); err != nil {
			t.Error(err)
		}
		reads(t, a, line+"\r\n")
	}
	all, some := past(process.MaxHistory*2), past(len("ne\ntwo\nthree\n"))
	if _, err := io.WriteString(a, "now\n"); err != nil {
		t.Error(err)
	}
	reads(t, empty, "one\r\ntwo\r\nthree\r\nnow\r\n")
	reads(t, all, "one\r\ntwo\r\nthree\r\nnow\r\n")
	reads(t, some, "two\r\nthree\r\nnow\r\n")
}

// testDetach: Close ends a Read that waits.
func testDetach(t *testing.T, h Harness) {
	start(t, h, "silent", terminalSpec(t, h, "sleep", "1000"))
	con := attach(t, h, "silent")
	ended := make(chan error, 1)
	go func() {
		_, err := con.Read(make([]byte, 1))
		ended <- err
	}()
	if err := con.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read: %v", err)
	}
	if s, err := h.Runner.Status(bounded(t), "silent"); err != nil || !s.Running {
		t.Errorf("%+v, %v", s, err)
	}
}

func testAttachErrors(t *testing.T, h Harness) {
	start(t, h, "ended", terminalSpec(t, h, "true"))
	wait(t, h, "ended")
	plain := h.Spec(t, "sleep", "1000")
	plain.Terminal, plain.ConsoleLog, plain.ConsoleLimit = false, "", 0
	start(t, h, "plain", plain)
	start(t, h, "runs", terminalSpec(t, h, "sleep", "1000"))
	for id, want := range map[string]error{
		"nobody": errdefs.ErrNotFound, "ended": errdefs.ErrNotFound, "plain": errdefs.ErrUnsupported,
	} {
		if con, err := h.Runner.Attach(bounded(t), id, 0); !errors.Is(err, want) || con != nil {
			t.Errorf("attach to %s: %v, want %v", id, err, want)
		}
		if err := h.Runner.Resize(bounded(t), id, 20, 70); !errors.Is(err, want) {
			t.Errorf("resize %s: %v, want %v", id, err, want)
		}
	}
	if err := h.Runner.Resize(bounded(t), "runs", 20, 70); err != nil {
		t.Errorf("resize: %v", err)
	}
	for _, size := range [][2]uint16{{0, 80}, {24, 0}} {
		if err := h.Runner.Resize(bounded(t), "runs", size[0], size[1]); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("resize to %v: %v", size, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(os.ErrProcessDone)
	if con, err := h.Runner.Attach(ctx, "runs", 0); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("cancelled: %v, %v", con, err)
	}
}
