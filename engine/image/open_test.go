package image

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestOpenDockerArchive(t *testing.T) {
	img := sample(t)
	a, err := open(t, dockerArchive(t, img), OpenOptions{ContainerFormat: "docker", DiskFormat: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, a, img)
	want := Config{
		Architecture: "amd64", Env: []string{"PATH=/bin"}, Entrypoint: []string{"/bin/app"}, Cmd: []string{"-v"},
		WorkingDir: "/srv", User: "1000:staff", StopSignal: "SIGQUIT",
	}
	if d := cmp.Diff(want, a.Config()); d != "" {
		t.Error(d)
	}
	if a.Kind() != DockerArchive {
		t.Error(a.Kind())
	}
}

// TestOpenLegacyDockerArchive has layers under two names, as docker wrote them
// until version 24.
func TestOpenLegacyDockerArchive(t *testing.T) {
	layer := string(makeTar(t, entry{"etc/x", "1"}))
	config := `{"architecture":"amd64","os":"linux","config":{"Cmd":"only-one"},"rootfs":{"type":"layers","diff_ids":["` +
		digestOf(layer) + `","` + digestOf(layer) + `"]}}`
	id := strings.TrimPrefix(digestOf(config), "sha256:")
	first, second := strings.Repeat("a", 64), strings.Repeat("b", 64)
	a, err := open(t, makeTar(t,
		entry{first + "/layer.tar", layer}, entry{second + "/layer.tar", "-> ../" + first + "/layer.tar"},
		entry{id + ".json", config},
		entry{"manifest.json", `[{"Config":"` + id + `.json","RepoTags":null,"Layers":["` + first + `/layer.tar","` + second + `/layer.tar"]}]`},
		entry{"repositories", "{}"},
	), OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Validate(t.Context(), a); err != nil || len(a.Layers()) != 2 {
		t.Fatalf("%v, %v", a.Layers(), err)
	}
	if got := a.Config().Cmd; len(got) != 1 || got[0] != "only-one" {
		t.Error(got)
	}
}

func TestOpenOCIArchive(t *testing.T) {
	img := sample(t)
	for name, images := range map[string][]byte{
		"single":     ociArchive(t, img),
		"multi-arch": ociArchive(t, withPlatform(t, sample(t), "linux", "arm64"), img, withPlatform(t, sample(t), "windows", "amd64")),
		"same twice": ociArchive(t, img, img),
	} {
		t.Run(name, func(t *testing.T) {
			a, err := open(t, images, OpenOptions{ContainerFormat: "docker"})
			if err != nil {
				t.Fatal(err)
			}
			same(t, a, img)
			if a.Kind() != OCIArchive {
				t.Error(a.Kind())
			}
		})
	}
}

func TestOpenCompressedArchive(t *testing.T) {
	img := sample(t)
	dir := t.TempDir()
	data := gzipped(t, dockerArchive(t, img))
	a, err := open(t, data, OpenOptions{ContainerFormat: "docker", SpoolDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	same(t, a, img)
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	_, err = open(t, data, OpenOptions{ContainerFormat: "docker"})
	wantRefusal(t, err, errdefs.ErrUnsupported, "compressed as a whole")
	_, err = open(t, data, OpenOptions{ContainerFormat: "bare", SpoolDir: dir})
	wantRefusal(t, err, errdefs.ErrInvalid, "docker")
}

// TestOpenRootfs reads a tarball that stock tools compressed.
func TestOpenRootfs(t *testing.T) {
	for _, suffix := range []string{"", ".gz", ".xz", ".zst", ".bz2"} {
		t.Run("tar"+suffix, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", "rootfs.tar"+suffix))
			if err != nil {
				t.Fatal(err)
			}
			for _, opts := range []OpenOptions{{}, {ContainerFormat: "bare", DiskFormat: "raw"}} {
				a, err := open(t, data, opts)
				if err != nil {
					t.Fatal(err)
				}
				l := a.Layers()
				if a.Kind() != Rootfs || len(l) != 1 || l[0].DiffID() != "" || l[0].StoredSize() != int64(len(data)) || a.ID() != "" {
					t.Fatalf("%+v", a)
				}
				r, err := l[0].Open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				if err != nil || digestOf(string(got)) != "sha256:"+rootfsSum(t) {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				_ = r.Close()
			}
			_, err = open(t, data, OpenOptions{ContainerFormat: "docker"})
			wantRefusal(t, err, errdefs.ErrInvalid, "root file system tarball")
			_, err = open(t, data, OpenOptions{DiskFormat: "qcow2"})
			wantRefusal(t, err, errdefs.ErrInvalid, "qcow2")
			_, err = open(t, data, OpenOptions{ContainerFormat: "ova"})
			wantRefusal(t, err, errdefs.ErrUnsupported, "ova")
		})
	}
}

func rootfsSum(t *testing.T) string {
	data, err := os.ReadFile("testdata/rootfs.tar")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(digestOf(string(data)), "sha256:")
}

func TestOpenRootfsThatHoldsAnArchiveName(t *testing.T) {
	a, err := open(t, makeTar(t, entry{"etc/", ""}, entry{"manifest.json", "[]"}), OpenOptions{ContainerFormat: "bare"})
	if err != nil || a.Kind() != Rootfs {
		t.Fatal(a, err)
	}
}

func TestSignals(t *testing.T) {
	for s, want := range map[string]int{
		"": 15, "SIGTERM": 15, "term": 15, "9": 9, "64": 64, "SIGRTMIN+3": 37, "RTMIN": 34, "RTMAX-1": 63, "SIGWINCH": 28,
		"0": 0, "65": 0, "-1": 0, "SIG": 0, "SIGNONE": 0, "RTMIN+31": 0, "RTMAX-31": 0, "RTMIN-1": 0, "RTMIN+": 0, "1 ": 0, "99999999": 0,
	} {
		got, err := Config{StopSignal: s}.Signal()
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
}

func TestConfigIsStorable(t *testing.T) {
	a, err := open(t, dockerArchive(t, sample(t)), OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var back Config
	if err := json.Unmarshal([]byte(toJSON(t, a.Config())), &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a.Config(), back); d != "" {
		t.Error(d)
	}
}

func FuzzOpen(f *testing.F) {
	img, err := random.Image(100, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(dockerArchive(f, withPlatform(f, img, "linux", "amd64")))
	f.Add(ociArchive(f, withPlatform(f, img, "linux", "amd64")))
	f.Add(makeTar(f, entry{"manifest.json", `[{"Config":"c","Layers":["l"]}]`}, entry{"c", `{"rootfs":{"diff_ids":["` + digestOf("") + `"]}}`}, entry{"l", ""}))
	f.Add(gzipped(f, makeTar(f, entry{"etc/x", "y"})))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := open(t, data, OpenOptions{SpoolDir: t.TempDir(), Limits: Limits{LayerBytes: 1 << 20}})
		if err != nil {
			return
		}
		if n := len(a.Layers()); n < 1 || n > 200 {
			t.Errorf("%d layers", n)
		}
		if err := a.Config().check(); err != nil {
			t.Error(err)
		}
		_ = Validate(t.Context(), a)
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:00","size":1,"platform":{"os":"linux"}}]}`))
	f.Add([]byte(`{"config":{},"layers":[null]}`))
	f.Add([]byte(`[{"Config":"x","Layers":["y"]}]`))
	f.Add([]byte(`{"os":"linux","config":{"Cmd":["x"],"StopSignal":"9"},"rootfs":{"diff_ids":[]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		lim := Limits{}.withDefaults()
		for _, archive := range [][]byte{
			makeTar(t, entry{"oci-layout", "{}"}, entry{"index.json", string(data)}),
			makeTar(t, entry{"manifest.json", string(data)}, entry{"x", string(data)}, entry{"y", ""}),
		} {
			_, _ = open(t, archive, OpenOptions{})
		}
		c, err := parseConfig(data, "amd64", lim)
		if err == nil && (len(c.diffIDs) == 0 || c.steps != nil && len(c.steps) != len(c.diffIDs) || c.check() != nil) {
			t.Errorf("accepted %+v", c)
		}
	})
}

func FuzzSniff(f *testing.F) {
	f.Add([]byte("QFI\xfb"))
	f.Add(makeTar(f, entry{"a", "b"}))
	f.Add([]byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := sniff(data)
		if s.tar && (s.disk != "" || s.compression != plain) {
			t.Errorf("%+v", s)
		}
		if s.compression != plain {
			r, err := decompress(s.compression, bytes.NewReader(data), Limits{LayerBytes: 1 << 20}.withDefaults())
			if err == nil {
				_, _ = io.Copy(io.Discard, r)
				_ = r.Close()
			}
		}
	})
}

// TestVariants: of images that differ in the variant only, the one that asks for
// least is taken.
func TestVariants(t *testing.T) {
	d := func(arch, variant, id string) v1.Descriptor {
		return v1.Descriptor{Digest: digest.FromString(id), Platform: &v1.Platform{OS: "linux", Architecture: arch, Variant: variant}}
	}
	for name, c := range map[string]struct {
		arch string
		list []v1.Descriptor
		want string
	}{
		"none":          {"amd64", []v1.Descriptor{d("amd64", "", "a"), d("arm64", "v8", "b")}, "a"},
		"the least":     {"amd64", []v1.Descriptor{d("amd64", "v3", "a"), d("amd64", "", "b"), d("amd64", "v2", "c")}, "b"},
		"v1 is none":    {"amd64", []v1.Descriptor{d("amd64", "v3", "a"), d("amd64", "v1", "b")}, "b"},
		"arm64":         {"arm64", []v1.Descriptor{d("arm64", "v9", "a"), d("arm64", "v8", "b"), d("arm", "v7", "c")}, "b"},
		"only one":      {"amd64", []v1.Descriptor{d("amd64", "v3", "a"), d("arm64", "", "b")}, "a"},
		"twice":         {"amd64", []v1.Descriptor{d("amd64", "", "a"), d("amd64", "v1", "a")}, "a"},
		"two of a kind": {"amd64", []v1.Descriptor{d("amd64", "v2", "a"), d("amd64", "v2", "b")}, ""},
	} {
		got, err := choose(c.list, c.arch)
		if c.want == "" {
			wantRefusal(t, err, errdefs.ErrInvalid, "2 images")
			continue
		}
		if err != nil || got.Digest != digest.FromString(c.want) {
			t.Errorf("%s: %v, %v", name, got.Platform, err)
		}
	}
}
