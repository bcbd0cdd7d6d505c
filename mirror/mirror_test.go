package mirror_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/mirror"
)

// images is an image service in memory, local an engine.
type images struct {
	mu     sync.Mutex
	m      map[string]*stored
	hidden map[string]bool
	fail   error // of the next Add, in the middle
}

type stored struct {
	mirror.ServiceImage
	data []byte
}

func (s *images) Find(_ context.Context, properties map[string]string) (out []mirror.ServiceImage, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
next:
	for id, i := range s.m {
		for k, v := range properties {
			if i.Properties[k] != v || s.hidden[id] {
				continue next
			}
		}
		out = append(out, i.ServiceImage)
	}
	return out, nil
}

func (s *images) Named(_ context.Context, name string) (mirror.ServiceImage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, i := range s.m {
		if (i.Name == name && !s.hidden[id]) || id == name {
			return i.ServiceImage, nil
		}
	}
	return mirror.ServiceImage{}, fmt.Errorf("image %s: %w", name, errdefs.ErrNotFound)
}

func (s *images) Open(_ context.Context, id string) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.m[id].data)), nil
}

func (s *images) Add(_ context.Context, name string, properties map[string]string, data io.Reader) (string, error) {
	if s.fail != nil {
		return "", s.fail
	}
	raw, err := io.ReadAll(data)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := fmt.Sprintf("image-%d", len(s.m))
	s.m[id] = &stored{mirror.ServiceImage{ID: id, Name: name, ContainerFormat: "docker", Properties: properties}, raw}
	return id, nil
}

func (s *images) Hide(_ context.Context, id string) error {
	s.hidden[id] = true
	return nil
}

type local struct {
	m      map[string][]byte
	ids    map[string]string
	stored map[string][]mirror.StoredLayer
	// from is what the last Import was told, without the last Export.
	from    string
	without []string
}

func (l *local) ID(_ context.Context, ref string) (string, error) {
	if _, ok := l.m[ref]; !ok {
		return "", errdefs.ErrNotFound
	}
	return l.ids[ref], nil
}

func (l *local) Stored(_ context.Context, ref string) ([]mirror.StoredLayer, error) {
	return l.stored[ref], nil
}

func (l *local) Export(_ context.Context, ref string, without []string) (io.ReadCloser, error) {
	data, ok := l.m[ref]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	l.without = without
	return io.NopCloser(bytes.NewReader(lacking(data, without))), nil
}

// lacking is an archive without the blobs of these digests.
func lacking(data []byte, without []string) []byte {
	var out bytes.Buffer
	from, to := tar.NewReader(bytes.NewReader(data)), tar.NewWriter(&out)
	for {
		h, err := from.Next()
		if err != nil {
			_ = to.Close()
			return out.Bytes()
		}
		if slices.Contains(without, "sha256:"+strings.TrimPrefix(h.Name, "blobs/sha256/")) {
			continue
		}
		_ = to.WriteHeader(h)
		_, _ = io.Copy(to, from)
	}
}

func (l *local) Import(_ context.Context, ref, from string, archive io.Reader) (err error) {
	l.from = from
	l.m[ref], err = io.ReadAll(archive)
	return err
}

// rig is a registry and all other sides.
type rig struct {
	t      *testing.T
	host   string
	fails  func(r *http.Request) bool
	blobs  blobs
	asked  []string // of the registry: method and path
	images *images
	local  *local
	opts   mirror.Options
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, blobs: blobs{in: map[string]bool{}}, images: &images{m: map[string]*stored{}, hidden: map[string]bool{}}, local: &local{m: map[string][]byte{}, ids: map[string]string{}}}
	handler := registry.New(registry.Logger(stdlog.New(io.Discard, "", 0)))
	var mu sync.Mutex
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		r.asked = append(r.asked, req.Method+" "+req.URL.Path)
		fail := r.fails != nil && r.fails(req)
		answer := 0
		if !fail {
			answer = r.blobs.answer(req)
		}
		mu.Unlock()
		if fail {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if answer != 0 {
			w.WriteHeader(answer)
			return
		}
		handler.ServeHTTP(w, req)
	}))
	t.Cleanup(web.Close)
	r.host = strings.TrimPrefix(web.URL, "http://")
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	r.opts = mirror.Options{
		Platform: "linux/amd64", Insecure: []string{r.host}, Temp: t.TempDir(), Images: r.images, Local: r.local, Log: zerolog.Nop(),
	}
	return r
}

