package mirror_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/gantry-project/gantry/mirror"
)

// blobs gives each repository of the registry blobs of its own, and the mounting
// of those of another: the library's registry has neither.
type blobs struct {
	in            map[string]bool // by repository@digest
	sent, mounted []string        // the same
}

// answer is what a request is answered with in place of the registry, or 0.
func (b *blobs) answer(r *http.Request) int {
	repo, rest, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/")
	query := r.URL.Query()
	switch {
	case !ok:
	case r.Method == http.MethodPost && b.in[query.Get("from")+"@"+query.Get("mount")]:
		b.in[repo+"@"+query.Get("mount")] = true
		b.mounted = append(b.mounted, repo+"@"+query.Get("mount"))
		return http.StatusCreated
	case r.Method == http.MethodPut:
		b.in[repo+"@"+query.Get("digest")] = true
		b.sent = append(b.sent, repo+"@"+query.Get("digest"))
	case (r.Method == http.MethodHead || r.Method == http.MethodGet) && strings.HasPrefix(rest, "sha256:") && !b.in[repo+"@"+rest]:
		return http.StatusNotFound
	}
	return 0
}

// Layers that a registry has as they came are not sent to it, nor are they asked
// of the engine; those that another repository of it has are taken from there.
func TestLayersThatAreThere(t *testing.T) {
	for what, c := range map[string]struct {
		from    string // of the layers, HOST for the registry's
		before  bool   // team/app has them
		without bool
		mounted bool
	}{
		"in the repository":     {before: true, without: true},
		"in another repository": {from: "HOST/base/os", without: true, mounted: true},
		"in no repository":      {from: "HOST/gone/os"},
		"nobody knows where":    {},
		"in another registry":   {from: "registry.example/base/os"},
		"no name of a registry": {from: "os"},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			img := r.put("base/os:1")
			r.ok(r.host+"/base/os:1", "engine:os", false)
			if r.local.from != r.host+"/base/os" {
				t.Errorf("it is from %q", r.local.from)
			}
			if c.before {
				check(t, remote.Write(must(name.ParseReference(r.host+"/team/app:0", name.Insecure))(t), img))
			}
			digests := r.known("os", img, strings.Replace(c.from, "HOST", r.host, 1))
			r.blobs.sent = nil
			res := r.ok("engine:os", r.host+"/team/app:1", false)
			if want := must(img.Digest())(t).String(); res.Digest != want {
				t.Errorf("it is %s, not %s", res.Digest, want)
			}
			if c.without != slices.Equal(r.local.without, digests) || len(r.local.without) != 0 != c.without {
				t.Errorf("without %v of %v", r.local.without, digests)
			}
			for _, d := range digests {
				if got := slices.Contains(r.blobs.sent, "team/app@"+d); got == c.without {
					t.Errorf("%s: sent %t", d, got)
				}
				if got := slices.Contains(r.blobs.mounted, "team/app@"+d); got != c.mounted {
					t.Errorf("%s: mounted %t", d, got)
				}
			}
			r.ok(r.host+"/team/app:1", "engine:again", false)
			if len(r.local.m["again"]) != len(r.local.m["os"]) {
				t.Errorf("what comes back has %d bytes, not %d", len(r.local.m["again"]), len(r.local.m["os"]))
			}
			r.ok("engine:os", "file:"+t.TempDir()+"/whole.tar", false)
			if len(r.local.without) != 0 {
				t.Errorf("a file without %v", r.local.without)
			}
		})
	}
}

// known tells the engine that an image's layers are stored so, and returns their
// digests.
func (r *rig) known(ref string, img v1.Image, from string) (digests []string) {
	r.t.Helper()
	layers, err := img.Layers()
	check(r.t, err)
	r.local.stored = map[string][]mirror.StoredLayer{}
	for _, l := range layers {
		d, err := l.Digest()
		check(r.t, err)
		digests = append(digests, d.String())
		r.local.stored[ref] = append(r.local.stored[ref], mirror.StoredLayer{Digest: d.String(), From: from})
	}
	return digests
}
