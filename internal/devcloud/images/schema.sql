-- times are microseconds since 1970
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    name TEXT,
    status TEXT NOT NULL,
    visibility TEXT NOT NULL,
    owner TEXT,
    protected INTEGER NOT NULL,
    os_hidden INTEGER NOT NULL,
    disk_format TEXT,
    container_format TEXT,
    min_disk INTEGER NOT NULL,
    min_ram INTEGER NOT NULL,
    size INTEGER,
    virtual_size INTEGER,
    checksum TEXT,
    os_hash_algo TEXT,
    os_hash_value TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX images_by_age ON images (created_at);
CREATE INDEX images_by_owner ON images (owner);
CREATE INDEX images_by_name ON images (name);
CREATE TABLE properties (
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (image_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX property_values ON properties (name, value);
CREATE TABLE tags (
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    value TEXT NOT NULL,
    PRIMARY KEY (image_id, value)
) STRICT, WITHOUT ROWID;
CREATE TABLE members (
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    member_id TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (image_id, member_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX memberships ON members (member_id);
-- what was found out about staged data, for its import
CREATE TABLE staged (
    image_id TEXT PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    size INTEGER NOT NULL,
    virtual_size INTEGER,
    checksum TEXT NOT NULL,
    os_hash_value TEXT NOT NULL
) STRICT;
