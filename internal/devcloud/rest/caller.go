package rest

import (
	"context"
	"slices"
	"time"
)

// Caller is who sends a request, as a token of the identity service says. It
// is not changed after it was made.
type Caller struct {
	UserID, UserName, UserDomainID, UserDomainName             string
	ProjectID, ProjectName, ProjectDomainID, ProjectDomainName string // empty for an unscoped token
	// System says that the token has system scope ("all").
	System bool
	// Roles are names, implied ones included: an admin has member and reader.
	Roles   []string
	Expires time.Time
	// Token is the token itself, for calls on behalf of the caller.
	Token string
}

// Has reports whether the caller has the role.
func (c *Caller) Has(role string) bool { return slices.Contains(c.Roles, role) }

// Admin reports whether the caller may do anything in any project: as in
// today's defaults of the services the role decides, not the project.
func (c *Caller) Admin() bool { return c.Has("admin") }

// Member reports whether the caller may change what is its project's.
func (c *Caller) Member() bool { return c.Admin() || c.Has("member") }

// Owns reports whether something of that project is the caller's to see.
func (c *Caller) Owns(project string) bool {
	return c.Admin() || (c.ProjectID != "" && c.ProjectID == project)
}

// Authenticator finds who a token belongs to. An unknown, expired or revoked
// token is errdefs.ErrNotFound. It is called for each request, concurrently.
type Authenticator interface {
	Caller(ctx context.Context, token string) (*Caller, error)
}

// Locator is an Authenticator that says where callers get a token.
type Locator interface {
	// Location is the URL of the identity API.
	Location() string
}
