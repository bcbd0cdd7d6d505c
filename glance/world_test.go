package glance_test

import (
	"math/rand/v2"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/glance"
	"github.com/gantry-project/gantry/glance/glancetest"
	"github.com/gantry-project/gantry/internal/openstack"
)

const project = "11111111111111111111111111111111"

type world struct {
	*glancetest.Server
	rest   glance.REST
	client *glance.Client
	user   openstack.UserAuth
}

func newWorld(t *testing.T, opts glance.Options) *world {
	t.Helper()
	s := glancetest.New()
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	session, err := openstack.NewSession(openstack.Options{AuthType: "none", EndpointOverride: web.URL}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if opts.Backoff == 0 {
		opts.Backoff = time.Millisecond
	}
	rest := session.Service("image", nil)
	return &world{
		Server: s, rest: rest, client: glance.New(rest, opts, zerolog.Nop()),
		user: openstack.UserAuth{Token: glancetest.UserToken(project)},
	}
}

// noise is data that no two places of which are alike.
func noise(n int) []byte {
	out := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(out)
	return out
}

func (w *world) stat(t *testing.T, id string) glance.Image {
	t.Helper()
	img, err := w.client.Stat(t.Context(), w.user, id)
	if err != nil {
		t.Fatal(err)
	}
	return img
}
