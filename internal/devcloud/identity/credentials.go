package identity

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"time"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func (s *Service) credentialRoutes() {
	s.handle("GET /v3/users/{id}/application_credentials", s.listCredentials)
	s.handle("POST /v3/users/{id}/application_credentials", s.postCredential)
	s.handle("GET /v3/users/{id}/application_credentials/{credential}", s.getCredential)
	s.handle("DELETE /v3/users/{id}/application_credentials/{credential}", s.deleteCredential)
}

var nullOrString = rule{types: []string{"null", "string"}}

// credentialRule is keystone.application_credential.schema.
var credentialRule = rule{types: []string{"object"}, required: []string{"name"}, props: map[string]rule{
	"name": name255, "description": nullString, "secret": nullOrString, "expires_at": nullOrString, "unrestricted": boolean,
	"roles":        {types: []string{"array"}, items: &rule{types: []string{"object"}, closed: true, exactly: 1, props: map[string]rule{"id": idRule, "name": name255}}},
	"access_rules": {types: []string{"array"}},
}}

// credential is an application credential.
type credential struct {
	id, name, user, project string
	description             sql.NullString
	expires                 sql.NullInt64
	unrestricted            sql.NullBool
	roles                   []record
}

// view never shows the secret.
func (c *credential) view(r *rest.Request) record {
	v := record{
		"id": c.id, "name": c.name, "user_id": c.user, "project_id": c.project, "system": nil,
		"description": nil, "expires_at": nil, "unrestricted": nil, "roles": c.roles,
		"links": record{"self": base(r) + "/application_credentials/" + c.id},
	}
	if c.description.Valid {
		v["description"] = c.description.String
	}
	if c.expires.Valid {
		v["expires_at"] = time.UnixMicro(c.expires.Int64).UTC().Format("2006-01-02T15:04:05.000000")
	}
	if c.unrestricted.Valid {
		v["unrestricted"] = c.unrestricted.Bool
	}
	return v
}

// queryCredentials reads those of a condition, by id.
func queryCredentials(ctx context.Context, tx *sql.Tx, condition string, args ...any) (all []*credential, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, name, user_id, project_id, description, expires_at, unrestricted
		FROM application_credentials WHERE `+condition+` ORDER BY id`, args...)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		c := &credential{}
		if err := rows.Scan(&c.id, &c.name, &c.user, &c.project, &c.description, &c.expires, &c.unrestricted); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		all = append(all, c)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	for _, c := range all {
		c.roles = []record{}
		list, err := roles.query(ctx, tx, `id IN (SELECT role_id FROM application_credential_roles WHERE credential_id = ?)`, c.id)
		if err != nil {
			return nil, err
		}
		c.roles = append(c.roles, list...)
	}
	return all, nil
}

func (s *Service) listCredentials(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	user := r.PathValue("id")
	if user != who.UserID && !who.reads() {
		return nil, denied("identity:list_application_credentials")
	}
	shown := []record{}
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		if _, err := users.get(ctx, tx, user); err != nil {
			return err
		}
		all, err := queryCredentials(ctx, tx, `user_id = ?`, user)
		for _, c := range all {
			if name := r.Params().Get("name"); name == "" || name == c.name {
				shown = append(shown, c.view(r))
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(collection(r, "application_credentials", shown))
}

func (s *Service) getCredential(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	user := r.PathValue("id")
	if user != who.UserID && !who.reads() {
		return nil, denied("identity:get_application_credential")
	}
	var c *credential
	err := s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		c, err = oneCredential(ctx, tx, user, r.PathValue("credential"))
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(record{"application_credential": c.view(r)})
}

func oneCredential(ctx context.Context, tx *sql.Tx, user, id string) (*credential, error) {
	all, err := queryCredentials(ctx, tx, `user_id = ? AND id = ?`, user, id)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, notFound("Application Credential", id)
	}
	return all[0], nil
}

// byCredential refuses those who came with a restricted application
// credential: it cannot make or delete others.
func byCredential(who *session) error {
	if who.credential != "" && !who.unrestricted {
		return denied("Using method 'application_credential' is not allowed for managing additional application credentials.")
	}
	return nil
}

func (s *Service) deleteCredential(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	const action = "identity:delete_application_credential"
	user := r.PathValue("id")
	if user != who.UserID && !who.Admin() {
		return nil, denied(action)
	}
	if err := byCredential(who); err != nil {
		return nil, err
	}
	err := s.change(ctx, func(tx *sql.Tx) error {
		c, err := oneCredential(ctx, tx, user, r.PathValue("credential"))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM application_credentials WHERE id = ?`, c.id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func (s *Service) postCredential(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	const action = "identity:create_application_credential"
	body, err := readObject(r)
	if err != nil {
		return nil, err
	}
	if r.PathValue("id") != who.UserID {
		return nil, denied(action)
	}
	said, ok := body["application_credential"]
	if !ok || said == nil {
		said = map[string]any{}
	}
	if err := credentialRule.check(said); err != nil {
		return nil, err
	}
	if who.ProjectID == "" {
		return nil, expecting("project_id", "token")
	}
	if err := byCredential(who); err != nil {
		return nil, err
	}
	attributes, _ := said.(map[string]any)
	c, err := s.newCredential(attributes, who)
	if err != nil {
		return nil, err
	}
	secret := record(attributes).text("secret")
	made := secret == ""
	if made {
		secret = random(64)
	}
	hash, err := s.secrets.hash(ctx, secret, made)
	if err != nil {
		return nil, err
	}
	err = s.change(ctx, func(tx *sql.Tx) error { return c.store(ctx, tx, hash, record(attributes), who) })
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil, conflict("application_credential", "Duplicate entry found with name "+c.name)
	}
	if err != nil {
		return nil, err
	}
	v := c.view(r)
	v["secret"] = secret
	return rest.Created(record{"application_credential": v})
}