// put makes an image in the registry.
func (r *rig) put(ref string) v1.Image {
	r.t.Helper()
	img, err := random.Image(2048, 3)
	check(r.t, err)
	img = forAMD64(r.t, img)
	to, err := name.ParseReference(r.host+"/"+ref, name.Insecure)
	check(r.t, err)
	check(r.t, remote.Write(to, img))
	return img
}

func forAMD64(t *testing.T, img v1.Image) v1.Image {
	t.Helper()
	config, err := img.ConfigFile()
	check(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	img, err = mutate.ConfigFile(img, config)
	check(t, err)
	return img
}

func (r *rig) copy(from, to string) (mirror.Result, error) {
	r.t.Helper()
	m, err := mirror.New(r.opts)
	check(r.t, err)
	src, err := mirror.ParsePlace(from)
	check(r.t, err)
	dst, err := mirror.ParsePlace(to)
	check(r.t, err)
	return m.Copy(r.t.Context(), src, dst)
}

func (r *rig) ok(from, to string, current bool) mirror.Result {
	r.t.Helper()
	res, err := r.copy(from, to)
	if err != nil || res.Current != current {
		r.t.Fatalf("%s to %s: current %t, %v", from, to, res.Current, err)
	}
	if left, _ := os.ReadDir(r.opts.Temp); len(left) != 0 {
		r.t.Errorf("%s to %s left %v", from, to, left)
	}
	return res
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An image goes through every place there is and comes back as it was.
func TestRoundTrip(t *testing.T) {
	r := newRig(t)
	img := r.put("team/app:1.2")
	digest, err := img.Digest()
	check(t, err)
	config, err := img.ConfigName()
	check(t, err)
	dir := t.TempDir()
	registryRef := r.host + "/team/app:1.2"
	for _, step := range [][2]string{
		{registryRef, "glance:app"},
		{"glance:app", "file:" + filepath.Join(dir, "app.tar")},
		{"file:" + filepath.Join(dir, "app.tar"), "dir:" + filepath.Join(dir, "layout")},
		{"dir:" + filepath.Join(dir, "layout"), "engine:app"},
		{"engine:app", r.host + "/back/app:latest"},
	} {
		res := r.ok(step[0], step[1], false)
		if res.Digest != digest.String() {
			t.Fatalf("%s to %s: %s, not %s", step[0], step[1], res.Digest, digest)
		}
	}
	r.ok("engine:app", r.host+"/back/app:latest", true)
	r.asked = nil
	r.ok(registryRef, "glance:app", true)
	for _, a := range r.asked {
		if strings.Contains(a, "/blobs/") && !strings.Contains(a, config.Hex) {
			t.Errorf("an image that is there already: %s", a)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("files: %v", left)
	}
}

// A tag that moved gives a new image; the earlier one is hidden, not deleted.
func TestGlanceFollowsATag(t *testing.T) {
	r := newRig(t)
	r.put("app:1")
	first := r.ok(r.host+"/app:1", "glance:app", false)
	r.put("app:1")
	second := r.ok(r.host+"/app:1", "glance:app", false)
	if first.ID == second.ID || !r.images.hidden[first.ID] || r.images.hidden[second.ID] || len(r.images.m) != 2 {
		t.Errorf("first %+v, second %+v, hidden %v", first, second, r.images.hidden)
	}
	r.images.fail = errdefs.ErrExhausted
	r.put("app:1")
	if _, err := r.copy(r.host+"/app:1", "glance:app"); !errors.Is(err, errdefs.ErrExhausted) || r.images.hidden[second.ID] {
		t.Errorf("a full image service: %v; hidden %v", err, r.images.hidden)
	}
}

// What was fetched before a registry failed is not fetched again.
func TestResume(t *testing.T) {
	r := newRig(t)
	img := r.put("app:1")
	r.opts.Cache = filepath.Join(t.TempDir(), "cache")
	layers, err := img.Layers()
	check(t, err)
	last, err := layers[2].Digest()
	check(t, err)
	r.fails = func(req *http.Request) bool { return strings.Contains(req.URL.Path, last.Hex) }
	if _, err := r.copy(r.host+"/app:1", "glance:app"); !errors.Is(err, errdefs.ErrForbidden) {
		t.Fatalf("a layer that may not be read: %v", err)
	}
	if len(r.images.m) != 0 {
		t.Errorf("left: %v", r.images.m)
	}
	kept, err := os.ReadDir(r.opts.Cache)
	check(t, err)
	if len(kept) != 2 {
		t.Fatalf("kept: %v", kept)
	}
	check(t, os.WriteFile(filepath.Join(r.opts.Cache, kept[0].Name()), []byte("damaged"), 0o600))
	r.fails, r.asked = nil, nil
	r.ok(r.host+"/app:1", "glance:app", false)
	fetched := 0
	for _, a := range r.asked {
		if strings.HasPrefix(a, "GET") && strings.Contains(a, "/blobs/") {
			fetched++
		}
	}
	if fetched != 3 { // the configuration, the damaged one, the last
		t.Errorf("%d blobs fetched: %v", fetched, r.asked)
	}
	if kept, _ := os.ReadDir(r.opts.Cache); len(kept) != 0 {
		t.Errorf("kept: %v", kept)
	}
}

func TestMirrorsComeFirst(t *testing.T) {
	r := newRig(t)
	r.put("app:1")
	r.opts.Mirrors = map[string][]string{"upstream.example": {"localhost:1", r.host}}
	r.opts.Insecure = append(r.opts.Insecure, "localhost:1")
	r.ok("upstream.example/app:1", "engine:app", false)
	if len(r.local.m["app"]) == 0 {
		t.Error("nothing came")
	}
}

// A bare root file system of the image service becomes an image of one layer.
func TestBare(t *testing.T) {
	r := newRig(t)
	layer, err := random.Layer(1000, "application/vnd.oci.image.layer.v1.tar")
	check(t, err)
	raw, err := layer.Uncompressed()
	check(t, err)
	data, err := io.ReadAll(raw)
	check(t, err)
	r.images.m["x"] = &stored{mirror.ServiceImage{ID: "x", Name: "bare", ContainerFormat: "bare"}, data}
	r.ok("glance:bare", r.host+"/bare:1", false)
	r.ok(r.host+"/bare:1", "engine:bare", false)
}

// What docker save writes has no index.
func TestDockerArchive(t *testing.T) {
	r := newRig(t)
	img := forAMD64(t, must(random.Image(1000, 2))(t))
	file := filepath.Join(t.TempDir(), "saved.tar")
	check(t, tarball.WriteToFile(file, must(name.NewTag("x.example/saved:1"))(t), img))
	r.ok("file:"+file, r.host+"/saved:1", false)
	r.images.m["x"] = &stored{mirror.ServiceImage{ID: "x", Name: "saved", ContainerFormat: "docker"}, must(os.ReadFile(file))(t)}
	r.ok("glance:saved", "engine:saved", false)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t)
	r.put("app:1")
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "text"), []byte("no archive"), 0o600))
	idx := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: forAMD64(t, must(random.Image(10, 1))(t)), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}},
	})
	check(t, remote.WriteIndex(must(name.ParseReference(r.host+"/other:1", name.Insecure))(t), idx))
	for what, c := range map[string]struct {
		from, to string
		want     error
	}{
		"no such tag":              {r.host + "/app:2", "engine:x", errdefs.ErrNotFound},
		"no such registry":         {"localhost:1/app:1", "engine:x", errdefs.ErrUnavailable},
		"another architecture":     {r.host + "/other:1", "engine:x", errdefs.ErrUnsupported},
		"to a digest":              {r.host + "/app:1", r.host + "/app@sha256:" + strings.Repeat("0", 64), errdefs.ErrInvalid},
		"no such file":             {"file:" + dir + "/none", "engine:x", errdefs.ErrNotFound},
		"no archive":               {"file:" + dir + "/text", "engine:x", errdefs.ErrInvalid},
		"no such directory":        {"dir:" + dir + "/none", "engine:x", errdefs.ErrNotFound},
		"no such image":            {"glance:none", "engine:x", errdefs.ErrNotFound},
		"not in the engine":        {"engine:none", "glance:x", errdefs.ErrNotFound},
		"a directory that is none": {r.host + "/app:1", "file:" + dir + "/none/x", os.ErrNotExist},
	} {
		if _, err := r.copy(c.from, c.to); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(r.local.m)+len(r.images.m) != 0 {
		t.Errorf("left: %v %v", r.local.m, r.images.m)
	}
	r.opts.Images, r.opts.Local = nil, nil
	for _, to := range []string{"glance:x", "engine:x"} {
		if _, err := r.copy(r.host+"/app:1", to); !errors.Is(err, errdefs.ErrUnsupported) {
			t.Errorf("without %s: %v", to, err)
		}
		if _, err := r.copy(to, "file:"+dir+"/x"); !errors.Is(err, errdefs.ErrUnsupported) {
			t.Errorf("without %s: %v", to, err)
		}
	}
	if _, err := mirror.New(mirror.Options{Platform: "x"}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("platform: %v", err)
	}
}

