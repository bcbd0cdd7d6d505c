-- domains are projects with is_domain, as in Keystone's tables
CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    domain_id TEXT REFERENCES projects (id) ON DELETE CASCADE,
    parent_id TEXT REFERENCES projects (id) ON DELETE CASCADE,
    description TEXT,
    enabled INTEGER NOT NULL,
    is_domain INTEGER NOT NULL,
    tags TEXT NOT NULL,
    options TEXT NOT NULL,
    extra TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX project_names ON projects (name, ifnull(domain_id, ''));
CREATE INDEX project_domains ON projects (domain_id);
CREATE INDEX project_parents ON projects (parent_id);
CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    domain_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    enabled INTEGER NOT NULL,
    default_project_id TEXT,
    password TEXT,
    options TEXT NOT NULL,
    extra TEXT NOT NULL,
    UNIQUE (name, domain_id)
) STRICT;
CREATE INDEX user_domains ON users (domain_id);
CREATE TABLE groups (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    domain_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    description TEXT,
    extra TEXT NOT NULL,
    UNIQUE (name, domain_id)
) STRICT;
CREATE INDEX group_domains ON groups (domain_id);
CREATE TABLE members (
    group_id TEXT NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX member_groups ON members (group_id);
CREATE TABLE roles (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    domain_id TEXT REFERENCES projects (id) ON DELETE CASCADE,
    description TEXT,
    options TEXT NOT NULL,
    extra TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX role_names ON roles (name, ifnull(domain_id, ''));
CREATE INDEX role_domains ON roles (domain_id);
CREATE TABLE implied (
    prior_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    implied_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    PRIMARY KEY (prior_id, implied_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX implied_by ON implied (implied_id);
-- one of user_id and group_id; project_id may be a domain, NULL is the system
CREATE TABLE grants (
    role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    group_id TEXT REFERENCES groups (id) ON DELETE CASCADE,
    project_id TEXT REFERENCES projects (id) ON DELETE CASCADE
) STRICT;
CREATE UNIQUE INDEX grants_once ON grants (ifnull(user_id, ''), ifnull(group_id, ''), ifnull(project_id, ''), role_id);
CREATE INDEX grant_users ON grants (user_id);
CREATE INDEX grant_groups ON grants (group_id);
CREATE INDEX grant_projects ON grants (project_id);
CREATE INDEX grant_roles ON grants (role_id);
CREATE TABLE application_credentials (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    description TEXT,
    secret TEXT NOT NULL,
    expires_at INTEGER, -- microseconds; null is never
    unrestricted INTEGER,
    UNIQUE (user_id, name)
) STRICT;
CREATE INDEX application_credential_projects ON application_credentials (project_id);
CREATE TABLE application_credential_roles (
    credential_id TEXT NOT NULL REFERENCES application_credentials (id) ON DELETE CASCADE,
    role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    PRIMARY KEY (credential_id, role_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX application_credential_role_ids ON application_credential_roles (role_id);
-- times are seconds since 1970; token is the SHA-256
CREATE TABLE tokens (
    token BLOB PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    project_id TEXT REFERENCES projects (id) ON DELETE CASCADE,
    system INTEGER NOT NULL,
    credential_id TEXT REFERENCES application_credentials (id) ON DELETE CASCADE,
    methods TEXT NOT NULL,
    audit_ids TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX token_users ON tokens (user_id);
CREATE INDEX token_projects ON tokens (project_id);
CREATE INDEX token_credentials ON tokens (credential_id);
CREATE INDEX token_ends ON tokens (expires_at);
CREATE TABLE services (
    id TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    extra TEXT NOT NULL
) STRICT;
CREATE TABLE regions (
    id TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    parent_region_id TEXT REFERENCES regions (id),
    extra TEXT NOT NULL
) STRICT;
CREATE TABLE endpoints (
    id TEXT PRIMARY KEY,
    interface TEXT NOT NULL,
    region_id TEXT REFERENCES regions (id),
    service_id TEXT NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    extra TEXT NOT NULL
) STRICT;
CREATE INDEX endpoint_services ON endpoints (service_id);
CREATE INDEX endpoint_regions ON endpoints (region_id);
