// Package identity is the identity API (Keystone v3) of the embedded cloud:
// users, projects, domains, groups, roles and their assignments, the catalog,
// application credentials, and the tokens that all services ask about.
//
// A token is 256 random bits; the database holds its SHA-256. It lives in a row
// that goes when the user's password changes, when the user or project is
// disabled or deleted, or when its application credential is; and it is
// worthless as soon as its user has no role in its project. What a request
// needs of it is kept in memory until anything at all changes (see cache).
//
// Left out, and answered with 404: trusts, federation, OAuth, EC2 and other
// credentials, policies, limits, access rules.
// Statuses, shapes and texts follow Keystone 22 (Zed) but for the printed
// schemas that its texts about wrong input end with.
//
// Only internal/devcloud imports it.
package identity
