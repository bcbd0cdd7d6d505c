package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// attr is one attribute of a resource, as in neutron_lib/api/definitions.
type attr struct {
	name string
	// post and put say where it may be sent.
	post, put bool
	// must says that a POST has to have it.
	must bool
	// def is what a POST without it has; unset leaves it out instead.
	def   any
	unset bool
	// check converts the value or refuses it: with a reason, or an answer.
	check func(v any) (any, error)
	// who may send it, besides who may send the resource.
	who who
	// admin says that only administrators see it.
	admin bool
	// filter and sort say that lists can be filtered and sorted by it.
	filter, sort bool
}

// who is a policy for an attribute.
type who int

const (
	anyone who = iota
	adminOnly
	networkOwner // and administrators
)

// resource is one type of resource.
type resource struct {
	// name and plural as in bodies; path as in URLs.
	name, plural, path string
	attrs              []attr
	bulk               bool
	// missing is the answer to an id that is not there.
	missing func(id string) error
}

func (res *resource) attr(name string) *attr {
	if i := slices.IndexFunc(res.attrs, func(a attr) bool { return a.name == name }); i >= 0 {
		return &res.attrs[i]
	}
	return nil
}

// standard are the attributes that all resources have.
func standard(more ...attr) []attr {
	return append(more,
		attr{name: "id", filter: true, sort: true},
		attr{name: "tenant_id", post: true, unset: true, check: text(255), filter: true, sort: true},
		attr{name: "project_id", post: true, unset: true, check: text(255), filter: true, sort: true},
		attr{name: "description", post: true, put: true, def: "", check: text(255), filter: true, sort: true},
		attr{name: "tags"},
		attr{name: "created_at", filter: true, sort: true},
		attr{name: "updated_at", filter: true, sort: true},
		attr{name: "revision_number", filter: true, sort: true},
	)
}

// values is a body that was accepted: attributes that were sent, and in a POST
// the defaults.
type values map[string]any

func (v values) has(name string) bool { _, ok := v[name]; return ok }

// str, flag and num return the value, or the zero one.
func (v values) str(name string) string { s, _ := v[name].(string); return s }
func (v values) flag(name string) bool  { b, _ := v[name].(bool); return b }
func (v values) num(name string) int    { n, _ := v[name].(int); return n }

