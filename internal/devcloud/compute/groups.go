package compute

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Group is a server group.
type Group struct {
	ID                int64
	UUID, Name        string
	ProjectID, UserID string
	// Policy is affinity, anti-affinity or their soft forms.
	Policy string
	// Rules has max_server_per_host or nothing.
	Rules map[string]string
	// Members are the instances that ever joined, deleted ones among them.
	Members []string
}

func groupSchema(v rest.Version) schema.Schema {
	policies := []any{"anti-affinity", "affinity"}
	if v.AtLeast(2, 15) {
		policies = append(policies, "soft-anti-affinity", "soft-affinity")
	}
	one := schema.Schema{schema.Type("string"), schema.Enum(policies...)}
	fields := []schema.Field{schema.Req("name", schema.Name()...)}
	if v.AtLeast(2, 64) {
		fields = append(fields, schema.Req("policy", one...),
			schema.Opt("rules", schema.Object(schema.Opt("max_server_per_host", schema.Positive()...))...))
	} else {
		fields = append(fields, schema.Req("policies",
			schema.Type("array"), schema.Items(one...), schema.Unique(), schema.MinItems(1), schema.MaxItems(1)))
	}
	return schema.Object(schema.Req("server_group", schema.Object(fields...)...))
}

func (s *Service) groupRoutes() {
	s.handle("GET /v2.1/os-server-groups", s.groupList)
	s.handle("POST /v2.1/os-server-groups", s.groupCreate)
	s.handle("GET /v2.1/os-server-groups/{id}", s.groupShow)
	s.handle("DELETE /v2.1/os-server-groups/{id}", s.groupDelete)
}

func (s *Service) groupList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := queries(r,
		schema.Opt("all_projects", schema.Params(schema.String())...),
		schema.Opt("limit", schema.Params(schema.Natural())...),
		schema.Opt("offset", schema.Params(schema.Natural())...)); err != nil {
		return nil, err
	}
	where, args := "WHERE project = ? ORDER BY id", []any{r.Caller.ProjectID}
	if r.Params().Has("all_projects") && r.Caller.Admin() {
		where, args = "ORDER BY id", nil
	}
	all, err := s.groups(ctx, where, args...)
	if err != nil {
		return nil, err
	}
	n := limit(r)
	if n == 0 {
		n = pageSize
	}
	offset, _ := strconv.Atoi(r.Params().Get("offset")) // digits, or too many of them
	all = all[min(max(offset, 0), len(all)):]
	all = all[:min(n, len(all))]
	views, err := s.groupViews(ctx, r, all)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"server_groups": views})
}

func (s *Service) groupCreate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, groupSchema(r.Version))
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Member(), "os-server-groups:create"); err != nil {
		return nil, err
	}
	d = d.Dict("server_group")
	g := &Group{UUID: uuid.NewString(), Name: d.String("name"), ProjectID: r.Caller.ProjectID, UserID: r.Caller.UserID, Policy: d.String("policy")}
	if list := d.List("policies"); len(list) > 0 {
		g.Policy, _ = list[0].(string) // the schema says so
	}
	g.Rules = d.Dict("rules").Strings()
	if g.Policy != "anti-affinity" && len(g.Rules) > 0 {
		return nil, badRequest("Only anti-affinity policy supports rules.")
	}
	if err := s.addGroup(ctx, g); err != nil {
		return nil, err
	}
	views, err := s.groupViews(ctx, r, []*Group{g})
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"server_group": views[0]})
}

func (s *Service) addGroup(ctx context.Context, g *Group) error {
	rules, err := json.Marshal(g.Rules)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		limits, err := s.limits(ctx, tx, g.ProjectID)
		if err != nil {
			return err
		}
		var used int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM groups WHERE project = ?", g.ProjectID).Scan(&used); err != nil {
			return err
		}
		if over(limits["server_groups"], used, 1) {
			return forbidden("Quota exceeded, too many server groups.")
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO groups (uuid, project, user, name, policy, rules, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
			g.UUID, g.ProjectID, g.UserID, g.Name, g.Policy, string(rules), now())
		return err
	})
}

func (s *Service) groupShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	g, err := s.callersGroup(ctx, r, "show")
	if err != nil {
		return nil, err
	}
	views, err := s.groupViews(ctx, r, []*Group{g})
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"server_group": views[0]})
}

