package identity

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func (s *Service) tokenRoutes() {
	s.api.HandleOpen("POST /v3/auth/tokens", s.postToken)
	s.handle("GET /v3/auth/tokens", s.getToken)
	s.handle("DELETE /v3/auth/tokens", s.deleteToken)
	s.handle("GET /v3/auth/catalog", s.getCatalog)
	s.handle("GET /v3/auth/projects", s.myProjects)
	s.handle("GET /v3/auth/domains", s.myDomains)
	s.handle("GET /v3/auth/system", s.mySystem)
}

var (
	domainRef = rule{types: []string{"object"}, props: map[string]rule{"id": anyString, "name": anyString}}
	userRef   = map[string]rule{"id": anyString, "name": anyString, "domain": domainRef, "password": anyString}
	// tokenRule is keystone.auth.schema.token_issue, and what its plugins need.
	tokenRule = rule{types: []string{"object"}, required: []string{"identity"}, props: map[string]rule{
		"identity": {types: []string{"object"}, required: []string{"methods"}, props: map[string]rule{
			"methods":  {types: []string{"array"}, items: &anyString},
			"password": {types: []string{"object"}, props: map[string]rule{"user": {types: []string{"object"}, props: userRef}}},
			"token":    {types: []string{"object"}, required: []string{"id"}, props: map[string]rule{"id": anyString}},
			"application_credential": {types: []string{"object"}, props: map[string]rule{
				"id": anyString, "name": anyString, "secret": anyString, "user": {types: []string{"object"}, props: userRef},
			}},
		}},
		"scope": {types: []string{"object", "string"}, props: map[string]rule{
			"project": {types: []string{"object"}, props: map[string]rule{"id": anyString, "name": anyString, "domain": domainRef}},
			"domain":  domainRef,
			"system":  {types: []string{"object"}, props: map[string]rule{"all": boolean}},
		}},
	}}
)

// readAuth reads and checks the request for a token.
func readAuth(r *rest.Request) (*authRequest, error) {
	body, err := readObject(r)
	if err != nil {
		return nil, err
	}
	auth, ok := body["auth"]
	if !ok || auth == nil {
		return nil, expecting("auth", "request body")
	}
	if err := tokenRule.check(auth); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(auth)
	if err != nil {
		return nil, err
	}
	a := &authRequest{}
	if err := json.Unmarshal(raw, a); err != nil {
		return nil, invalid("%s", malformed)
	}
	identity, _ := auth.(map[string]any)["identity"].(map[string]any)
	for _, m := range a.Identity.Methods {
		if _, ok := identity[m].(map[string]any); !ok {
			return nil, expecting(m, "identity")
		}
	}
	if p := a.Identity.Password; p != nil && p.User != nil && p.User.ID == "" && p.User.Name == "" {
		return nil, invalid("Invalid input for field identity/password/user: id or name must be present.")
	}
	if p := a.Identity.Password; p != nil && p.User != nil && p.User.Domain.empty() {
		return nil, invalid("Invalid input for field identity/password/user/domain: id or name must be present.")
	}
	return a, a.Scope.check()
}

func (s *Service) postToken(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	a, err := readAuth(r)
	if err != nil {
		return nil, err
	}
	if a.Scope.asked() && a.Identity.ApplicationCredential != nil {
		e := rest.Errorf(http.StatusUnauthorized, "Error authenticating with application credential: Application credentials cannot request a scope.")
		e.Type = withIdentity
		return nil, e
	}
	now := s.o.Now().UTC().Truncate(time.Second)
	p, err := s.prove(ctx, a, now)
	if err != nil {
		return nil, err
	}
	g := grant{user: p.user, credential: p.credential, methods: p.methods, issued: now, expires: p.expires, auditIDs: []string{random(16)}}
	if len(p.audit) > 0 {
		g.auditIDs = append(g.auditIDs, p.audit[len(p.audit)-1])
	}
	var who *session
	var catalog any
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		if err := a.Scope.choose(ctx, tx, &g); err != nil {
			return err
		}
		if who, err = resolve(ctx, tx, g); err != nil {
			return err
		}
		if _, without := r.Params()["nocatalog"]; !without {
			catalog, err = catalogFor(ctx, tx, who)
		}
		return err
	})
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, unauthorized(err)
	}
	if err != nil {
		return nil, err
	}
	token, err := s.issue(ctx, g)
	if errors.Is(err, errdefs.ErrConflict) { // the user or project was deleted meanwhile
		return nil, unauthorized(err)
	}
	if err != nil {
		return nil, err
	}
	return &rest.Response{
		Status: http.StatusCreated, Header: http.Header{"X-Subject-Token": {token}},
		Body: map[string]any{"token": who.view(catalog)},
	}, nil
}

