package network

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// stamp is Neutron's form of a time.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// standardView adds what all resources show.
func (b *base) standardView(v map[string]any) map[string]any {
	v["id"], v["tenant_id"], v["project_id"] = b.ID, b.Project, b.Project
	v["description"] = b.Description
	v["tags"] = orEmpty(b.Tags)
	v["created_at"], v["updated_at"] = stamp(b.Created), stamp(b.Updated)
	v["revision_number"] = b.Revision
	return v
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// only keeps the fields that were asked for, and drops what the caller may not
// see.
func (res *resource) only(c *rest.Caller, v map[string]any, fields []string) map[string]any {
	for name := range v {
		a := res.attr(name)
		if len(fields) > 0 && !slices.Contains(fields, name) || a != nil && a.admin && !c.Admin() {
			delete(v, name)
		}
	}
	return v
}

// fieldsOf are the fields asked for; nil means all.
func fieldsOf(r *rest.Request) []string {
	return slices.DeleteFunc(slices.Clone(r.Params()["fields"]), func(s string) bool { return s == "" })
}

// query is what a list was asked for besides fields.
type query struct {
	filters []filter
	sorts   []order
	limit   int // 0: all
	marker  string
	reverse bool
}

type filter struct {
	name   string
	values []string
}

type order struct {
	name string
	down bool
}

// notFilters are keys of a query that are read elsewhere.
var notFilters = []string{"fields", "limit", "marker", "page_reverse", "sort_key", "sort_dir"}

// query reads and checks the query of a list.
//
// Source: neutron/api/api_common.py.
func (res *resource) query(r *rest.Request) (query, error) {
	var q query
	var wrong []string
	for _, name := range sortedKeys(r.Params()) {
		if slices.Contains(notFilters, name) {
			continue
		}
		values := r.Params()[name]
		if strings.HasPrefix(name, "tags") || strings.HasPrefix(name, "not-tags") {
			q.filters = append(q.filters, filter{name, strings.Split(values[0], ",")})
			continue
		}
		a := res.attr(name)
		if a == nil || !a.filter {
			wrong = append(wrong, name)
			continue
		}
		if isBool(a) {
			values = slices.Clone(values)
			for i, s := range values {
				b, err := boolean(s)
				if err != nil {
					return q, err
				}
				values[i] = py(b)
			}
		}
		q.filters = append(q.filters, filter{name, values})
	}
	if len(wrong) > 0 {
		return q, bad("['%s'] is invalid attribute for filtering", strings.Join(wrong, "', '"))
	}
	return q, res.paging(r, &q)
}

func sortedKeys(q url.Values) []string {
	keys := make([]string, 0, len(q))
	for k := range q {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func isBool(a *attr) bool {
	_, ok := a.def.(bool)
	return ok || a.name == "alive"
}

func (res *resource) paging(r *rest.Request, q *query) error {
	p := r.Params()
	if s := p.Get("limit"); s != "" || p.Has("limit") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return fault(http.StatusBadRequest, "BadRequest", "Bad limit request: Limit must be an integer 0 or greater and not '%s'.", s)
		}
		q.limit = n
	}
	if q.limit > 0 {
		q.marker, q.reverse = p.Get("marker"), strings.EqualFold(p.Get("page_reverse"), "true")
	}
	keys, dirs := p["sort_key"], p["sort_dir"]
	if len(keys) != len(dirs) {
		return bad("The number of sort_keys and sort_dirs must be same")
	}
	for i, k := range keys {
		if a := res.attr(k); a == nil || !a.sort {
			return bad("['%s'] is invalid attribute for sort_keys", k)
		}
		if dirs[i] != "asc" && dirs[i] != "desc" {
			return bad("['%s'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'", dirs[i])
		}
		q.sorts = append(q.sorts, order{k, dirs[i] == "desc"})
	}
	return nil
}

// matches reports whether a view passes the filters.
func (q *query) matches(v map[string]any) bool {
	for _, f := range q.filters {
		if !f.matches(v) {
			return false
		}
	}
	return true
}

func (f filter) matches(v map[string]any) bool {
	if f.name == "fixed_ips" {
		return matchesIPs(v, f.values)
	}
	if _, counted := v["subnet_ip_availability"]; counted && f.name == "ip_version" {
		return true // it has chosen what was counted
	}
	have, _ := v["tags"].([]string)
	in := func(tag string) bool { return slices.Contains(have, tag) }
	switch f.name {
	case "tags":
		return !slices.ContainsFunc(f.values, func(t string) bool { return !in(t) })
	case "tags-any":
		return slices.ContainsFunc(f.values, in)
	case "not-tags":
		return slices.ContainsFunc(f.values, func(t string) bool { return !in(t) })
	case "not-tags-any":
		return !slices.ContainsFunc(f.values, in)
	}
	switch x := v[f.name].(type) {
	case string:
		return slices.Contains(f.values, x)
	case []string:
		return slices.ContainsFunc(x, func(s string) bool { return slices.Contains(f.values, s) })
	case *string:
		return x != nil && slices.Contains(f.values, *x)
	default:
		return slices.Contains(f.values, py(x))
	}
}

// list answers a GET of all: it makes views of what the caller may see, and
// filters, sorts, cuts and trims them.
func list[T record](r *rest.Request, res *resource, all []T, view func(T) map[string]any) (*rest.Response, error) {
	q, err := res.query(r)
	if err != nil {
		return nil, err
	}
	views := make([]map[string]any, 0, len(all))
	for _, one := range all {
		if v := view(one); q.matches(v) {
			views = append(views, v)
		}
	}
	return res.answer(r, q, views)
}

// answer sorts, cuts and trims views, which are in the order of their ids.
func (res *resource) answer(r *rest.Request, q query, views []map[string]any) (*rest.Response, error) {
	for _, o := range slices.Backward(q.sorts) {
		slices.SortStableFunc(views, func(a, b map[string]any) int {
			n := compare(a[o.name], b[o.name])
			if o.down {
				return -n
			}
			return n
		})
	}
	if q.reverse {
		slices.Reverse(views)
	}
	body := map[string]any{}
	if q.limit > 0 {
		page, _, ok := rest.Page(views, func(v map[string]any) string { return py(v["id"]) }, q.marker, q.limit)
		if !ok {
			return nil, res.missing(q.marker)
		}
		if views = page; q.reverse {
			views = slices.Clone(page)
			slices.Reverse(views)
		}
		if links := pageLinks(r, views, q); len(links) > 0 {
			body[res.plural+"_links"] = links
		}
	}
	fields := fieldsOf(r)
	for i := range views {
		views[i] = res.only(r.Caller, views[i], fields)
	}
	body[res.plural] = orEmpty(views)
	return rest.OK(body)
}

// pageLinks are the links to the pages around views.
func pageLinks(r *rest.Request, views []map[string]any, q query) []map[string]string {
	link := func(rel, marker string, reverse bool) map[string]string {
		p := url.Values{}
		for k, v := range r.Params() {
			p[k] = v
		}
		p.Del("page_reverse")
		p.Del("marker")
		if marker != "" {
			p.Set("marker", marker)
		}
		if reverse {
			p.Set("page_reverse", "True")
		}
		return map[string]string{"rel": rel, "href": r.Base() + r.URL.Path + "?" + p.Encode()}
	}
	first, last := "", ""
	if len(views) > 0 {
		first, last = py(views[0]["id"]), py(views[len(views)-1]["id"])
	}
	var links []map[string]string
	if len(views) >= q.limit || q.reverse {
		links = append(links, link("next", last, false))
	}
	if len(views) >= q.limit || !q.reverse {
		links = append(links, link("previous", first, true))
	}
	return links
}

// compare orders values of views: null first.
func compare(a, b any) int {
	switch x := a.(type) {
	case int:
		y, _ := b.(int)
		return x - y
	case *string:
		if y, ok := b.(*string); ok && x != nil && y != nil {
			return strings.Compare(*x, *y)
		}
	}
	x, y := "", ""
	if a != nil {
		x = py(a)
	}
	if b != nil {
		y = py(b)
	}
	return strings.Compare(x, y)
}

// show answers a GET of one.
func show(r *rest.Request, res *resource, view map[string]any) (*rest.Response, error) {
	return rest.OK(map[string]any{res.name: res.only(r.Caller, view, fieldsOf(r))})
}

// created answers a POST.
func created(r *rest.Request, res *resource, bulk bool, views []map[string]any) (*rest.Response, error) {
	for i := range views {
		views[i] = res.only(r.Caller, views[i], nil)
	}
	if bulk {
		return rest.Created(map[string]any{res.plural: views})
	}
	return rest.Created(map[string]any{res.name: views[0]})
}

// noBody refuses a DELETE with a body.
func noBody(r *rest.Request) error {
	data, err := r.Bytes()
	if err != nil {
		return err
	}
	if len(data) > 0 {
		return bad("Request body is not supported in DELETE.")
	}
	return nil
}

// ifMatch checks the header If-Match of an update or a delete
// (extension revision-if-match).
func ifMatch(r *rest.Request, revision int) error {
	for _, h := range r.Header.Values("If-Match") {
		for one := range strings.SplitSeq(h, ",") {
			s, ok := strings.CutPrefix(strings.TrimSpace(one), "revision_number=")
			n, err := strconv.Atoi(s)
			if !ok || err != nil {
				return fault(http.StatusBadRequest, "BadRequest",
					"Bad if-match request: Revision number criteria is not in the form of revision_number=<int>.")
			}
			if n != revision {
				return fault(http.StatusPreconditionFailed, "RevisionNumberConstraintFailed",
					"Constrained to %d, but current revision is %d", n, revision)
			}
		}
	}
	return nil
}

// verbs are the handlers of one resource.
type verbs struct {
	list, show, create, update, remove func(ctx context.Context, r *rest.Request) (*rest.Response, error)
}

func (s *Service) route(res *resource, v verbs) {
	p := "/v2.0/" + res.path
	for _, h := range []struct {
		pattern string
		do      rest.Handler
	}{
		{"GET " + p, v.list},
		{"GET " + p + "/{id}", v.show},
		{"POST " + p, v.create},
		{"PUT " + p + "/{id}", v.update},
		{"DELETE " + p + "/{id}", v.remove},
	} {
		if h.do != nil {
			s.api.Handle(h.pattern, h.do)
		}
	}
}
