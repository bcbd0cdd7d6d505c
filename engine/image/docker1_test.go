package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// v1Archive is what docker saved before 1.10: two layers.
func v1Archive(t testing.TB) []byte {
	t.Helper()
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	return makeTar(
		t, entry{a + "/", ""}, entry{a + "/VERSION", "1.0"}, entry{a + "/json", fmt.Sprintf(`{"id":"%s"}`, a)},
		entry{a + "/layer.tar", string(makeTar(t, entry{"etc/a", "one"}))},
		entry{b + "/json", fmt.Sprintf(`{"id":"%s","parent":"%s","architecture":"amd64","os":"linux","config":{"Cmd":["/bin/app"],"User":"7"}}`, b, a)},
		entry{b + "/layer.tar", string(makeTar(t, entry{"etc/b", "two"}))},
		entry{"repositories", fmt.Sprintf(`{"app":{"1":"%s","latest":"%s"}}`, b, b)},
	)
}

func TestDockerV1(t *testing.T) {
	for _, compress := range []func(testing.TB, []byte) []byte{func(_ testing.TB, b []byte) []byte { return b }, gzipped} {
		a, err := open(t, compress(t, v1Archive(t)), OpenOptions{ContainerFormat: "docker", Arch: "amd64", SpoolDir: t.TempDir()})
		check(t, err)
		defer a.Close()
		if a.Kind() != DockerArchive || a.ID() == "" || len(a.Layers()) != 2 {
			t.Fatalf("%+v", a)
		}
		if d := cmp.Diff(Config{Architecture: "amd64", Cmd: []string{"/bin/app"}, User: "7"}, a.Config()); d != "" {
			t.Error(d)
		}
		for i, want := range []string{"one", "two"} {
			r, err := a.Layers()[i].Open(t.Context())
			check(t, err)
			data, err := io.ReadAll(r)
			check(t, err)
			if a.Layers()[i].DiffID() != "" || !bytes.Contains(data, []byte(want)) {
				t.Errorf("layer %d: %q", i, a.Layers()[i].DiffID())
			}
			check(t, r.Close())
		}
	}
}

func TestDockerV1Refused(t *testing.T) {
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	for name, c := range map[string]struct {
		file  string
		with  func(string) string
		class error
		text  string
	}{
		"two images":      {"repositories", func(s string) string { return strings.Replace(s, b, a, 1) }, errdefs.ErrInvalid, "2 images"},
		"no image":        {"repositories", func(string) string { return "{}" }, errdefs.ErrInvalid, "0 images"},
		"no list":         {"repositories", func(string) string { return "[]" }, errdefs.ErrCorrupt, "cannot be read"},
		"a path as id":    {"repositories", func(string) string { return `{"x":{"y":"../../etc"}}` }, errdefs.ErrInvalid, "no id"},
		"a circle":        {a + "/json", func(string) string { return fmt.Sprintf(`{"id":"%s","parent":"%s"}`, a, b) }, errdefs.ErrInvalid, "circle"},
		"another's json":  {a + "/json", func(string) string { return fmt.Sprintf(`{"id":"%s"}`, b) }, errdefs.ErrCorrupt, "another one"},
		"a path as below": {a + "/json", func(string) string { return fmt.Sprintf(`{"id":"%s","parent":"../x"}`, a) }, errdefs.ErrCorrupt, "another one"},
		"no layer":        {a + "/layer.tar", func(string) string { return "" }, errdefs.ErrCorrupt, "missing"},
		"another machine": {b + "/json", func(s string) string { return strings.Replace(s, "amd64", "s390x", 1) }, errdefs.ErrUnsupported, "s390x"},
	} {
		t.Run(name, func(t *testing.T) {
			data := replace(t, v1Archive(t), func(name, data string) string {
				if name == c.file {
					return c.with(data)
				}
				return data
			})
			_, err := open(t, data, OpenOptions{ContainerFormat: "docker", Arch: "amd64"})
			wantRefusal(t, err, c.class, c.text)
		})
	}
}

// TestNestedLayout: a tar of the directory that holds the layout.
func TestNestedLayout(t *testing.T) {
	data := ociArchive(t, sample(t))
	nested := retar(t, data, func(name string) string { return "./layout/" + name })
	a, err := open(t, nested, OpenOptions{ContainerFormat: "docker"})
	check(t, err)
	if a.Kind() != OCIArchive {
		t.Fatal(a.Kind())
	}
	check(t, Validate(t.Context(), a))
	other := retar(t, data, func(name string) string { return "other/" + name })
	two := append(nested[:len(nested)-1024:len(nested)-1024], other...)
	if a, err := open(t, two, OpenOptions{ContainerFormat: "docker"}); err == nil {
		t.Errorf("two layouts are a %s", a.Kind())
	}
}

// retar is an archive with other names.
func retar(t *testing.T, archive []byte, name func(string) string) []byte {
	t.Helper()
	var list []entry
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return makeTar(t, list...)
		}
		check(t, err)
		data, err := io.ReadAll(r)
		check(t, err)
		list = append(list, entry{name(h.Name), string(data)})
	}
}
