package network

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// What policies are about, and what they allow (neutron/extensions/rbac.py).
const (
	typeNetwork      = "network"
	typeScope        = "address_scope"
	typePool         = "subnetpool"
	typeGroup        = "security_group"
	typeAddressGroup = "address_group"

	asShared   = "access_as_shared"
	asExternal = "access_as_external"
)

// rbacTypes are the types that have policies.
var rbacTypes = []string{typeNetwork, typeScope, typePool, typeGroup, typeAddressGroup}

var rbacResource = resource{
	name: "rbac_policy", plural: "rbac_policies", path: "rbac-policies", bulk: true,
	missing: func(id string) error {
		return notFound("RbacPolicyNotFound", "RBAC policy of type unknown with ID %s not found", id)
	},
	attrs: []attr{
		{name: "id", filter: true, sort: true},
		{name: "object_type", post: true, check: rbacType, filter: true},
		{name: "object_id", post: true, must: true, check: uuidOf, filter: true},
		{name: "target_tenant", post: true, put: true, must: true, check: text(255), filter: true},
		{name: "tenant_id", post: true, unset: true, check: text(255), filter: true},
		{name: "project_id", post: true, unset: true, check: text(255), filter: true},
		{name: "action", post: true, must: true, check: text(255), filter: true},
	},
}

func rbacType(v any) (any, error) {
	s := strings.ToLower(strings.TrimSpace(py(v)))
	if !slices.Contains(rbacTypes, s) {
		return nil, invalid("'%s' is not a valid RBAC object type", py(v))
	}
	return s, nil
}

// policy shares a record with a project, or with everybody.
type policy struct {
	base

	Type, Object, Action, Target string
}

// policies is the noun (neutron/db/rbac_db_mixin.py).
var policies = noun[*policy]{
	res: &rbacResource, table: func(st *state) *table[*policy] { return &st.policies }, of: func(p *policy) *base { return &p.base },
	sees: func(c *rest.Caller, p *policy) bool { return c.Owns(p.Project) },
	view: func(_ *rest.Caller, p *policy) map[string]any {
		return map[string]any{
			"id": p.ID, "project_id": p.Project, "tenant_id": p.Project, "object_type": p.Type, "object_id": p.Object,
			"action": p.Action, "target_tenant": p.Target,
		}
	},
	make: func(st *state, c *rest.Caller, b base, v values) (*policy, error) {
		p := &policy{base: b, Type: v.str("object_type"), Object: v.str("object_id"), Action: v.str("action"), Target: v.str("target_tenant")}
		if err := mayTarget(c, "create", p.Target); err != nil {
			return nil, err
		}
		if err := st.mayShare(c, p); err != nil {
			return nil, err
		}
		st.policies.put(p)
		st.reshare(p.Type, p.Object)
		return p, nil
	},
	change: func(st *state, c *rest.Caller, old *policy, v values) (*policy, error) {
		p := *old
		v.setStr("target_tenant", &p.Target)
		if p.Target == old.Target {
			return &p, nil
		}
		if err := mayTarget(c, "update", p.Target); err != nil {
			return nil, err
		}
		st.policies.put(&p)
		st.reshare(p.Type, p.Object)
		return &p, st.stillShared(old)
	},
	free: func(st *state, p *policy) error {
		st.policies.del(p.ID)
		st.reshare(p.Type, p.Object)
		return st.stillShared(p)
	},
}

// mayTarget lets administrators only share with everybody.
func mayTarget(c *rest.Caller, verb, target string) error {
	if target == everybody && !c.Admin() {
		rule := "rule:" + verb + "_rbac_policy"
		if verb == "update" {
			return denied("(" + rule + " and " + rule + ":target_tenant)")
		}
		return denied("((((" + rule + " and " + rule + ":object_type) and " + rule + ":object_id) and " + rule + ":target_tenant) and " + rule + ":action)")
	}
	return nil
}

// mayShare checks a new policy against what it is about.
func (st *state) mayShare(c *rest.Caller, p *policy) error {
	b, _ := st.shared(p.Type, p.Object)
	switch {
	case b == nil:
		return invalid("%s %s could not be found", strings.ReplaceAll(p.Type, "_", " "), p.Object)
	case !c.Owns(b.Project):
		return invalid("Only admins can manipulate policies on objects they do not own")
	case p.Action != asShared && (p.Type != typeNetwork || p.Action != asExternal):
		valid := "('access_as_shared',)"
		if p.Type == typeNetwork {
			valid = "('access_as_shared', 'access_as_external')"
		}
		return fault(400, "InvalidActionForType", "Invalid action '%s' for object type '%s'. Valid actions: %s", p.Action, p.Type, valid)
	case st.policies.has(func(o *policy) bool { return o.Object == p.Object && o.Action == p.Action && o.Target == p.Target }):
		return conflict("DuplicateRbacPolicy", "An RBAC policy already exists with those values.")
	}
	return nil
}

