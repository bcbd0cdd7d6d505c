package network

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// defaultGroup is the name of the group that each project has.
const defaultGroup = "default"

var groupResource = resource{
	name: "security_group", plural: "security_groups", path: "security-groups", bulk: true,
	missing: func(id string) error {
		return notFound("SecurityGroupNotFound", "Security group %s does not exist", id)
	},
	attrs: standard(
		attr{name: "name", post: true, put: true, def: "", check: groupName, filter: true, sort: true},
		attr{name: "shared", filter: true},
		attr{name: "security_group_rules"},
	),
}

func groupName(v any) (any, error) {
	s, err := text(255)(v)
	if s == defaultGroup {
		return nil, conflict("SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
	}
	return s, err
}

// group is a security group.
type group struct {
	base
	sharing
}

// sees reports whether the caller may know of it.
func (g *group) sees(c *rest.Caller) bool { return c.Owns(g.Project) || g.reaches(c.ProjectID) }

func (s *Service) groupRoutes() {
	s.route(&groupResource, verbs{
		list: s.listGroups, show: s.showGroup, create: s.createGroups, update: s.updateGroup, remove: s.deleteGroup,
	})
}

func (st *state) group(c *rest.Caller, id string) (*group, error) {
	g, ok := st.groups.get(id)
	if !ok || !g.sees(c) {
		return nil, groupResource.missing(id)
	}
	return g, nil
}

func (st *state) rulesOf(groupID string) []*rule {
	return st.rules.where(func(r *rule) bool { return r.Group == groupID })
}

func (g *group) view(c *rest.Caller, rules []*rule) map[string]any {
	views := make([]map[string]any, len(rules))
	for i, r := range rules {
		views[i] = r.view()
	}
	return g.standardView(map[string]any{
		"name": g.Name, "shared": g.reaches(c.ProjectID), "security_group_rules": views,
	})
}

// ensureDefaultGroup returns the default group of a project, which is made when
// it is first needed, with the rules that let everything out, and in what comes
// from the group itself (neutron/db/securitygroups_db.py, create_security_group).
func (st *state) ensureDefaultGroup(project string) *group {
	if all := st.groups.where(func(g *group) bool { return g.Project == project && g.Name == defaultGroup }); len(all) > 0 {
		return all[0]
	}
	text := "Default security group"
	g := &group{}
	g.ID, g.Project, g.Name, g.Description, g.Revision = uuid.NewString(), project, defaultGroup, &text, 1
	st.made(&g.base)
	st.groups.put(g)
	for _, ethertype := range []string{ipv4, ipv6} {
		st.addRule(&rule{Group: g.ID, Direction: egress, Ethertype: ethertype}, project)
		st.addRule(&rule{Group: g.ID, Direction: ingress, Ethertype: ethertype, RemoteGroup: g.ID}, project)
	}
	return g
}

// withDefault makes the caller's default group if a project shows up for the
// first time, as every look at security groups does.
func (s *Service) withDefault(ctx context.Context, project string) error {
	if project == "" {
		return nil
	}
	missing := true
	_ = s.store.read(func(st *state) error { // returns nil
		missing = !st.groups.has(func(g *group) bool { return g.Project == project && g.Name == defaultGroup })
		return nil
	})
	if !missing {
		return nil
	}
	return s.write(ctx, func(st *state) error {
		st.ensureDefaultGroup(project)
		return nil
	})
}

func (s *Service) listGroups(ctx context.Context, r *rest.Request) (res *rest.Response, err error) {
	project := r.Caller.ProjectID
	if p := r.Params().Get("tenant_id") + r.Params().Get("project_id"); p != "" && r.Caller.Admin() {
		project = p
	}
	if err := s.withDefault(ctx, project); err != nil {
		return nil, err
	}
	err = s.store.read(func(st *state) error {
		rules := map[string][]*rule{}
		for _, one := range st.rules.where(func(*rule) bool { return true }) {
			rules[one.Group] = append(rules[one.Group], one)
		}
		all := st.groups.where(func(g *group) bool { return g.sees(r.Caller) })
		res, err = list(r, &groupResource, all, func(g *group) map[string]any { return g.view(r.Caller, rules[g.ID]) })
		return err
	})
	return res, err
}

func (s *Service) showGroup(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		g, err := st.group(r.Caller, r.PathValue("id"))
		if err != nil {
			return err
		}
		res, err = show(r, &groupResource, g.view(r.Caller, st.rulesOf(g.ID)))
		return err
	})
	return res, err
}

