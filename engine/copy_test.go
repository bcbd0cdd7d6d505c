package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// tarOf is a tar stream of regular files.
func tarOf(t testing.TB, files map[string]string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o640, Uid: 7, Gid: 8, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// copyOut returns the files of a copied tree.
func copyOut(t *testing.T, e *engine.Engine, path string) map[string]string {
	t.Helper()
	r, err := e.CopyOut(t.Context(), "c", engine.CopyRequest{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out := map[string]string{}
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out[hdr.Name] = string(data)
	}
}

// unmounted waits until this process, which the engine is in, has no root of a
// container open, and checks that none has a path either.
func unmounted(t *testing.T, h *enginetest.Host) {
	t.Helper()
	if n := entries(t, h, "rootfs"); n != 0 {
		t.Errorf("%d places of mounts", n)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); ; <-tick.C {
		names, err := filepath.Glob("/proc/self/fd/*")
		check(t, err)
		left := slices.DeleteFunc(names, func(name string) bool {
			var st unix.Statfs_t
			return unix.Statfs(name, &st) != nil || st.Type != unix.OVERLAYFS_SUPER_MAGIC
		})
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("still open: %v", left)
			return
		}
	}
}

func TestCopy(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	in := func(dir string, files map[string]string) error {
		_, err := e.CopyIn(t.Context(), "c", engine.CopyRequest{Path: dir}, tarOf(t, files))
		return err
	}
	// before the first start, and nothing stays mounted
	check(t, in("/root", map[string]string{"told": "what to say", "deep/er/file": "x"}))
	unmounted(t, h)
	check(t, e.Start(t.Context(), "c", initRequest))
	console(t, e, "c", "up as 1 with what to say")
	// running, and the process sees it with its owner
	check(t, in("/tmp", map[string]string{"fresh": "hello"}))
	check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
	check(t, e.Start(t.Context(), "c", engine.StartRequest{Args: []string{"/bin/sh", "-c", "ls -ln /tmp/fresh; cat /tmp/fresh; echo .; " + forever}, Env: initRequest.Env}))
	out := console(t, e, "c", ".")
	if !strings.Contains(out, "-rw-r-----    1 7        8") {
		t.Errorf("inside: %q", out)
	}
	if got := copyOut(t, e, "/root"); got["root/told"] != "what to say" || got["root/deep/er/file"] != "x" {
		t.Errorf("out: %q", got)
	}
	for path, class := range map[string]error{"/absent": errdefs.ErrNotFound, "": errdefs.ErrInvalid, "/bin/busybox/x": errdefs.ErrInvalid} {
		r, err := e.CopyOut(t.Context(), "c", engine.CopyRequest{Path: path})
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		if !errors.Is(err, class) {
			t.Errorf("out of %q: %v", path, err)
		}
		if err := in(path, map[string]string{"x": "y"}); !errors.Is(err, class) {
			t.Errorf("in to %q: %v", path, err)
		}
	}
	check(t, e.Delete(t.Context(), "c"))
	if _, err := e.CopyOut(t.Context(), "c", engine.CopyRequest{Path: "/"}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("absent container: %v", err)
	}
}

// TestCopyEndsWithTheContainer: neither a slow reader nor a slow writer keeps
// a container from being stopped or deleted.
func TestCopyEndsWithTheContainer(t *testing.T) {
	for name, end := range map[string]func(ctx context.Context, e *engine.Engine) error{
		"stop": func(ctx context.Context, e *engine.Engine) error {
			return e.Stop(ctx, "c", engine.StopRequest{Timeout: time.Hour})
		},
		"delete": func(ctx context.Context, e *engine.Engine) error { return e.Delete(ctx, "c") },
	} {
		t.Run(name, func(t *testing.T) {
			h, e, done := fixture(t)
			defer done()
			run(t, e, "c")
			console(t, e, "c", "up as 1")
			slow, err := e.CopyOut(t.Context(), "c", engine.CopyRequest{Path: "/"})
			check(t, err)
			defer slow.Close()
			r, w := io.Pipe()
			result := make(chan error, 1)
			go func() {
				_, err := e.CopyIn(t.Context(), "c", engine.CopyRequest{Path: "/tmp"}, r)
				result <- err
			}()
			if _, err := io.Copy(w, io.LimitReader(tarOf(t, map[string]string{"half": strings.Repeat("x", 4096)}), 2048)); err != nil {
				t.Fatal(err)
			}
			check(t, end(t.Context(), e))
			if err := <-result; !errors.Is(err, errdefs.ErrAborted) {
				t.Errorf("copy in: %v", err)
			}
			w.Close()
			if _, err := io.Copy(io.Discard, slow); !errors.Is(err, errdefs.ErrAborted) {
				t.Errorf("copy out: %v", err)
			}
			check(t, e.Delete(t.Context(), "c"))
			unmounted(t, h)
		})
	}
}
