package identity

import (
	"context"
	"database/sql"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// domains are the projects that act as one.
var domains = &noun{
	one: "domain", many: "domains", table: "projects", where: "is_domain", label: "domain",
	attrs: []attr{
		{name: "name", rule: name64},
		{name: "description", rule: nullString, def: ""},
		{name: "enabled", rule: boolean, def: true},
		{name: "tags", rule: tagsRule, def: []any{}},
		{name: "options", rule: immutable, def: map[string]any{}},
		{name: "is_domain", rule: boolean, def: true, inner: true},
	},
	required: []string{"name"},
	filters:  []string{"name", "enabled"},
	may: func(who *session, verb, id string) bool {
		return verb == "get" && (id == who.domainID || id == who.ProjectDomainID)
	},
	before: beforeDomain,
	twice: func(now record, _ bool) error {
		return conflict("project", "it is not permitted to have two projects acting as domains with the same name: "+now.text("name"))
	},
}

func beforeDomain(ctx context.Context, tx *sql.Tx, _ *session, old, now record) error {
	if err := guarded("domain", old, now); err != nil {
		return err
	}
	switch {
	case now == nil && old.yes("enabled"):
		return forbidden("Cannot delete a domain that is enabled, please disable it first.")
	case old != nil && now != nil && old.yes("enabled") && !now.yes("enabled"):
		_, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE project_id = ?1
			OR user_id IN (SELECT id FROM users WHERE domain_id = ?1)
			OR project_id IN (SELECT id FROM projects WHERE domain_id = ?1)`, old["id"])
		return err
	}
	return nil
}

func (s *Service) myDomains(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	return s.list(ctx, r, domains, `enabled AND id IN (SELECT project_id FROM holding WHERE user_id = ?1
		UNION SELECT g.project_id FROM holding g JOIN members m ON m.group_id = g.group_id WHERE m.user_id = ?1)`, who.UserID)
}

func (s *Service) mySystem(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	scopes := []record{}
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		roles, err := rolesOf(ctx, tx, who.UserID, "")
		if len(roles) > 0 {
			scopes = append(scopes, record{"all": true})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(record{"system": scopes, "links": record{"self": r.Base() + r.URL.Path}})
}
