package identity

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/url"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

var roles = &noun{
	one: "role", many: "roles", table: "roles", label: "role",
	attrs: []attr{
		{name: "name", rule: name255},
		{name: "domain_id", rule: nullID, fixed: "Cannot change Domain ID"},
		{name: "description", rule: anyString},
		{name: "options", rule: immutable, def: map[string]any{}},
	},
	required: []string{"name"},
	filters:  []string{"name", "domain_id"},
	unasked:  url.Values{"domain_id": {""}},
	known:    true,
	before: func(ctx context.Context, tx *sql.Tx, _ *session, old, now record) error {
		if err := guarded("role", old, now); err != nil {
			return err
		}
		if d := now.text("domain_id"); old == nil && d != "" {
			_, err := domains.get(ctx, tx, d)
			return err
		}
		return nil
	},
	twice: func(now record, _ bool) error {
		return conflict("role", "Duplicate entry found with name "+now.text("name"))
	},
}

// neverImplied are roles that no other gives ([assignment] prohibited_implied_role).
const neverImplied = "admin"

func (s *Service) roleRoutes() {
	s.handle("GET /v3/role_inferences", s.listInferences)
	s.handle("GET /v3/roles/{id}/implies", s.getImplied)
	s.handle("GET /v3/roles/{id}/implies/{implied}", s.checkImplied)
	s.handle("PUT /v3/roles/{id}/implies/{implied}", s.putImplied)
	s.handle("DELETE /v3/roles/{id}/implies/{implied}", s.deleteImplied)
}

// short is a role as inferences show it.
func short(r *rest.Request, role roleRef) record {
	return record{"id": role.ID, "name": role.Name, "links": record{"self": base(r) + "/roles/" + role.ID}}
}

// impliedBy reads what a role gives by itself.
func impliedBy(ctx context.Context, tx *sql.Tx, id string) ([]roleRef, error) {
	return queryRoles(ctx, tx, `SELECT r.id, r.name FROM roles r JOIN implied i ON i.implied_id = r.id WHERE i.prior_id = ? ORDER BY r.id`, id)
}

func shortAll(r *rest.Request, list []roleRef) []record {
	all := make([]record, 0, len(list))
	for _, role := range list {
		all = append(all, short(r, role))
	}
	return all
}

func (s *Service) listInferences(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if !who.reads() {
		return nil, denied("identity:list_role_inference_rules")
	}
	all := []record{}
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		priors, err := queryRoles(ctx, tx, `SELECT id, name FROM roles WHERE id IN (SELECT prior_id FROM implied) ORDER BY id`)
		if err != nil {
			return err
		}
		for _, p := range priors {
			list, err := impliedBy(ctx, tx, p.ID)
			if err != nil {
				return err
			}
			all = append(all, record{"prior_role": short(r, p), "implies": shortAll(r, list)})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(record{"role_inferences": all})
}

func (s *Service) getImplied(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if !who.reads() {
		return nil, denied("identity:list_implied_roles")
	}
	var inference record
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		prior, err := roles.get(ctx, tx, r.PathValue("id"))
		if err != nil {
			return err
		}
		list, err := impliedBy(ctx, tx, prior.text("id"))
		inference = record{"prior_role": short(r, roleRef{prior.text("id"), prior.text("name")}), "implies": shortAll(r, list)}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(record{"role_inference": inference, "links": record{"self": r.Base() + r.URL.Path}})
}

// inference reads both roles of a path.
func inference(ctx context.Context, tx *sql.Tx, r *rest.Request) (prior, implied roleRef, err error) {
	p, err := roles.get(ctx, tx, r.PathValue("id"))
	if err != nil {
		return prior, implied, err
	}
	i, err := roles.get(ctx, tx, r.PathValue("implied"))
	return roleRef{p.text("id"), p.text("name")}, roleRef{i.text("id"), i.text("name")}, err
}

func inferenceBody(r *rest.Request, prior, implied roleRef) record {
	return record{
		"role_inference": record{"prior_role": short(r, prior), "implies": short(r, implied)},
		"links":          record{"self": r.Base() + r.URL.Path},
	}
}

func (s *Service) checkImplied(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if !who.reads() {
		return nil, denied("identity:get_implied_role")
	}
	var prior, implied roleRef
	err := s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		if prior, implied, err = inference(ctx, tx, r); err != nil {
			return err
		}
		err = tx.QueryRowContext(ctx, `SELECT 1 FROM implied WHERE prior_id = ? AND implied_id = ?`, prior.ID, implied.ID).Scan(new(int))
		if errors.Is(err, sql.ErrNoRows) {
			err = doesNotImply(prior, implied)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if r.Method == http.MethodHead {
		return rest.NoContent()
	}
	return rest.OK(inferenceBody(r, prior, implied))
}

func doesNotImply(prior, implied roleRef) error {
	return rest.Errorf(http.StatusNotFound, "%s does not imply %s.", prior.ID, implied.ID)
}

func (s *Service) putImplied(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if !who.Admin() {
		return nil, denied("identity:create_implied_role")
	}
	var prior, implied roleRef
	err := s.change(ctx, func(tx *sql.Tx) (err error) {
		if prior, implied, err = inference(ctx, tx, r); err != nil {
			return err
		}
		if implied.Name == neverImplied {
			return forbidden("%s cannot be an implied roles.", implied.ID)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO implied (prior_id, implied_id) VALUES (?, ?)`, prior.ID, implied.ID)
		return err
	})
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil, conflict("implied_role", "Duplicate entry")
	}
	if err != nil {
		return nil, err
	}
	return rest.Created(inferenceBody(r, prior, implied))
}

func (s *Service) deleteImplied(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if !who.Admin() {
		return nil, denied("identity:delete_implied_role")
	}
	err := s.change(ctx, func(tx *sql.Tx) error {
		prior, implied, err := inference(ctx, tx, r)
		if err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM implied WHERE prior_id = ? AND implied_id = ?`, prior.ID, implied.ID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return doesNotImply(prior, implied)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}
