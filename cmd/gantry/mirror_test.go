package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// TestMirrorOfImages types pull, push and mirror against a registry.
func TestMirrorOfImages(t *testing.T) {
	o := newOperator(t)
	web := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer web.Close()
	host := strings.TrimPrefix(web.URL, "http://")
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("XDG_CACHE_HOME", dir)
	for _, name := range []string{"OS_AUTH_URL", "OS_CLOUD"} {
		t.Setenv(name, "")
	}
	insecure := "--insecure=" + host

	o.ok("run", "--id", "c", "busybox", "/bin/sh", "-c", "echo 1 > /root/new; echo ready; exec sleep 1000")
	o.ready("c")
	o.ok("commit", "c", "mine")
	out := o.ok("image", "push", insecure, "mine", host+"/team/mine:1")
	if !strings.Contains(out, host+"/team/mine:1: copied, sha256:") {
		t.Errorf("push: %s", out)
	}
	if out := o.ok("image", "push", insecure, "mine", host+"/team/mine:1"); !strings.Contains(out, "up to date") {
		t.Errorf("push again: %s", out)
	}
	ref := host + "/team/mine:1"
	for _, want := range []string{"copied", "up to date"} {
		if out := o.ok("image", "pull", insecure, ref); !strings.Contains(out, want) {
			t.Errorf("pull: %s, want %s", out, want)
		}
	}
	if out := o.ok("run", "-f", "--rm", ref, "/bin/cat", "/root/new"); !strings.Contains(out, "1") {
		t.Errorf("what was pulled says %q", out)
	}
	layersStay(t, o, insecure, host)
	plan := filepath.Join(dir, "mirror.yaml")
	check(t, os.WriteFile(plan, []byte("insecure: ['"+host+"']\nimages:\n- from: '"+ref+"'\n  to: file:"+dir+"/mine.tar\n"), 0o600))
	o.ok("image", "mirror", "--plan", plan)
	o.ok("image", "mirror", "file:"+dir+"/mine.tar", "dir:"+dir+"/layout")
	o.ok("image", "mirror", "dir:"+dir+"/layout", "engine:again")
	for _, args := range [][]string{
		{"image", "pull", "mine"},
		{"image", "pull", insecure, host + "/none:1"},
		{"image", "push", insecure, "none", ref},
		{"image", "mirror"},
		{"image", "mirror", ref},
		{"image", "mirror", ref, "engine:x", "--to-glance"},
		{"image", "mirror", insecure, ref, "--to-glance"},
		{"image", "mirror", "--plan", dir + "/none"},
		{"image", "mirror", "--plan", plan, ref},
	} {
		if _, errs, code := o.run(args...); code == 0 || errs == "" {
			t.Errorf("%v: %d %q", args, code, errs)
		}
	}
	o.ok("rm", "-k", "c")
}

// layersStay: a layer that came from a registry goes back as it is there, however
// it was compressed, and into another registry in a form of its own.
func layersStay(t *testing.T, o *operator, insecure, host string) {
	t.Helper()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return oneFile(t), nil }, tarball.WithCompressionLevel(gzip.BestCompression))
	check(t, err)
	img, err := mutate.AppendLayers(empty.Image, layer)
	check(t, err)
	config, err := img.ConfigFile()
	check(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	img, err = mutate.ConfigFile(img, config)
	check(t, err)
	ref := func(text string) name.Reference {
		r, err := name.ParseReference(text, name.Insecure)
		check(t, err)
		return r
	}
	check(t, remote.Write(ref(host+"/base/os:1"), img))
	want, err := layer.Digest()
	check(t, err)
	digest := func(text string) v1.Hash {
		img, err := remote.Image(ref(text))
		check(t, err)
		check(t, validate.Image(img))
		manifest, err := img.Manifest()
		check(t, err)
		return manifest.Layers[0].Digest
	}

	o.ok("image", "pull", insecure, host+"/base/os:1", "os")
	o.ok("image", "push", insecure, "os", host+"/team/app:2")
	if got := digest(host + "/team/app:2"); got != want {
		t.Errorf("the layer went back as %s, not as %s", got, want)
	}
	other := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer other.Close()
	elsewhere := strings.TrimPrefix(other.URL, "http://")
	for range 2 {
		o.ok("image", "push", "--insecure="+elsewhere, "os", elsewhere+"/team/app:2")
		if got := digest(elsewhere + "/team/app:2"); got == want {
			t.Error("the registry holds what it was never sent")
		}
	}
	o.ok("image", "rm", "os")
}

// oneFile is a tar stream that compresses differently at each level.
func oneFile(t *testing.T) io.ReadCloser {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	text := strings.Repeat("some words, and others, and some of the words again\n", 2000)
	check(t, w.WriteHeader(&tar.Header{Name: "words", Mode: 0o644, Size: int64(len(text))}))
	_, err := io.WriteString(w, text)
	check(t, err)
	check(t, w.Close())
	return io.NopCloser(&b)
}