func TestPlaces(t *testing.T) {
	for text, want := range map[string]mirror.Place{
		"file:a/../b": {Kind: mirror.File, Name: "b"}, "dir:/x": {Kind: mirror.Dir, Name: "/x"}, "glance:my app": {Kind: mirror.Glance, Name: "my app"},
		"engine:x": {Kind: mirror.Engine, Name: "x"}, "registry.example/a/b:1": {Kind: mirror.Registry, Name: "registry.example/a/b:1"},
		"localhost/a": {Kind: mirror.Registry, Name: "localhost/a"}, "h:5000/a": {Kind: mirror.Registry, Name: "h:5000/a"},
	} {
		got, err := mirror.ParsePlace(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if again, err := mirror.ParsePlace(got.String()); err != nil || again != got {
			t.Errorf("%q: %q is %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "app", "team/app", "file:", "glance:", "registry.example/UPPER", "registry.example/a:b:c", "registry:x"} {
		if p, err := mirror.ParsePlace(text); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
}

func TestPlan(t *testing.T) {
	r := newRig(t)
	r.put("app:1")
	p, err := mirror.ParsePlan([]byte("every: 10m\nimages:\n- {from: '" + r.host + "/app:1', to: 'engine:a'}\n- {from: '" + r.host +
		"/none:1', to: 'engine:b'}\n- {from: '" + r.host + "/app:1', to: 'glance:c', platform: linux/amd64}\n"))
	check(t, err)
	m, err := mirror.New(r.opts)
	check(t, err)
	told := map[string]error{}
	err = m.Run(t.Context(), p, func(e mirror.Entry, _ mirror.Result, err error) { told[e.To] = err })
	if !errors.Is(err, errdefs.ErrNotFound) || told["engine:a"] != nil || told["engine:b"] == nil || told["glance:c"] != nil {
		t.Errorf("%v: %v", err, told)
	}
	for _, bad := range []string{"evry: 1h", "every: 1s", "images: [{from: x, to: 'engine:y'}]", "images: [{from: 'engine:y'}]", "["} {
		if _, err := mirror.ParsePlan([]byte(bad)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzPlan(f *testing.F) {
	f.Add([]byte("every: 1h\nimages:\n- from: file:x\n  to: glance:y\n"))
	f.Add([]byte("mirrors: {a.example: [b.example]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := mirror.ParsePlan(data)
		if err == nil && p.Every <= 0 {
			t.Errorf("%+v", p)
		}
	})
}
