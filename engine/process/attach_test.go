package process_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/process/processtest"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/rs/zerolog"
)

// A client that does not read loses its place; neither the log nor another
// client notices.
func TestSlowClientIsDropped(t *testing.T) {
	runner, err := process.New(process.Options{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := runner.Close(); err != nil {
			t.Error(err)
		}
	})
	f := processtest.NewFixture(t)
	const lines = 80_000 // 0.5 MiB
	spec := f.Spec(t, "sh", "-c", "read x; seq 80000")
	spec.ConsoleLimit = 16 << 20
	if _, err := runner.Start(t.Context(), "x", spec); err != nil {
		t.Fatal(err)
	}
	slow, err := runner.Attach(t.Context(), "x", 0)
	if err != nil {
		t.Fatal(err)
	}
	fast, err := runner.Attach(t.Context(), "x", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = slow.Close(), fast.Close() }()
	if _, err := io.WriteString(fast, "go\n"); err != nil {
		t.Fatal(err)
	}
	seen, err := io.ReadAll(fast)
	if errors.Is(err, errdefs.ErrExhausted) {
		t.Log("the fast client was not fast enough")
	} else if err != nil || bytes.Count(seen, []byte("\r\n")) != lines+1 {
		t.Errorf("fast: %d bytes, %v", len(seen), err)
	}
	if e, err := runner.Wait(t.Context(), "x"); err != nil || e.Code != 0 {
		t.Errorf("%+v, %v", e, err)
	}
	data, err := conlog.Tail(spec.ConsoleLog, 0, 0)
	if err != nil || strings.Count(string(data), "\n") != lines+1 {
		t.Errorf("log: %d bytes, %v", len(data), err)
	}
	got, err := io.ReadAll(slow)
	if !errors.Is(err, errdefs.ErrExhausted) || len(got) > 256<<10 || !strings.HasPrefix(string(got), "go\r\n1\r\n2\r\n") {
		t.Errorf("slow: %d bytes, %v", len(got), err)
	}
	if _, err := slow.Write([]byte("x")); err == nil || errors.Is(err, os.ErrProcessDone) {
		t.Errorf("write: %v", err)
	}
	if err := runner.Forget(t.Context(), "x"); err != nil {
		t.Error(err)
	}
}
