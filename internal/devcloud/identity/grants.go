package identity

import (
	"context"
	"database/sql"
	"net/http"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// assignment is a role that a user or group has somewhere, as a path names it.
type assignment struct {
	user, group string // one of them
	project     string // or domain; empty is the system
	role        string
	inherited   bool // it holds in what is below the project, not there
}

// rows is the table that it is in.
func (a assignment) rows() string {
	if a.inherited {
		return "inherited"
	}
	return "grants"
}

// actor is the id of the user or group.
func (a assignment) actor() string { return or(a.user, a.group) }

// same is the condition that finds the rows of an actor and a target.
const same = `user_id IS ?1 AND group_id IS ?2 AND project_id IS ?3`

func (a assignment) args() []any { return []any{null(a.user), null(a.group), null(a.project)} }

// grantRoutes are the paths /v3/{projects|domains}/{target}/{users|groups}/{actor}/roles
// and /v3/system/{users|groups}/{actor}/roles.
func (s *Service) grantRoutes() {
	for _, target := range []*noun{projects, domains, nil} {
		at, kind := "/v3/system", "system_"
		if target != nil {
			at, kind = "/v3/"+target.many+"/{target}", ""
		}
		for _, actor := range []*noun{users, groups} {
			path := at + "/" + actor.many + "/{actor}/roles"
			suffix := ""
			if target == nil {
				suffix = "_for_" + actor.one
			}
			g := granting{s, target, actor, kind, suffix, false}
			g.routes(path, "")
			if target != nil {
				g.inherited = true
				g.routes("/v3/OS-INHERIT"+strings.TrimPrefix(path, "/v3"), "/inherited_to_projects")
			}
		}
	}
	s.handle("GET /v3/role_assignments", s.listAssignments)
}

// granting are the requests of one kind of path.
type granting struct {
	s             *Service
	target, actor *noun // target nil is the system
	kind, suffix  string
	inherited     bool
}

func (g granting) routes(path, end string) {
	if !g.inherited || g.target == domains { // Keystone has no list of those of a project
		g.s.handle("GET "+path+end, g.list)
	}
	g.s.handle("GET "+path+"/{role}"+end, g.check)
	g.s.handle("PUT "+path+"/{role}"+end, g.put)
	g.s.handle("DELETE "+path+"/{role}"+end, g.remove)
}

func (g granting) action(verb string) string {
	name := "grant"
	if verb == "list" {
		name = "grants"
	}
	return "identity:" + verb + "_" + g.kind + name + g.suffix
}

// may finds what the path names and asks whether the caller may.
func (g granting) may(ctx context.Context, r *rest.Request, verb string, ok bool) (a assignment, err error) {
	err = g.s.db.Read(ctx, func(tx *sql.Tx) error {
		a, err = g.find(ctx, tx, r)
		return err
	})
	if err == nil && !ok {
		err = denied(g.action(verb))
	}
	return a, err
}

// find checks that everything in the path exists.
func (g granting) find(ctx context.Context, tx *sql.Tx, r *rest.Request) (a assignment, err error) {
	a.inherited = g.inherited
	if a.role = r.PathValue("role"); a.role != "" {
		if _, err := roles.get(ctx, tx, a.role); err != nil {
			return a, err
		}
	}
	if g.target != nil {
		a.project = r.PathValue("target")
		if _, err := g.target.get(ctx, tx, a.project); err != nil {
			return a, err
		}
	}
	if _, err := g.actor.get(ctx, tx, r.PathValue("actor")); err != nil {
		return a, err
	}
	if g.actor == users {
		a.user = r.PathValue("actor")
	} else {
		a.group = r.PathValue("actor")
	}
	return a, nil
}

func (g granting) list(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	a, err := g.may(ctx, r, "list", who.reads())
	if err != nil {
		return nil, err
	}
	return g.s.list(ctx, r, roles, `id IN (SELECT role_id FROM `+a.rows()+` WHERE `+same+`)`, a.args()...)
}

func (g granting) check(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	a, err := g.may(ctx, r, "check", who.reads())
	if err != nil {
		return nil, err
	}
	err = g.s.db.Read(ctx, func(tx *sql.Tx) error {
		var n int
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM `+a.rows()+` WHERE `+same+` AND role_id = ?4`, append(a.args(), a.role)...).Scan(&n)
		if err == nil && n == 0 {
			err = a.missing()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func (a assignment) missing() error {
	target := a.project
	if target == "" {
		target = "system"
	}
	return rest.Errorf(http.StatusNotFound, "Could not find role assignment with role: %s, user or group: %s, project, domain, or system: %s.", a.role, a.actor(), target)
}

func (g granting) put(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if _, err := g.may(ctx, r, "create", who.Admin()); err != nil {
		return nil, err
	}
	err := g.s.change(ctx, func(tx *sql.Tx) error {
		a, err := g.find(ctx, tx, r)
		if err != nil {
			return err
		}
		return a.store(ctx, tx)
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

// store makes the assignment, unless it is there.
func (a assignment) store(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO `+a.rows()+` (user_id, group_id, project_id, role_id) VALUES (?1, ?2, ?3, ?4)`, append(a.args(), a.role)...)
	return err
}

// remove takes a role away, and with it the application credentials that its
// user made for that project, as Keystone does.
func (g granting) remove(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if _, err := g.may(ctx, r, "revoke", who.Admin()); err != nil {
		return nil, err
	}
	err := g.s.change(ctx, func(tx *sql.Tx) error {
		a, err := g.find(ctx, tx, r)
		if err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM `+a.rows()+` WHERE `+same+` AND role_id = ?4`, append(a.args(), a.role)...)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return a.missing()
		}
		return a.forgetCredentials(ctx, tx)
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

// forgetCredentials removes the application credentials that rested on an
// assignment which is gone.
func (a assignment) forgetCredentials(ctx context.Context, tx *sql.Tx) error {
	below := `?2`
	if a.inherited {
		below = `WITH RECURSIVE tree (id) AS (SELECT id FROM projects WHERE parent_id = ?2
			UNION SELECT p.id FROM projects p JOIN tree ON p.parent_id = tree.id) SELECT id FROM tree`
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM application_credentials WHERE user_id = ?1 AND project_id IN (`+below+`)`, a.user, a.project)
	return err
}
