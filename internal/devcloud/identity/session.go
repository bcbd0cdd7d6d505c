package identity

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

type tokenHash [sha256.Size]byte

// roleRef is a role as a token shows it.
type roleRef struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// session is a token that was found good, with all it says. It is not changed
// after it was made.
type session struct {
	rest.Caller
	domainID, domainName string // of domain scope
	isDomain             bool   // the project is a domain
	roles                []roleRef
	methods, auditIDs    []string
	issued               time.Time
	credential           string // the application credential it was made with
	credentialName       string
	unrestricted         bool
}

// scoped reports whether the token is for a project, a domain or the system.
func (s *session) scoped() bool { return s.ProjectID != "" || s.domainID != "" || s.System }

// reads reports whether the caller may look at what is everybody's: the default
// policies' system reader or admin.
func (s *session) reads() bool { return s.Admin() || s.System && s.Has("reader") }

// grant is what a token is made of.
type grant struct {
	user, project string // project may be a domain; empty is none
	system        bool
	credential    string
	methods       []string
	auditIDs      []string
	issued        time.Time
	expires       time.Time
}

// Caller implements rest.Authenticator.
func (s *Service) Caller(ctx context.Context, token string) (*rest.Caller, error) {
	who, err := s.session(ctx, token)
	if err != nil {
		return nil, err
	}
	return &who.Caller, nil
}

// session finds what a token says; errdefs.ErrNotFound if it is not good.
func (s *Service) session(ctx context.Context, token string) (*session, error) {
	h := tokenHash(sha256.Sum256([]byte(token)))
	who, epoch := s.cache.get(h, s.o.Now())
	if who != nil {
		return who, nil
	}
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		g, err := readToken(ctx, tx, h)
		if err != nil {
			return err
		}
		if !s.o.Now().Before(g.expires) {
			return fmt.Errorf("token has expired: %w", errdefs.ErrNotFound)
		}
		who, err = resolve(ctx, tx, g)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	who.Token = token
	s.cache.put(h, who, epoch)
	return who, nil
}

