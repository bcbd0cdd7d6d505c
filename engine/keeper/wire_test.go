package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/google/go-cmp/cmp"
)

// pair returns two connected sockets.
func pair(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "k")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	addr := &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	a, err := net.DialUnix("unix", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func TestMessageRoundTrip(t *testing.T) {
	a, b := pair(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	in := request{Version: 1, Op: opStart, ID: "id", Spec: &process.Spec{
		Rootfs: "/r", Args: []string{"a\x01\u2028b"}, Files: []process.File{{Path: "/x", Data: bytes.Repeat([]byte{0, 255}, 1<<18)}},
		Seccomp: []process.SockFilter{{Code: 1, JT: 2, JF: 3, K: 4}}, Sysctls: map[string]string{"a": "b"},
	}}
	sent := make(chan error, 1)
	go func() { sent <- send(a, in, []*os.File{file, file}) }()
	var out request
	files, err := receive(b, &out)
	if err != nil || <-sent != nil {
		t.Fatal(err)
	}
	defer linux.CloseAll(files)
	if diff := cmp.Diff(in, out); diff != "" {
		t.Error(diff)
	}
	want, _ := file.Stat()
	if len(files) != 2 {
		t.Fatalf("%d files", len(files))
	}
	if got, err := files[1].Stat(); err != nil || !os.SameFile(got, want) {
		t.Errorf("another file arrived: %v", err)
	}
}

func TestErrorsKeepTheirClass(t *testing.T) {
	for name, class := range classes() {
		err := fmt.Errorf("start process x: %w: %w", errors.New("why"), class)
		got := fromWire(toWire(err))
		if !errors.Is(got, class) || got.Error() != err.Error() {
			t.Errorf("%s: %v", name, got)
		}
		got = fromWire(toWire(fmt.Errorf("outer: %w", errdefs.WithPublic(err, "for tenants"))))
		if !errors.Is(got, class) || errdefs.PublicText(got, "") != "for tenants" || got.Error() != "outer: for tenants: "+err.Error() {
			t.Errorf("%s, public: %v, %q", name, got, errdefs.PublicText(got, ""))
		}
	}
	if fromWire(toWire(nil)) != nil {
		t.Error("nil")
	}
	if err := fromWire(toWire(errors.New("plain"))); err.Error() != "plain" || errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := fromWire(&wireError{Class: "from-the-future", Text: "x"}); err.Error() != "x" {
		t.Errorf("%v", err)
	}
}

func TestServerRefuses(t *testing.T) {
	s := &server{} // refuses before it looks at anything
	if res := s.answer(t.Context(), &request{Version: 99, Op: opList}, nil); !errors.Is(fromWire(res.Error), errdefs.ErrUnsupported) {
		t.Errorf("version: %+v", res)
	}
	if res := s.answer(t.Context(), &request{Version: Version, Op: "dance"}, nil); !errors.Is(fromWire(res.Error), errdefs.ErrUnsupported) {
		t.Errorf("operation: %+v", res)
	}
	if res := s.answer(t.Context(), &request{Version: Version, Op: opStart}, nil); !errors.Is(fromWire(res.Error), errdefs.ErrInvalid) {
		t.Errorf("no spec: %+v", res)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"op":"hello"}`), uint32(26))
	f.Add([]byte(`{"op":"start","spec":{"Files":[null],"Args":[""]}}`), uint32(51))
	f.Add([]byte(`{`), uint32(1<<32-1))
	f.Fuzz(func(t *testing.T, body []byte, size uint32) {
		var req request
		if err := decode(bytes.NewReader(body), size, &req); err == nil && req.Spec != nil {
			_ = process.Validate(req.Spec)
		}
	})
}
