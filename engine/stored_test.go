package engine_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/image"
)

// What is recorded of how layers are stored was verified here, goes on with the
// layers, and lets an export leave them out.
func TestStoredLayers(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	told, other := oneFile(t, "root/told", "one"), oneFile(t, "root/told", "two")
	data := archive(t, enginetest.Busybox(t), told)
	from := func(ref, repository string, data []byte) error {
		_, err := e.Import(t.Context(), engine.ImportRequest{
			Ref: ref, Content: bytes.NewReader(data), ContainerFormat: "docker", DiskFormat: "raw", From: repository,
		})
		return err
	}
	check(t, from("one", "registry.example/one", data))
	stored := storedOf(t, e, "one")
	names := blobsOf(t, data)
	for i, s := range stored {
		if s.From != "registry.example/one" || s.MediaType != "application/vnd.oci.image.layer.v1.tar+gzip" || names[s.Digest] != s.Size {
			t.Errorf("layer %d: %+v of %v", i, s, names)
		}
	}

	// the layers below are here already: what this archive says of them was not
	// verified, and what the first said counts
	check(t, from("two", "registry.example/two", archive(t, enginetest.Busybox(t), other)))
	two := storedOf(t, e, "two")
	if two[0] != stored[0] || two[1].From != "registry.example/two" || two[1].Digest == stored[1].Digest {
		t.Errorf("over the same layer: %+v", two)
	}

	out, err := e.ExportImage(t.Context(), "one", stored[0].Digest, digest.FromString("none of them"))
	check(t, err)
	part, err := io.ReadAll(out.Content)
	check(t, errors.Join(err, out.Content.Close()))
	if int64(len(part)) != out.Size {
		t.Errorf("%d bytes, said %d", len(part), out.Size)
	}
	if there := blobsOf(t, part); there[stored[0].Digest] != 0 || len(there) != 3 {
		t.Errorf("an export without %s holds %v", stored[0].Digest, there)
	}
	if !bytes.Contains(part, []byte(stored[0].Digest)) || bytes.Contains(part, []byte("RepoTags")) {
		t.Error("the export does not name what it is without, or docker would take it for whole")
	}
	check(t, e.RemoveImage(t.Context(), "one"))
	check(t, e.RemoveImage(t.Context(), "two"))
	nothing(t, h, e)
}

// Without a registry that says so nothing is known: a tarball has no layers.
func TestStoredNowhere(t *testing.T) {
	h := enginetest.NewHost(t)
	e, done := h.Engine(t)
	defer done()
	_, err := e.Import(t.Context(), engine.ImportRequest{
		Ref: "bare", Content: bytes.NewReader(enginetest.Busybox(t)), ContainerFormat: "bare", DiskFormat: "raw",
	})
	check(t, err)
	if s := storedOf(t, e, "bare"); !slices.Equal(s, []image.Stored{{}}) {
		t.Errorf("%+v", s)
	}
	check(t, e.RemoveImage(t.Context(), "bare"))
	nothing(t, h, e)
}

func storedOf(t *testing.T, e *engine.Engine, ref string) (out []image.Stored) {
	t.Helper()
	layers, err := e.History(t.Context(), ref)
	check(t, err)
	for _, l := range layers {
		out = append(out, l.Stored)
	}
	return out
}

// blobsOf are the sizes of the blobs of an archive.
func blobsOf(t *testing.T, data []byte) map[digest.Digest]int64 {
	t.Helper()
	out := map[digest.Digest]int64{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		check(t, err)
		if hex, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok {
			out[digest.Digest("sha256:"+hex)] = h.Size
		}
	}
}