// issue makes a token. The caller has found out that resolve likes it.
func (s *Service) issue(ctx context.Context, g grant) (string, error) {
	token := random(32)
	h := tokenHash(sha256.Sum256([]byte(token)))
	methods, err := json.Marshal(g.methods)
	if err != nil {
		return "", fmt.Errorf("issue token: %w", err)
	}
	audit, err := json.Marshal(g.auditIDs)
	if err != nil {
		return "", fmt.Errorf("issue token: %w", err)
	}
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE expires_at <= ?`, s.o.Now().Unix()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO tokens (token, user_id, project_id, system, credential_id, methods, audit_ids, issued_at, expires_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			h[:], g.user, null(g.project), g.system, null(g.credential), string(methods), string(audit), g.issued.Unix(), g.expires.Unix())
		return err
	})
	if err != nil {
		return "", fmt.Errorf("issue token: %w", err)
	}
	return token, nil
}

// null is NULL for an empty string.
func null(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }

func readToken(ctx context.Context, tx *sql.Tx, h tokenHash) (grant, error) {
	var g grant
	var project, credential sql.NullString
	var methods, audit string
	var issued, expires int64
	err := tx.QueryRowContext(ctx, `SELECT user_id, project_id, system, credential_id, methods, audit_ids, issued_at, expires_at
		FROM tokens WHERE token = ?`, h[:]).Scan(&g.user, &project, &g.system, &credential, &methods, &audit, &issued, &expires)
	if err != nil {
		return g, err
	}
	g.project, g.credential = project.String, credential.String
	g.issued, g.expires = time.Unix(issued, 0).UTC(), time.Unix(expires, 0).UTC()
	return g, errors.Join(json.Unmarshal([]byte(methods), &g.methods), json.Unmarshal([]byte(audit), &g.auditIDs))
}

// resolve finds out what the token of a grant says now: errdefs.ErrNotFound if
// the user, the project or their domains are gone or disabled, or if no role
// is left.
func resolve(ctx context.Context, tx *sql.Tx, g grant) (*session, error) {
	who := &session{methods: g.methods, auditIDs: g.auditIDs, issued: g.issued, credential: g.credential}
	who.UserID, who.System, who.Expires = g.user, g.system, g.expires
	err := tx.QueryRowContext(ctx, `SELECT u.name, d.id, d.name FROM users u JOIN projects d ON d.id = u.domain_id
		WHERE u.id = ? AND u.enabled AND d.enabled`, g.user).Scan(&who.UserName, &who.UserDomainID, &who.UserDomainName)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", g.user, err)
	}
	if g.project != "" {
		if err := who.enter(ctx, tx, g.project); err != nil {
			return nil, err
		}
	}
	if !who.scoped() {
		return who, nil
	}
	if who.roles, err = rolesOf(ctx, tx, g.user, g.project); err != nil {
		return nil, err
	}
	all := who.roles
	if g.credential != "" {
		if all, err = who.narrow(ctx, tx); err != nil {
			return nil, err
		}
	}
	for _, r := range all {
		who.Roles = append(who.Roles, r.Name)
	}
	if len(who.roles) == 0 {
		return nil, fmt.Errorf("user %s has no role there: %w", g.user, errdefs.ErrNotFound)
	}
	return who, nil
}

// enter sets the scope to a project or domain.
func (s *session) enter(ctx context.Context, tx *sql.Tx, project string) error {
	var name string
	var domain, domainName sql.NullString
	err := tx.QueryRowContext(ctx, `SELECT p.name, p.is_domain, d.id, d.name FROM projects p LEFT JOIN projects d ON d.id = p.domain_id
		WHERE p.id = ? AND p.enabled AND ifnull(d.enabled, 1)`, project).Scan(&name, &s.isDomain, &domain, &domainName)
	if err != nil {
		return fmt.Errorf("project %s: %w", project, err)
	}
	if s.isDomain {
		s.domainID, s.domainName, s.isDomain = project, name, false
		return nil
	}
	s.ProjectID, s.ProjectName, s.ProjectDomainID, s.ProjectDomainName = project, name, domain.String, domainName.String
	return nil
}

// rolesOf are the roles of a user, by itself, in its groups and by implication,
// in a project or domain, or in the system if that is empty.
func rolesOf(ctx context.Context, tx *sql.Tx, user, project string) ([]roleRef, error) {
	return queryRoles(ctx, tx, `WITH RECURSIVE held (id) AS (
		SELECT role_id FROM holding WHERE project_id IS ?1 AND user_id = ?2
		UNION SELECT g.role_id FROM holding g JOIN members m ON m.group_id = g.group_id WHERE g.project_id IS ?1 AND m.user_id = ?2
		UNION SELECT i.implied_id FROM implied i JOIN held h ON i.prior_id = h.id)
		SELECT r.id, r.name FROM roles r JOIN held h ON h.id = r.id ORDER BY r.id`, null(project), user)
}

// narrow leaves the roles of the application credential, and returns them with
// those that they imply.
func (s *session) narrow(ctx context.Context, tx *sql.Tx) ([]roleRef, error) {
	var unrestricted sql.NullBool
	err := tx.QueryRowContext(ctx, `SELECT name, unrestricted FROM application_credentials WHERE id = ?`, s.credential).Scan(&s.credentialName, &unrestricted)
	if err != nil {
		return nil, fmt.Errorf("application credential %s: %w", s.credential, err)
	}
	s.unrestricted = unrestricted.Bool
	own, err := queryRoles(ctx, tx, `SELECT r.id, r.name FROM roles r JOIN application_credential_roles a ON a.role_id = r.id
		WHERE a.credential_id = ? ORDER BY r.id`, s.credential)
	if err != nil {
		return nil, err
	}
	held := s.roles
	s.roles = slices.DeleteFunc(own, func(r roleRef) bool { return !slices.Contains(held, r) })
	with, err := queryRoles(ctx, tx, `WITH RECURSIVE held (id) AS (
		SELECT role_id FROM application_credential_roles WHERE credential_id = ?
		UNION SELECT i.implied_id FROM implied i JOIN held h ON i.prior_id = h.id)
		SELECT r.id, r.name FROM roles r JOIN held h ON h.id = r.id ORDER BY r.id`, s.credential)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(with, func(r roleRef) bool { return !slices.Contains(held, r) }), nil
}

func queryRoles(ctx context.Context, tx *sql.Tx, query string, args ...any) (roles []roleRef, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r roleRef
		if err := rows.Scan(&r.ID, &r.Name); err != nil {
			return nil, err
		}
		roles = append(roles, r)
	}
	return roles, rows.Err()
}
