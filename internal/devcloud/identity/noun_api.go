package identity

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// nounRoutes adds the usual five.
func (s *Service) nounRoutes(n *noun) {
	all, one := "/v3/"+n.many, "/v3/"+n.many+"/{id}"
	s.handle("GET "+all, func(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
		if err := n.allow(who, "list", ""); err != nil {
			return nil, err
		}
		return s.list(ctx, r, n, "")
	})
	s.handle("POST "+all, func(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
		return s.create(ctx, r, who, n)
	})
	s.handle("GET "+one, func(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
		if err := s.allow(ctx, n, who, "get", r.PathValue("id")); err != nil {
			return nil, err
		}
		var found record
		err := s.db.Read(ctx, func(tx *sql.Tx) (err error) {
			found, err = n.get(ctx, tx, r.PathValue("id"))
			return err
		})
		if err != nil {
			return nil, err
		}
		return rest.OK(record{n.one: n.view(r, found)})
	})
	s.handle("PATCH "+one, func(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
		return s.update(ctx, r, who, n)
	})
	s.handle("DELETE "+one, func(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
		if err := s.allow(ctx, n, who, "delete", r.PathValue("id")); err != nil {
			return nil, err
		}
		err := s.change(ctx, func(tx *sql.Tx) error { return n.remove(ctx, tx, who, r.PathValue("id")) })
		if err != nil {
			return nil, err
		}
		return rest.NoContent()
	})
}

// allow is noun.allow for one with that id.
func (s *Service) allow(ctx context.Context, n *noun, who *session, verb, id string) error {
	if n.known && id != "" {
		if err := s.must(ctx, n, id); err != nil {
			return err
		}
	}
	return n.allow(who, verb, id)
}

// allow asks the default policies of Zed.
func (n *noun) allow(who *session, verb, id string) error {
	name := n.one
	if verb == "list" {
		name = n.many
	}
	ok := who.Admin() || (verb == "get" || verb == "list") && who.reads() || n.may != nil && n.may(who, verb, id)
	if !ok {
		return denied("identity:" + verb + "_" + name)
	}
	return nil
}

func (s *Service) create(ctx context.Context, r *rest.Request, who *session, n *noun) (*rest.Response, error) {
	said, err := s.read(ctx, r, n, who, "create", "", true)
	if err != nil {
		return nil, err
	}
	password, err := s.takePassword(ctx, n, said)
	if err != nil {
		return nil, err
	}
	var made record
	err = s.change(ctx, func(tx *sql.Tx) (err error) {
		if made, err = n.create(ctx, tx, who, said); err != nil {
			return err
		}
		return password.store(ctx, tx, made.text("id"))
	})
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil, n.twice(said, true)
	}
	if err != nil {
		return nil, err
	}
	return rest.Created(record{n.one: n.view(r, made)})
}

func (s *Service) update(ctx context.Context, r *rest.Request, who *session, n *noun) (*rest.Response, error) {
	id := r.PathValue("id")
	said, err := s.read(ctx, r, n, who, "update", id, false)
	if err != nil {
		return nil, err
	}
	if v, ok := said["id"]; ok && v != id {
		return nil, invalid("Cannot change ID")
	}
	password, err := s.takePassword(ctx, n, said)
	if err != nil {
		return nil, err
	}
	var now record
	err = s.change(ctx, func(tx *sql.Tx) (err error) {
		if now, err = n.update(ctx, tx, who, id, said); err != nil {
			return err
		}
		return password.store(ctx, tx, id)
	})
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil, n.twice(said, false)
	}
	if err != nil {
		return nil, err
	}
	v := n.view(r, now)
	if n.withExtra {
		if extra := n.extra(now); len(extra) > 0 {
			v["extra"] = extra
		}
	}
	return rest.OK(record{n.one: v})
}

// read reads the body of a request to make or change one.
func (s *Service) read(ctx context.Context, r *rest.Request, n *noun, who *session, verb, id string, fresh bool) (record, error) {
	body, err := readObject(r)
	if err != nil {
		return nil, err
	}
	if err := s.allow(ctx, n, who, verb, id); err != nil {
		return nil, err
	}
	said, ok := body[n.one]
	if !ok {
		said = map[string]any{}
	}
	if err := n.shape(fresh).check(said); err != nil {
		return nil, err
	}
	attributes, _ := said.(map[string]any)
	if !fresh && len(attributes) == 0 {
		return nil, invalid("{} does not have enough properties")
	}
	for _, a := range n.attrs {
		if a.inner {
			delete(attributes, a.name)
		}
	}
	return attributes, nil
}

