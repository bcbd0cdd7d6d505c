package network

import (
	"context"
	"net/http"
	"slices"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Tags of anything that has them (neutron/extensions/tagging.py).

// tagged is how one kind of resource is found and changed for its tags.
type tagged struct {
	plural string
	// find returns a copy of the resource's base and a way to store the copy.
	find func(st *state, c *rest.Caller, id string) (b *base, mine bool, put func(), err error)
}

// taggedOf makes tagged of a way to find the resource as the caller sees it.
func taggedOf[T any](plural string, find func(*state, *rest.Caller, string) (*T, error), of func(*T) *base, put func(*state, *T)) tagged {
	return tagged{plural, func(st *state, c *rest.Caller, id string) (*base, bool, func(), error) {
		old, err := find(st, c, id)
		if err != nil {
			return nil, false, nil, notFound("TagResourceNotFound", "Resource %s %s could not be found.", plural, id)
		}
		now := *old
		b := of(&now)
		return b, c.Owns(b.Project) && c.Member(), func() { put(st, &now) }, nil
	}}
}

func (s *Service) tagRoutes() {
	for path, t := range map[string]tagged{
		"networks": taggedOf("networks", (*state).network, func(r *network) *base { return &r.base }, func(st *state, r *network) { st.networks.put(r) }),
		"subnets":  taggedOf("subnets", (*state).subnet, func(r *subnet) *base { return &r.base }, func(st *state, r *subnet) { st.subnets.put(r) }),
		"ports":    taggedOf("ports", (*state).port, func(r *port) *base { return &r.base }, func(st *state, r *port) { st.ports.put(r) }),
		"routers":  taggedOf("routers", (*state).router, func(r *router) *base { return &r.base }, func(st *state, r *router) { st.routers.put(r) }),
		"floatingips": taggedOf("floatingips", (*state).floating, func(r *floating) *base { return &r.base },
			func(st *state, r *floating) { st.floatings.put(r) }),
		"subnetpools": taggedOf("subnetpools", subnetPools.find, func(r *subnetPool) *base { return &r.base },
			func(st *state, r *subnetPool) { st.pools.put(r) }),
		"security-groups": taggedOf("security_groups", (*state).group, func(r *group) *base { return &r.base },
			func(st *state, r *group) { st.groups.put(r) }),
	} {
		p := "/v2.0/" + path + "/{id}/tags"
		s.api.Handle("GET "+p, s.readTags(t, func(_ *rest.Request, tags []string) (*rest.Response, error) {
			return rest.OK(map[string]any{"tags": orEmpty(tags)})
		}))
		s.api.Handle("GET "+p+"/{tag}", s.readTags(t, func(r *rest.Request, tags []string) (*rest.Response, error) {
			if !slices.Contains(tags, r.PathValue("tag")) {
				return nil, noTag(r)
			}
			return rest.NoContent()
		}))
		s.api.Handle("PUT "+p, s.replaceTags(t))
		s.api.Handle("PUT "+p+"/{tag}", s.addTag(t))
		s.api.Handle("DELETE "+p, s.writeTags(t, "delete", func(*rest.Request, []string) ([]string, error) { return nil, nil }))
		s.api.Handle("DELETE "+p+"/{tag}", s.writeTags(t, "delete", func(r *rest.Request, tags []string) ([]string, error) {
			i := slices.Index(tags, r.PathValue("tag"))
			if i < 0 {
				return nil, noTag(r)
			}
			return slices.Delete(slices.Clone(tags), i, i+1), nil
		}))
	}
}

func noTag(r *rest.Request) error {
	return notFound("TagNotFound", "Tag %s could not be found.", r.PathValue("tag"))
}

func (s *Service) readTags(t tagged, then func(*rest.Request, []string) (*rest.Response, error)) rest.Handler {
	return func(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
		err = s.store.read(func(st *state) error {
			b, _, _, err := t.find(st, r.Caller, r.PathValue("id"))
			if err != nil {
				return err
			}
			res, err = then(r, b.Tags)
			return err
		})
		return res, err
	}
}

// writeTags stores what change makes of the tags.
func (s *Service) writeTags(t tagged, verb string, change func(*rest.Request, []string) ([]string, error)) rest.Handler {
	return func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		err := s.write(ctx, func(st *state) error {
			b, mine, put, err := t.find(st, r.Caller, r.PathValue("id"))
			if err != nil {
				return err
			}
			if !mine {
				return denied("rule:" + verb + "_" + t.plural + "_tags")
			}
			if b.Tags, err = change(r, b.Tags); err != nil {
				return err
			}
			st.bumped(b)
			put()
			return nil
		})
		if err != nil {
			return nil, err
		}
		return rest.NoContent()
	}
}

func (s *Service) replaceTags(t tagged) rest.Handler {
	return func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		body, err := bodyOf(r)
		if err != nil {
			return nil, err
		}
		asked, has := body["tags"]
		if !has || len(body) != 1 {
			return nil, invalid("Invalid tags body")
		}
		tags, err := readTagList(asked)
		if err != nil {
			return nil, err
		}
		_, err = s.writeTags(t, "update", func(*rest.Request, []string) ([]string, error) { return tags, nil })(ctx, r)
		if err != nil {
			return nil, err
		}
		return rest.OK(map[string]any{"tags": tags})
	}
}

func readTagList(v any) ([]string, error) {
	items, ok := v.([]any)
	if !ok {
		return nil, invalid("'%s' is not a list", py(v))
	}
	out := []string{}
	for _, e := range items {
		s, err := text(255)(e)
		if err != nil {
			return nil, invalid("%s", err)
		}
		if slices.Contains(out, py(s)) {
			return nil, invalid("Duplicate items in the list: '%s'", py(s))
		}
		out = append(out, py(s))
	}
	return out, nil
}

func (s *Service) addTag(t tagged) rest.Handler {
	return func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		if _, err := text(255)(r.PathValue("tag")); err != nil {
			return nil, invalid("%s", err)
		}
		_, err := s.writeTags(t, "update", func(r *rest.Request, tags []string) ([]string, error) {
			if slices.Contains(tags, r.PathValue("tag")) {
				return tags, nil
			}
			return append(slices.Clone(tags), r.PathValue("tag")), nil
		})(ctx, r)
		if err != nil {
			return nil, err
		}
		return &rest.Response{Status: http.StatusCreated}, nil
	}
}
