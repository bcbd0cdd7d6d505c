package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func source(data []byte) LayerSource {
	return LayerSource{
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		Step: Step{CreatedBy: "test"},
	}
}

func buildSpec(t *testing.T, c Compression) BuildSpec {
	t.Helper()
	return BuildSpec{
		Config: Config{
			Architecture: runtime.GOARCH, Env: []string{"A=b"}, Entrypoint: []string{"/e"}, Cmd: []string{"c"}, WorkingDir: "/w", User: "1:2",
			StopSignal: "9",
		},
		Layers: []LayerSource{
			source(makeTar(t, entry{"etc/x", "base"})), source(makeTar(t, entry{"etc/y", string(make([]byte, 3<<20))})),
			source(makeTar(t, entry{"etc/x", "base"})), // equal layers are stored once
		},
		Created: time.Unix(1_700_000_000, 0), Name: "snapshot:1", Compression: c, TempDir: t.TempDir(),
	}
}

func readBuilt(t *testing.T, spec BuildSpec) (*Built, []byte) {
	t.Helper()
	b, err := Build(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(b)
	if err != nil || int64(len(data)) != b.Size() {
		t.Fatalf("%d bytes of %d, %v", len(data), b.Size(), err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return b, data
}

func TestBuildReadsBack(t *testing.T) {
	for _, c := range []Compression{Gzip, Zstd, Uncompressed} {
		spec := buildSpec(t, c)
		b, data := readBuilt(t, spec)
		a, err := open(t, data, OpenOptions{ContainerFormat: "docker", Arch: runtime.GOARCH})
		if err != nil {
			t.Fatal(err)
		}
		if err := Validate(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(spec.Config, a.Config()); d != "" {
			t.Error(d)
		}
		if a.Kind() != OCIArchive || a.ID() != b.ID() || len(a.Layers()) != 3 {
			t.Errorf("%+v", a)
		}
		_, again := readBuilt(t, spec)
		if c != Zstd && !bytes.Equal(data, again) {
			t.Errorf("compression %d: not deterministic", c)
		}
		// The same bytes are a docker archive too.
		docker := replace(t, data, func(n, d string) string {
			if n == "oci-layout" {
				return ""
			}
			return d
		})
		a, err = open(t, docker, OpenOptions{Arch: runtime.GOARCH})
		if err != nil || a.Kind() != DockerArchive || a.ID() != b.ID() {
			t.Fatal(a, err)
		}
		if err := Validate(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBuildIsValidForAnotherReader lets go-containerregistry check the result.
func TestBuildIsValidForAnotherReader(t *testing.T) {
	_, data := readBuilt(t, buildSpec(t, Gzip))
	img, err := tarball.Image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	idx, err := layout.ImageIndexFromPath(untar(t, data))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(idx); err != nil {
		t.Error(err)
	}
}

func TestBuildFails(t *testing.T) {
	want := errors.New("layer cannot be read")
	spec := buildSpec(t, Gzip)
	spec.Layers[1].Open = func(context.Context) (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(want)), nil }
	if _, err := Build(t.Context(), spec); !errors.Is(err, want) {
		t.Error(err)
	}
	spec.Layers[1].Open = func(context.Context) (io.ReadCloser, error) { return nil, want }
	if _, err := Build(t.Context(), spec); !errors.Is(err, want) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, buildSpec(t, Gzip)); !errors.Is(err, errdefs.ErrAborted) {
		t.Error(err)
	}
}

func BenchmarkLayerRead(b *testing.B) {
	body := make([]byte, 32<<20)
	for i := range body {
		body[i] = "abcdefghijklmnop"[i*7919>>9&15]
	}
	data := makeTar(b, entry{"etc/x", string(body)})
	l := &layer{compression: gz, diffID: digest.FromBytes(data), lim: Limits{}.withDefaults()}
	stored := gzipped(b, data)
	l.blob = blob{bytes.NewReader(stored), 0, int64(len(stored))}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		r, err := l.Open(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
	}
}