func (s *Service) groupDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	g, err := s.callersGroup(ctx, r, "delete")
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Member(), "os-server-groups:delete"); err != nil {
		return nil, err
	}
	if err := s.exec(ctx, "DELETE FROM groups WHERE id = ?", g.ID); err != nil {
		return nil, err
	}
	return empty(http.StatusNoContent)
}

// callersGroup is the group of the path. One of another project is refused as
// the real service does: it is there, but not for the caller.
func (s *Service) callersGroup(ctx context.Context, r *rest.Request, verb string) (*Group, error) {
	g, err := s.Group(ctx, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return g, allow(r.Caller.Owns(g.ProjectID), "os-server-groups:"+verb)
}

// groupViews shows groups with the members that are not deleted.
func (s *Service) groupViews(ctx context.Context, r *rest.Request, all []*Group) ([]map[string]any, error) {
	var members []any
	for _, g := range all {
		for _, m := range g.Members {
			members = append(members, m)
		}
	}
	alive := map[string]bool{}
	if len(members) > 0 {
		found, err := s.o.Cell.ListInstances(ctx, cell.InstanceQuery{Deleted: cell.LiveAndSoft, Match: map[string][]any{"uuid": members}})
		if err != nil {
			return nil, err
		}
		for _, i := range found {
			alive[i.UUID()] = true
		}
	}
	views := make([]map[string]any, len(all))
	for n, g := range all {
		in := []string{}
		for _, m := range g.Members {
			if alive[m] {
				in = append(in, m)
			}
		}
		v := map[string]any{"id": g.UUID, "name": g.Name, "members": in}
		if r.Version.AtLeast(2, 64) {
			v["policy"], v["rules"] = g.Policy, g.rulesView()
		} else {
			v["policies"], v["metadata"] = []string{g.Policy}, map[string]string{}
		}
		if r.Version.AtLeast(2, 13) {
			v["project_id"], v["user_id"] = g.ProjectID, g.UserID
		}
		views[n] = v
	}
	return views, nil
}

func (g *Group) rulesView() map[string]int {
	out := map[string]int{}
	for k, v := range g.Rules {
		if n, err := strconv.Atoi(v); err == nil {
			out[k] = n
		}
	}
	return out
}

func groupNotFound(id string) error { return notFound("Instance group %s could not be found.", id) }

// Group finds a group by its uuid; 404 in Nova's words when there is none.
func (s *Store) Group(ctx context.Context, id string) (*Group, error) {
	all, err := s.groups(ctx, "WHERE uuid = ?", id)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, groupNotFound(id)
	}
	return all[0], nil
}

func (s *Store) groups(ctx context.Context, tail string, args ...any) (out []*Group, err error) {
	err = s.rows(ctx, func(rows *sql.Rows) error {
		g := &Group{}
		var rules, members string
		if err := rows.Scan(&g.ID, &g.UUID, &g.ProjectID, &g.UserID, &g.Name, &g.Policy, &rules, &members); err != nil {
			return err
		}
		if err := errors.Join(json.Unmarshal([]byte(rules), &g.Rules), json.Unmarshal([]byte(members), &g.Members)); err != nil {
			return fmt.Errorf("server group %s: %w: %w", g.UUID, err, errdefs.ErrCorrupt)
		}
		out = append(out, g)
		return nil
	}, `SELECT id, uuid, project, user, name, policy, rules,
		(SELECT json_group_array(m.instance) FROM (SELECT instance FROM group_members WHERE groupid = g.id ORDER BY id) m)
		FROM groups g `+tail, args...)
	return out, err
}

// addMembers adds instances to a group, in place of some that are no more, if
// it then has at most limit members.
func (s *Store) addMembers(ctx context.Context, group int64, add, gone []string, limit int) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, id := range gone {
			if _, err := tx.ExecContext(ctx, "DELETE FROM group_members WHERE groupid = ? AND instance = ?", group, id); err != nil {
				return err
			}
		}
		var has int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM group_members WHERE groupid = ?", group).Scan(&has); err != nil {
			return err
		}
		if over(limit, has, len(add)) {
			return forbidden("Quota exceeded, too many servers in group")
		}
		for _, id := range add {
			if _, err := tx.ExecContext(ctx, "INSERT INTO group_members (groupid, instance) VALUES (?, ?)", group, id); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) dropMembers(ctx context.Context, group int64, ids []string) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, "DELETE FROM group_members WHERE groupid = ? AND instance = ?", group, id); err != nil {
				return err
			}
		}
		return nil
	})
}
