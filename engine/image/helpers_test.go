package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	gcr "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// entry of a test archive.
type entry struct{ name, data string }

func makeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		hdr := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.data)), Typeflag: tar.TypeReg}
		if to, ok := strings.CutPrefix(e.data, "-> "); ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size, e.data = tar.TypeSymlink, to, 0, ""
		}
		if strings.HasSuffix(e.name, "/") {
			hdr.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// replace returns the archive with the content of some entries changed; an
// empty content removes the entry.
func replace(t testing.TB, archive []byte, change func(name, data string) string) []byte {
	t.Helper()
	var entries []entry
	tr := tar.NewReader(bytes.NewReader(archive))
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return makeTar(t, entries...)
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if hdr.Typeflag != tar.TypeReg {
			continue
		}
		if s := change(hdr.Name, string(data)); s != "" {
			entries = append(entries, entry{hdr.Name, s})
		}
	}
}

// sample is a random image of two layers with a configuration.
func sample(t testing.TB) gcr.Image {
	t.Helper()
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.Config(img, gcr.Config{
		Env: []string{"PATH=/bin", "broken", "=x"}, Entrypoint: []string{"/bin/app"}, Cmd: []string{"-v"},
		WorkingDir: "srv//x/..", User: "1000:staff", StopSignal: "SIGQUIT", Labels: map[string]string{"x": "y"},
		Volumes: map[string]struct{}{"/": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return withPlatform(t, img, "linux", "amd64")
}

func withPlatform(t testing.TB, img gcr.Image, os, arch string) gcr.Image {
	t.Helper()
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = os, arch
	img, err = mutate.ConfigFile(img, cf)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func dockerArchive(t testing.TB, img gcr.Image) []byte {
	t.Helper()
	var buf bytes.Buffer
	tag, err := name.NewTag("example.test/x:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.Write(tag, img, &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// ociArchive writes a layout with the given images, each with its platform.
func ociArchive(t testing.TB, images ...gcr.Image) []byte {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		cf, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		var opts []layout.Option
		if len(images) > 1 {
			opts = append(opts, layout.WithPlatform(gcr.Platform{OS: cf.OS, Architecture: cf.Architecture}))
		}
		if err := p.AppendImage(img, opts...); err != nil {
			t.Fatal(err)
		}
	}
	return tarDir(t, dir)
}

func tarDir(t testing.TB, dir string) []byte {
	t.Helper()
	var entries []entry
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		entries = append(entries, entry{"./" + rel, string(data)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return makeTar(t, entries...)
}

func open(t testing.TB, data []byte, opts OpenOptions) (*Archive, error) {
	t.Helper()
	if opts.Arch == "" {
		opts.Arch = "amd64"
	}
	a, err := Open(t.Context(), bytes.NewReader(data), int64(len(data)), opts)
	if err == nil {
		t.Cleanup(func() { _ = a.Close() })
	}
	return a, err
}

// same fails t unless a is img.
func same(t *testing.T, a *Archive, img gcr.Image) {
	t.Helper()
	if err := Validate(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	id, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if string(a.ID()) != id.String() {
		t.Errorf("image is %s, want %s", a.ID(), id)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, l := range a.Layers() {
		got = append(got, string(l.DiffID()))
	}
	for _, l := range layers {
		d, err := l.DiffID()
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, d.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("layers %v, want %v", got, want)
	}
}

func wantRefusal(t *testing.T, err, class error, text string) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Fatalf("got error %v, want class %v", err, class)
	}
	if got := errdefs.PublicText(err, ""); !strings.Contains(got, text) || got == "" {
		t.Fatalf("text for tenants is %q, want %q in it", got, text)
	}
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func digestOf(s string) string { return string(digest.FromString(s)) }

func crc32le(b []byte) []byte { return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)) }

// untar writes an archive of flat files to a directory.
func untar(t testing.TB, data []byte) string {
	t.Helper()
	dir := t.TempDir()
	replace(t, data, func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
		return content
	})
	return dir
}