func (s *Service) createGroups(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, bulk, err := groupResource.parse(r)
	if err != nil {
		return nil, err
	}
	var views []map[string]any
	err = s.write(ctx, func(st *state) error {
		for _, v := range all {
			g, err := st.createGroup(r.Caller, v)
			if err != nil {
				return err
			}
			views = append(views, g.view(r.Caller, st.rulesOf(g.ID)))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return created(r, &groupResource, bulk, views)
}

func (st *state) createGroup(c *rest.Caller, v values) (*group, error) {
	if err := groupResource.mayWrite(c, "create", v, ""); err != nil {
		return nil, err
	}
	project, err := owner(c, v)
	if err != nil {
		return nil, err
	}
	st.ensureDefaultGroup(project)
	if err := st.room(project, "security_group", st.countOf(project, "security_group")+1); err != nil {
		return nil, err
	}
	g := &group{}
	g.ID, g.Project, g.Revision = uuid.NewString(), project, 1
	st.made(&g.base)
	g.set(v)
	st.groups.put(g)
	for _, ethertype := range []string{ipv4, ipv6} {
		st.addRule(&rule{Group: g.ID, Direction: egress, Ethertype: ethertype}, project)
	}
	return g, nil
}

func (g *group) set(v values) {
	v.setStr("name", &g.Name)
	if d, ok := v["description"].(string); ok {
		g.Description = &d
	}
}

// ownGroup finds the group of the path, which the caller may change.
func (st *state) ownGroup(r *rest.Request, rule string) (*group, error) {
	g, err := st.group(r.Caller, r.PathValue("id"))
	switch {
	case err != nil:
		return nil, err
	case !r.Caller.Member() || !r.Caller.Owns(g.Project):
		return nil, denied("rule:" + rule)
	}
	return g, ifMatch(r, g.Revision)
}

func (s *Service) updateGroup(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, _, err := groupResource.parse(r)
	if err != nil {
		return nil, err
	}
	var view map[string]any
	err = s.write(ctx, func(st *state) error {
		old, err := st.ownGroup(r, "update_security_group")
		if err != nil {
			return err
		}
		v := all[0]
		if old.Name == defaultGroup && v.has("name") {
			return conflict("SecurityGroupCannotUpdateDefault", "Updating default security group not allowed.")
		}
		g := *old
		g.set(v)
		if len(v) > 0 {
			st.bumped(&g.base)
		}
		st.groups.put(&g)
		view = g.view(r.Caller, st.rulesOf(g.ID))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return show(r, &groupResource, view)
}

func (st *state) groupUsed(id string) bool {
	return st.ports.has(func(p *port) bool { return slices.Contains(p.Groups, id) })
}

func (st *state) groupInUse(id string) error {
	return conflict("SecurityGroupInUse", "Security Group %s in use.", id)
}

func (s *Service) deleteGroup(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := noBody(r); err != nil {
		return nil, err
	}
	err := s.write(ctx, func(st *state) error {
		g, err := st.ownGroup(r, "delete_security_group")
		if err != nil {
			return err
		}
		if st.groupUsed(g.ID) {
			return st.groupInUse(g.ID)
		}
		if g.Name == defaultGroup && !r.Caller.Admin() {
			return conflict("SecurityGroupCannotRemoveDefault", "Insufficient rights for removing default security group.")
		}
		for _, one := range st.rules.where(func(one *rule) bool { return one.Group == g.ID || one.RemoteGroup == g.ID }) {
			st.rules.del(one.ID)
		}
		st.dropPolicies(g.ID)
		st.groups.del(g.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}
