CREATE TABLE flavors (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    flavorid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    memory_mb INTEGER NOT NULL, vcpus INTEGER NOT NULL, root_gb INTEGER NOT NULL,
    ephemeral_gb INTEGER NOT NULL, swap INTEGER NOT NULL, rxtx_factor REAL NOT NULL,
    is_public INTEGER NOT NULL, disabled INTEGER NOT NULL, description TEXT,
    created_at TEXT NOT NULL, updated_at TEXT
) STRICT;

CREATE TABLE flavor_specs (
    flavor INTEGER NOT NULL REFERENCES flavors (id) ON DELETE CASCADE,
    name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (flavor, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE flavor_projects (
    flavor INTEGER NOT NULL REFERENCES flavors (id) ON DELETE CASCADE,
    project TEXT NOT NULL,
    PRIMARY KEY (flavor, project)
) STRICT, WITHOUT ROWID;

CREATE TABLE keypairs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user TEXT NOT NULL, name TEXT NOT NULL,
    fingerprint TEXT NOT NULL, public_key TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (user, name)
) STRICT;

CREATE TABLE aggregates (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    created_at TEXT NOT NULL, updated_at TEXT
) STRICT;

CREATE TABLE aggregate_hosts (
    aggregate INTEGER NOT NULL REFERENCES aggregates (id) ON DELETE CASCADE,
    host TEXT NOT NULL,
    PRIMARY KEY (aggregate, host)
) STRICT, WITHOUT ROWID;

CREATE TABLE aggregate_metadata (
    aggregate INTEGER NOT NULL REFERENCES aggregates (id) ON DELETE CASCADE,
    name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (aggregate, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE groups (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL, user TEXT NOT NULL,
    name TEXT NOT NULL, policy TEXT NOT NULL,
    rules TEXT NOT NULL, -- a JSON object
    created_at TEXT NOT NULL, updated_at TEXT
) STRICT;
CREATE INDEX groups_project ON groups (project, id);

CREATE TABLE group_members (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    groupid INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    instance TEXT NOT NULL,
    UNIQUE (instance, groupid)
) STRICT;
CREATE INDEX group_members_group ON group_members (groupid, id);

CREATE TABLE quotas ( -- scope is a project, "project/user" or "class:default"
    scope TEXT NOT NULL, resource TEXT NOT NULL, hard_limit INTEGER NOT NULL,
    PRIMARY KEY (scope, resource)
) STRICT, WITHOUT ROWID;
