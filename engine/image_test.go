package engine_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/snapshot/overlay"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// archive makes an OCI archive of the given layers, each a tar.
func archive(t *testing.T, layers ...[]byte) []byte {
	t.Helper()
	spec := image.BuildSpec{Config: image.Config{Cmd: []string{"/sbin/init"}, Env: initRequest.Env}, TempDir: t.TempDir()}
	for _, l := range layers {
		spec.Layers = append(spec.Layers, image.LayerSource{Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(l)), nil
		}})
	}
	built, err := image.Build(t.Context(), spec)
	check(t, err)
	defer built.Close()
	data, err := io.ReadAll(built)
	check(t, err)
	return data
}

// oneFile is a layer with one file.
func oneFile(t *testing.T, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	check(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
	_, err := io.WriteString(w, text)
	check(t, errors.Join(err, w.Close()))
	return b.Bytes()
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func importOCI(t *testing.T, e *engine.Engine, ref string, data []byte) error {
	t.Helper()
	_, err := e.Import(t.Context(), engine.ImportRequest{Ref: ref, Content: bytes.NewReader(data), ContainerFormat: "docker", DiskFormat: "raw"})
	return err
}

// entries counts what is in a directory of the host.
func entries(t *testing.T, h *enginetest.Host, dir string) int {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(h.Root, dir))
	check(t, err)
	return len(list)
}

func TestAPresentImageIsNotReadAgain(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	info, err := e.Import(t.Context(), engine.ImportRequest{Ref: "busybox", Content: failing{}})
	if err != nil || !info.RootFS || info.SizeBytes == 0 {
		t.Errorf("%+v %v", info, err)
	}
}

// TestSimultaneousImports brings the same bytes under one name and several.
func TestSimultaneousImports(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	data := archive(t, enginetest.Busybox(t), oneFile(t, "root/told", "news"))
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = importOCI(t, e, fmt.Sprint("ref", i/2), data) })
	}
	wg.Wait()
	check(t, errors.Join(errs...))
	if layers, left := entries(t, h, "snapshots/layers"), entries(t, h, "tmp"); layers != 2 || left != 0 {
		t.Errorf("%d layers, %d archives left", layers, left)
	}
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "ref3", Limits: limits}))
	check(t, e.Start(t.Context(), "c", initRequest))
	console(t, e, "c", "with news")
	check(t, e.Delete(t.Context(), "c"))
}

// TestAFailedImportTakesNothingFromOthers: two imports have a layer in common,
// and the one that fails does not take it from the other.
func TestAFailedImportTakesNothingFromOthers(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	base := enginetest.Busybox(t)
	one, two := archive(t, base, oneFile(t, "root/told", "one")), archive(t, base, oneFile(t, "root/told", "two"))
	for round := range 5 {
		check(t, failpoint.Set("engine.import.record:1", "error"))
		var first, second error
		var wg sync.WaitGroup
		wg.Go(func() { first = importOCI(t, e, "one", one) })
		wg.Go(func() { second = importOCI(t, e, "two", two) })
		wg.Wait()
		check(t, failpoint.Set("engine.import.record", ""))
		ref := "one"
		if first != nil {
			ref = "two"
		}
		if (first == nil) == (second == nil) {
			t.Fatalf("round %d: %v and %v", round, first, second)
		}
		if n := entries(t, h, "snapshots/layers"); n != 2 {
			t.Errorf("round %d: %d layers", round, n)
		}
		check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: ref, Limits: limits}))
		check(t, e.Delete(t.Context(), "c"))
		check(t, e.RemoveImage(t.Context(), ref))
		if n := entries(t, h, "snapshots/layers"); n != 0 {
			t.Errorf("round %d: %d layers left", round, n)
		}
	}
}

