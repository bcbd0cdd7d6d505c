package identity

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// immutable is the options of projects, domains and roles.
var immutable = optionsRule("immutable")

var projects = &noun{
	one: "project", many: "projects", table: "projects", label: "project",
	attrs: []attr{
		{name: "name", rule: name64},
		{name: "domain_id", rule: nullID, fixed: "Cannot change Domain ID"},
		{name: "parent_id", rule: nullID, fixed: "Update of `parent_id` is not allowed.", fixedStatus: http.StatusForbidden},
		{name: "description", rule: nullString, def: ""},
		{name: "enabled", rule: boolean, def: true},
		{name: "is_domain", rule: boolean, def: false, fixed: "Update of `is_domain` is not allowed."},
		{name: "tags", rule: tagsRule, def: []any{}},
		{name: "options", rule: immutable, def: map[string]any{}},
	},
	required: []string{"name"},
	filters:  []string{"name", "domain_id", "enabled", "parent_id", "is_domain"},
	unasked:  url.Values{"is_domain": {"false"}},
	pass:     tagged,
	may: func(who *session, verb, id string) bool {
		return verb == "get" && id == who.ProjectID
	},
	before: beforeProject,
	twice: func(now record, _ bool) error {
		if now.yes("is_domain") {
			return conflict("project", "it is not permitted to have two projects acting as domains with the same name: "+now.text("name"))
		}
		return conflict("project", "it is not permitted to have two projects with either the same name or same id in the same domain: name is "+
			now.text("name")+", project id "+or(now.text("id"), newID()))
	},
	withExtra: true,
}

func beforeProject(ctx context.Context, tx *sql.Tx, who *session, old, now record) error {
	if err := guarded("project", old, now); err != nil {
		return err
	}
	switch {
	case old == nil:
		return placeProject(ctx, tx, who, now)
	case now == nil && old.yes("is_domain"):
		return beforeDomain(ctx, tx, who, old, now)
	case now == nil:
		return mayRemoveProject(ctx, tx, old)
	case old.yes("enabled") && !now.yes("enabled"):
		return revokeProject(ctx, tx, now.text("id"))
	}
	return nil
}

// placeProject finds the domain and the parent of a new one.
func placeProject(ctx context.Context, tx *sql.Tx, who *session, now record) error {
	if now.yes("is_domain") {
		if now["parent_id"] != nil {
			return invalid("only root projects are allowed to act as domains.")
		}
		now["domain_id"] = nil
		return nil
	}
	if p := now.text("parent_id"); p != "" {
		if d := now.text("domain_id"); d != "" {
			if _, err := domains.get(ctx, tx, d); err != nil {
				return asBadRequest(err)
			}
		}
		var domain string
		err := tx.QueryRowContext(ctx, `SELECT ifnull(domain_id, id) FROM projects WHERE id = ?`, p).Scan(&domain)
		if errors.Is(err, sql.ErrNoRows) {
			return invalid("Could not find project: %s.", p)
		}
		if err != nil {
			return err
		}
		if d := now.text("domain_id"); d != "" && d != domain {
			return invalid("Cannot create project, since it specifies its domain_id %s, but specifies a parent in a different domain (%s).", d, domain)
		}
		now["domain_id"] = domain
		return nil
	}
	if now["domain_id"] == nil {
		now["domain_id"] = who.home()
	}
	if _, err := domains.get(ctx, tx, now.text("domain_id")); err != nil {
		return asBadRequest(err)
	}
	now["parent_id"] = now["domain_id"]
	return nil
}

// asBadRequest is what creating below something that is absent answers.
func asBadRequest(err error) error {
	if e, ok := errors.AsType[*rest.Error](err); ok && e.Status == http.StatusNotFound {
		return invalid("%s", e.Message)
	}
	return err
}

func mayRemoveProject(ctx context.Context, tx *sql.Tx, old record) error {
	var children int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM projects WHERE parent_id = ?`, old["id"]).Scan(&children); err != nil {
		return err
	}
	if children > 0 {
		return forbidden("Cannot delete the project %s since it is not a leaf in the hierarchy. Use the cascade option if you want to delete a whole subtree.", old.text("id"))
	}
	_, err := tx.ExecContext(ctx, `UPDATE users SET default_project_id = NULL WHERE default_project_id = ?`, old["id"])
	return err
}

// revokeProject ends all tokens of a project.
func revokeProject(ctx context.Context, tx *sql.Tx, id string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE project_id = ?`, id)
	return err
}

// guarded refuses to change or remove what is immutable, unless the change
// ends that (keystone.common.resource_options.check_immutable_*).
func guarded(kind string, old, now record) error {
	options, _ := old["options"].(map[string]any)
	if locked, _ := options["immutable"].(bool); !locked {
		return nil
	}
	verb := "delete"
	if now != nil {
		verb = "update"
		if next, _ := now["options"].(map[string]any); next != nil {
			if still, _ := next["immutable"].(bool); !still {
				return nil
			}
		}
	}
	return forbidden("Unable to %s immutable %s resource: `%s. Set resource option \"immutable\" to false first.", verb, kind, old.text("id"))
}

