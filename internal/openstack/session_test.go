package openstack_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
	"github.com/gantry-project/gantry/internal/openstack/openstacktest"
)

// world is a Keystone and one service behind it.
type world struct {
	keystone *openstacktest.Keystone
	identity *httptest.Server
	service  *httptest.Server
	handle   http.HandlerFunc
}

func newWorld(t *testing.T, handle http.HandlerFunc) *world {
	t.Helper()
	w := &world{handle: handle}
	w.service = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.handle(rw, r) }))
	w.keystone = &openstacktest.Keystone{
		Passwords: map[string]string{"nova": "bench", "cred": "s3cret"},
		Catalog:   map[string]string{"network": w.service.URL + "/v2.0/"},
	}
	w.identity = httptest.NewServer(w.keystone)
	t.Cleanup(w.identity.Close)
	t.Cleanup(w.service.Close)
	return w
}

func (w *world) options() openstack.Options {
	return openstack.Options{
		AuthURL: w.identity.URL + "/v3", Username: "nova", Password: "bench", UserDomainName: "Default",
		ProjectName: "service", ProjectDomainName: "Default", Region: "RegionOne", ConnectRetries: 2,
	}
}

func (w *world) session(t *testing.T, change func(*openstack.Options)) *openstack.Session {
	t.Helper()
	o := w.options()
	if change != nil {
		change(&o)
	}
	s, err := openstack.NewSession(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(path string, into any) openstack.Request {
	return openstack.Request{Method: http.MethodGet, Path: path, Into: into}
}

func TestLazyAndOneAuthentication(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(`{}`)) })
	release := make(chan struct{})
	w.keystone.Gate = func() { <-release }
	c := w.session(t, nil).Service("network", nil)
	if n := w.keystone.Issued(); n != 0 {
		t.Fatalf("%d tokens before the first request", n)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := c.Do(t.Context(), openstack.UserAuth{}, get("/v2.0/ports", nil)); err != nil {
				t.Error(err)
			}
		})
	}
	close(release)
	wg.Wait()
	if n := w.keystone.Issued(); n != 1 {
		t.Errorf("%d authentications, want 1", n)
	}
}

func TestCallerLeavesAuthenticationGoesOn(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(`{}`)) })
	release, entered := make(chan struct{}), make(chan struct{})
	w.keystone.Gate = func() { close(entered); <-release }
	s := w.session(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { _, err := s.Token(ctx); gone <- err }()
	<-entered
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	close(release)
	if _, err := s.Token(t.Context()); err != nil {
		t.Error(err)
	}
	if n := w.keystone.Issued(); n != 1 {
		t.Errorf("%d authentications, want 1", n)
	}
}

func TestTokens(t *testing.T) {
	var got http.Header
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) { got = r.Header.Clone(); _, _ = rw.Write([]byte(`{}`)) })
	s := w.session(t, nil)
	service := w.session(t, func(o *openstack.Options) {
		*o = openstack.Options{AuthURL: w.identity.URL, AuthType: "v3applicationcredential", AppCredentialID: "cred", AppCredentialSecret: "s3cret"}
	})
	cases := []struct {
		name           string
		client         *openstack.Client
		auth           openstack.UserAuth
		token, service string // users, or the token itself
	}{
		{"own", s.Service("network", service), openstack.UserAuth{RequestID: "req-1"}, "nova", ""},
		{"user", s.Service("network", nil), openstack.UserAuth{Token: "u"}, "u", ""},
		{"user and service", s.Service("network", service), openstack.UserAuth{Token: "u", RequestID: "req-2"}, "u", "cred"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if err := c.client.Do(t.Context(), c.auth, get("/v2.0/ports", nil)); err != nil {
				t.Fatal(err)
			}
			name := func(token string) string {
				if u := w.keystone.User(token); u != "" {
					return u
				}
				return token
			}
			if tok := name(got.Get("X-Auth-Token")); tok != c.token {
				t.Errorf("token of %q, want %q", tok, c.token)
			}
			if tok := name(got.Get("X-Service-Token")); tok != c.service {
				t.Errorf("service token of %q, want %q", tok, c.service)
			}
			if id := got.Get("X-Openstack-Request-Id"); id != c.auth.RequestID {
				t.Errorf("request id %q", id)
			}
		})
	}
}

