package network

import (
	"context"
	"net/netip"
	"slices"
	"strconv"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

var poolResource = resource{
	name: "subnetpool", plural: "subnetpools", path: "subnetpools", bulk: true,
	missing: func(id string) error { return notFound("SubnetPoolNotFound", "Subnet pool %s could not be found.", id) },
	attrs: standard(
		attr{name: "name", post: true, put: true, must: true, check: filled, filter: true, sort: true},
		attr{name: "prefixes", post: true, put: true, must: true, check: prefixList},
		attr{name: "default_quota", post: true, put: true, unset: true, check: natural, filter: true, sort: true},
		attr{name: "ip_version", filter: true, sort: true},
		attr{name: "default_prefixlen", post: true, put: true, unset: true, check: natural, filter: true, sort: true},
		attr{name: "min_prefixlen", post: true, put: true, unset: true, check: natural, filter: true, sort: true},
		attr{name: "max_prefixlen", post: true, put: true, unset: true, check: natural, filter: true, sort: true},
		attr{name: "is_default", post: true, put: true, def: false, check: boolean, who: adminOnly, filter: true, sort: true},
		attr{name: "shared", post: true, def: false, check: boolean, who: adminOnly, filter: true, sort: true},
		attr{name: "address_scope_id", post: true, put: true, unset: true, check: orNull(uuidOf), filter: true, sort: true},
	),
}

func filled(v any) (any, error) {
	if s, ok := v.(string); !ok || s == "" {
		return nil, because("'%s' Blank strings are not permitted", py(v))
	}
	return v, nil
}

func natural(v any) (any, error) {
	n, err := integer(v)
	if err != nil {
		return nil, err
	}
	if i, ok := n.(int); ok && i < 0 {
		return nil, because("'%s' should be non-negative", py(v))
	}
	return n, nil
}

// prefixList accepts networks without duplicates.
func prefixList(v any) (any, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, because("'%s' is not a list", py(v))
	}
	seen := map[string]bool{}
	for i, e := range list {
		s, _ := e.(string)
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			return nil, because("'%s' is not a valid IP subnet", py(e))
		case seen[s]:
			return nil, because("Duplicate items in the list: '%s'", s)
		}
		seen[s], list[i] = true, p.Masked().String()
	}
	return list, nil
}

