package network

import (
	"context"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// quotas are the kinds that are bounded, in Neutron's order, and the default
// limits (neutron/conf/quota.py); -1 is no limit.
var quotas = []struct {
	name  string
	limit int
}{
	{"network", 100},
	{"subnet", 100},
	{"subnetpool", -1},
	{"port", 500},
	{"router", 10},
	{"floatingip", 50},
	{"rbac_policy", 10},
	{"security_group", 10},
	{"security_group_rule", 100},
}

// quota is what differs from the defaults for a project.
type quota struct {
	base

	Limits map[string]int
}

// limits are those of a project.
func (st *state) limits(project string) map[string]int {
	out := map[string]int{}
	own, ok := st.quotas.get(project)
	for _, q := range quotas {
		out[q.name] = q.limit
		if ok {
			if n, set := own.Limits[q.name]; set {
				out[q.name] = n
			}
		}
	}
	return out
}

// countOf is how many of a kind a project has.
func (st *state) countOf(project, kind string) int {
	switch kind {
	case "network":
		return count(&st.networks, project)
	case "subnet":
		return count(&st.subnets, project)
	case "port":
		return count(&st.ports, project)
	case "router":
		return count(&st.routers, project)
	case "floatingip":
		return count(&st.floatings, project)
	case "security_group":
		return count(&st.groups, project)
	case "security_group_rule":
		return count(&st.rules, project)
	case "subnetpool":
		return count(&st.pools, project)
	case "rbac_policy":
		return count(&st.policies, project)
	}
	return 0
}

func count[T record](t *table[T], project string) (n int) {
	for r := range t.all() {
		if r.owner() == project {
			n++
		}
	}
	return n
}

// room refuses to have more of a kind than the project's limit.
func (st *state) room(project, kind string, wanted int) error {
	if limit, bounded := st.limits(project)[kind]; bounded && limit >= 0 && wanted > limit {
		return conflict("OverQuota", "Quota exceeded for resources: ['%s'].", kind)
	}
	return nil
}

func (s *Service) quotaRoutes() {
	s.api.Handle("GET /v2.0/quotas", s.listQuotas)
	s.api.Handle("GET /v2.0/quotas/{project}", s.showQuota)
	s.api.Handle("PUT /v2.0/quotas/{project}", s.updateQuota)
	s.api.Handle("DELETE /v2.0/quotas/{project}", s.deleteQuota)
	s.api.Handle("GET /v2.0/quotas/{project}/{part}", s.partOfQuota)
}

func (s *Service) listQuotas(_ context.Context, r *rest.Request) (*rest.Response, error) {
	if !r.Caller.Admin() {
		return nil, denied("rule:get_quota")
	}
	views := []map[string]any{}
	err := s.store.read(func(st *state) error {
		for _, q := range st.quotas.where(func(*quota) bool { return true }) {
			v := map[string]any{"project_id": q.ID, "tenant_id": q.ID}
			for k, n := range st.limits(q.ID) {
				v[k] = n
			}
			views = append(views, v)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"quotas": views})
}

func (s *Service) showQuota(_ context.Context, r *rest.Request) (*rest.Response, error) {
	project := r.PathValue("project")
	if project == "tenant" || project == "project" {
		return rest.OK(map[string]any{project: map[string]string{project + "_id": r.Caller.ProjectID}})
	}
	if !r.Caller.Owns(project) {
		return nil, denied("rule:get_quota")
	}
	var limits map[string]int
	err := s.store.read(func(st *state) error {
		limits = st.limits(project)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"quota": limits})
}

// partOfQuota answers default and details (also details.json).
func (s *Service) partOfQuota(_ context.Context, r *rest.Request) (*rest.Response, error) {
	project, part := r.PathValue("project"), strings.TrimSuffix(r.PathValue("part"), ".json")
	if part != "default" && part != "details" {
		return nil, hidden()
	}
	if !r.Caller.Owns(project) {
		return nil, denied("rule:get_quota")
	}
	out := map[string]any{}
	err := s.store.read(func(st *state) error {
		limits := st.limits(project)
		for _, q := range quotas {
			if part == "default" {
				out[q.name] = q.limit
				continue
			}
			out[q.name] = map[string]int{"limit": limits[q.name], "used": st.countOf(project, q.name), "reserved": 0}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"quota": out})
}

func (s *Service) updateQuota(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	body, err := bodyOf(r)
	if err != nil {
		return nil, err
	}
	asked, ok := body["quota"].(map[string]any)
	switch {
	case body["quota"] == nil:
		return nil, bad("Unable to find 'quota' in request body")
	case !ok:
		return nil, bad("Object 'quota' contains invalid data")
	}
	limits, err := readLimits(asked)
	if err != nil {
		return nil, err
	}
	if !r.Caller.Admin() {
		return nil, denied("rule:update_quota")
	}
	project := r.PathValue("project")
	var now map[string]int
	err = s.write(ctx, func(st *state) error {
		q := &quota{Limits: map[string]int{}}
		if old, ok := st.quotas.get(project); ok {
			for k, n := range old.Limits {
				q.Limits[k] = n
			}
		}
		for k, n := range limits {
			q.Limits[k] = n
		}
		q.ID, q.Project = project, project
		st.quotas.put(q)
		now = st.limits(project)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"quota": now})
}

func readLimits(asked map[string]any) (map[string]int, error) {
	out := map[string]int{}
	known := map[string]bool{"tenant_id": true, "project_id": true, "check_limit": true, "force": true}
	for _, q := range quotas {
		known[q.name] = true
	}
	for k, v := range asked {
		if !known[k] {
			return nil, bad("Unrecognized attribute(s) '%s'", k)
		}
		if k == "tenant_id" || k == "project_id" || k == "check_limit" || k == "force" {
			continue
		}
		checked, err := integer(v)
		if err != nil {
			return nil, err
		}
		n, _ := checked.(int)
		switch {
		case n < -1:
			return nil, bad("Invalid input for %s. Reason: '%d' is too small - must be at least '-1'.", k, n)
		case n > 0x7fffffff:
			return nil, bad("Invalid input for %s. Reason: '%d' is too large - must be no larger than '%d'.", k, n, 0x7fffffff)
		}
		out[k] = n
	}
	return out, nil
}

func (s *Service) deleteQuota(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if !r.Caller.Admin() {
		return nil, denied("rule:delete_quota")
	}
	project := r.PathValue("project")
	err := s.write(ctx, func(st *state) error {
		if _, ok := st.quotas.get(project); !ok {
			return notFound("TenantQuotaNotFound", "Quota for tenant %s could not be found.", project)
		}
		st.quotas.del(project)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}
