package rest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

func TestAMountedAPIKnowsItsPlace(t *testing.T) {
	api := New(Options{Log: zerolog.Nop()})
	api.HandleOpen("GET /{$}", func(_ context.Context, r *Request) (*Response, error) { return OK(r.Base()) })
	api.HandleOpen("GET /things/{id}", func(_ context.Context, r *Request) (*Response, error) {
		return OK(r.Base() + "/things/" + r.PathValue("id"))
	})
	h := Mount("/image", api)
	for path, want := range map[string]string{
		"/image":              `"http://cloud:1/image"`,
		"/image/":             `"http://cloud:1/image"`,
		"/image/things/a%20b": `"http://cloud:1/image/things/a b"`,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://cloud:1"+path, nil))
		if got := strings.TrimSpace(w.Body.String()); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://cloud:1/images", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("a neighbour: %d", w.Code)
	}
}
