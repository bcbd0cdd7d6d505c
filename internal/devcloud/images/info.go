package images

import (
	"context"
	_ "embed" // the schemas
	"encoding/json"
	"net/http"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// schemas.json are the documents below /v2/schemas by name (glance.api.v2).
//
//go:embed schemas.json
var schemas []byte

func (s *Service) infoRoutes() {
	s.api.HandleOpen("GET /{$}", func(_ context.Context, r *rest.Request) (*rest.Response, error) {
		return &rest.Response{Status: http.StatusMultipleChoices, Body: versions(r)}, nil
	})
	s.api.HandleOpen("GET /versions", func(_ context.Context, r *rest.Request) (*rest.Response, error) {
		return rest.OK(versions(r))
	})
	var byName map[string]json.RawMessage
	if err := json.Unmarshal(schemas, &byName); err != nil { // it is part of the program
		panic(err)
	}
	for path, body := range byName {
		s.always("/v2/schemas/"+path, body)
	}
	s.always("/v2/info/import", map[string]any{"import-methods": map[string]any{
		"description": "Import methods available.", "type": "array", "value": []string{"glance-direct"},
	}})
	s.always("/v2/info/usage", map[string]any{"usage": map[string]any{}})
	s.api.Handle("GET /v2/info/stores", func(context.Context, *rest.Request) (*rest.Response, error) {
		return nil, rest.Errorf(http.StatusNotFound, "Multi backend is not supported at this site.")
	})
	s.api.Handle("GET /v2/tasks", func(_ context.Context, r *rest.Request) (*rest.Response, error) {
		if !r.Caller.Admin() {
			return nil, denied("tasks_api_access")
		}
		return rest.OK(map[string]any{"tasks": []any{}, "schema": "/v2/schemas/tasks", "first": "/v2/tasks"})
	})
}

// always answers a path with the same body.
func (s *Service) always(path string, body any) {
	s.api.Handle("GET "+path, func(context.Context, *rest.Request) (*rest.Response, error) { return rest.OK(body) })
}

// versions are those of a Zed (glance.api.versions).
func versions(r *rest.Request) map[string]any {
	list := []map[string]any{}
	for n, v := range []string{"v2.16", "v2.15", "v2.14", "v2.9", "v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0"} {
		status := "SUPPORTED"
		if n == 0 {
			status = "CURRENT"
		}
		list = append(list, map[string]any{"id": v, "status": status, "links": []map[string]string{{"rel": "self", "href": r.Base() + "/v2/"}}})
	}
	return map[string]any{"versions": list}
}

// jsonNumber is a number as a request has it.
func jsonNumber(n int64) json.Number { b, _ := json.Marshal(n); return json.Number(b) }
