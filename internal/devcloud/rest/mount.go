package rest

import (
	"context"
	"net/http"
	"strings"
)

// mountKey is of the prefix in a request's context.
type mountKey struct{}

// Mount serves h below a prefix ("/compute"), of which h sees nothing but in
// Request.Base.
func Mount(prefix string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, below := strings.CutPrefix(r.URL.Path, prefix)
		if !below || path != "" && path[0] != '/' {
			http.NotFound(w, r)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), mountKey{}, prefix))
		u := *r.URL
		if u.Path = path; path == "" {
			u.Path = "/"
		}
		u.RawPath = strings.TrimPrefix(u.RawPath, prefix)
		r.URL = &u
		h.ServeHTTP(w, r)
	})
}

// Prefix is where the API is mounted: "/compute", or "" at a root of its own.
func (r *Request) Prefix() string { return mount(r.Context()) }

func mount(ctx context.Context) string {
	prefix, _ := ctx.Value(mountKey{}).(string)
	return prefix
}