func TestRemoveImage(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	ctx := t.Context()
	base := enginetest.Busybox(t)
	check(t, importOCI(t, e, "one", archive(t, base, oneFile(t, "root/told", "one"))))
	check(t, importOCI(t, e, "two", archive(t, base, oneFile(t, "root/told", "two"))))
	check(t, e.Create(ctx, engine.CreateRequest{ID: "c", Image: "one", Limits: limits}))
	if err := e.RemoveImage(ctx, "one"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("in use: %v", err)
	}
	check(t, e.Delete(ctx, "c"))
	for range 2 { // absent is success
		check(t, e.RemoveImage(ctx, "one"))
	}
	if _, err := e.Image(ctx, "one"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("image: %v", err)
	}
	if n := entries(t, h, "snapshots/layers"); n != 2 {
		t.Errorf("%d layers, want the other image's 2", n)
	}
	check(t, e.Create(ctx, engine.CreateRequest{ID: "c", Image: "two", Limits: limits}))
	check(t, e.Start(ctx, "c", initRequest))
	console(t, e, "c", "with two")
	check(t, e.Delete(ctx, "c"))
	check(t, e.RemoveImage(ctx, "two"))
	if n := entries(t, h, "snapshots/layers"); n != 0 {
		t.Errorf("%d layers left", n)
	}
}

// TestAnInterruptedImportIsRemoved: a layer and an archive without an image.
func TestAnInterruptedImportIsRemoved(t *testing.T) {
	h, _, done := fixture(t)
	done()
	snaps, err := overlay.New(filepath.Join(h.Root, "snapshots"))
	check(t, err)
	check(t, snaps.Unpack(t.Context(), "sha256:"+fmt.Sprintf("%064d", 7), func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "x"), nil, 0o600)
	}))
	snaps.Close()
	_, done = h.Engine(t)
	defer done()
	if n := entries(t, h, "snapshots/layers"); n != 1 {
		t.Errorf("%d layers, want the image's", n)
	}
}

// watched calls look when half of a stream has been read.
type watched struct {
	r    io.Reader
	left int
	look func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if before := w.left; before > 0 {
		if w.left -= n; w.left <= 0 {
			w.look()
		}
	}
	return n, err
}

// A tarball is unpacked while it comes: no second copy of it is on the disk.
func TestImportUnpacksWhileItComes(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	tarball := enginetest.Busybox(t)
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	_, err := w.Write(tarball)
	check(t, errors.Join(err, w.Close()))
	files := func() (n int) {
		_ = filepath.WalkDir(filepath.Join(h.Root, "tmp"), func(_ string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && !strings.HasPrefix(d.Name(), "recipe-") {
				n++
			}
			return nil
		})
		return n
	}
	for name, data := range map[string][]byte{"plain": tarball, "gzip": gz.Bytes()} {
		looked := 0
		body := &watched{bytes.NewReader(data), len(data) / 2, func() { looked += 1 + files() }}
		_, err := e.Import(t.Context(), engine.ImportRequest{Ref: name, Content: body, ContainerFormat: "bare", DiskFormat: "raw"})
		check(t, err)
		if looked != 1 {
			t.Errorf("%s: %d archives in the middle", name, looked-1)
		}
	}
	if got := layers(t, h); len(got) != 1 {
		t.Errorf("layers of the same files: %v", got)
	}
	for _, cut := range []io.Reader{
		io.MultiReader(bytes.NewReader(tarball), failing{}), bytes.NewReader(tarball[:len(tarball)/2]),
		io.MultiReader(bytes.NewReader(gz.Bytes()), failing{}), io.MultiReader(bytes.NewReader(gz.Bytes()), strings.NewReader("more")),
	} {
		if _, err := e.Import(t.Context(), engine.ImportRequest{Ref: "bad", Content: cut, ContainerFormat: "bare", DiskFormat: "raw"}); err == nil {
			t.Error("a stream that is not whole was imported")
		}
	}
	check(t, e.RemoveImage(t.Context(), "plain"))
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "gzip", Limits: limits}))
	check(t, e.Delete(t.Context(), "c"))
	check(t, e.RemoveImage(t.Context(), "gzip"))
	if got := layers(t, h); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}
