package network

import (
	"slices"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

var scopeResource = resource{
	name: "address_scope", plural: "address_scopes", path: "address-scopes", bulk: true,
	missing: func(id string) error {
		return notFound("AddressScopeNotFound", "Address scope %s could not be found.", id)
	},
	attrs: []attr{
		{name: "id", filter: true, sort: true},
		{name: "name", post: true, put: true, def: "", check: text(255), filter: true, sort: true},
		{name: "tenant_id", post: true, unset: true, check: text(255), filter: true, sort: true},
		{name: "project_id", post: true, unset: true, check: text(255), filter: true, sort: true},
		{name: "shared", post: true, put: true, def: false, check: boolean, who: adminOnly, filter: true, sort: true},
		{name: "ip_version", post: true, must: true, check: ipVersion, filter: true, sort: true},
	},
}

// addressScope is a set of subnet pools whose addresses do not overlap.
type addressScope struct {
	base
	sharing

	Version int
}

// scopes is the noun (neutron/db/address_scope_db.py).
var scopes = noun[*addressScope]{
	res: &scopeResource, table: func(st *state) *table[*addressScope] { return &st.scopes }, of: func(a *addressScope) *base { return &a.base },
	sees: func(c *rest.Caller, a *addressScope) bool { return c.Owns(a.Project) || a.reaches(c.ProjectID) },
	view: func(c *rest.Caller, a *addressScope) map[string]any {
		return map[string]any{
			"id": a.ID, "name": a.Name, "tenant_id": a.Project, "project_id": a.Project, "shared": a.reaches(c.ProjectID), "ip_version": a.Version,
		}
	},
	make: func(st *state, _ *rest.Caller, b base, v values) (*addressScope, error) {
		a := &addressScope{base: b, Version: v.num("ip_version")}
		if v.flag("shared") {
			a.With = []string{everybody}
			st.addPolicy(typeScope, a.ID, asShared, everybody, a.Project)
		}
		return a, nil
	},
	change: func(st *state, _ *rest.Caller, old *addressScope, v values) (*addressScope, error) {
		a := *old
		if shared, sent := v["shared"].(bool); sent {
			all := slices.Contains(a.With, everybody)
			if all && !shared {
				return nil, fault(400, "AddressScopeUpdateError", "Unable to update address scope %s : Shared address scope can't be unshared.", a.ID)
			}
			if shared && !all {
				a.With = append(slices.Clone(a.With), everybody)
				st.addPolicy(typeScope, a.ID, asShared, everybody, a.Project)
			}
		}
		return &a, nil
	},
	free: func(st *state, a *addressScope) error {
		if st.pools.has(func(p *subnetPool) bool { return p.Scope == a.ID }) {
			return conflict("AddressScopeInUse", "Unable to complete operation on address scope %s. "+
				"There are one or more subnet pools in use on the address scope.", a.ID)
		}
		st.dropPolicies(a.ID)
		return nil
	},
}
