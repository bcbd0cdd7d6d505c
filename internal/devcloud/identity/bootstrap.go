package identity

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// BootstrapRequest is what a cloud starts with besides the domain "default" and
// the roles admin, member, reader and service.
type BootstrapRequest struct {
	// Region of the endpoints.
	Region string
	// Projects of the default domain, by name.
	Projects []string
	Users    []BootstrapUser
	Services []BootstrapService
}

// BootstrapUser is a user of the default domain.
type BootstrapUser struct {
	Name, Password string
	// Random says that nobody can guess the password (128 random bits or more).
	// It is then hashed quickly.
	Random bool
	// Generated is Random, and the password is this one after each Bootstrap;
	// otherwise only a new user gets it, so that a change by its user stays.
	Generated bool
	// Project is its default project, by name, or empty.
	Project string
	// Roles are the names of its roles in projects, by name. The project ""
	// is the system.
	Roles map[string][]string
}

// BootstrapService is a service of the catalog with one URL for the public,
// internal and admin interface.
type BootstrapService struct {
	Type, Name, URL string
}

// Bootstrapped are the ids of what Bootstrap found or made, by name.
type Bootstrapped struct {
	Projects, Users map[string]string
}

// Bootstrap makes what is missing of a request and moves endpoints to their
// URLs. It never takes anything away, and may be repeated.
func (s *Service) Bootstrap(ctx context.Context, b BootstrapRequest) (*Bootstrapped, error) {
	hashes, err := s.bootstrapHashes(ctx, b.Users)
	if err != nil {
		return nil, fmt.Errorf("bootstrap identity: %w", err)
	}
	done := &Bootstrapped{Projects: map[string]string{}, Users: map[string]string{}}
	err = s.change(ctx, func(tx *sql.Tx) error {
		roleIDs, err := bootstrapRoles(ctx, tx)
		if err != nil {
			return err
		}
		for _, name := range b.Projects {
			id, err := ensure(ctx, tx, projects, "name = ? AND domain_id = 'default'", name, record{"name": name})
			if err != nil {
				return err
			}
			done.Projects[name] = id
		}
		for i, u := range b.Users {
			if done.Users[u.Name], err = bootstrapUser(ctx, tx, u, hashes[i], done.Projects, roleIDs); err != nil {
				return fmt.Errorf("user %s: %w", u.Name, err)
			}
		}
		return bootstrapCatalog(ctx, tx, b)
	})
	if err != nil {
		return nil, fmt.Errorf("bootstrap identity: %w", err)
	}
	return done, nil
}

// bootstrapHashes hashes, all at once, the passwords that are not stored yet;
// the others are empty.
func (s *Service) bootstrapHashes(ctx context.Context, list []BootstrapUser) ([]string, error) {
	hashes, errs := make([]string, len(list)), make([]error, len(list))
	var wg sync.WaitGroup
	for i, u := range list {
		var stored string
		err := s.db.Read(ctx, func(tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, `SELECT ifnull(password, '') FROM users WHERE name = ? AND domain_id = 'default'`, u.Name).Scan(&stored)
		})
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return nil, err
		}
		if err == nil && !u.Generated {
			continue
		}
		wg.Go(func() {
			if stored != "" { // else the comparison would take as long as that of a guess
				if same, err := s.secrets.matches(ctx, stored, u.Password); err != nil || same {
					errs[i] = err
					return
				}
			}
			hashes[i], errs[i] = s.secrets.hash(ctx, u.Password, u.Random || u.Generated)
		})
	}
	wg.Wait()
	return hashes, errors.Join(errs...)
}

// ensure returns the id of what a condition finds, or of a new one.
func ensure(ctx context.Context, tx *sql.Tx, n *noun, condition string, arg any, fresh record) (string, error) {
	all, err := n.query(ctx, tx, condition, arg)
	if err != nil {
		return "", err
	}
	if len(all) > 0 {
		return all[0].text("id"), nil
	}
	made, err := n.create(ctx, tx, nil, fresh)
	return made.text("id"), err
}

// bootstrapRoles makes the default domain and roles as "keystone-manage
// bootstrap" does; admin implies member, and that reader.
func bootstrapRoles(ctx context.Context, tx *sql.Tx) (ids map[string]string, err error) {
	if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO projects (id, name, description, enabled, is_domain, tags, options, extra)
		VALUES ('default', 'Default', 'The default domain', 1, 1, '[]', '{}', '{}')`); err != nil {
		return nil, err
	}
	ids = map[string]string{}
	for _, name := range []string{"admin", "member", "reader", "service"} {
		r := record{"name": name}
		if name != "service" {
			r["options"] = map[string]any{"immutable": true}
		}
		if ids[name], err = ensure(ctx, tx, roles, "name = ? AND domain_id IS NULL", name, r); err != nil {
			return nil, err
		}
	}
	for prior, implied := range map[string]string{"admin": "member", "member": "reader"} {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO implied (prior_id, implied_id) VALUES (?, ?)`, ids[prior], ids[implied]); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

func bootstrapUser(ctx context.Context, tx *sql.Tx, u BootstrapUser, hash string, projectIDs, roleIDs map[string]string) (string, error) {
	fresh := record{"name": u.Name}
	if u.Project != "" {
		fresh["default_project_id"] = projectIDs[u.Project]
	}
	id, err := ensure(ctx, tx, users, "name = ? AND domain_id = 'default'", u.Name, fresh)
	if err != nil {
		return "", err
	}
	if hash != "" {
		if err := (&newPassword{hash}).store(ctx, tx, id); err != nil {
			return "", err
		}
	}
	for project, names := range u.Roles {
		if project != "" && projectIDs[project] == "" {
			return "", fmt.Errorf("project %q: %w", project, errdefs.ErrNotFound)
		}
		for _, name := range names {
			if roleIDs[name] == "" {
				return "", fmt.Errorf("role %q: %w", name, errdefs.ErrNotFound)
			}
			if err := (assignment{user: id, project: projectIDs[project], role: roleIDs[name]}).store(ctx, tx); err != nil {
				return "", err
			}
		}
	}
	return id, nil
}

func bootstrapCatalog(ctx context.Context, tx *sql.Tx, b BootstrapRequest) error {
	if _, err := ensure(ctx, tx, regions, "id = ?", b.Region, record{"id": b.Region}); err != nil {
		return fmt.Errorf("region %s: %w", b.Region, err)
	}
	for _, o := range b.Services {
		id, err := ensure(ctx, tx, services, "type = ?", o.Type, record{"type": o.Type, "name": o.Name})
		if err != nil {
			return fmt.Errorf("service %s: %w", o.Type, err)
		}
		for _, face := range []string{"public", "internal", "admin"} {
			at := record{"service_id": id, "interface": face, "region_id": b.Region, "url": o.URL}
			all, err := endpoints.query(ctx, tx, "service_id = ? AND interface = ? AND region_id = ?", id, face, b.Region)
			switch {
			case err != nil:
			case len(all) == 0:
				_, err = endpoints.create(ctx, tx, nil, at)
			case all[0].text("url") != o.URL:
				_, err = endpoints.update(ctx, tx, nil, all[0].text("id"), at)
			}
			if err != nil {
				return fmt.Errorf("endpoint of %s: %w", o.Type, err)
			}
		}
	}
	return nil
}
