package identity

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// scopeRequest is the "scope" of a request for a token.
type scopeRequest struct {
	names   map[string]bool // that it has
	Project *ref
	Domain  *ref
	System  *struct{ All *bool }
}

// UnmarshalJSON takes the word "unscoped" besides an object.
func (r *scopeRequest) UnmarshalJSON(data []byte) error {
	var word string
	if json.Unmarshal(data, &word) == nil {
		r.names = map[string]bool{word: true}
		return nil
	}
	var names map[string]json.RawMessage
	if err := json.Unmarshal(data, &names); err != nil {
		return err
	}
	r.names = map[string]bool{}
	for n := range names {
		r.names[n] = true
	}
	type fields struct { // without this method
		Project *ref
		Domain  *ref
		System  *struct{ All *bool }
	}
	var f fields
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	r.Project, r.Domain, r.System = f.Project, f.Domain, f.System
	return nil
}

func (r *scopeRequest) asked() bool { return r.names != nil }

func (r *scopeRequest) check() error {
	if !r.asked() {
		return nil
	}
	n := 0
	for _, known := range []string{"project", "domain", "unscoped", "system", "OS-TRUST:trust"} {
		if r.names[known] {
			n++
		}
	}
	if n != 1 {
		return expecting("system, project, domain, OS-TRUST:trust or unscoped", "scope")
	}
	for _, one := range []struct {
		at string
		r  *ref
	}{{"project", r.Project}, {"domain", r.Domain}} {
		if one.r != nil && one.r.ID == "" && one.r.Name == "" {
			return invalid("Invalid input for field scope/%s: id or name must be present.", one.at)
		}
	}
	if r.Project != nil && r.Project.Domain.empty() {
		return invalid("Invalid input for field scope/project/domain: id or name must be present.")
	}
	if r.Project != nil && r.Project.Name != "" && r.Project.Domain == nil {
		return expecting("domain", "project")
	}
	return nil
}

// choose sets the scope of a grant. One that does not exist is
// errdefs.ErrNotFound.
func (r *scopeRequest) choose(ctx context.Context, tx *sql.Tx, g *grant) error {
	switch {
	case g.credential != "":
		return tx.QueryRowContext(ctx, `SELECT project_id FROM application_credentials WHERE id = ?`, g.credential).Scan(&g.project)
	case r.names["unscoped"]:
		return nil
	case r.System != nil:
		g.system = true
		return nil
	case r.Project != nil:
		id, err := findProject(ctx, tx, *r.Project)
		g.project = id
		return err
	case r.Domain != nil:
		id, err := findDomain(ctx, tx, *r.Domain)
		g.project = id
		return err
	case r.asked(): // a trust, or null
		return fmt.Errorf("scope: %w", errdefs.ErrNotFound)
	}
	return chooseDefault(ctx, tx, g)
}

// chooseDefault takes the user's default project, if the user has a role there.
func chooseDefault(ctx context.Context, tx *sql.Tx, g *grant) error {
	var project sql.NullString
	err := tx.QueryRowContext(ctx, `SELECT default_project_id FROM users WHERE id = ?`, g.user).Scan(&project)
	if err != nil || !project.Valid {
		return err
	}
	try := *g
	try.project = project.String
	if _, err := resolve(ctx, tx, try); errors.Is(err, sql.ErrNoRows) || errors.Is(err, errdefs.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	g.project = try.project
	return nil
}

// findProject finds a project that is no domain by id, or by name and domain.
func findProject(ctx context.Context, tx *sql.Tx, p ref) (id string, err error) {
	if p.Name == "" {
		err = tx.QueryRowContext(ctx, `SELECT id FROM projects WHERE id = ? AND NOT is_domain`, p.ID).Scan(&id)
		return id, err
	}
	domain, err := findDomain(ctx, tx, *p.Domain)
	if err != nil {
		return "", err
	}
	err = tx.QueryRowContext(ctx, `SELECT id FROM projects WHERE name = ? AND domain_id = ? AND NOT is_domain`, p.Name, domain).Scan(&id)
	return id, err
}
