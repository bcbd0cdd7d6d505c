package identity

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// ref names something by id, or by name and domain.
type ref struct {
	ID     string
	Name   string
	Domain *ref
}

// empty reports whether it is there and names nothing.
func (r *ref) empty() bool { return r != nil && r.ID == "" && r.Name == "" }

// authRequest is the body of POST /v3/auth/tokens, as tokenRule lets it pass
// (keystone.auth.schema).
type authRequest struct {
	Identity struct {
		Methods  []string
		Password *struct {
			User *struct {
				ref
				Password *string
			}
		}
		Token                 *struct{ ID string }
		ApplicationCredential *struct {
			ID, Name, Secret string
			User             *ref
		} `json:"application_credential"`
	}
	Scope scopeRequest
}

// proof is what the methods of a request have shown.
type proof struct {
	user       string
	credential string
	expires    time.Time
	methods    []string
	// of the token that was shown
	before, audit []string
}

// prove checks each method. A wrong secret is unauthorized, a malformed method
// 400.
func (s *Service) prove(ctx context.Context, a *authRequest, now time.Time) (proof, error) {
	p := proof{expires: now.Add(s.o.TokenLife)}
	if len(a.Identity.Methods) == 0 {
		return p, unauthorized(errors.New("no method"))
	}
	for _, m := range a.Identity.Methods {
		if slices.Contains(p.methods, m) {
			continue
		}
		user, err := "", error(nil)
		switch m {
		case "password":
			user, err = s.provePassword(ctx, a)
		case "token":
			user, err = s.proveToken(ctx, a, &p)
		case "application_credential":
			user, err = s.proveCredential(ctx, a, &p, now)
		default:
			err = unauthorized(fmt.Errorf("method %q", m))
		}
		if err != nil {
			return p, err
		}
		if p.user != "" && p.user != user {
			return p, unauthorized(errors.New("methods of two users"))
		}
		p.user, p.methods = user, append(p.methods, m)
	}
	for _, m := range p.before {
		if !slices.Contains(p.methods, m) {
			p.methods = append(p.methods, m)
		}
	}
	return p, nil
}

func (s *Service) provePassword(ctx context.Context, a *authRequest) (string, error) {
	u := a.Identity.Password.User
	if u == nil {
		return "", expecting("user", "None")
	}
	var id, hash string
	err := s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		id, hash, err = findUser(ctx, tx, u.ref)
		return err
	})
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return "", err
	}
	if u.Password == nil {
		return "", unauthorized(errors.New("no password"))
	}
	ok, err := s.secrets.matches(ctx, hash, *u.Password)
	if err != nil {
		return "", err
	}
	if !ok || id == "" {
		return "", unauthorized(errors.New("wrong password"))
	}
	return id, nil
}

func (s *Service) proveToken(ctx context.Context, a *authRequest, p *proof) (string, error) {
	old, err := s.session(ctx, a.Identity.Token.ID)
	if err != nil {
		return "", unknownToken(a.Identity.Token.ID, err)
	}
	if old.credential != "" {
		return "", denied("Using a delegated token to create another token is not allowed.")
	}
	p.before, p.audit, p.expires = old.methods, old.auditIDs, old.Expires
	return old.UserID, nil
}

func (s *Service) proveCredential(ctx context.Context, a *authRequest, p *proof, now time.Time) (string, error) {
	c := a.Identity.ApplicationCredential
	if c.ID == "" && c.Name == "" {
		return "", expecting("name or ID", "application credential")
	}
	if c.ID == "" && c.User == nil {
		return "", expecting("user", "application credential")
	}
	var id, user, hash string
	var expires sql.NullInt64
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		const columns = `SELECT id, user_id, secret, expires_at FROM application_credentials WHERE `
		if c.ID != "" {
			return tx.QueryRowContext(ctx, columns+`id = ?`, c.ID).Scan(&id, &user, &hash, &expires)
		}
		owner, _, err := findUser(ctx, tx, *c.User)
		if err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, columns+`user_id = ? AND name = ?`, owner, c.Name).Scan(&id, &user, &hash, &expires)
	})
	if errors.Is(err, errdefs.ErrNotFound) && c.ID != "" {
		return "", notFound("Application Credential", c.ID)
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return "", err
	}
	ok, err := s.secrets.matches(ctx, hash, c.Secret)
	if err != nil {
		return "", err
	}
	if !ok || id == "" || expires.Valid && expires.Int64 <= now.UnixMicro() {
		return "", unauthorized(errors.New("wrong or expired application credential"))
	}
	p.credential = id
	if end := time.UnixMicro(expires.Int64).UTC().Truncate(time.Second); expires.Valid && end.Before(p.expires) {
		p.expires = end
	}
	return user, nil
}

// findUser finds an enabled user and the hash of its password.
func findUser(ctx context.Context, tx *sql.Tx, u ref) (id, hash string, err error) {
	var stored sql.NullString
	if u.ID != "" {
		err = tx.QueryRowContext(ctx, `SELECT id, password FROM users WHERE id = ? AND enabled`, u.ID).Scan(&id, &stored)
		return id, stored.String, err
	}
	if u.Domain == nil {
		return "", "", expecting("domain", "user")
	}
	domain, err := findDomain(ctx, tx, *u.Domain)
	if err != nil {
		return "", "", err
	}
	err = tx.QueryRowContext(ctx, `SELECT id, password FROM users WHERE name = ? AND domain_id = ? AND enabled`, u.Name, domain).Scan(&id, &stored)
	return id, stored.String, err
}

// findDomain finds an enabled domain by id or name.
func findDomain(ctx context.Context, tx *sql.Tx, d ref) (id string, err error) {
	if d.Name != "" {
		err = tx.QueryRowContext(ctx, `SELECT id FROM projects WHERE name = ? AND is_domain AND enabled`, d.Name).Scan(&id)
	} else {
		err = tx.QueryRowContext(ctx, `SELECT id FROM projects WHERE id = ? AND is_domain AND enabled`, d.ID).Scan(&id)
	}
	return id, err
}
