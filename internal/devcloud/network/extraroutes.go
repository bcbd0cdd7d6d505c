package network

import (
	"context"
	"slices"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Routes of a router one by one, without losing those that others set at the
// same time (neutron/db/extraroute_db.py, add_extraroutes).

func (s *Service) extraRoutes() {
	s.api.Handle("PUT /v2.0/routers/{id}/add_extraroutes", s.changeRoutes("add_extraroutes", func(have, sent []HostRoute) []HostRoute {
		out := slices.Clone(have)
		for _, h := range sent {
			if !slices.Contains(out, h) {
				out = append(out, h)
			}
		}
		return out
	}))
	s.api.Handle("PUT /v2.0/routers/{id}/remove_extraroutes", s.changeRoutes("remove_extraroutes", func(have, sent []HostRoute) []HostRoute {
		return slices.DeleteFunc(slices.Clone(have), func(h HostRoute) bool { return slices.Contains(sent, h) })
	}))
}

func (s *Service) changeRoutes(verb string, change func(have, sent []HostRoute) []HostRoute) rest.Handler {
	return func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		sent, err := readRoutes(r)
		if err != nil {
			return nil, err
		}
		var view map[string]any
		err = s.write(ctx, func(st *state) error {
			old, err := st.ownRouter(r, verb)
			if err != nil {
				return err
			}
			all := []any{}
			for _, h := range change(old.Routes, sent) {
				all = append(all, map[string]any{"destination": h.To.String(), "nexthop": h.Via.String()})
			}
			one, err := st.setRoutes(old, values{"routes": all})
			if err != nil {
				return err
			}
			changed := *one
			st.bumped(&changed.base)
			st.routers.put(&changed)
			view = st.routerView(&changed)
			return nil
		})
		if err != nil {
			return nil, err
		}
		return show(r, &routerResource, view)
	}
}

// readRoutes reads {"router": {"routes": [...]}}.
func readRoutes(r *rest.Request) ([]HostRoute, error) {
	body, err := bodyOf(r)
	if err != nil {
		return nil, err
	}
	inner, ok := body["router"].(map[string]any)
	if !ok || inner["routes"] == nil {
		return nil, bad("Request body contains invalid data")
	}
	for name := range inner {
		if name != "routes" {
			return nil, bad("Request body contains invalid data")
		}
	}
	checked, err := hostRoutes(inner["routes"])
	if err != nil {
		return nil, bad("Invalid input for routes. Reason: %s.", err)
	}
	var out []HostRoute
	for _, m := range (values{"routes": checked}).maps("routes") {
		out = append(out, routeOf(m))
	}
	return out, nil
}
