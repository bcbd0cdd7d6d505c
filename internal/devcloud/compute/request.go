package compute

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// pageSize is Nova's max_limit: no list is longer.
const pageSize = 1000

// body reads a body and holds it against a schema.
func body(r *rest.Request, s schema.Schema) (*schema.Dict, error) {
	v, err := document(r)
	if err != nil {
		return nil, err
	}
	if refusal := s.Body(v); refusal != "" {
		return nil, badRequest("%s", refusal)
	}
	d, ok := v.(*schema.Dict)
	if !ok {
		return nil, badRequest("Malformed request body")
	}
	return d, nil
}

// document reads a body as JSON; nil when there is none.
func document(r *rest.Request) (any, error) {
	data, err := r.Bytes()
	if err != nil || len(data) == 0 {
		return nil, err
	}
	v, err := schema.Decode(data)
	if err != nil {
		return nil, rest.Errorf(http.StatusBadRequest, "Malformed request body").Because(err)
	}
	return v, nil
}

// query holds the parameters of a query against a schema.
func query(r *rest.Request, s schema.Schema) error {
	if refusal := s.Query(r.Params()); refusal != "" {
		return badRequest("%s", refusal)
	}
	return nil
}

// queries makes the schema of a query, which refuses other parameters from 2.75
// on.
func queries(r *rest.Request, fields ...schema.Field) error {
	if r.Version.AtLeast(2, 75) {
		return query(r, schema.Object(fields...))
	}
	return query(r, schema.Open(fields...))
}

// paging are the parameters of lists with pages.
func paging() []schema.Field {
	return []schema.Field{
		schema.Opt("limit", schema.Params(schema.Natural())...),
		schema.Opt("marker", schema.Params(schema.String())...),
	}
}

// limit is how many items are asked for; the query was checked before.
func limit(r *rest.Request) int {
	n, err := strconv.Atoi(r.Params().Get("limit"))
	if err != nil || n > pageSize {
		return pageSize
	}
	return n
}

// projectInPath matches the project that may stand between version and
// resource (Nova's project_id_regex).
var projectInPath = lazyregexp.New(`^/v2(?:\.1)?/([0-9a-f-]+)(/.*)?$`)

// withoutProject takes the project out of the path; the links of answers then
// have it too (see at).
func withoutProject(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m := projectInPath.FindStringSubmatch(r.URL.Path); m != nil {
			r2 := *r
			u := *r.URL
			u.Path, u.RawPath = "/v2.1"+m[2], ""
			r2.URL = &u
			r = &r2
		}
		h.ServeHTTP(w, r)
	})
}

// pathProject is the project that stands in the path as it was sent.
func pathProject(r *rest.Request) string {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		return ""
	}
	if m := projectInPath.FindStringSubmatch(strings.TrimPrefix(u.Path, r.Prefix())); m != nil {
		return m[1]
	}
	return ""
}

// checked refuses a path with another project than the caller's.
func checked(h rest.Handler) rest.Handler {
	return func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		if p := pathProject(r); p != "" && p != r.Caller.ProjectID {
			return nil, badRequest("Malformed request URL: URL's project_id '%s' doesn't match Context's project_id '%s'", p, r.Caller.ProjectID)
		}
		return h(ctx, r)
	}
}

// link is one of an answer's links.
type link struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

// place says where an answer's links lead.
type place struct{ self, bookmark string }

// at finds it for a collection ("flavors").
func at(r *rest.Request, collection string) place {
	project := ""
	if p := r.Caller.ProjectID; p != "" && strings.Contains(r.RequestURI, p) {
		project = p + "/"
	}
	return place{
		self:     r.Base() + versionInLinks(r.Context()) + project + collection,
		bookmark: r.Base() + "/" + project + collection,
	}
}

// links are those of one item.
func (p place) links(id string) []link {
	return []link{{"self", p.self + "/" + id}, {"bookmark", p.bookmark + "/" + id}}
}

// next is the link to what follows, nil when a list is shorter than the limit.
func (p place) next(r *rest.Request, items, limit int, last func() string) []link {
	if limit == 0 || items < limit {
		return nil
	}
	return []link{{"next", p.self + "?" + r.NextQuery(last())}}
}

// integer reads an id of digits (nova.utils.validate_integer).
func integer(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, badRequest("Invalid input received: id must be an integer")
	}
	return n, nil
}
