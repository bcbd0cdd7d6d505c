package identity

import (
	"context"
	"net/http"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// version describes the one version there is (keystone.api.discovery).
func version(r *rest.Request) record {
	return record{
		"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
		"links":       []record{{"rel": "self", "href": base(r) + "/"}},
		"media-types": []record{{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}},
	}
}

func (s *Service) discoveryRoutes() {
	s.api.HandleOpen("GET /{$}", func(_ context.Context, r *rest.Request) (*rest.Response, error) {
		return &rest.Response{
			Status: http.StatusMultipleChoices, Header: http.Header{"Location": {base(r) + "/"}},
			Body: record{"versions": record{"values": []record{version(r)}}},
		}, nil
	})
	s.api.HandleOpen("GET /v3", func(_ context.Context, r *rest.Request) (*rest.Response, error) {
		return rest.OK(record{"version": version(r)})
	})
}

// emptyRoutes are lists of what there is none of here: clients ask for them.
func (s *Service) emptyRoutes() {
	for _, l := range []struct {
		path, name string
		all        bool // may ask
	}{
		{"credentials", "credentials", true},
		{"limits", "limits", true},
		{"registered_limits", "registered_limits", true},
		{"policies", "policies", false},
		{"OS-TRUST/trusts", "trusts", false},
	} {
		s.handle("GET /v3/"+l.path, func(_ context.Context, r *rest.Request, who *session) (*rest.Response, error) {
			if !l.all && !who.reads() {
				return nil, denied("identity:list_" + l.name)
			}
			return rest.OK(collection(r, l.name, []record{}))
		})
	}
}
