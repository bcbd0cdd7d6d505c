package compute

import (
	"context"
	"errors"
	"net/http"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Until 2.35 the compute API passes on what is asked of the network and the image
// service (nova/api/openstack/compute, the modules up to
// MAX_PROXY_API_SUPPORT_VERSION).

// proxyRoutes are the paths of the proxies.
func (s *Service) proxyRoutes() {
	s.groupProxyRoutes()
	s.floatingProxyRoutes()
	s.networkProxyRoutes()
	s.imageProxyRoutes()
	for _, path := range []string{"os-volumes", "os-snapshots", "os-baremetal-nodes"} { // there are none to ask
		s.proxy("/v2.1/"+path, none)
		s.proxy("/v2.1/"+path+"/{rest...}", none)
	}
}

func none(context.Context, *rest.Request) (*rest.Response, error) { return nil, notSupported() }

// proxy adds a path that 2.36 has ended.
func (s *Service) proxy(pattern string, h rest.Handler) {
	s.handle(pattern, func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		if r.Version.AtLeast(2, 36) {
			return nil, notFound("")
		}
		return h(ctx, r)
	})
}

// member lets callers that may change something pass.
func member(r *rest.Request, policy string) error { return allow(r.Caller.Member(), policy) }

// passed words a refusal of the network service as Nova does.
func passed(err error) error {
	e, ok := errors.AsType[*rest.Error](err)
	switch {
	case !ok:
		return err
	case e.Status == http.StatusNotFound:
		return notFound("%s", e.Message)
	case e.Type == "OverQuota" || e.Status == http.StatusForbidden:
		return forbidden("%s", e.Message)
	}
	return badRequest("%s", e.Message)
}

// bodyOf reads a body that Nova holds against no schema: an object with one of
// the given name in it.
func bodyOf(r *rest.Request, name string) (map[string]any, error) {
	data, err := r.Bytes()
	if err != nil {
		return nil, err
	}
	var all map[string]any
	if len(data) > 0 {
		if rest.Unmarshal(data, &all) != nil {
			return nil, badRequest("Malformed request body")
		}
	}
	if len(all) == 0 {
		return nil, badRequest("The request body can't be empty")
	}
	inner, ok := all[name].(map[string]any)
	if !ok {
		return nil, badRequest("Missing parameter %s", name)
	}
	return inner, nil
}
