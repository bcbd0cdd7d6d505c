package compute

import (
	"context"
	"database/sql"
	"net/http"
	"slices"

	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// resource is something that a quota limits.
type resource struct {
	name string
	// otherwise is the limit when nobody has set one; -1 is none.
	otherwise int
	// network ones are the network service's now and gone from 2.36 on,
	// injected ones from 2.57 on.
	network, injected bool
}

// resources are what Nova has quotas for, in the order of their names.
func resources() []resource {
	return []resource{
		{name: "cores", otherwise: 20},
		{name: "fixed_ips", otherwise: -1, network: true},
		{name: "floating_ips", otherwise: -1, network: true},
		{name: "injected_file_content_bytes", otherwise: 10240, injected: true},
		{name: "injected_file_path_bytes", otherwise: 255, injected: true},
		{name: "injected_files", otherwise: 5, injected: true},
		{name: "instances", otherwise: 10},
		{name: "key_pairs", otherwise: 100},
		{name: "metadata_items", otherwise: 128},
		{name: "ram", otherwise: 51200},
		{name: "security_group_rules", otherwise: -1, network: true},
		{name: "security_groups", otherwise: -1, network: true},
		{name: "server_group_members", otherwise: 10},
		{name: "server_groups", otherwise: 10},
	}
}

// shown are the resources of a microversion. Quota classes drop what is the
// network's later than quota sets.
func shown(v rest.Version, networkUntilMinor int) (out []resource) {
	for _, res := range resources() {
		if res.network && v.AtLeast(2, networkUntilMinor) || res.injected && v.AtLeast(2, 57) {
			continue
		}
		out = append(out, res)
	}
	return out
}

func quotaSchema(v rest.Version, name string, until int, more ...schema.Field) schema.Schema {
	for _, res := range shown(v, until) {
		more = append(more, schema.Opt(res.name, schema.Quota()...))
	}
	if !v.AtLeast(2, until) {
		more = append(more, schema.Opt("networks", schema.Quota()...))
	}
	return schema.Object(schema.Req(name, schema.Object(more...)...))
}

const (
	setsUntil    = 36
	classesUntil = 50
	defaultClass = "class:default"
)

func (s *Service) quotaRoutes() {
	s.handle("GET /v2.1/os-quota-sets/{id}", s.quotaShow)
	s.handle("GET /v2.1/os-quota-sets/{id}/detail", s.quotaDetail)
	s.handle("GET /v2.1/os-quota-sets/{id}/defaults", s.quotaDefaults)
	s.handle("PUT /v2.1/os-quota-sets/{id}", s.quotaUpdate)
	s.handle("DELETE /v2.1/os-quota-sets/{id}", s.quotaDelete)
	s.handle("GET /v2.1/os-quota-class-sets/{id}", s.quotaClassShow)
	s.handle("PUT /v2.1/os-quota-class-sets/{id}", s.quotaClassUpdate)
	s.handle("GET /v2.1/limits", s.limitsShow)
}

// quotaProject checks a quota set's path and query and returns whose limits are
// meant.
func (s *Service) quotaProject(ctx context.Context, r *rest.Request, policy string, ok bool) (project, user string, err error) {
	if err := queries(r, schema.Opt("user_id", schema.Params(schema.String())...)); err != nil {
		return "", "", err
	}
	project = r.PathValue("id")
	if err := allow(ok, "os-quota-sets:"+policy); err != nil {
		return "", "", err
	}
	return project, r.Params().Get("user_id"), s.projectExists(ctx, r, project)
}

func (s *Service) quotaShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	project, user, err := s.quotaProject(ctx, r, "show", r.Caller.Owns(r.PathValue("id")))
	if err != nil {
		return nil, err
	}
	return s.quotaAnswer(ctx, r, project, user, project)
}

// quotaAnswer shows limits, with the project's id unless that is empty.
func (s *Service) quotaAnswer(ctx context.Context, r *rest.Request, project, user, id string) (*rest.Response, error) {
	limits, err := s.limitsOf(ctx, scopes(project, user)...)
	if err != nil {
		return nil, err
	}
	set := map[string]any{}
	if id != "" {
		set["id"] = id
	}
	for _, res := range shown(r.Version, setsUntil) {
		set[res.name] = limits[res.name]
	}
	return rest.OK(map[string]any{"quota_set": set})
}

