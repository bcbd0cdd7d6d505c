package compute

import (
	"context"
	_ "embed"
	"net/http"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// extensionNames are alias and name of what once were extensions, a line each
// (nova/api/openstack/compute/extension_info.py).
//
//go:embed extensions.txt
var extensionNames string

// goneRoutes are what Zed answers for paths that it has given up, and the list
// of extensions, which changes no more.
func (s *Service) goneRoutes() {
	s.handle("GET /v2.1/extensions", s.extensionList)
	s.handle("GET /v2.1/extensions/{id}", s.extensionShow)
	for _, path := range []string{
		"os-agents", "os-cells", "os-certificates", "os-cloudpipe", "os-fixed-ips", "os-floating-ip-dns", "os-floating-ips-bulk", "os-fping",
		"os-security-group-default-rules",
	} {
		s.handle("/v2.1/"+path, gone)
		s.handle("/v2.1/"+path+"/{rest...}", gone)
	}
	for _, path := range []string{"consoles", "consoles/{console}", "os-virtual-interfaces"} {
		s.handle("/v2.1/servers/{id}/"+path, gone)
	}
	s.handle("/v2.1/{rest...}", nowhere)
}

// nowhere answers for paths and methods that are not there.
func nowhere(context.Context, *rest.Request) (*rest.Response, error) {
	return nil, &rest.Error{Status: http.StatusNotFound, Type: noRoute}
}

func extensions() []map[string]any {
	var out []map[string]any
	for line := range strings.Lines(extensionNames) {
		alias, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		out = append(out, map[string]any{
			"alias": alias, "name": name, "description": name, "links": []any{},
			"namespace": "http://docs.openstack.org/compute/ext/fake_xml", "updated": "2014-12-03T00:00:00Z",
		})
	}
	return out
}

func (s *Service) extensionList(context.Context, *rest.Request) (*rest.Response, error) {
	return rest.OK(map[string]any{"extensions": extensions()})
}

func (s *Service) extensionShow(_ context.Context, r *rest.Request) (*rest.Response, error) {
	for _, e := range extensions() {
		if e["alias"] == r.PathValue("id") {
			return rest.OK(map[string]any{"extension": e})
		}
	}
	return nil, notFound("")
}
