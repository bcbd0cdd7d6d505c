CREATE TABLE providers (
	uuid       TEXT PRIMARY KEY,
	name       TEXT NOT NULL UNIQUE,
	generation INTEGER NOT NULL DEFAULT 0,
	parent     TEXT REFERENCES providers (uuid),
	root       TEXT NOT NULL,
	updated    INTEGER NOT NULL
) STRICT;
CREATE INDEX providers_root ON providers (root);
CREATE INDEX providers_parent ON providers (parent);

CREATE TABLE inventories (
	provider  TEXT NOT NULL REFERENCES providers (uuid) ON DELETE CASCADE,
	class     TEXT NOT NULL,
	total     INTEGER NOT NULL,
	reserved  INTEGER NOT NULL,
	min_unit  INTEGER NOT NULL,
	max_unit  INTEGER NOT NULL,
	step_size INTEGER NOT NULL,
	ratio     REAL NOT NULL,
	PRIMARY KEY (provider, class)
) STRICT, WITHOUT ROWID;

CREATE TABLE traits (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE classes (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;

CREATE TABLE provider_traits (
	provider TEXT NOT NULL REFERENCES providers (uuid) ON DELETE CASCADE,
	trait    TEXT NOT NULL,
	PRIMARY KEY (provider, trait)
) STRICT, WITHOUT ROWID;
CREATE INDEX provider_traits_trait ON provider_traits (trait);

CREATE TABLE provider_aggregates (
	provider  TEXT NOT NULL REFERENCES providers (uuid) ON DELETE CASCADE,
	aggregate TEXT NOT NULL,
	PRIMARY KEY (provider, aggregate)
) STRICT, WITHOUT ROWID;

CREATE TABLE consumers (
	uuid       TEXT PRIMARY KEY,
	generation INTEGER NOT NULL,
	project    TEXT NOT NULL,
	user       TEXT NOT NULL,
	type       TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX consumers_project ON consumers (project, user);

CREATE TABLE allocations (
	consumer TEXT NOT NULL REFERENCES consumers (uuid) ON DELETE CASCADE,
	provider TEXT NOT NULL REFERENCES providers (uuid),
	class    TEXT NOT NULL,
	used     INTEGER NOT NULL,
	PRIMARY KEY (consumer, provider, class)
) STRICT, WITHOUT ROWID;
CREATE INDEX allocations_provider ON allocations (provider, class, used);