func (s *Service) quotaDetail(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	project, user, err := s.quotaProject(ctx, r, "detail", r.Caller.Owns(r.PathValue("id")))
	if err != nil {
		return nil, err
	}
	limits, err := s.limitsOf(ctx, scopes(project, user)...)
	if err != nil {
		return nil, err
	}
	used, err := s.used(ctx, project, user)
	if err != nil {
		return nil, err
	}
	set := map[string]any{"id": project}
	for _, res := range shown(r.Version, setsUntil) {
		set[res.name] = map[string]int{"limit": limits[res.name], "in_use": used[res.name], "reserved": 0}
	}
	return rest.OK(map[string]any{"quota_set": set})
}

func (s *Service) quotaDefaults(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	project := r.PathValue("id")
	if err := s.projectExists(ctx, r, project); err != nil {
		return nil, err
	}
	limits, err := s.limitsOf(ctx, defaultClass)
	if err != nil {
		return nil, err
	}
	set := map[string]any{"id": project}
	for _, res := range shown(r.Version, setsUntil) {
		set[res.name] = limits[res.name]
	}
	return rest.OK(map[string]any{"quota_set": set})
}

func (s *Service) quotaUpdate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, quotaSchema(r.Version, "quota_set", setsUntil, schema.Opt("force", schema.Boolean()...)))
	if err != nil {
		return nil, err
	}
	project, user, err := s.quotaProject(ctx, r, "update", r.Caller.Admin())
	if err != nil {
		return nil, err
	}
	d = d.Dict("quota_set")
	if d.Has("networks") {
		return nil, badRequest("The networks quota has been removed")
	}
	if !d.Bool("force", false) {
		if err := s.checkLimits(ctx, d, project, user); err != nil {
			return nil, err
		}
	}
	all := scopes(project, user)
	if err := s.setLimits(ctx, all[len(all)-1], d); err != nil {
		return nil, err
	}
	return s.quotaAnswer(ctx, r, project, user, "")
}

// checkLimits refuses limits below what is used and, of a user, above what the
// project has.
func (s *Service) checkLimits(ctx context.Context, d *schema.Dict, project, user string) error {
	used, err := s.used(ctx, project, user)
	if err != nil {
		return err
	}
	most, err := s.limitsOf(ctx, scopes(project, "")...)
	if err != nil {
		return err
	}
	for _, name := range d.Keys {
		n := d.Int(name, -1)
		if n >= 0 && n < used[name] {
			return badRequest("Quota limit %d for %s must be greater than or equal to already used and reserved %d.", n, name, used[name])
		}
		if top := most[name]; user != "" && top >= 0 && (n < 0 || n > top) {
			return badRequest("Quota limit %d for %s must be less than or equal to %d.", n, name, top)
		}
	}
	return nil
}

func (s *Service) quotaDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := queries(r, schema.Opt("user_id", schema.Params(schema.String())...)); err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-quota-sets:delete"); err != nil {
		return nil, err
	}
	project, user := r.PathValue("id"), r.Params().Get("user_id")
	where, arg := "scope = ?", project+"/"+user
	if user == "" {
		// the project's and those of all its users
		where, arg = "scope = ?1 OR substr(scope, 1, length(?1) + 1) = ?1 || '/'", project
	}
	if err := s.exec(ctx, "DELETE FROM quotas WHERE "+where, arg); err != nil {
		return nil, err
	}
	return empty(http.StatusAccepted)
}

func (s *Service) quotaClassShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := allow(r.Caller.Admin(), "os-quota-class-sets:show"); err != nil {
		return nil, err
	}
	return s.quotaClassAnswer(ctx, r, r.PathValue("id"))
}

func (s *Service) quotaClassAnswer(ctx context.Context, r *rest.Request, id string) (*rest.Response, error) {
	limits, err := s.limitsOf(ctx, defaultClass, "class:"+r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	set := map[string]any{}
	if id != "" {
		set["id"] = id
	}
	for _, res := range shown(r.Version, classesUntil) {
		if r.Version.AtLeast(2, classesUntil) || !slices.Contains([]string{"server_groups", "server_group_members"}, res.name) {
			set[res.name] = limits[res.name]
		}
	}
	return rest.OK(map[string]any{"quota_class_set": set})
}

func (s *Service) quotaClassUpdate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, quotaSchema(r.Version, "quota_class_set", classesUntil))
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-quota-class-sets:update"); err != nil {
		return nil, err
	}
	if err := s.setLimits(ctx, "class:"+r.PathValue("id"), d.Dict("quota_class_set")); err != nil {
		return nil, err
	}
	return s.quotaClassAnswer(ctx, r, "")
}

