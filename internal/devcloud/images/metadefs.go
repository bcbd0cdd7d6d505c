package images

import (
	"context"
	"net/http"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// metadefRoutes are those of metadata definitions (glance.api.v2.metadef_namespaces):
// there are none, and none can be made, but dashboards ask for them on each form.
func (s *Service) metadefRoutes() {
	s.api.Handle("GET /v2/metadefs/namespaces", func(_ context.Context, r *rest.Request) (*rest.Response, error) {
		first := "/v2/metadefs/namespaces"
		if r.URL.RawQuery != "" {
			first += "?" + r.URL.RawQuery
		}
		return rest.OK(map[string]any{"namespaces": []any{}, "schema": "/v2/schemas/metadefs/namespaces", "first": first})
	})
	s.api.Handle("GET /v2/metadefs/namespaces/{name}", func(_ context.Context, r *rest.Request) (*rest.Response, error) {
		return nil, rest.Errorf(http.StatusNotFound, "Metadata definition namespace=%s was not found.", r.PathValue("name"))
	})
	s.always("/v2/metadefs/resource_types", map[string]any{"resource_types": []any{}})
}