// subject is the session that a request is about.
func (s *Service) subject(ctx context.Context, r *rest.Request, who *session, action string) (*session, string, error) {
	token := r.Header.Get("X-Subject-Token")
	if token == "" && !who.reads() {
		return nil, "", denied(action)
	}
	if token == "" {
		return nil, "", rest.Errorf(http.StatusNotFound, "No token in the request")
	}
	about, err := s.session(ctx, token)
	if err != nil {
		return nil, "", unknownToken(token, err)
	}
	// the default rule is "admin, a service, a system reader, or its own user"
	mine := about.UserID == who.UserID
	if action == "identity:revoke_token" && !mine && !who.Admin() {
		return nil, "", denied(action)
	}
	if !mine && !who.reads() && !who.Has("service") {
		return nil, "", denied(action)
	}
	return about, token, nil
}

func (s *Service) getToken(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	about, token, err := s.subject(ctx, r, who, "identity:validate_token")
	if err != nil {
		return nil, err
	}
	var catalog any
	if _, without := r.Params()["nocatalog"]; !without {
		err = s.db.Read(ctx, func(tx *sql.Tx) (err error) {
			catalog, err = catalogFor(ctx, tx, about)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return &rest.Response{Header: http.Header{"X-Subject-Token": {token}}, Body: map[string]any{"token": about.view(catalog)}}, nil
}

func (s *Service) deleteToken(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	_, token, err := s.subject(ctx, r, who, "identity:revoke_token")
	if err != nil {
		return nil, err
	}
	h := sha256.Sum256([]byte(token))
	err = s.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE token = ?`, h[:])
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}

var tokenShape = lazyregexp.New(`^[A-Za-z0-9_-]{43}$`)

// unknownToken words why a token is none.
func unknownToken(token string, err error) error {
	if !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	if !tokenShape.MatchString(token) {
		return rest.Errorf(http.StatusNotFound, "Could not recognize Fernet token").Because(err)
	}
	return rest.Errorf(http.StatusNotFound, "Failed to validate token").Because(err)
}

// stamp is a time as Keystone prints it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

// view is the token of an answer (keystone.common.render_token).
func (s *session) view(catalog any) map[string]any {
	type named map[string]any
	v := map[string]any{
		"methods": s.methods, "audit_ids": s.auditIDs, "issued_at": stamp(s.issued), "expires_at": stamp(s.Expires),
		"user": named{
			"id": s.UserID, "name": s.UserName, "password_expires_at": nil,
			"domain": named{"id": s.UserDomainID, "name": s.UserDomainName},
		},
	}
	switch {
	case s.System:
		v["system"] = named{"all": true}
	case s.domainID != "":
		v["domain"] = named{"id": s.domainID, "name": s.domainName}
	case s.ProjectID != "":
		v["is_domain"] = false
		v["project"] = named{"id": s.ProjectID, "name": s.ProjectName, "domain": named{"id": s.ProjectDomainID, "name": s.ProjectDomainName}}
	}
	if s.scoped() {
		v["roles"] = s.roles
	}
	if catalog != nil {
		v["catalog"] = catalog
	}
	if s.credential != "" {
		v["application_credential"] = named{"id": s.credential, "name": s.credentialName, "restricted": !s.unrestricted}
	}
	return v
}