func (s *Service) limitsShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	fields := []schema.Field{schema.Opt("tenant_id", schema.Params(schema.String())...)}
	// other parameters are let pass up to 2.74 and "reserved" of old clients always
	if r.Version.AtLeast(2, 75) {
		fields = append(fields, schema.Opt("reserved", schema.Params(schema.String())...))
	}
	if err := queries(r, fields...); err != nil {
		return nil, err
	}
	project := r.Caller.ProjectID
	if asked := r.Params().Get("tenant_id"); r.Params().Has("tenant_id") {
		if err := allow(r.Caller.Admin(), "limits:other_project"); err != nil {
			return nil, err
		}
		project = asked
	}
	limits, err := s.limitsOf(ctx, scopes(project, "")...)
	if err != nil {
		return nil, err
	}
	used, err := s.used(ctx, project, "")
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"limits": map[string]any{"rate": []any{}, "absolute": limitsView(r.Version, limits, used)}})
}

func limitsView(v rest.Version, limits, used map[string]int) map[string]int {
	out := map[string]int{
		"maxTotalInstances": limits["instances"], "maxTotalCores": limits["cores"], "maxTotalRAMSize": limits["ram"],
		"maxServerMeta": limits["metadata_items"], "maxTotalKeypairs": limits["key_pairs"],
		"maxServerGroups": limits["server_groups"], "maxServerGroupMembers": limits["server_group_members"],
		"totalInstancesUsed": used["instances"], "totalCoresUsed": used["cores"], "totalRAMUsed": used["ram"],
		"totalServerGroupsUsed": used["server_groups"],
	}
	if !v.AtLeast(2, 57) {
		out["maxPersonality"], out["maxPersonalitySize"] = limits["injected_files"], limits["injected_file_content_bytes"]
	}
	if !v.AtLeast(2, 39) {
		out["maxImageMeta"] = limits["metadata_items"]
	}
	if !v.AtLeast(2, setsUntil) {
		out["maxTotalFloatingIps"], out["totalFloatingIpsUsed"] = limits["floating_ips"], 0
		out["maxSecurityGroups"], out["totalSecurityGroupsUsed"] = limits["security_groups"], 0
		out["maxSecurityGroupRules"] = limits["security_group_rules"]
	}
	return out
}

// scopes are where limits of a project, and of a user in it unless that is
// empty, may be set; what stands later wins.
func scopes(project, user string) []string {
	if user == "" {
		return []string{defaultClass, project}
	}
	return []string{defaultClass, project, project + "/" + user}
}

func (s *Service) limitsOf(ctx context.Context, in ...string) (limits map[string]int, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		limits, err = s.limits(ctx, tx, in[1:]...)
		return err
	})
	return limits, err
}

// limits are those of the default class with those of the other scopes over
// them.
func (s *Service) limits(ctx context.Context, tx *sql.Tx, in ...string) (map[string]int, error) {
	out := map[string]int{}
	for _, res := range resources() {
		out[res.name] = res.otherwise
		if n, ok := s.o.Quotas[res.name]; ok {
			out[res.name] = n
		}
	}
	for _, scope := range append([]string{defaultClass}, in...) {
		err := rowsOf(ctx, tx, func(rows *sql.Rows) error {
			var name string
			var n int
			if err := rows.Scan(&name, &n); err != nil {
				return err
			}
			out[name] = n
			return nil
		}, "SELECT resource, hard_limit FROM quotas WHERE scope = ?", scope)
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Service) setLimits(ctx context.Context, scope string, d *schema.Dict) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, res := range resources() {
			if !d.Has(res.name) {
				continue
			}
			if _, err := tx.ExecContext(ctx, "INSERT INTO quotas (scope, resource, hard_limit) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET hard_limit = excluded.hard_limit",
				scope, res.name, d.Int(res.name, -1)); err != nil {
				return err
			}
		}
		return nil
	})
}

// used is what a project has, or a user in it unless that is empty. Key pairs
// and members are not counted, as in Nova: they are not a project's.
func (s *Service) used(ctx context.Context, project, user string) (map[string]int, error) {
	u, err := s.o.Cell.Usage(ctx, project, user)
	if err != nil {
		return nil, err
	}
	out := map[string]int{"instances": int(u.Instances), "cores": int(u.VCPUs), "ram": int(u.MemoryMB)}
	var groups int
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, "SELECT count(*) FROM groups WHERE project = ? AND (?2 = '' OR user = ?2)", project, user).Scan(&groups)
	})
	out["server_groups"] = groups
	return out, err
}

// over reports whether more, on top of what is used, is above the limit.
func over(limit, used, more int) bool { return limit >= 0 && used+more > limit }