func TestTokenIsReplaced(t *testing.T) {
	t.Run("near its end", func(t *testing.T) {
		w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(`{}`)) })
		w.keystone.Lifetime = 30 * time.Second
		s := w.session(t, nil)
		for range 3 {
			if _, err := s.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.keystone.Issued(); n != 3 {
			t.Errorf("%d tokens, want 3", n)
		}
	})
	t.Run("revoked", func(t *testing.T) {
		w := newWorld(t, nil)
		w.handle = func(rw http.ResponseWriter, r *http.Request) {
			if w.keystone.User(r.Header.Get("X-Auth-Token")) == "" {
				rw.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = rw.Write([]byte(`{}`))
		}
		c := w.session(t, nil).Service("network", nil)
		for range 2 {
			if err := c.Do(t.Context(), openstack.UserAuth{}, get("/v2.0/ports", nil)); err != nil {
				t.Fatal(err)
			}
			w.keystone.Revoke()
		}
		if n := w.keystone.Issued(); n != 2 {
			t.Errorf("%d tokens, want 2", n)
		}
		// A user's token is the user's: no other takes its place.
		if err := c.Do(t.Context(), openstack.UserAuth{Token: "old"}, get("/v2.0/ports", nil)); !errors.Is(err, errdefs.ErrForbidden) {
			t.Errorf("old user token: %v", err)
		}
	})
	t.Run("service token revoked", func(t *testing.T) {
		w := newWorld(t, nil)
		w.handle = func(rw http.ResponseWriter, r *http.Request) {
			if w.keystone.User(r.Header.Get("X-Service-Token")) == "" {
				rw.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = rw.Write([]byte(`{}`))
		}
		s := w.session(t, nil)
		c := s.Service("network", s)
		for range 2 {
			if err := c.Do(t.Context(), openstack.UserAuth{Token: "u"}, get("/v2.0/ports", nil)); err != nil {
				t.Fatal(err)
			}
			w.keystone.Revoke()
		}
	})
}

func TestErrorClasses(t *testing.T) {
	cases := []struct {
		name   string
		status int
		body   string
		class  error
		text   string
	}{
		{"not found", 404, `{"NeutronError":{"type":"PortNotFound","message":"Port x could not be found.","detail":""}}`, errdefs.ErrNotFound, "PortNotFound: Port x"},
		{"conflict", 409, `{"NeutronError":{"type":"IpAddressInUse","message":"in use"}}`, errdefs.ErrConflict, "IpAddressInUse"},
		{"quota", 409, `{"NeutronError":{"type":"OverQuota","message":"Quota exceeded for resources: ['port']."}}`, errdefs.ErrExhausted, "Quota"},
		{"too large", 413, `<html><head><title>413</title></head><body>Denying attempt to upload image &amp; more</body></html>`, errdefs.ErrExhausted, "Denying attempt to upload image & more"},
		{"forbidden", 403, `{"error":{"message":"no","code":403}}`, errdefs.ErrForbidden, "no"},
		{"unauthorized", 401, `{"error":{"message":"who","code":401}}`, errdefs.ErrForbidden, ""},
		{"bad", 400, `{"errors":[{"detail":"bad json","code":"placement.undefined_code"}]}`, errdefs.ErrInvalid, "bad json"},
		{"broken", 500, ``, errdefs.ErrUnavailable, "status 500"},
		{"redirect", 302, `elsewhere`, errdefs.ErrUnavailable, "status 302"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Location", "http://169.254.169.254/")
				rw.WriteHeader(c.status)
				_, _ = rw.Write([]byte(c.body))
			})
			err := w.session(t, nil).Service("network", nil).Do(t.Context(), openstack.UserAuth{}, get("/v2.0/ports/x", nil))
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "GET /v2.0/ports/x") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("wrong password", func(t *testing.T) {
		w := newWorld(t, nil)
		_, err := w.session(t, func(o *openstack.Options) { o.Password = "no" }).Token(t.Context())
		if !errors.Is(err, errdefs.ErrForbidden) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no keystone", func(t *testing.T) {
		w := newWorld(t, nil)
		w.identity.Close()
		_, err := w.session(t, func(o *openstack.Options) { o.ConnectRetries = 1 }).Token(t.Context())
		if !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no endpoint", func(t *testing.T) {
		w := newWorld(t, nil)
		err := w.session(t, nil).Service("image", nil).Do(t.Context(), openstack.UserAuth{}, get("/v2/images", nil))
		if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "no endpoint of type image") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRetries(t *testing.T) {
	breakOnce := func(rw http.ResponseWriter) {
		conn, _, _ := rw.(http.Hijacker).Hijack()
		_ = conn.Close()
	}
	cases := []struct {
		name, method string
		fail         func(http.ResponseWriter)
		hits         int32
		ok           bool
	}{
		{"get 503", http.MethodGet, func(rw http.ResponseWriter) { rw.WriteHeader(503) }, 2, true},
		{"put 502", http.MethodPut, func(rw http.ResponseWriter) { rw.WriteHeader(502) }, 2, true},
		{"post 503", http.MethodPost, func(rw http.ResponseWriter) { rw.WriteHeader(503) }, 1, false},
		{"post cut", http.MethodPost, breakOnce, 1, false},
		{"delete cut", http.MethodDelete, breakOnce, 2, true},
		{"get 500", http.MethodGet, func(rw http.ResponseWriter) { rw.WriteHeader(500) }, 1, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var hits atomic.Int32
			w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
				var body map[string]string
				if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body["k"] != "v" {
					t.Errorf("body %v %v", body, err)
				}
				if hits.Add(1) == 1 {
					c.fail(rw)
				}
			})
			err := w.session(t, nil).Service("network", nil).Do(t.Context(), openstack.UserAuth{},
				openstack.Request{Method: c.method, Path: "/v2.0/ports", Body: map[string]string{"k": "v"}})
			if (err == nil) != c.ok || hits.Load() != c.hits {
				t.Errorf("error %v after %d requests", err, hits.Load())
			}
			if err != nil && !errors.Is(err, errdefs.ErrUnavailable) {
				t.Errorf("class of %v", err)
			}
		})
	}
}

