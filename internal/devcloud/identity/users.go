package identity

import (
	"context"
	"database/sql"
	"errors"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// nouns are all things with the usual five requests.
var nouns = []*noun{users, groups, projects, domains, roles, services, regions, endpoints}

var optionsRule = func(names ...string) rule {
	u := rule{types: []string{"object"}, props: map[string]rule{}, closed: true}
	for _, n := range names {
		u.props[n] = nullBool
	}
	return u
}

var users = &noun{
	one: "user", many: "users", table: "users", label: "user",
	attrs: []attr{
		{name: "name", rule: name255},
		{name: "domain_id", rule: idRule, fixed: "Cannot change Domain ID"},
		{name: "enabled", rule: boolean, def: true},
		{name: "default_project_id", rule: nullID},
		{name: "options", def: map[string]any{}, rule: optionsRule(
			"ignore_change_password_upon_first_use", "ignore_password_expiry", "ignore_lockout_failure_attempts",
			"lock_password", "ignore_user_inactivity", "multi_factor_auth_enabled")},
	},
	also:     map[string]rule{"description": nullString},
	required: []string{"name"},
	filters:  []string{"name", "domain_id", "enabled"},
	may: func(who *session, verb, id string) bool {
		return verb == "get" && id == who.UserID
	},
	before: beforeUser,
	twice: func(now record, fresh bool) error {
		where := ""
		if d := now.text("domain_id"); fresh {
			where = " at domain ID " + d
			if d == "" {
				where = " at domain ID " + DefaultDomain
			}
		}
		return conflict("user", "Duplicate entry found with name "+now.text("name")+where)
	},
	show: func(v record) {
		v["password_expires_at"] = nil
		if v["default_project_id"] == nil {
			delete(v, "default_project_id")
		}
	},
	password:  true,
	withExtra: true,
}

func beforeUser(ctx context.Context, tx *sql.Tx, who *session, old, now record) error {
	switch {
	case now == nil:
		return nil
	case old == nil:
		return placeInDomain(ctx, tx, who, now)
	case old.yes("enabled") && !now.yes("enabled"):
		return revokeUser(ctx, tx, now.text("id"))
	}
	return nil
}

// placeInDomain checks the domain of a new user or group, or sets the caller's.
func placeInDomain(ctx context.Context, tx *sql.Tx, who *session, now record) error {
	if now["domain_id"] == nil {
		now["domain_id"] = who.home()
	}
	_, err := domains.get(ctx, tx, now.text("domain_id"))
	return err
}

// home is the domain that a request means which names none.
func (s *session) home() string {
	switch {
	case s == nil:
		return DefaultDomain
	case s.domainID != "":
		return s.domainID
	case s.ProjectDomainID != "":
		return s.ProjectDomainID
	}
	return DefaultDomain
}

// revokeUser ends all tokens of a user.
func revokeUser(ctx context.Context, tx *sql.Tx, id string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE user_id = ?`, id)
	return err
}

func (s *Service) userRoutes() {
	s.api.HandleOpen("POST /v3/users/{id}/password", s.changePassword)
	s.handle("GET /v3/users/{id}/projects", s.userProjects)
	s.handle("GET /v3/users/{id}/groups", s.userGroups)
}

// passwordRule is the password of a user that is made or changed.
var passwordRule = rule{types: []string{"object"}, props: map[string]rule{"password": nullString}}

// newPassword is a password that was said, or none: nil is "not said".
type newPassword struct{ hash string }

// takePassword takes the password out of what was said and hashes it.
func (s *Service) takePassword(ctx context.Context, n *noun, said record) (*newPassword, error) {
	if !n.password {
		return nil, nil
	}
	if err := passwordRule.check(map[string]any(said)); err != nil {
		return nil, err
	}
	v, ok := said["password"]
	if !ok {
		return nil, nil
	}
	delete(said, "password")
	password, ok := v.(string)
	if !ok {
		return &newPassword{}, nil
	}
	if len(password) > 4096 {
		return nil, forbidden("The password length must be less than or equal to 4096. The server could not comply with the request because the password is invalid.")
	}
	hash, err := s.secrets.hash(ctx, password, false)
	return &newPassword{hash}, err
}

// store sets the password of a user, which ends the user's tokens.
func (p *newPassword) store(ctx context.Context, tx *sql.Tx, user string) error {
	if p == nil {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `UPDATE users SET password = ? WHERE id = ?`, null(p.hash), user); err != nil {
		return err
	}
	return revokeUser(ctx, tx, user)
}

var ownPasswordRule = rule{
	types: []string{"object"}, closed: true, required: []string{"original_password", "password"},
	props: map[string]rule{"original_password": anyString, "password": anyString},
}

// changePassword needs no token: who knows the old password is the user.
func (s *Service) changePassword(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	body, err := readObject(r)
	if err != nil {
		return nil, err
	}
	said, ok := body["user"].(map[string]any)
	if !ok {
		said = map[string]any{}
	}
	if err := ownPasswordRule.check(said); err != nil {
		return nil, err
	}
	id := r.PathValue("id")
	var hash string
	err = s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		_, hash, err = findUser(ctx, tx, ref{ID: id})
		return err
	})
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return nil, err
	}
	old, _ := said["original_password"].(string)
	right, err := s.secrets.matches(ctx, hash, old)
	if err != nil {
		return nil, err
	}
	if !right {
		return nil, unauthorized(errors.New("wrong password"))
	}
	fresh, err := s.takePassword(ctx, users, said)
	if err != nil {
		return nil, err
	}
	err = s.change(ctx, func(tx *sql.Tx) error {
		var now sql.NullString
		if err := tx.QueryRowContext(ctx, `SELECT password FROM users WHERE id = ?`, id).Scan(&now); err != nil {
			return err
		}
		if now.String != hash { // somebody was faster
			return unauthorized(errors.New("password has changed"))
		}
		return fresh.store(ctx, tx, id)
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func (s *Service) userProjects(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	id := r.PathValue("id")
	if id != who.UserID && !who.reads() {
		return nil, denied("identity:list_user_projects")
	}
	if err := s.must(ctx, users, id); err != nil {
		return nil, err
	}
	return s.list(ctx, r, projects, reachable, id)
}

func (s *Service) userGroups(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	id := r.PathValue("id")
	if id != who.UserID && !who.reads() {
		return nil, denied("identity:list_groups_for_user")
	}
	if err := s.must(ctx, users, id); err != nil {
		return nil, err
	}
	res, err := s.list(ctx, r, groups, "id IN (SELECT group_id FROM members WHERE user_id = ?)", id)
	if err != nil {
		return nil, err
	}
	body, _ := res.Body.(record)
	list, _ := body["groups"].([]record)
	for _, g := range list {
		g["membership_expires_at"] = nil
	}
	return res, nil
}

// must is 404 if there is none of that id.
func (s *Service) must(ctx context.Context, n *noun, id string) error {
	return s.db.Read(ctx, func(tx *sql.Tx) error {
		_, err := n.get(ctx, tx, id)
		return err
	})
}
