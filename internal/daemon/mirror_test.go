package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/glance"
	"github.com/gantry-project/gantry/glance/glancetest"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// What a mirror asks of the image service is what Glance does.
func TestMirrorImages(t *testing.T) {
	service := glancetest.New()
	web := httptest.NewServer(service)
	defer web.Close()
	session, err := openstack.NewSession(openstack.Options{AuthType: "none", EndpointOverride: web.URL}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := mirrorImages{glance.New(session.Service("image", nil), glance.Options{}, zerolog.Nop())}
	ctx := t.Context()
	of := map[string]string{"gantry_mirror_source": "registry.example/app:1"}
	if none, err := s.Find(ctx, of); err != nil || len(none) != 0 {
		t.Fatalf("before: %v %v", none, err)
	}
	id, err := s.Add(ctx, "app", of, bytes.NewReader([]byte("archive")))
	if err != nil {
		t.Fatal(err)
	}
	if f := service.Fields(id); f["container_format"] != "docker" || f["disk_format"] != "raw" || f["status"] != "active" {
		t.Errorf("image: %v", f)
	}
	found, err := s.Find(ctx, of)
	if err != nil || len(found) != 1 || found[0].ID != id || found[0].Name != "app" {
		t.Errorf("found: %v %v", found, err)
	}
	for _, name := range []string{"app", id} {
		img, err := s.Named(ctx, name)
		if err != nil || img.ID != id {
			t.Errorf("%s: %+v %v", name, img, err)
		}
	}
	r, err := s.Open(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(r); err != nil || string(data) != "archive" {
		t.Errorf("data: %q %v", data, err)
	}
	_ = r.Close()
	other := service.Add([]byte("x"), map[string]any{"name": "app"})
	if _, err := s.Named(ctx, "app"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("two of a name: %v", err)
	}
	if err := s.Hide(ctx, id); err != nil {
		t.Error(err)
	}
	if img, err := s.Named(ctx, "app"); err != nil || img.ID != other {
		t.Errorf("after one was hidden: %+v %v", img, err)
	}
	if _, err := s.Named(ctx, "none"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("none: %v", err)
	}
	if _, err := s.Add(ctx, "bad", of, failingReader{}); err == nil {
		t.Error("a stream that breaks became an image")
	}
	if last := service.Requests()[len(service.Requests())-1]; !strings.HasPrefix(last, "DELETE ") {
		t.Errorf("after a stream that breaks: %s", last)
	}
	if left, err := s.Named(ctx, "bad"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("left: %+v %v", left, err)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("it breaks") }

func TestPlansOfMirrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mirror.yaml")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if wait, err := keepMirrors(ctx, "", dir, nil, nil, zerolog.Nop()); err != nil {
		t.Error(err)
	} else {
		wait()
	}
	if _, err := keepMirrors(ctx, file, dir, nil, nil, zerolog.Nop()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for text, want := range map[string]error{"evry: 1h": errdefs.ErrInvalid, "every: 1h\nimages: []": nil} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		wait, err := keepMirrors(ctx, file, dir, nil, nil, zerolog.Nop())
		if !errors.Is(err, want) {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil {
			wait()
		}
	}
}
