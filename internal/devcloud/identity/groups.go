package identity

import (
	"context"
	"database/sql"
	"net/http"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

var groups = &noun{
	one: "group", many: "groups", table: "groups", label: "group",
	attrs: []attr{
		{name: "name", rule: name255},
		{name: "domain_id", rule: idRule, fixed: "Cannot change Domain ID"},
		{name: "description", rule: nullString, def: ""},
	},
	required: []string{"name"},
	filters:  []string{"name", "domain_id"},
	before: func(ctx context.Context, tx *sql.Tx, who *session, old, now record) error {
		if old == nil {
			return placeInDomain(ctx, tx, who, now)
		}
		return nil
	},
	twice: func(now record, _ bool) error {
		return conflict("group", "Duplicate entry found with name "+now.text("name")+" at domain ID "+or(now.text("domain_id"), DefaultDomain))
	},
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (s *Service) groupRoutes() {
	s.handle("GET /v3/groups/{id}/users", s.groupUsers)
	s.handle("PUT /v3/groups/{id}/users/{user}", s.addMember)
	s.handle("GET /v3/groups/{id}/users/{user}", s.checkMember)
	s.handle("DELETE /v3/groups/{id}/users/{user}", s.removeMember)
}

func (s *Service) groupUsers(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if !who.reads() {
		return nil, denied("identity:list_users_in_group")
	}
	if err := s.must(ctx, groups, r.PathValue("id")); err != nil {
		return nil, err
	}
	return s.list(ctx, r, users, "id IN (SELECT user_id FROM members WHERE group_id = ?)", r.PathValue("id"))
}

func (s *Service) addMember(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if !who.Admin() {
		return nil, denied("identity:add_user_to_group")
	}
	group, user := r.PathValue("id"), r.PathValue("user")
	err := s.change(ctx, func(tx *sql.Tx) error {
		if err := memberExist(ctx, tx, group, user); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO members (group_id, user_id) VALUES (?, ?)`, group, user)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func (s *Service) checkMember(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if !who.reads() {
		return nil, denied("identity:check_user_in_group")
	}
	group, user := r.PathValue("id"), r.PathValue("user")
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		if err := memberExist(ctx, tx, group, user); err != nil {
			return err
		}
		var n int
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM members WHERE group_id = ? AND user_id = ?`, group, user).Scan(&n)
		if err == nil && n == 0 {
			err = noMember(group, user)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func (s *Service) removeMember(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if !who.Admin() {
		return nil, denied("identity:remove_user_from_group")
	}
	group, user := r.PathValue("id"), r.PathValue("user")
	err := s.change(ctx, func(tx *sql.Tx) error {
		if err := memberExist(ctx, tx, group, user); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM members WHERE group_id = ? AND user_id = ?`, group, user)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return noMember(group, user)
		}
		return revokeUser(ctx, tx, user)
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func memberExist(ctx context.Context, tx *sql.Tx, group, user string) error {
	if _, err := users.get(ctx, tx, user); err != nil {
		return err
	}
	_, err := groups.get(ctx, tx, group)
	return err
}

func noMember(group, user string) error {
	return rest.Errorf(http.StatusNotFound, "User '%s' not found in group '%s'", user, group)
}