// reachable are the projects in which a user has a role.
const reachable = `enabled AND NOT is_domain AND id IN (SELECT project_id FROM holding WHERE user_id = ?1
	UNION SELECT g.project_id FROM holding g JOIN members m ON m.group_id = g.group_id WHERE m.user_id = ?1)`

func (s *Service) myProjects(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	return s.list(ctx, r, projects, reachable, who.UserID)
}

func (s *Service) projectRoutes() {
	s.handle("GET /v3/projects/{id}/tags", s.getTags)
	s.handle("PUT /v3/projects/{id}/tags", s.putTags)
	s.handle("DELETE /v3/projects/{id}/tags", s.deleteTags)
	s.handle("GET /v3/projects/{id}/tags/{tag}", s.getTag)
	s.handle("PUT /v3/projects/{id}/tags/{tag}", s.putTag)
	s.handle("DELETE /v3/projects/{id}/tags/{tag}", s.deleteTag)
}

// tagged are the four filters by tags of a list of projects.
func tagged(project record, query url.Values) bool {
	tags, _ := project["tags"].([]any)
	has := func(tag string) bool { return slices.Contains(tags, any(tag)) }
	for name, want := range map[string]func(asked []string) bool{
		"tags":         func(asked []string) bool { return !slices.ContainsFunc(asked, func(t string) bool { return !has(t) }) },
		"tags-any":     func(asked []string) bool { return slices.ContainsFunc(asked, has) },
		"not-tags":     func(asked []string) bool { return slices.ContainsFunc(asked, func(t string) bool { return !has(t) }) },
		"not-tags-any": func(asked []string) bool { return !slices.ContainsFunc(asked, has) },
	} {
		if query.Has(name) && !want(strings.Split(query.Get(name), ",")) {
			return false
		}
	}
	return true
}

// tagsOf reads the tags of a project that the caller may see.
func (s *Service) tagsOf(ctx context.Context, r *rest.Request, who *session, action string) (tags []any, err error) {
	id := r.PathValue("id")
	if !who.reads() && id != who.ProjectID {
		return nil, denied(action)
	}
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		p, err := projects.get(ctx, tx, id)
		tags, _ = p["tags"].([]any)
		return err
	})
	return tags, err
}

func (s *Service) getTags(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	tags, err := s.tagsOf(ctx, r, who, "identity:list_project_tags")
	if err != nil {
		return nil, err
	}
	return rest.OK(record{"tags": tags, "links": record{"self": base(r)}})
}

func (s *Service) getTag(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	tags, err := s.tagsOf(ctx, r, who, "identity:get_project_tag")
	if err != nil {
		return nil, err
	}
	if !slices.Contains(tags, any(r.PathValue("tag"))) {
		return nil, notFound("project tag", r.PathValue("tag"))
	}
	return rest.NoContent()
}

// retag replaces the tags of a project.
func (s *Service) retag(ctx context.Context, r *rest.Request, who *session, action string, f func(tags []any) ([]any, error)) (after []any, err error) {
	if !who.Admin() {
		return nil, denied(action)
	}
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		p, err := projects.get(ctx, tx, r.PathValue("id"))
		if err != nil {
			return err
		}
		tags, _ := p["tags"].([]any)
		if after, err = f(tags); err != nil {
			return err
		}
		if err := tagsRule.check(after); err != nil {
			return err
		}
		_, err = projects.update(ctx, tx, who, p.text("id"), record{"tags": after})
		return err
	})
	return after, err
}

func (s *Service) putTags(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	body, err := readObject(r)
	if err != nil {
		return nil, err
	}
	v, ok := body["tags"]
	if !ok {
		v = map[string]any{}
	}
	if err := tagsRule.check(v); err != nil {
		return nil, err
	}
	said, _ := v.([]any)
	tags, err := s.retag(ctx, r, who, "identity:update_project_tags", func([]any) ([]any, error) { return said, nil })
	if err != nil && errors.Is(err, errdefs.ErrNotFound) {
		return nil, notFound("project", r.PathValue("id"))
	}
	if err != nil {
		return nil, err
	}
	return rest.OK(record{"tags": tags, "links": record{"self": base(r)}})
}

func (s *Service) deleteTags(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if _, err := s.retag(ctx, r, who, "identity:delete_project_tags", func([]any) ([]any, error) { return []any{}, nil }); err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func (s *Service) putTag(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	tag := r.PathValue("tag")
	_, err := s.retag(ctx, r, who, "identity:create_project_tag", func(tags []any) ([]any, error) {
		if err := tagRule.check(tag); err != nil {
			return nil, err
		}
		return append(tags, tag), nil
	})
	if err != nil {
		return nil, err
	}
	at := base(r) + "/" + r.PathValue("id") + "/tags/" + url.PathEscape(tag)
	return &rest.Response{Status: http.StatusCreated, Header: http.Header{"Location": {at}, "Content-Type": {"text/html; charset=utf-8"}}}, nil
}

func (s *Service) deleteTag(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	tag := r.PathValue("tag")
	_, err := s.retag(ctx, r, who, "identity:delete_project_tag", func(tags []any) ([]any, error) {
		i := slices.Index(tags, any(tag))
		if i < 0 {
			return nil, notFound("project tag", tag)
		}
		return slices.Delete(tags, i, i+1), nil
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}