// readObject reads a body that has to be an object.
func readObject(r *rest.Request) (map[string]any, error) {
	data, err := r.Bytes()
	if err != nil {
		return nil, err
	}
	var v any
	if len(data) > 0 && rest.Unmarshal(data, &v) != nil {
		return nil, expecting("valid JSON", "request body")
	}
	body, ok := v.(map[string]any)
	if !ok && len(data) > 0 {
		return nil, expecting("valid JSON", "request body")
	}
	return body, nil
}

// extra are the attributes that the noun does not know.
func (n *noun) extra(r record) record {
	extra := maps.Clone(r)
	for _, a := range n.attrs {
		delete(extra, a.name)
	}
	for _, name := range []string{"id", "links", "extra"} {
		delete(extra, name)
	}
	return extra
}

// view is a record as it is shown.
func (n *noun) view(r *rest.Request, rec record) record {
	v := maps.Clone(rec)
	for _, a := range n.attrs {
		if a.inner {
			delete(v, a.name)
		}
	}
	if n.show != nil {
		n.show(v)
	}
	v["links"] = record{"self": base(r) + "/" + n.many + "/" + rec.text("id")}
	return v
}

// base is the URL of the API.
func base(r *rest.Request) string { return r.Base() + "/v3" }

// list answers with those of a condition that the query asks for. Like
// Keystone without list_limit it has no pages.
func (s *Service) list(ctx context.Context, r *rest.Request, n *noun, condition string, args ...any) (*rest.Response, error) {
	var all []record
	err := s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		all, err = n.query(ctx, tx, condition, args...)
		return err
	})
	if err != nil {
		return nil, err
	}
	query := url.Values{}
	if condition == "" {
		maps.Copy(query, n.unasked)
	}
	maps.Copy(query, r.Params())
	shown := make([]record, 0, len(all))
	for _, rec := range all {
		if n.wanted(rec, query) {
			shown = append(shown, n.view(r, rec))
		}
	}
	return rest.OK(collection(r, n.many, shown))
}

// collection is the answer that holds a list.
func collection(r *rest.Request, name string, items any) record {
	self := r.Base() + r.URL.Path
	if r.URL.RawQuery != "" {
		self += "?" + r.URL.RawQuery
	}
	return record{name: items, "links": record{"self": self, "next": nil, "previous": nil}}
}

// comparisons of a filter "name__contains".
var comparisons = map[string]func(have, want string) bool{
	"":            func(have, want string) bool { return have == want },
	"contains":    strings.Contains,
	"startswith":  strings.HasPrefix,
	"endswith":    strings.HasSuffix,
	"iexact":      strings.EqualFold,
	"icontains":   func(h, w string) bool { return strings.Contains(strings.ToLower(h), strings.ToLower(w)) },
	"istartswith": func(h, w string) bool { return strings.HasPrefix(strings.ToLower(h), strings.ToLower(w)) },
	"iendswith":   func(h, w string) bool { return strings.HasSuffix(strings.ToLower(h), strings.ToLower(w)) },
}

// wanted reports whether the filters of a query let a record pass. Names that
// are no filter of the noun are not looked at.
func (n *noun) wanted(rec record, query url.Values) bool {
	for key, values := range query {
		name, how, _ := strings.Cut(key, "__")
		compare := comparisons[how]
		if compare == nil || len(values) == 0 || !slices.Contains(n.filters, name) {
			continue
		}
		switch have := rec[name].(type) {
		case bool:
			if have != truth(values[0]) {
				return false
			}
		case string:
			if !compare(have, values[0]) {
				return false
			}
		default:
			if values[0] != "" {
				return false
			}
		}
	}
	return n.pass == nil || n.pass(rec, query)
}

// truth reads a flag of a query: there without a value is yes.
func truth(s string) bool {
	switch strings.ToLower(s) {
	case "0", "false", "f", "no", "n", "off":
		return false
	}
	return true
}
