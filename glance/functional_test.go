//go:build functional

package glance_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/glance"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// The tests of this file run against a real Glance: OS_AUTH_URL (default
// http://127.0.0.1:5000/v3), users nova and demo with the password OS_PASSWORD
// (default bench).

func realSession(t *testing.T, user, project string) *openstack.Session {
	t.Helper()
	env := func(name, fallback string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return fallback
	}
	s, err := openstack.NewSession(openstack.Options{
		AuthURL: env("OS_AUTH_URL", "http://127.0.0.1:5000/v3"), Username: user, Password: env("OS_PASSWORD", "bench"),
		ProjectName: project, UserDomainID: "default", ProjectDomainID: "default",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// cutting breaks the first transfer of data after limit bytes.
type cutting struct {
	glance.REST
	limit int64
	cuts  atomic.Int32
	parts atomic.Int32
}

func (c *cutting) Open(ctx context.Context, auth openstack.UserAuth, req openstack.Request) (*http.Response, error) {
	resp, err := c.REST.Open(ctx, auth, req)
	if err == nil && req.Method == http.MethodGet {
		if resp.StatusCode == http.StatusPartialContent {
			c.parts.Add(1)
		}
		if c.cuts.Add(1) == 1 {
			body := resp.Body
			resp.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(io.LimitReader(body, c.limit), iotest.ErrReader(io.ErrUnexpectedEOF)), body}
		}
	}
	return resp, err
}

func TestRealGlance(t *testing.T) {
	service := realSession(t, "nova", "service")
	token, err := realSession(t, "demo", "demo").Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	user := openstack.UserAuth{Token: token, RequestID: "req-glance-functional-test"}
	rest := &cutting{REST: service.Service("image", service), limit: 1 << 20}
	client := glance.New(rest, glance.Options{}, zerolog.Nop())
	data := noise(8 << 20)

	img, err := client.Create(t.Context(), user, glance.NewImage{Name: "glance-functional-test", Properties: map[string]string{"image_type": "snapshot"}})
	if err != nil {
		t.Fatal(err)
	}
	gone := false
	t.Cleanup(func() {
		if !gone {
			_ = client.Delete(context.WithoutCancel(t.Context()), user, img.ID)
		}
	})
	if err := client.Upload(t.Context(), user, img.ID, bytes.NewReader(data)); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("upload before the formats are set: %v", err)
	}
	err = client.Update(t.Context(), user, img.ID, glance.Patch{
		DiskFormat: "raw", ContainerFormat: "docker", Properties: map[string]string{"image_state": "available", "image_location": "snapshot"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Upload(t.Context(), user, img.ID, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if err := client.Upload(t.Context(), user, img.ID, bytes.NewReader(data[:100])); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("second upload: %v", err)
	}
	if img, err = client.Stat(t.Context(), user, img.ID); err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(data)
	if !img.Active() || img.SizeBytes != int64(len(data)) || img.HashAlgo != "sha512" || img.HashValue != hex.EncodeToString(sum[:]) ||
		img.Properties["image_type"] != "snapshot" || img.Properties["image_state"] != "available" || img.ContainerFormat != "docker" {
		t.Errorf("image %+v", img)
	}
	r, err := client.Open(t.Context(), user, img)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_ = r.Close()
	if rest.cuts.Load() != 2 || rest.parts.Load() != 1 {
		t.Errorf("%d transfers, %d of a part", rest.cuts.Load(), rest.parts.Load())
	}
	wrong := img
	wrong.HashValue = hex.EncodeToString(make([]byte, sha512.Size))
	if r, err = client.Open(t.Context(), user, wrong); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("wrong hash: %v", err)
	}
	_ = r.Close()
	for range 2 {
		if err := client.Delete(t.Context(), user, img.ID); err != nil {
			t.Error(err)
		}
	}
	gone = true
	if _, err := client.Stat(t.Context(), user, img.ID); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("after delete: %v", err)
	}
	if err := client.Upload(t.Context(), user, img.ID, bytes.NewReader(data)); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("upload of a deleted image: %v", err)
	}
}
