package compute

import (
	"context"
	"net/http"
	"strings"
)

// legacyKey marks the context of requests to /v2.
type legacyKey struct{}

// withLegacy serves below /v2 what is below /v2.1, without microversions: those
// that are asked for are not heeded and answers say none
// (nova/api/openstack/__init__.py, LegacyV2CompatibleWrapper). Unlike there,
// attributes that nobody knows are refused.
func withLegacy(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, below := strings.CutPrefix(r.URL.Path, "/v2/")
		if !below || rest == "" {
			h.ServeHTTP(w, r)
			return
		}
		r2 := r.WithContext(context.WithValue(r.Context(), legacyKey{}, true))
		u := *r.URL
		u.Path = "/v2.1/" + rest
		if rest, below := strings.CutPrefix(u.RawPath, "/v2/"); below {
			u.RawPath = "/v2.1/" + rest
		}
		r2.URL, r2.Header = &u, r.Header.Clone()
		for _, name := range versionHeaders {
			r2.Header.Del(name)
		}
		h.ServeHTTP(&unversioned{ResponseWriter: w}, r2)
	})
}

// versionHeaders say which microversion is asked for and answered in.
var versionHeaders = []string{"Openstack-Api-Version", "X-Openstack-Nova-Api-Version"}

// unversioned is an answer without the headers of microversions.
type unversioned struct {
	http.ResponseWriter

	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (u *unversioned) WriteHeader(status int) {
	if !u.begun {
		u.begun = true
		for _, name := range append(versionHeaders, "Vary") {
			u.Header().Del(name)
		}
	}
	u.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (u *unversioned) Write(data []byte) (int, error) {
	if !u.begun {
		u.WriteHeader(http.StatusOK)
	}
	return u.ResponseWriter.Write(data)
}

// versionInLinks is the part of links that says which endpoint was asked.
func versionInLinks(ctx context.Context) string {
	if ctx.Value(legacyKey{}) != nil {
		return "/v2/"
	}
	return "/v2.1/"
}
