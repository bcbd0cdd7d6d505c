package engine_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// taken reads the archive that Commit or ExportImage opens.
func taken(c engine.Committed, err error) func(t *testing.T) []byte {
	return func(t *testing.T) []byte {
		t.Helper()
		check(t, err)
		var out bytes.Buffer
		_, err := io.Copy(&out, c.Content)
		check(t, err)
		check(t, c.Content.Close())
		return out.Bytes()
	}
}

// diffIDs are what an archive says its layers are.
func diffIDs(t *testing.T, archive []byte) (out []string) {
	t.Helper()
	a, err := image.Open(t.Context(), bytes.NewReader(archive), int64(len(archive)), image.OpenOptions{})
	check(t, err)
	for _, l := range a.Layers() {
		out = append(out, l.DiffID().String())
	}
	check(t, image.Validate(t.Context(), a))
	check(t, a.Close())
	return out
}

func layers(t *testing.T, h *enginetest.Host) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(h.Root, "snapshots", "layers"))
	check(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// A snapshot has the layers of its image as they came, so a host that has the
// image has them already.
func TestCommitKeepsTheLayersOfTheImage(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	original := archive(t, enginetest.Busybox(t), oneFile(t, "root/told", "x"))
	check(t, importOCI(t, e, "app", original))
	changedOf(t, e, "c", "app")
	snap := taken(e.Commit(t.Context(), "c"))(t)
	want := diffIDs(t, original)
	if got := diffIDs(t, snap); len(got) != 3 || !cmp.Equal(got[:2], want) {
		t.Errorf("layers of the snapshot: %v, of its image %v", got, want)
	}
	if got := diffIDs(t, taken(e.ExportImage(t.Context(), "app"))(t)); !cmp.Equal(got, want) {
		t.Errorf("layers of the exported image: %v, imported %v", got, want)
	}
	before := len(layers(t, h))
	check(t, importOCI(t, e, "snap", snap))
	if after := len(layers(t, h)); after != before+1 {
		t.Errorf("%d layers before the snapshot was imported, %d after", before, after)
	}
	check(t, e.Delete(t.Context(), "c"))
}

// The layer of a bare tarball states no digest; what it is known by is found
// while it is unpacked.
func TestCommitOfABareRootFileSystem(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	changed(t, e, "c")
	snap := taken(e.Commit(t.Context(), "c"))(t)
	before := len(layers(t, h))
	check(t, importOCI(t, e, "snap", snap))
	if after := len(layers(t, h)); after != before+1 {
		t.Errorf("%d layers before the snapshot was imported, %d after", before, after)
	}
	check(t, e.Delete(t.Context(), "c"))
}

// Without its recipe a layer is written anew: the same files, another digest.
func TestCommitWithoutRecipe(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	recipes, err := filepath.Glob(filepath.Join(h.Root, "recipes", "*"))
	check(t, err)
	if len(recipes) != 1 {
		t.Fatalf("recipes: %v", recipes)
	}
	for _, c := range []struct {
		name   string
		damage func() error
	}{
		{"damaged", func() error { return os.Truncate(recipes[0], 40) }},
		{"gone", func() error { return os.Remove(recipes[0]) }},
	} {
		check(t, c.damage())
		if got := diffIDs(t, taken(e.ExportImage(t.Context(), "busybox"))(t)); len(got) != 1 {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	check(t, e.RemoveImage(t.Context(), "busybox"))
}

func TestRecipesGoWithTheirLayers(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	check(t, os.WriteFile(filepath.Join(h.Root, "recipes", "sha256-"+string(bytes.Repeat([]byte("0"), 64))), nil, 0o600))
	_, err := e.Collect(t.Context(), engine.GCOptions{})
	check(t, err)
	left, err := os.ReadDir(filepath.Join(h.Root, "recipes"))
	check(t, err)
	if len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestCommitImage(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	ctx := t.Context()
	changed(t, e, "c")
	if _, err := e.CommitImage(ctx, "c", ""); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("without a name: %v", err)
	}
	if _, err := e.CommitImage(ctx, "nobody", "x"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	for range 2 { // the second takes the name from the first
		info, err := e.CommitImage(ctx, "c", "mine")
		check(t, err)
		if info.RootFS || info.Ref != "mine" || info.SizeBytes == 0 {
			t.Errorf("%+v", info)
		}
	}
	if s := stateOf(t, e, "c"); s.Status != engine.StatusRunning {
		t.Errorf("it does not run on: %+v", s)
	}
	check(t, e.Create(ctx, engine.CreateRequest{ID: "d", Image: "mine", Limits: limits}))
	diff, err := e.Changes(ctx, "d")
	check(t, err)
	if len(diff) != 0 {
		t.Errorf("changes of a container that did nothing: %v", diff)
	}
	want := diffIDs(t, taken(e.ExportImage(ctx, "mine"))(t))
	if got := diffIDs(t, taken(e.ExportImage(ctx, "mine"))(t)); !cmp.Equal(got, want) || len(got) != 2 {
		t.Errorf("exported twice: %v and %v", want, got)
	}
	check(t, e.Delete(ctx, "c"))
	check(t, e.Delete(ctx, "d"))
	check(t, e.RemoveImage(ctx, "mine"))
	if got := layers(t, h); len(got) != 1 {
		t.Errorf("layers left: %v", got)
	}
}

// A delta is the changes only; it needs its image, and twenty of them one over
// the other boot.
func TestCommitDelta(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	ctx := t.Context()
	base := "busybox"
	for i := range 20 {
		id := engine.ContainerID(fmt.Sprintf("c%d", i))
		check(t, e.Create(ctx, engine.CreateRequest{ID: id, Image: base, Limits: limits}))
		check(t, e.Start(ctx, id, engine.StartRequest{
			Args: []string{"/bin/sh", "-c", fmt.Sprintf("echo %d >> /root/steps; echo now $(cat /root/steps); sleep 1000", i)},
			Env:  initRequest.Env, ConsoleBytes: 1 << 16,
		}))
		console(t, e, id, "now")
		delta := taken(e.CommitDelta(ctx, id))(t)
		if len(delta) > 64<<10 {
			t.Fatalf("step %d: %d bytes for a line of text", i, len(delta))
		}
		base = fmt.Sprintf("step%d", i)
		check(t, importOCI(t, e, base, delta))
		check(t, e.Delete(ctx, id))
	}
	check(t, e.Create(ctx, engine.CreateRequest{ID: "last", Image: base, Limits: limits}))
	check(t, e.Start(ctx, "last", engine.StartRequest{Args: []string{"/bin/cat", "/root/steps"}, Env: initRequest.Env, ConsoleBytes: 1 << 16}))
	console(t, e, "last", "19")
	whole := taken(e.Commit(ctx, "last"))(t)
	if got := diffIDs(t, whole); len(got) != 22 {
		t.Errorf("%d layers of a whole image", len(got))
	}
	delta := taken(e.CommitDelta(ctx, "last"))(t)
	check(t, e.Delete(ctx, "last"))
	check(t, e.RemoveImage(ctx, base))
	err := importOCI(t, e, "over", delta)
	if missing, ok := errors.AsType[*engine.MissingBase](err); !ok || missing.Base != base || !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("without its image: %v", err)
	}
	check(t, importOCI(t, e, "whole", whole))
	for i := range 19 {
		check(t, e.RemoveImage(ctx, fmt.Sprintf("step%d", i)))
	}
	if got := layers(t, h); len(got) != 22 {
		t.Errorf("%d layers", len(got))
	}
}

func TestHistory(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	ctx := t.Context()
	changed(t, e, "c")
	_, err := e.CommitImage(ctx, "c", "mine")
	check(t, err)
	check(t, e.Delete(ctx, "c"))
	check(t, importOCI(t, e, "copy", taken(e.ExportImage(ctx, "mine"))(t)))
	for _, ref := range []string{"mine", "copy"} {
		h, err := e.History(ctx, ref)
		check(t, err)
		if len(h) != 2 || h[1].CreatedBy != "gantry commit" || h[1].Created.IsZero() || h[0].DiffID == "" || h[0].SizeBytes < 1 || h[0].CreatedBy != "" {
			t.Errorf("%s: %+v", ref, h)
		}
	}
	if _, err := e.History(ctx, "none"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of none: %v", err)
	}
}

// An image that is replaced leaves its layers to who is made of it.
func TestImportReplaces(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	ctx := t.Context()
	bring := func(replace bool, told string) engine.ImageInfo {
		t.Helper()
		info, err := e.Import(ctx, engine.ImportRequest{
			Ref: "app", Replace: replace, ContainerFormat: "docker", DiskFormat: "raw",
			Content: bytes.NewReader(archive(t, enginetest.Busybox(t), oneFile(t, "root/told", told))),
		})
		check(t, err)
		return info
	}
	first := bring(true, "one")
	if again := bring(false, "two"); again.ID != first.ID || first.ID == "" {
		t.Errorf("%q, then %q", first.ID, again.ID)
	}
	check(t, e.Create(ctx, engine.CreateRequest{ID: "c", Image: "app", Limits: limits}))
	if second := bring(true, "two"); second.ID == first.ID {
		t.Error("it was not replaced")
	}
	if got := layers(t, h); len(got) != 3 {
		t.Errorf("layers while a container is made of the first: %v", got)
	}
	if _, err := e.Import(ctx, engine.ImportRequest{Ref: "app", Replace: true, Content: failing{}}); err == nil {
		t.Error("a broken archive was imported")
	}
	if info, err := e.Image(ctx, "app"); err != nil || info.ID == first.ID {
		t.Errorf("after a broken archive: %+v %v", info, err)
	}
	old := taken(e.Commit(ctx, "c"))(t)
	check(t, importOCI(t, e, "old", old))
	check(t, e.Create(ctx, engine.CreateRequest{ID: "d", Image: "old", Limits: limits}))
	check(t, e.Start(ctx, "d", engine.StartRequest{Args: []string{"/bin/cat", "/root/told"}, Env: initRequest.Env, ConsoleBytes: 1 << 16}))
	console(t, e, "d", "one")
	check(t, e.Delete(ctx, "d"))
	check(t, e.RemoveImage(ctx, "old"))
	if _, err := e.CommitDelta(ctx, "c"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a delta over an image that was replaced: %v", err)
	}
	check(t, e.Delete(ctx, "c"))
	bring(true, "three")
	_, err := e.Collect(ctx, engine.GCOptions{KeepFor: time.Hour})
	check(t, err)
	if got := layers(t, h); len(got) != 2 {
		t.Errorf("layers in the end: %v", got)
	}
}

// A commit while a program writes is what a power cut would have left: files that
// are written in turn are never apart by more than the one step that was under
// way, and what was told to be written before is there.
func TestCommitUnderWriteLoad(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	ctx := t.Context()
	check(t, e.Create(ctx, engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	// many files between the two make a pass take long
	script := `mkdir /root/a /root/m /root/z; i=0; while [ $i -lt 400 ]; do echo $i > /root/m/$i; i=$((i+1)); done
i=0; while :; do i=$((i+1)); echo $i >> /root/a/n; echo $i > /root/m/$((i%400)); echo $i >> /root/z/n; echo $i >> /root/log; echo said $i; done`
	check(t, e.Start(ctx, "c", engine.StartRequest{Args: []string{"/bin/sh", "-c", script}, Env: initRequest.Env, ConsoleBytes: 1 << 16}))
	console(t, e, "c", "said 50")
	for round := range 5 {
		said := lastSaid(console(t, e, "c", "said"))
		name := fmt.Sprintf("snap%d", round)
		_, err := e.CommitImage(ctx, "c", name)
		check(t, err)
		read := func(file string) string {
			t.Helper()
			id := engine.ContainerID(name)
			r, err := e.CopyOut(ctx, id, engine.CopyRequest{Path: file})
			check(t, err)
			defer r.Close()
			archive := tar.NewReader(r)
			_, err = archive.Next()
			check(t, err)
			data, err := io.ReadAll(archive)
			check(t, err)
			return string(data)
		}
		check(t, e.Create(ctx, engine.CreateRequest{ID: engine.ContainerID(name), Image: name, Limits: limits}))
		a, z, log := strings.Count(read("/root/a/n"), "\n"), strings.Count(read("/root/z/n"), "\n"), strings.Fields(read("/root/log"))
		if a < z || a > z+1 || len(log) < said || len(log) > z || len(log) < z-1 {
			t.Errorf("round %d: a %d, z %d, %d lines; %d were said before", round, a, z, len(log), said)
		}
		for i, line := range log {
			if line != fmt.Sprint(i+1) {
				t.Fatalf("round %d: line %d is %q", round, i+1, line)
			}
		}
		check(t, e.Delete(ctx, engine.ContainerID(name)))
	}
	check(t, e.Delete(ctx, "c"))
}

func number(text string) int {
	n, _ := strconv.Atoi(strings.TrimSpace(text))
	return n
}

// lastSaid is the last whole line of a console that counts.
func lastSaid(text string) int {
	lines := strings.Split(text, "\n")
	if len(lines) < 2 {
		return 0
	}
	return number(strings.TrimPrefix(strings.TrimSpace(lines[len(lines)-2]), "said "))
}

// A layer that cannot be recorded is one without a recipe, here as in an import.
func TestCommitImageOfWhatCannotBeRecorded(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	ctx := t.Context()
	check(t, e.Create(ctx, engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	deep := "i=0; cd /root; while [ $i -lt 300 ]; do busybox mkdir d; cd d; i=$((i+1)); done; echo x > f; echo deep; exec sleep 1000"
	check(t, e.Start(ctx, "c", engine.StartRequest{Args: []string{"/bin/sh", "-c", deep}, Env: initRequest.Env, ConsoleBytes: 1 << 16}))
	console(t, e, "c", "deep")
	_, err := e.CommitImage(ctx, "c", "mine")
	check(t, err)
	recipes, err := os.ReadDir(filepath.Join(h.Root, "recipes"))
	check(t, err)
	if len(recipes) != 1 {
		t.Errorf("recipes: %v", recipes)
	}
	check(t, e.Delete(ctx, "c"))
	check(t, e.RemoveImage(ctx, "mine"))
	if left, err := os.ReadDir(filepath.Join(h.Root, "tmp")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
