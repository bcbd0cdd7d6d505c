-- Each table: the columns that are searched, and all fields as JSON in data.
CREATE TABLE instances (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rev INTEGER NOT NULL, -- counts the writes of the row
    uuid TEXT NOT NULL UNIQUE,
    project_id TEXT, user_id TEXT,
    display_name TEXT, hostname TEXT,
    host TEXT, node TEXT, availability_zone TEXT,
    vm_state TEXT, task_state TEXT, power_state INTEGER,
    image_ref TEXT, instance_type_id INTEGER, reservation_id TEXT,
    vcpus INTEGER, memory_mb INTEGER,
    created_at TEXT, updated_at TEXT, launched_at TEXT, terminated_at TEXT, deleted_at TEXT,
    deleted INTEGER NOT NULL, hidden INTEGER NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX instances_all ON instances (deleted, created_at, id);
CREATE INDEX instances_project ON instances (project_id, deleted, created_at, id);
CREATE INDEX instances_host ON instances (host, deleted);
CREATE INDEX instances_updated ON instances (updated_at);

CREATE TABLE request_specs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance_uuid TEXT NOT NULL UNIQUE,
    data TEXT NOT NULL
) STRICT;

CREATE TABLE block_devices (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    instance_uuid TEXT NOT NULL, volume_id TEXT,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX block_devices_instance ON block_devices (instance_uuid);
CREATE INDEX block_devices_volume ON block_devices (volume_id);

CREATE TABLE virtual_interfaces (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL,
    address TEXT NOT NULL UNIQUE,
    instance_uuid TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX virtual_interfaces_instance ON virtual_interfaces (instance_uuid);

CREATE TABLE faults (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance_uuid TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX faults_instance ON faults (instance_uuid, id);

CREATE TABLE actions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance_uuid TEXT NOT NULL, request_id TEXT, updated_at TEXT,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX actions_instance ON actions (instance_uuid, id);

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    action_id INTEGER NOT NULL REFERENCES actions (id) ON DELETE CASCADE,
    event TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX events_action ON events (action_id, id);

CREATE TABLE migrations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    instance_uuid TEXT, project_id TEXT, user_id TEXT, status TEXT, migration_type TEXT,
    source_compute TEXT, source_node TEXT, dest_compute TEXT, dest_node TEXT,
    created_at TEXT, updated_at TEXT, hidden INTEGER, deleted INTEGER NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX migrations_instance ON migrations (instance_uuid);

CREATE TABLE services (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL, "binary" TEXT NOT NULL,
    data TEXT NOT NULL,
    UNIQUE (host, "binary")
) STRICT;

CREATE TABLE compute_nodes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL, hypervisor_hostname TEXT NOT NULL,
    data TEXT NOT NULL,
    UNIQUE (host, hypervisor_hostname)
) STRICT;

CREATE TABLE console_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_hash TEXT NOT NULL UNIQUE, -- SHA-256 of the token, in hexadecimal
    instance_uuid TEXT NOT NULL,
    expires INTEGER NOT NULL, -- seconds since 1970
    data TEXT NOT NULL
) STRICT;
CREATE INDEX console_tokens_instance ON console_tokens (instance_uuid);
