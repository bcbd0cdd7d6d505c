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
		"os-security-group-default-rules", "os-networks/add",
	} {
		s.handle("/v2.1/"+path, gone)
		s.handle("/v2.1/"+path+"/{rest...}", gone)
	}
	for _, path := range []string{"consoles", "consoles/{console}", "os-virtual-interfaces"} {
		s.handle("/v2.1/servers/{id}/"+path, gone)
	}
	// proxies for other services, which 2.36 has ended
	for _, path := range []string{
		"images", "os-volumes", "os-snapshots", "os-networks", "os-tenant-networks", "os-floating-ips", "os-floating-ip-pools",
		"os-security-groups", "os-security-group-rules", "os-baremetal-nodes",
	} {
		s.handle("/v2.1/"+path, proxied)
		s.handle("/v2.1/"+path+"/{rest...}", proxied)
	}
	s.handle("/v2.1/{rest...}", nowhere)
}

// proxied answers for what is asked of the other service itself. Up to 2.35 Nova
// would ask it; this cloud does not, and says so.
func proxied(_ context.Context, r *rest.Request) (*rest.Response, error) {
	if r.Version.AtLeast(2, 36) {
		return nil, notFound("")
	}
	return nil, notSupported()
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
