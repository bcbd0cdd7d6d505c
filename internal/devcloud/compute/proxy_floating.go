package compute

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// neutronFloating is what is read of a floating IP.
type neutronFloating struct {
	ID      string  `json:"id"`
	Address string  `json:"floating_ip_address"`
	Fixed   *string `json:"fixed_ip_address"`
	Network string  `json:"floating_network_id"`
	Port    *string `json:"port_id"`
	Details *struct {
		Device string `json:"device_id"`
	} `json:"port_details"`
}

// server is the id of the one that it leads to, or nil.
func (f neutronFloating) server() any {
	if f.Details == nil || f.Details.Device == "" {
		return nil
	}
	return f.Details.Device
}

func (s *Service) floatingProxyRoutes() {
	s.proxy("GET /v2.1/os-floating-ip-pools", s.proxyPools)
	s.proxy("GET /v2.1/os-floating-ips", s.proxyFloatings)
	s.proxy("POST /v2.1/os-floating-ips", s.proxyFloatingCreate)
	s.proxy("GET /v2.1/os-floating-ips/{ip}", s.proxyFloating)
	s.proxy("DELETE /v2.1/os-floating-ips/{ip}", s.proxyFloatingDelete)
}

// outside are the external networks, by id.
func (s *Service) outside(ctx context.Context, r *rest.Request) ([]Network, error) {
	var out struct {
		Networks []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"networks"`
	}
	if err := s.o.Networks.Ask(ctx, r.Caller, http.MethodGet, "/networks?router:external=True", nil, &out); err != nil {
		return nil, passed(err)
	}
	all := make([]Network, len(out.Networks))
	for i, n := range out.Networks {
		all[i] = Network{ID: n.ID, Name: n.Name}
	}
	return all, nil
}

func (s *Service) proxyPools(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	nets, err := s.outside(ctx, r)
	if err != nil {
		return nil, err
	}
	views := make([]any, len(nets))
	for i, n := range nets {
		views[i] = map[string]string{"name": n.Name}
	}
	return rest.OK(map[string]any{"floating_ip_pools": views})
}

// floatings are the floating IPs of the caller's project that a query selects.
func (s *Service) floatings(ctx context.Context, r *rest.Request, q url.Values) ([]neutronFloating, error) {
	q.Set("tenant_id", r.Caller.ProjectID)
	var out struct {
		Floatings []neutronFloating `json:"floatingips"`
	}
	err := s.o.Networks.Ask(ctx, r.Caller, http.MethodGet, "/floatingips?"+q.Encode(), nil, &out)
	return out.Floatings, passed(err)
}

func (s *Service) floatingViews(ctx context.Context, r *rest.Request, all ...neutronFloating) ([]map[string]any, error) {
	nets, err := s.outside(ctx, r)
	if err != nil {
		return nil, err
	}
	views := make([]map[string]any, len(all))
	for i, f := range all {
		pool := f.Network
		if n := slices.IndexFunc(nets, func(n Network) bool { return n.ID == f.Network }); n >= 0 && nets[n].Name != "" {
			pool = nets[n].Name
		}
		views[i] = map[string]any{"id": f.ID, "ip": f.Address, "pool": pool, "fixed_ip": f.Fixed, "instance_id": f.server()}
	}
	return views, nil
}

func (s *Service) proxyFloatings(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, err := s.floatings(ctx, r, url.Values{})
	if err != nil {
		return nil, err
	}
	views, err := s.floatingViews(ctx, r, all...)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"floating_ips": views})
}

// ofPath is the floating IP that the path names.
func (s *Service) floatingOfPath(ctx context.Context, r *rest.Request) (neutronFloating, error) {
	id := r.PathValue("ip")
	all, err := s.floatings(ctx, r, url.Values{"id": {id}})
	if err == nil && len(all) == 0 {
		err = notFound("Floating IP not found for ID %s", id)
	}
	if err != nil {
		return neutronFloating{}, err
	}
	return all[0], nil
}

func (s *Service) floatingAnswer(ctx context.Context, r *rest.Request, f neutronFloating) (*rest.Response, error) {
	views, err := s.floatingViews(ctx, r, f)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"floating_ip": views[0]})
}

func (s *Service) proxyFloating(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	f, err := s.floatingOfPath(ctx, r)
	if err != nil {
		return nil, err
	}
	return s.floatingAnswer(ctx, r, f)
}

func (s *Service) proxyFloatingCreate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := member(r, "os-floating-ips:create"); err != nil {
		return nil, err
	}
	pool, err := poolOfBody(r)
	if err != nil {
		return nil, err
	}
	nets, err := s.outside(ctx, r)
	if err != nil {
		return nil, err
	}
	if pool != "" {
		nets = slices.DeleteFunc(nets, func(n Network) bool { return n.ID != pool && n.Name != pool })
	}
	if len(nets) == 0 {
		return nil, notFound("Floating IP pool not found.")
	}
	var out struct {
		Floating neutronFloating `json:"floatingip"`
	}
	err = s.o.Networks.Ask(ctx, r.Caller, http.MethodPost, "/floatingips", map[string]any{"floatingip": map[string]any{"floating_network_id": nets[0].ID}}, &out)
	if err != nil {
		return nil, passed(err)
	}
	return s.floatingAnswer(ctx, r, out.Floating)
}

// poolOfBody is the pool that was asked for, if any.
func poolOfBody(r *rest.Request) (string, error) {
	data, err := r.Bytes()
	if err != nil || len(data) == 0 {
		return "", err
	}
	var in map[string]any
	if rest.Unmarshal(data, &in) != nil {
		return "", badRequest("Malformed request body")
	}
	pool, ok := in["pool"].(string)
	if in["pool"] != nil && !ok {
		return "", notFound("Floating IP pool not found.")
	}
	return pool, nil
}

func (s *Service) proxyFloatingDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := member(r, "os-floating-ips:delete"); err != nil {
		return nil, err
	}
	f, err := s.floatingOfPath(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := s.o.Networks.Ask(ctx, r.Caller, http.MethodDelete, "/floatingips/"+f.ID, nil, nil); err != nil {
		return nil, passed(err)
	}
	return empty(http.StatusAccepted)
}

// floatingVerbs give a server a floating IP, and take it away.
func (s *Service) floatingVerbs() []verb {
	address := schema.Req("address", schema.Address()...)
	return []verb{
		{
			name: "addFloatingIp", policy: "os-floating-ips:add", until: 43, anyTask: true, unlaunched: true, ignoresLock: true, run: s.addFloating,
			rules: only("addFloatingIp", schema.Object(address, schema.Opt("fixed_address", schema.Address()...))...),
		},
		{
			name: "removeFloatingIp", policy: "os-floating-ips:remove", until: 43, anyTask: true, unlaunched: true, ignoresLock: true, run: s.removeFloating,
			rules: only("removeFloatingIp", schema.Object(address)...),
		},
	}
}

func (s *Service) floatingAt(ctx context.Context, r *rest.Request, address string) (neutronFloating, error) {
	all, err := s.floatings(ctx, r, url.Values{"floating_ip_address": {address}})
	if err == nil && len(all) == 0 {
		err = notFound("floating IP not found")
	}
	if err != nil {
		return neutronFloating{}, err
	}
	return all[0], nil
}

func (s *Service) addFloating(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
	ports, err := s.ports(ctx, r, i)
	if err != nil {
		return nil, err
	}
	fixed := d.String("fixed_address")
	var port, at string
	addressed := false
	for _, p := range ports {
		for _, ip := range p.FixedIPs {
			addressed = true
			if port == "" && (fixed == "" && ip.Address.Is4() || ip.Address.String() == fixed) {
				port, at = p.ID, ip.Address.String()
			}
		}
	}
	switch {
	case len(ports) == 0:
		return nil, badRequest("Instance network is not ready yet")
	case !addressed:
		return nil, badRequest("No fixed IPs associated to instance")
	case port == "" && fixed != "":
		return nil, badRequest("Specified fixed address not assigned to instance")
	case port == "":
		return nil, badRequest("Unable to associate floating IP %s to any fixed IPs for instance %s. "+
			"Instance has no fixed IPv4 addresses to associate.", d.String("address"), i.UUID())
	}
	f, err := s.floatingAt(ctx, r, d.String("address"))
	if err != nil {
		return nil, err
	}
	return s.setFloating(ctx, r, f, map[string]any{"port_id": port, "fixed_ip_address": at})
}

func (s *Service) removeFloating(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
	f, err := s.floatingAt(ctx, r, d.String("address"))
	if err != nil {
		return nil, err
	}
	if f.server() != i.UUID() {
		return nil, conflict("Floating IP %s is not associated with instance %s.", d.String("address"), i.UUID())
	}
	return s.setFloating(ctx, r, f, map[string]any{"port_id": nil})
}

func (s *Service) setFloating(ctx context.Context, r *rest.Request, f neutronFloating, to map[string]any) (*rest.Response, error) {
	if _, err := uuid.Parse(f.ID); err != nil {
		return nil, notFound("floating IP not found")
	}
	if err := s.o.Networks.Ask(ctx, r.Caller, http.MethodPut, "/floatingips/"+f.ID, map[string]any{"floatingip": to}, nil); err != nil {
		return nil, passed(err)
	}
	return empty(http.StatusAccepted)
}
