package compute

import (
	"context"
	"net/http"
	"slices"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// networkFields are what a network has for everybody and, besides, for
// administrators. All but id and label are of nova-network: null.
var (
	networkFields = []string{
		"cidr", "netmask", "gateway", "broadcast", "dns1", "dns2", "cidr_v6", "gateway_v6", "netmask_v6",
	}
	networkAdminFields = []string{
		"created_at", "updated_at", "deleted_at", "deleted", "injected", "bridge", "vlan", "vpn_public_address", "vpn_public_port",
		"vpn_private_address", "dhcp_start", "project_id", "host", "bridge_interface", "multi_host", "priority", "rxtx_base",
		"mtu", "dhcp_server", "enable_dhcp", "share_address",
	}
)

func (s *Service) networkProxyRoutes() {
	tenant := func(_ *rest.Request, n Network) map[string]any {
		return map[string]any{"id": n.ID, "cidr": "None", "label": n.Name}
	}
	for path, view := range map[string]func(*rest.Request, Network) map[string]any{"os-networks": networkProxyView, "os-tenant-networks": tenant} {
		s.proxy("GET /v2.1/"+path, s.proxyNetworks(view))
		s.proxy("GET /v2.1/"+path+"/{network}", s.proxyNetwork(view))
		for _, pattern := range []string{"POST /v2.1/" + path, "POST /v2.1/" + path + "/add", "DELETE /v2.1/" + path + "/{network}", "POST /v2.1/" + path + "/{network}/action"} {
			s.proxy(pattern, gone)
		}
	}
}

func networkProxyView(r *rest.Request, n Network) map[string]any {
	v := map[string]any{"id": n.ID, "label": n.Name}
	for _, name := range networkFields {
		v[name] = nil
	}
	if r.Caller.Admin() {
		for _, name := range networkAdminFields {
			v[name] = nil
		}
	}
	return v
}

// seenNetworks are all networks that the caller sees.
func (s *Service) seenNetworks(ctx context.Context, r *rest.Request) ([]Network, error) {
	var out struct {
		Networks []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"networks"`
	}
	if err := s.o.Networks.Ask(ctx, r.Caller, http.MethodGet, "/networks?fields=id&fields=name", nil, &out); err != nil {
		return nil, passed(err)
	}
	all := make([]Network, len(out.Networks))
	for i, n := range out.Networks {
		all[i] = Network{ID: n.ID, Name: n.Name}
	}
	return all, nil
}

func (s *Service) proxyNetworks(view func(*rest.Request, Network) map[string]any) rest.Handler {
	return func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		all, err := s.seenNetworks(ctx, r)
		if err != nil {
			return nil, err
		}
		views := make([]any, len(all))
		for i, n := range all {
			views[i] = view(r, n)
		}
		return rest.OK(map[string]any{"networks": views})
	}
}

func (s *Service) proxyNetwork(view func(*rest.Request, Network) map[string]any) rest.Handler {
	return func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		all, err := s.seenNetworks(ctx, r)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(all, func(n Network) bool { return n.ID == r.PathValue("network") })
		if i < 0 {
			return nil, notFound("Network not found")
		}
		return rest.OK(map[string]any{"network": view(r, all[i])})
	}
}