// prefixesOf reads what prefixList has accepted.
func prefixesOf(v []string) []netip.Prefix {
	out := make([]netip.Prefix, len(v))
	for i, s := range v {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// subnetPool is a supply of prefixes for subnets.
type subnetPool struct {
	base
	sharing

	Prefixes          []netip.Prefix
	Min, Max, Default int
	Quota             int    `json:",omitempty"` // 0: none
	IsDefault         bool   `json:",omitempty"`
	Scope             string `json:",omitempty"`
}

func (p *subnetPool) version() int {
	if p.Prefixes[0].Addr().Is6() {
		return 6
	}
	return 4
}

// subnetPools is the noun (neutron/db/db_base_plugin_v2.py, create_subnetpool).
var subnetPools = noun[*subnetPool]{
	res: &poolResource, table: func(st *state) *table[*subnetPool] { return &st.pools }, of: func(p *subnetPool) *base { return &p.base },
	sees: func(c *rest.Caller, p *subnetPool) bool { return c.Owns(p.Project) || p.reaches(c.ProjectID) },
	view: func(c *rest.Caller, p *subnetPool) map[string]any {
		prefixes := make([]string, len(p.Prefixes))
		for i, one := range p.Prefixes {
			prefixes[i] = one.String()
		}
		v := map[string]any{
			"name": p.Name, "prefixes": prefixes, "ip_version": p.version(), "default_prefixlen": strconv.Itoa(p.Default),
			"min_prefixlen": strconv.Itoa(p.Min), "max_prefixlen": strconv.Itoa(p.Max), "is_default": p.IsDefault,
			"shared": p.reaches(c.ProjectID), "address_scope_id": orNil(p.Scope), "default_quota": nil,
		}
		if p.Quota > 0 {
			v["default_quota"] = p.Quota
		}
		return p.standardView(v)
	},
	make: func(st *state, c *rest.Caller, b base, v values) (*subnetPool, error) {
		p := &subnetPool{base: b}
		if v.flag("shared") {
			p.With = []string{everybody}
			st.addPolicy(typePool, p.ID, asShared, everybody, p.Project)
		}
		return p, st.setPool(c, p, v)
	},
	change: func(st *state, c *rest.Caller, old *subnetPool, v values) (*subnetPool, error) {
		if a, ok := st.scopes.get(old.Scope); ok && !c.Owns(a.Project) {
			return nil, fault(400, "IllegalSubnetPoolUpdate", "Illegal subnetpool update : subnetpool %s cannot be updated when"+
				" associated with shared address scope %s.", old.ID, a.ID)
		}
		p := *old
		if err := st.setPool(c, &p, v); err != nil {
			return nil, err
		}
		for _, was := range old.Prefixes {
			if !covered(p.Prefixes, was) {
				return nil, fault(400, "IllegalSubnetPoolPrefixUpdate",
					"Illegal update to prefixes: Existing prefixes must be a subset of the new prefixes.")
			}
		}
		return &p, nil
	},
	free: func(st *state, p *subnetPool) error {
		if st.subnets.has(func(s *subnet) bool { return s.Pool == p.ID }) {
			return fault(400, "SubnetPoolDeleteError", "Unable to delete subnet pool: Subnet pool has existing allocations.")
		}
		st.dropPolicies(p.ID)
		return nil
	},
}

// bounds are the prefix lengths that a version has by default.
func bounds(version int) (least, most int) {
	if version == 6 {
		return 64, 128
	}
	return 8, 32
}

// setPool takes over what was sent and checks the whole.
func (st *state) setPool(c *rest.Caller, p *subnetPool, v values) error {
	fresh := p.Prefixes == nil
	if v.has("prefixes") {
		given := prefixesOf(v.strs("prefixes"))
		if len(given) == 0 {
			return fault(400, "EmptySubnetPoolPrefixList", "Empty subnet pool prefix list.")
		}
		for _, one := range given[1:] {
			if one.Addr().Is4() != given[0].Addr().Is4() {
				return fault(400, "PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.")
			}
		}
		p.Prefixes = compact(given)
	}
	least, most := bounds(p.version())
	if fresh {
		p.Min, p.Max = least, most
	}
	for name, to := range map[string]*int{"min_prefixlen": &p.Min, "max_prefixlen": &p.Max, "default_quota": &p.Quota} {
		if v.has(name) {
			*to = v.num(name)
		}
	}
	if v.has("default_prefixlen") {
		p.Default = v.num("default_prefixlen")
	} else if fresh {
		p.Default = p.Min
	}
	if err := p.checkBounds(most); err != nil {
		return err
	}
	if on, sent := v["is_default"].(bool); sent {
		if on && !p.IsDefault && st.defaultPool(p.version()) != nil {
			return invalid("A default subnetpool for this IP family has already been set. Only one default may exist per IP family")
		}
		p.IsDefault = on
	}
	if v.has("address_scope_id") {
		p.Scope = v.str("address_scope_id")
	}
	return st.checkScope(c, p)
}

func (p *subnetPool) checkBounds(most int) error {
	illegal := func(what string, n int, other string, m int) error {
		return fault(400, "IllegalSubnetPoolPrefixBounds", "Illegal prefix bounds: %s=%d, %s=%d.", what, n, other, m)
	}
	switch {
	case p.Min > p.Max:
		return illegal("min_prefixlen", p.Min, "max_prefixlen", p.Max)
	case p.Max > most:
		return illegal("max_prefixlen", p.Max, "ip_version_max", most)
	case p.Default < p.Min:
		return illegal("default_prefixlen", p.Default, "min_prefixlen", p.Min)
	case p.Default > p.Max:
		return illegal("default_prefixlen", p.Default, "max_prefixlen", p.Max)
	}
	return nil
}

// defaultPool is the pool for those who name none; nil: there is none.
func (st *state) defaultPool(version int) *subnetPool {
	if all := st.pools.where(func(p *subnetPool) bool { return p.IsDefault && p.version() == version }); len(all) > 0 {
		return all[0]
	}
	return nil
}

// checkScope holds a pool against its address scope.
func (st *state) checkScope(c *rest.Caller, p *subnetPool) error {
	if p.Scope == "" {
		return nil
	}
	a, err := scopes.find(st, c, p.Scope)
	if err != nil {
		return err
	}
	if a.Version != p.version() {
		return fault(400, "IllegalSubnetPoolIpVersionAssociationToAddressScope", "Illegal subnetpool association: subnetpool %s "+
			"cannot associate with address scope %s because subnetpool ip_version is not %d.", p.ID, a.ID, a.Version)
	}
	for _, other := range st.pools.where(func(o *subnetPool) bool { return o.Scope == a.ID && o.ID != p.ID }) {
		for _, theirs := range other.Prefixes {
			if slices.ContainsFunc(p.Prefixes, theirs.Overlaps) {
				return conflict("AddressScopePrefixConflict",
					"Failed to associate address scope: subnetpools within an address scope must have unique prefixes.")
			}
		}
	}
	return nil
}

func (s *Service) poolRoutes() {
	s.route(&poolResource, subnetPools.verbs(s))
	s.api.Handle("PUT /v2.0/subnetpools/{id}/add_prefixes", s.changePrefixes("add_prefixes", func(have, sent []netip.Prefix) []netip.Prefix {
		return append(slices.Clone(have), sent...)
	}))
	s.api.Handle("PUT /v2.0/subnetpools/{id}/remove_prefixes", s.changePrefixes("remove_prefixes", without))
}

// changePrefixes is a verb on the prefixes alone
// (neutron/db/db_base_plugin_v2.py, add_prefixes and remove_prefixes).
func (s *Service) changePrefixes(verb string, change func(have, sent []netip.Prefix) []netip.Prefix) rest.Handler {
	return func(ctx context.Context, r *rest.Request) (*rest.Response, error) {
		body, err := bodyOf(r)
		if err != nil {
			return nil, err
		}
		asked, has := body["prefixes"]
		if !has {
			return nil, bad("Request body contains invalid data")
		}
		checked, err := prefixList(asked)
		if err != nil {
			return nil, bad("Invalid input for prefixes. Reason: %s.", err)
		}
		sent := prefixesOf(values{"prefixes": checked}.strs("prefixes"))
		var view map[string]any
		err = s.write(ctx, func(st *state) error {
			old, err := subnetPools.own(st, r, "(rule:"+verb+" and rule:"+verb+":shared)")
			if err != nil {
				return err
			}
			p := *old
			if p.Prefixes = compact(change(p.Prefixes, sent)); len(p.Prefixes) == 0 {
				return fault(400, "EmptySubnetPoolPrefixList", "Empty subnet pool prefix list.")
			}
			for _, one := range p.Prefixes {
				if one.Addr().Is4() != (old.version() == 4) {
					return fault(400, "PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.")
				}
			}
			for _, sub := range st.subnets.where(func(sub *subnet) bool { return sub.Pool == p.ID }) {
				if !covered(p.Prefixes, sub.CIDR) {
					return fault(400, "IllegalSubnetPoolPrefixUpdate",
						"Illegal update to prefixes: One or more of the prefixes to be removed is in use by a subnet.")
				}
			}
			if err := st.checkScope(r.Caller, &p); err != nil {
				return err
			}
			st.bumped(&p.base)
			st.pools.put(&p)
			view = map[string]any{"prefixes": subnetPools.view(r.Caller, &p)["prefixes"]}
			return nil
		})
		if err != nil {
			return nil, err
		}
		return rest.OK(view)
	}
}