// shared finds what a policy is about: its base, and how to store who it is
// shared with, and for networks who uses it as an external one.
func (st *state) shared(kind, id string) (*base, func(with, external []string)) {
	switch kind {
	case typeNetwork:
		if n, ok := st.networks.get(id); ok {
			return &n.base, func(with, external []string) {
				now := *n
				now.With, now.ExternalTo, now.External = with, external, len(external) > 0
				now.Shared = slices.Contains(with, everybody)
				st.networks.put(&now)
			}
		}
	case typeScope:
		if a, ok := st.scopes.get(id); ok {
			return &a.base, func(with, _ []string) { now := *a; now.With = with; st.scopes.put(&now) }
		}
	case typePool:
		if p, ok := st.pools.get(id); ok {
			return &p.base, func(with, _ []string) { now := *p; now.With = with; st.pools.put(&now) }
		}
	case typeGroup:
		if g, ok := st.groups.get(id); ok {
			return &g.base, func(with, _ []string) { now := *g; now.With = with; st.groups.put(&now) }
		}
	case typeAddressGroup:
		if a, ok := st.addressGroups.get(id); ok {
			return &a.base, func(with, _ []string) { now := *a; now.With = with; st.addressGroups.put(&now) }
		}
	}
	return nil, nil
}

// targets are the projects of the policies about one thing.
func (st *state) targets(id, action string) []string {
	var out []string
	for _, p := range st.policies.where(func(p *policy) bool { return p.Object == id && p.Action == action }) {
		out = append(out, p.Target)
	}
	return out
}

// reshare writes into a record what the policies about it say.
func (st *state) reshare(kind, id string) {
	if _, put := st.shared(kind, id); put != nil {
		put(st.targets(id, asShared), st.targets(id, asExternal))
	}
}

// addPolicy adds the policy that an attribute of a record stands for.
func (st *state) addPolicy(kind, id, action, target, project string) {
	p := &policy{Type: kind, Object: id, Action: action, Target: target}
	p.ID, p.Project = uuid.NewString(), project
	st.made(&p.base)
	st.policies.put(p)
}

// dropPolicies removes all policies about a record that goes.
func (st *state) dropPolicies(id string) {
	for _, p := range st.policies.where(func(p *policy) bool { return p.Object == id }) {
		st.policies.del(p.ID)
	}
}

// setPolicy makes the policy for everybody that an attribute of a network stands
// for, or removes it.
func (st *state) setPolicy(n *network, action string, on bool) {
	have := st.policies.where(func(p *policy) bool { return p.Object == n.ID && p.Action == action && p.Target == everybody })
	switch {
	case on && len(have) == 0:
		st.addPolicy(typeNetwork, n.ID, action, everybody, n.Project)
	case !on:
		for _, p := range have {
			st.policies.del(p.ID)
		}
	}
}

// stillShared refuses to take back a policy that somebody needs.
func (st *state) stillShared(p *policy) error {
	var why string
	switch {
	case p.Action == asExternal:
		why = st.externalStillUsed(p.Object)
	case p.Type == typeNetwork:
		why = st.networkStillUsed(p.Object)
	default:
		if b, _ := st.shared(p.Type, p.Object); b != nil {
			for _, user := range st.usersOf(p.Type, p.Object) {
				if user != b.Project && !(sharing{st.targets(p.Object, asShared)}).reaches(user) {
					why = fmt.Sprintf("%s %s is in use by other projects.", p.Type, p.Object)
				}
			}
		}
	}
	if why == "" {
		return nil
	}
	return conflict("RbacPolicyInUse", "RBAC policy on object %s cannot be removed because other objects depend on it.\nDetails: %s", p.Object, why)
}

// networkStillUsed looks for projects that have ports or subnets in a network
// and do not see it any more.
func (st *state) networkStillUsed(id string) string {
	n, ok := st.networks.get(id)
	if !ok {
		return ""
	}
	foreign := func(project string) bool { return project != "" && project != n.Project && !n.reaches(project) }
	if st.ports.has(func(p *port) bool { return p.Network == id && foreign(p.Project) }) ||
		st.subnets.has(func(s *subnet) bool { return s.Network == id && foreign(s.Project) }) {
		return fmt.Sprintf("Unable to reconfigure sharing settings for network %s. Multiple tenants are using it.", n.ID)
	}
	return ""
}

// externalStillUsed looks for routers of projects that the network is not
// external to any more.
func (st *state) externalStillUsed(id string) string {
	n, ok := st.networks.get(id)
	if !ok {
		return ""
	}
	for r := range st.routers.all() {
		if gw, ok := st.ports.get(r.Gateway); ok && gw.Network == id && !n.externalTo(r.Project) {
			return fmt.Sprintf("There are routers attached to this network that depend on this policy for access: %s", r.ID)
		}
	}
	return ""
}

// usersOf are the projects that use a shared record.
func (st *state) usersOf(kind, id string) []string {
	var out []string
	switch kind {
	case typeScope:
		for _, p := range st.pools.where(func(p *subnetPool) bool { return p.Scope == id }) {
			out = append(out, p.Project)
		}
	case typePool:
		for _, s := range st.subnets.where(func(s *subnet) bool { return s.Pool == id }) {
			out = append(out, s.Project)
		}
	case typeGroup:
		for _, p := range st.ports.where(func(p *port) bool { return slices.Contains(p.Groups, id) }) {
			out = append(out, p.Project)
		}
	case typeAddressGroup:
		for _, r := range st.rules.where(func(r *rule) bool { return r.RemoteAddresses == id }) {
			out = append(out, r.Project)
		}
	}
	return out
}

// ensurePolicies makes the policies of networks that were shared before there
// were any.
func (st *state) ensurePolicies() {
	for _, n := range st.networks.where(func(n *network) bool { return n.Shared || n.External }) {
		for action, on := range map[string]bool{asShared: n.Shared, asExternal: n.External} {
			if on && len(st.targets(n.ID, action)) == 0 {
				st.setPolicy(n, action, true)
				st.reshare(typeNetwork, n.ID)
			}
		}
	}
}
