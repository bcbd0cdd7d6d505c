package compute

import (
	"context"
	"net/http"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// The versions that are told of (nova/api/openstack/compute/versions.py).
var (
	versionMin = rest.Version{Major: 2, Minor: 1}
	versionMax = rest.Version{Major: 2, Minor: 93}
)

func (s *Service) versionRoutes() {
	s.plain.HandleOpen("GET /{$}", s.versions)
	s.open("GET /v2.1", s.version)
	s.handle("GET /v2.1/versions/{id}", s.versionByID)
	s.plain.HandleOpen("GET /v2", s.legacyVersion)
	s.plain.HandleOpen("/{rest...}", s.choices)
}

type versionView struct {
	ID         string      `json:"id"`
	Status     string      `json:"status"`
	Version    *string     `json:"version,omitempty"`
	MinVersion *string     `json:"min_version,omitempty"`
	Updated    string      `json:"updated,omitempty"`
	Links      []docLink   `json:"links"`
	MediaTypes []mediaType `json:"media-types,omitempty"`
}

type docLink struct {
	Rel  string `json:"rel"`
	Type string `json:"type,omitempty"`
	Href string `json:"href"`
}

type mediaType struct {
	Base string `json:"base"`
	Type string `json:"type"`
}

func current(base string) versionView {
	v, least := versionMax.String(), versionMin.String()
	return versionView{
		ID: "v2.1", Status: "CURRENT", Version: &v, MinVersion: &least, Updated: "2013-07-23T11:33:21Z",
		Links: []docLink{{Rel: "self", Href: base + "/v2.1/"}},
	}
}

func legacy(base string) versionView {
	none := ""
	return versionView{
		ID: "v2.0", Status: "SUPPORTED", Version: &none, MinVersion: &none, Updated: "2011-01-21T11:33:21Z",
		Links: []docLink{{Rel: "self", Href: base + "/v2/"}},
	}
}

// full is what a version says of itself.
func full(v versionView, short string) map[string]any {
	v.Links = append(v.Links, docLink{Rel: "describedby", Type: "text/html", Href: "http://docs.openstack.org/"})
	v.MediaTypes = []mediaType{{"application/json", "application/vnd.openstack.compute+json;version=" + short}}
	return map[string]any{"version": v}
}

func (s *Service) versions(_ context.Context, r *rest.Request) (*rest.Response, error) {
	return rest.OK(map[string]any{"versions": []versionView{legacy(r.Base()), current(r.Base())}})
}

func (s *Service) version(_ context.Context, r *rest.Request) (*rest.Response, error) {
	return rest.OK(full(current(r.Base()), "2.1"))
}

func (s *Service) legacyVersion(_ context.Context, r *rest.Request) (*rest.Response, error) {
	return rest.OK(full(legacy(r.Base()), "2"))
}

func (s *Service) versionByID(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	switch r.PathValue("id") {
	case "v2.1":
		return s.version(ctx, r)
	case "v2.0":
		return s.legacyVersion(ctx, r)
	}
	return nil, notFound("")
}

// choices answers paths without a version.
func (s *Service) choices(_ context.Context, r *rest.Request) (*rest.Response, error) {
	choice := func(v versionView, at, short string) versionView {
		v.Version, v.MinVersion, v.Updated = nil, nil, ""
		v.Links = []docLink{{Rel: "self", Href: r.Base() + at + r.URL.Path}}
		v.MediaTypes = []mediaType{{"application/json", "application/vnd.openstack.compute+json;version=" + short}}
		return v
	}
	return &rest.Response{Status: http.StatusMultipleChoices, Body: map[string]any{"choices": []versionView{
		choice(legacy(""), "/v2", "2"), choice(current(""), "/v2.1", "2.1"),
	}}}, nil
}