// newCredential reads what a request says but for roles and secret.
func (s *Service) newCredential(said record, who *session) (*credential, error) {
	if rules, _ := said["access_rules"].([]any); len(rules) > 0 {
		return nil, rest.Errorf(http.StatusNotImplemented, "The action you have requested has not been implemented.")
	}
	c := &credential{id: newID(), name: said.text("name"), user: who.UserID, project: who.ProjectID}
	if d, ok := said["description"].(string); ok {
		c.description = sql.NullString{String: d, Valid: true}
	}
	if u, ok := said["unrestricted"].(bool); ok {
		c.unrestricted = sql.NullBool{Bool: u, Valid: true}
	}
	at, ok := said["expires_at"].(string)
	if !ok {
		return c, nil
	}
	end, err := parseTime(at)
	if err != nil {
		return nil, invalid("Timestamp not in expected format. %s", malformed)
	}
	if !end.After(s.o.Now()) {
		return nil, invalid("The 'expires_at' must not be before now. %s", malformed)
	}
	c.expires = sql.NullInt64{Int64: end.UnixMicro(), Valid: true}
	return c, nil
}

// parseTime reads ISO 8601 as clients write it; without a zone it is UTC.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", time.RFC3339Nano, "2006-01-02T15:04:05-0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errors.New("no time")
}

// store writes it with the roles that the request names, which have to be the
// caller's; without any it gets all of the caller's.
func (c *credential) store(ctx context.Context, tx *sql.Tx, hash string, said record, who *session) error {
	give := who.roles
	if named, ok := said["roles"].([]any); ok && len(named) > 0 {
		give = nil
		for _, n := range named {
			role, err := heldRole(ctx, tx, n, who)
			if err != nil {
				return err
			}
			give = append(give, role)
		}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO application_credentials (id, name, user_id, project_id, description, secret, expires_at, unrestricted)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, c.id, c.name, c.user, c.project, c.description, hash, c.expires, c.unrestricted)
	if err != nil {
		return err
	}
	c.roles = []record{}
	for _, role := range give {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO application_credential_roles (credential_id, role_id) VALUES (?, ?)`, c.id, role.ID); err != nil {
			return err
		}
		shown, err := roles.get(ctx, tx, role.ID)
		if err != nil {
			return err
		}
		c.roles = append(c.roles, shown)
	}
	return nil
}

func heldRole(ctx context.Context, tx *sql.Tx, named any, who *session) (roleRef, error) {
	m, _ := named.(map[string]any)
	n := record(m)
	for _, held := range who.roles {
		if held.ID == n.text("id") || n.text("id") == "" && held.Name == n.text("name") {
			return held, nil
		}
	}
	var exists int
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM roles WHERE id = ? OR name = ?`, n.text("id"), n.text("name")).Scan(&exists)
	if err == nil && exists == 0 {
		err = rest.Errorf(http.StatusNotFound, "Role %s is not defined", or(n.text("name"), n.text("id")))
	}
	if err == nil {
		err = invalid("Invalid application credential: Cannot create an application credential with unassigned role")
	}
	return roleRef{}, err
}