func TestCancelAndTimeout(t *testing.T) {
	hold := make(chan struct{})
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	})
	defer close(hold)
	t.Run("caller's end is the caller's", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		err := w.session(t, nil).Service("network", nil).Do(ctx, openstack.UserAuth{}, get("/v2.0/ports", nil))
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no answer", func(t *testing.T) {
		s := w.session(t, func(o *openstack.Options) { o.Timeout, o.ConnectRetries = 50*time.Millisecond, 0 })
		err := s.Service("network", nil).Do(t.Context(), openstack.UserAuth{}, get("/v2.0/ports", nil))
		if !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOptions(t *testing.T) {
	good := openstack.Options{AuthURL: "http://k:5000/v3", Username: "u"}
	cases := []struct {
		name string
		opts func(*openstack.Options)
		ok   bool
	}{
		{"minimal", func(*openstack.Options) {}, true},
		{"no auth_url", func(o *openstack.Options) { o.AuthURL = "" }, false},
		{"not a url", func(o *openstack.Options) { o.AuthURL = "keystone:5000" }, false},
		{"unknown type", func(o *openstack.Options) { o.AuthType = "v2token" }, false},
		{"no user", func(o *openstack.Options) { o.Username = "" }, false},
		{"half a credential", func(o *openstack.Options) { o.AuthType = "v3applicationcredential"; o.AppCredentialID = "x" }, false},
		{"none", func(o *openstack.Options) {
			*o = openstack.Options{AuthType: "none", EndpointOverride: "http://g:9292"}
		}, true},
		{"none without endpoint", func(o *openstack.Options) { o.AuthType = "none" }, false},
		{"cafile absent", func(o *openstack.Options) { o.TLS.CAFile = "/nonexistent/ca.pem" }, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := good
			c.opts(&o)
			_, err := openstack.NewSession(o, nil)
			if (err == nil) != c.ok {
				t.Fatalf("error %v", err)
			}
			if err != nil && !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("class of %v", err)
			}
		})
	}
}
