package network

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// everybody is the project of who shares with all.
const everybody = "*"

// sharing is what records have that policies share with other projects.
type sharing struct {
	With []string `json:",omitempty"` // projects, or everybody
}

// reaches reports whether it is shared with the project.
func (s sharing) reaches(project string) bool {
	return slices.Contains(s.With, everybody) || slices.Contains(s.With, project)
}

// noun is a resource whose verbs all are of one form: what differs is looked at
// by its functions, which run in a transaction.
type noun[T record] struct {
	res   *resource
	table func(st *state) *table[T]
	// sees reports whether the caller may know of it.
	sees func(c *rest.Caller, one T) bool
	view func(c *rest.Caller, one T) map[string]any
	// make fills a new record; its id, project and times are set afterwards.
	make func(st *state, c *rest.Caller, b base, v values) (T, error)
	// change returns a changed copy; nil: it is never changed.
	change func(st *state, c *rest.Caller, one T, v values) (T, error)
	// free refuses to remove what is in use, and removes what goes with it.
	free func(st *state, one T) error
	of   func(one T) *base
}

// verbs are its handlers.
func (n noun[T]) verbs(s *Service) verbs {
	v := verbs{
		list:   func(_ context.Context, r *rest.Request) (*rest.Response, error) { return n.list(s, r) },
		show:   func(_ context.Context, r *rest.Request) (*rest.Response, error) { return n.show(s, r) },
		create: func(ctx context.Context, r *rest.Request) (*rest.Response, error) { return n.create(ctx, s, r) },
		remove: func(ctx context.Context, r *rest.Request) (*rest.Response, error) { return n.remove(ctx, s, r) },
	}
	if n.change != nil {
		v.update = func(ctx context.Context, r *rest.Request) (*rest.Response, error) { return n.update(ctx, s, r) }
	}
	return v
}

// find returns one that the caller sees.
func (n noun[T]) find(st *state, c *rest.Caller, id string) (T, error) {
	one, ok := n.table(st).get(id)
	if !ok || !n.sees(c, one) {
		var none T
		return none, n.res.missing(id)
	}
	return one, nil
}

// own returns one that the caller may change; rule is what a refusal names.
func (n noun[T]) own(st *state, r *rest.Request, rule string) (T, error) {
	one, err := n.find(st, r.Caller, r.PathValue("id"))
	if err != nil {
		return one, err
	}
	if !r.Caller.Owns(one.owner()) || !r.Caller.Member() {
		return one, denied(rule)
	}
	return one, ifMatch(r, n.of(one).Revision)
}

func (n noun[T]) list(s *Service, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		all := n.table(st).where(func(one T) bool { return n.sees(r.Caller, one) })
		res, err = list(r, n.res, all, func(one T) map[string]any { return n.view(r.Caller, one) })
		return err
	})
	return res, err
}

func (n noun[T]) show(s *Service, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		one, err := n.find(st, r.Caller, r.PathValue("id"))
		if err != nil {
			return err
		}
		res, err = show(r, n.res, n.view(r.Caller, one))
		return err
	})
	return res, err
}

func (n noun[T]) create(ctx context.Context, s *Service, r *rest.Request) (*rest.Response, error) {
	all, bulk, err := n.res.parse(r)
	if err != nil {
		return nil, err
	}
	var views []map[string]any
	err = s.write(ctx, func(st *state) error {
		for _, v := range all {
			if err := n.res.mayWrite(r.Caller, "create", v, ""); err != nil {
				return err
			}
			project, err := owner(r.Caller, v)
			if err != nil {
				return err
			}
			if err := st.room(project, n.res.name, st.countOf(project, n.res.name)+1); err != nil {
				return err
			}
			b := base{ID: uuid.NewString(), Project: project, Name: v.str("name")}
			if d, ok := v["description"].(string); ok {
				b.Description = &d
			}
			st.made(&b)
			one, err := n.make(st, r.Caller, b, v)
			if err != nil {
				return err
			}
			n.table(st).put(one)
			views = append(views, n.view(r.Caller, one))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return created(r, n.res, bulk, views)
}

func (n noun[T]) update(ctx context.Context, s *Service, r *rest.Request) (*rest.Response, error) {
	all, _, err := n.res.parse(r)
	if err != nil {
		return nil, err
	}
	var view map[string]any
	err = s.write(ctx, func(st *state) error {
		old, err := n.own(st, r, "rule:update_"+n.res.name)
		if err != nil {
			return err
		}
		if err := n.res.mayWrite(r.Caller, "update", all[0], old.owner()); err != nil {
			return err
		}
		one, err := n.change(st, r.Caller, old, all[0])
		if err != nil {
			return err
		}
		b := n.of(one)
		all[0].setStr("name", &b.Name)
		if d, ok := all[0]["description"].(string); ok {
			b.Description = &d
		}
		if len(all[0]) > 0 {
			st.bumped(b)
		}
		n.table(st).put(one)
		view = n.view(r.Caller, one)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return show(r, n.res, view)
}

func (n noun[T]) remove(ctx context.Context, s *Service, r *rest.Request) (*rest.Response, error) {
	if err := noBody(r); err != nil {
		return nil, err
	}
	err := s.write(ctx, func(st *state) error {
		one, err := n.own(st, r, "rule:delete_"+n.res.name)
		if err != nil {
			return err
		}
		if err := n.free(st, one); err != nil {
			return err
		}
		n.table(st).del(one.id())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}