// strs returns a list of strings; nil if it is none.
func (v values) strs(name string) []string {
	var out []string
	list, _ := v[name].([]any)
	for _, e := range list {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// maps returns a list of objects.
func (v values) maps(name string) []values {
	var out []values
	list, _ := v[name].([]any)
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// setStr sets *to when the attribute was sent.
func (v values) setStr(name string, to *string) {
	if s, ok := v[name].(string); ok {
		*to = s
	}
}

func (v values) setFlag(name string, to *bool) {
	if b, ok := v[name].(bool); ok {
		*to = b
	}
}

// reason is why a value is not accepted.
type reason string

func (r reason) Error() string { return string(r) }

// because makes a reason.
func because(format string, args ...any) error { return reason(fmt.Sprintf(format, args...)) }

// bodyOf reads the JSON object of a request. An empty body is an empty object.
func bodyOf(r *rest.Request) (map[string]any, error) {
	data, err := r.Bytes()
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return map[string]any{}, nil
	}
	var body map[string]any
	if err := rest.Unmarshal(data, &body); err != nil {
		return nil, bad("Body contains invalid data").Because(err)
	}
	return body, nil
}

// parse reads a POST or PUT of the resource. bulk says that a list was sent.
//
// Source: neutron/api/v2/base.py, Controller.prepare_request_body;
// neutron_lib/api/attributes.py, AttributeInfo.
func (res *resource) parse(r *rest.Request) (all []values, bulk bool, err error) {
	body, err := bodyOf(r)
	if err != nil {
		return nil, false, err
	}
	create := r.Method == http.MethodPost
	list, bulk := body[res.plural]
	if bulk && create {
		items, ok := list.([]any)
		switch {
		case !res.bulk:
			return nil, true, bad("Bulk operation not supported")
		case list == nil, ok && len(items) == 0:
			return nil, true, bad("Resources required")
		case !ok:
			return nil, true, bad("Body contains invalid data")
		}
		for _, item := range items {
			m, ok := item.(map[string]any)
			if !ok {
				return nil, true, bad("Body contains invalid data")
			}
			if inner, ok := m[res.name].(map[string]any); ok {
				m = inner
			}
			v, err := res.accept(r.Caller, m, true)
			if err != nil {
				return nil, true, err
			}
			all = append(all, v)
		}
		return all, true, nil
	}
	switch m := body[res.name].(type) {
	case nil:
		return nil, false, bad("Unable to find '%s' in request body", res.name)
	case map[string]any:
		v, err := res.accept(r.Caller, m, create)
		return []values{v}, false, err
	}
	return nil, false, bad("Object '%s' contains invalid data", res.name)
}

// accept checks one object.
func (res *resource) accept(c *rest.Caller, m map[string]any, create bool) (values, error) {
	if err := projectOf(c, m); err != nil {
		return nil, err
	}
	var unknown []string
	for name := range m {
		if res.attr(name) == nil {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, bad("Unrecognized attribute(s) '%s'", strings.Join(unknown, ", "))
	}
	out := values{}
	for _, a := range res.attrs {
		v, sent := m[a.name]
		switch {
		case create && !a.post && sent:
			return nil, bad("Attribute '%s' not allowed in POST", a.name)
		case !create && !a.put && sent && a.name != "tenant_id" && a.name != "project_id":
			return nil, bad("Cannot update read-only attribute %s", a.name)
		case create && a.must && !sent:
			return nil, bad("Failed to parse request. Required attribute '%s' not specified", a.name)
		case sent:
			out[a.name] = v
		case create && a.post && !a.unset:
			out[a.name] = a.def
		}
	}
	for _, a := range res.attrs {
		v, ok := out[a.name]
		if !ok || a.check == nil {
			continue
		}
		checked, err := a.check(v)
		if why, is := errors.AsType[reason](err); is {
			return nil, bad("Invalid input for %s. Reason: %s.", a.name, string(why))
		}
		if err != nil {
			return nil, err
		}
		out[a.name] = checked
	}
	return out, nil
}

// projectOf makes both names of the project agree and checks that the caller
// may speak for it. What it does not find it sets in a POST: see owner.
func projectOf(c *rest.Caller, m map[string]any) error {
	a, hasA := m["tenant_id"]
	b, hasB := m["project_id"]
	switch {
	case hasA && hasB && a != b:
		return bad("'project_id' and 'tenant_id' do not match")
	case hasA && !hasB:
		m["project_id"], b = a, a
	case hasB && !hasA:
		m["tenant_id"] = b
	case !hasA:
		return nil
	}
	if !c.Admin() && b != c.ProjectID {
		return bad("Specifying 'project_id' or 'tenant_id' other than the authenticated project in request requires admin or advsvc privileges")
	}
	return nil
}

// owner is the project that a new resource belongs to.
func owner(c *rest.Caller, v values) (string, error) {
	if v.has("project_id") {
		return v.str("project_id"), nil
	}
	if c.ProjectID == "" {
		return "", bad("Running without keystone AuthN requires that tenant_id is specified")
	}
	return c.ProjectID, nil
}

// mayWrite checks the role for a verb, and the policies of the attributes that
// were sent and differ from their defaults. network is whose network it is on.
//
// Source: neutron/policy.py, _build_match_rule; neutron/conf/policies.
func (res *resource) mayWrite(c *rest.Caller, verb string, v values, network string) error {
	rule := verb + "_" + res.name
	if !c.Member() {
		return denied("rule:" + rule)
	}
	rules := []string{"rule:" + rule}
	refused := false
	for _, a := range res.attrs {
		sent, ok := v[a.name]
		if a.who == anyone || !ok || verb == "create" && same(sent, a.def) {
			continue
		}
		rules = append(rules, "rule:"+rule+":"+a.name)
		refused = refused || !c.Admin() && (a.who == adminOnly || network != c.ProjectID)
	}
	if !refused {
		return nil
	}
	return denied("(" + strings.Join(rules, " and ") + ")")
}

// same compares values of JSON.
func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
