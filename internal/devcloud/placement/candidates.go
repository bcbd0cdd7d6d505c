package placement

import (
	"database/sql"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// world is all that candidates are found in.
type world struct {
	providers   []*provider
	byID        map[string]*provider
	inventories map[string]map[string]inventory
	used        map[string]resources
	traits      map[string][]string
	aggregates  map[string][]string
}

// world reads providers and what they have.
func (o operation) world() (*world, error) {
	w := &world{
		byID: map[string]*provider{}, inventories: map[string]map[string]inventory{}, used: map[string]resources{},
		traits: map[string][]string{}, aggregates: map[string][]string{},
	}
	if err := o.each(func(rows *sql.Rows) error {
		p := &provider{}
		err := p.scan(rows)
		w.providers, w.byID[p.uuid] = append(w.providers, p), p
		return err
	}, "SELECT "+providerColumns+" FROM providers ORDER BY name"); err != nil {
		return nil, err
	}
	if err := o.each(func(rows *sql.Rows) error {
		var id, class string
		var i inventory
		err := rows.Scan(append([]any{&id, &class}, i.fields()...)...)
		if w.inventories[id] == nil {
			w.inventories[id] = map[string]inventory{}
		}
		w.inventories[id][class] = i
		return err
	}, "SELECT provider, class, "+inventoryColumns+" FROM inventories"); err != nil {
		return nil, err
	}
	if err := o.each(func(rows *sql.Rows) error {
		var id, class string
		var used int64
		err := rows.Scan(&id, &class, &used)
		if w.used[id] == nil {
			w.used[id] = resources{}
		}
		w.used[id][class] = used
		return err
	}, "SELECT provider, class, sum(used) FROM allocations GROUP BY provider, class"); err != nil {
		return nil, err
	}
	if err := o.each(scanPairs(w.traits), "SELECT provider, trait FROM provider_traits ORDER BY trait"); err != nil {
		return nil, err
	}
	return w, o.each(scanPairs(w.aggregates), "SELECT provider, aggregate FROM provider_aggregates")
}

// room reports whether p can give n more of a class.
func (w *world) room(p *provider, class string, n int64) bool {
	i, ok := w.inventories[p.uuid][class]
	return ok && i.suits(n) && w.used[p.uuid][class]+n <= i.capacity()
}

// fits reports whether p alone is what a group wants.
func (w *world) fits(p *provider, g group) bool {
	for class, n := range g.resources {
		if !w.room(p, class, n) {
			return false
		}
	}
	return w.placed(p, g) && w.hasTraits([]*provider{p}, g)
}

// placed reports whether p stands where a group wants.
func (w *world) placed(p *provider, g group) bool {
	if g.inTree != "" && (w.byID[g.inTree] == nil || w.byID[g.inTree].root != p.root) {
		return false
	}
	// what is said of a root is meant for its tree
	mine := append(slices.Clone(w.aggregates[p.uuid]), w.aggregates[p.root]...)
	for _, any := range g.memberOf {
		if !slices.ContainsFunc(any, func(a string) bool { return slices.Contains(mine, a) }) {
			return false
		}
	}
	return !slices.ContainsFunc(g.notMemberOf, func(a string) bool { return slices.Contains(mine, a) })
}

// hasTraits reports whether providers have together what a group requires and
// none of what it forbids.
func (w *world) hasTraits(providers []*provider, g group) bool {
	has := func(t string) bool {
		return slices.ContainsFunc(providers, func(p *provider) bool { return slices.Contains(w.traits[p.uuid], t) })
	}
	for _, any := range g.required {
		if !slices.ContainsFunc(any, has) {
			return false
		}
	}
	return !slices.ContainsFunc(g.forbidden, has)
}

// Candidate is one way to meet a request.
type Candidate struct {
	// Allocations are amounts by provider and class.
	Allocations map[string]map[string]int64
	// mappings are the providers of each group.
	mappings map[string][]string
	root     string
}

// search finds candidates in one tree.
type search struct {
	w       *world
	tree    []*provider
	groups  []group
	isolate bool
	subtree [][]string
	limit   int
	found   []Candidate
}

// next gives groups from the i-th on their providers.
func (s *search) next(i int, c Candidate) {
	if len(s.found) >= s.limit {
		return
	}
	if i == len(s.groups) {
		if s.together(c) {
			s.found = append(s.found, c)
		}
		return
	}
	g := s.groups[i]
	if g.suffix == "" {
		s.spread(i, g, slices.Sorted(maps.Keys(g.resources)), nil, c)
		return
	}
	for _, p := range s.tree {
		if s.w.fits(p, g) && (!s.isolate || !s.taken(c, p.uuid)) {
			if more, ok := s.with(c, g.suffix, p, g.resources); ok {
				s.next(i+1, more)
			}
		}
	}
}

// spread gives the classes of the group without a suffix to any providers.
func (s *search) spread(i int, g group, classes []string, of []*provider, c Candidate) {
	if len(classes) == 0 {
		if s.w.hasTraits(of, g) {
			s.next(i+1, c)
		}
		return
	}
	for _, p := range s.tree {
		class := classes[0]
		if len(s.found) < s.limit && s.w.placed(p, g) && s.w.room(p, class, g.resources[class]) {
			if more, ok := s.with(c, "", p, resources{class: g.resources[class]}); ok {
				s.spread(i, g, classes[1:], append(slices.Clone(of), p), more)
			}
		}
	}
}

// taken reports whether a group with a suffix has the provider.
func (s *search) taken(c Candidate, id string) bool {
	for suffix, ids := range c.mappings {
		if suffix != "" && slices.Contains(ids, id) {
			return true
		}
	}
	return false
}

// with is c and more of a provider, if it has room for all of it.
func (s *search) with(c Candidate, suffix string, p *provider, more resources) (Candidate, bool) {
	next := Candidate{Allocations: map[string]map[string]int64{}, mappings: maps.Clone(c.mappings), root: p.root}
	for id, res := range c.Allocations {
		next.Allocations[id] = maps.Clone(res)
	}
	if next.Allocations[p.uuid] == nil && len(more) > 0 {
		next.Allocations[p.uuid] = map[string]int64{}
	}
	for class, n := range more {
		next.Allocations[p.uuid][class] += n
		if !s.w.room(p, class, next.Allocations[p.uuid][class]) {
			return c, false
		}
	}
	if next.mappings == nil {
		next.mappings = map[string][]string{}
	}
	if !slices.Contains(next.mappings[suffix], p.uuid) {
		next.mappings[suffix] = append(slices.Clone(next.mappings[suffix]), p.uuid)
	}
	return next, true
}

// together reports whether each same_subtree is below one of its providers.
func (s *search) together(c Candidate) bool {
	for _, suffixes := range s.subtree {
		var ids []string
		for _, suffix := range suffixes {
			ids = append(ids, c.mappings[suffix]...)
		}
		if !slices.ContainsFunc(ids, func(top string) bool {
			return !slices.ContainsFunc(ids, func(id string) bool { return !s.w.under(id, top) })
		}) {
			return false
		}
	}
	return true
}

// under reports whether a provider is top or below it.
func (w *world) under(id, top string) bool {
	for p := w.byID[id]; p != nil; p = w.byID[p.parent.String] {
		if p.uuid == top {
			return true
		}
	}
	return false
}

// request is a query for candidates.
type request struct {
	groups       []group
	isolate      bool
	rootRequired group
	subtree      [][]string
	limit        int
	nested       bool
}

// candidates finds at most r.limit of them.
func (w *world) candidates(r request) []Candidate {
	trees := map[string][]*provider{}
	var roots []string
	for _, p := range w.providers {
		key := p.root
		if !r.nested {
			key = p.uuid // each for itself
		}
		if trees[key] == nil {
			roots = append(roots, key)
		}
		trees[key] = append(trees[key], p)
	}
	var all []Candidate
	for _, root := range roots {
		if top := w.byID[w.byID[root].root]; top == nil || !w.hasTraits([]*provider{top}, r.rootRequired) {
			continue
		}
		s := search{w: w, tree: trees[root], groups: r.groups, isolate: r.isolate, subtree: r.subtree, limit: r.limit - len(all)}
		s.next(0, Candidate{})
		if all = append(all, s.found...); len(all) >= r.limit {
			break
		}
	}
	return all
}

// mostCandidates bounds what is looked for when a query has no limit.
const mostCandidates = 1000

func listCandidates(o operation) (*rest.Response, error) {
	r, err := o.candidateQuery()
	if err != nil {
		return nil, err
	}
	w, err := o.world()
	if err != nil {
		return nil, err
	}
	found := w.candidates(r)
	requests := []any{}
	for _, c := range found {
		requests = append(requests, c.view(o.Version))
	}
	return rest.OK(map[string]any{"allocation_requests": requests, "provider_summaries": w.summaries(found, r, o.Version)})
}

func (o operation) candidateQuery() (r request, err error) {
	since := map[string]int{
		"resources": 10, "limit": 16, "required": 17, "member_of": 21, "group_policy": 25, "in_tree": 31, "root_required": 35, "same_subtree": 36,
	}
	for k := range o.Params() {
		first, plain := since[k]
		if m := suffixed.FindStringSubmatch(k); !plain && m != nil {
			first, plain = max(25, since[m[1]]), true
		}
		if !plain || !o.Version.AtLeast(1, first) {
			return r, badRequest("Invalid query string parameters: Additional properties are not allowed ('%s' was unexpected)", k)
		}
	}
	r = request{limit: mostCandidates, nested: o.Version.AtLeast(1, 29)}
	q := o.Params()
	if r.groups, err = o.groups(); err != nil {
		return r, err
	}
	if q.Has("limit") {
		if r.limit, err = strconv.Atoi(q.Get("limit")); err != nil || r.limit < 1 {
			return r, badRequest("Invalid query string parameters: '%s' does not match '^[1-9][0-9]*$'", q.Get("limit"))
		}
	}
	switch q.Get("group_policy") {
	case "isolate":
		r.isolate = true
	case "none":
	case "":
		if named := slices.DeleteFunc(slices.Clone(r.groups), func(g group) bool { return g.suffix == "" }); len(named) > 1 {
			return r, badRequest(`The "group_policy" parameter is required when specifying more than one "resources{N}" parameter.`)
		}
	default:
		return r, badRequest("Invalid query string parameters: '%s' is not one of ['none', 'isolate']", q.Get("group_policy"))
	}
	for _, text := range q["root_required"] {
		if err := r.rootRequired.addTraits(o, text); err != nil {
			return r, err
		}
	}
	for _, text := range q["same_subtree"] {
		r.subtree = append(r.subtree, strings.Split(text, ","))
	}
	return r, nil
}

func (c Candidate) view(v rest.Version) map[string]any {
	if !v.AtLeast(1, 12) {
		list := []any{}
		for _, id := range slices.Sorted(maps.Keys(c.Allocations)) {
			list = append(list, map[string]any{"resource_provider": map[string]string{"uuid": id}, "resources": c.Allocations[id]})
		}
		return map[string]any{"allocations": list}
	}
	byProvider := map[string]any{}
	for id, res := range c.Allocations {
		byProvider[id] = map[string]any{"resources": res}
	}
	view := map[string]any{"allocations": byProvider}
	if v.AtLeast(1, 34) {
		view["mappings"] = c.mappings
	}
	return view
}

// summaries tell of the providers of candidates, and from 1.29 on of their whole
// trees.
func (w *world) summaries(found []Candidate, r request, v rest.Version) map[string]any {
	all := map[string]any{}
	roots := map[string]bool{}
	for _, c := range found {
		roots[c.root] = true
	}
	for _, p := range w.providers {
		involved := slices.ContainsFunc(found, func(c Candidate) bool { return c.Allocations[p.uuid] != nil })
		if !involved && (!r.nested || !roots[p.root]) {
			continue
		}
		res := map[string]any{}
		for class, i := range w.inventories[p.uuid] {
			asked := slices.ContainsFunc(r.groups, func(g group) bool { return g.resources[class] > 0 })
			if asked || v.AtLeast(1, 27) {
				res[class] = map[string]int64{"capacity": i.capacity(), "used": w.used[p.uuid][class]}
			}
		}
		one := map[string]any{"resources": res}
		if v.AtLeast(1, 17) {
			one["traits"] = append([]string{}, w.traits[p.uuid]...)
		}
		if v.AtLeast(1, 29) {
			one["parent_provider_uuid"], one["root_provider_uuid"] = nil, p.root
			if p.parent.Valid {
				one["parent_provider_uuid"] = p.parent.String
			}
		}
		all[p.uuid] = one
	}
	return all
}
