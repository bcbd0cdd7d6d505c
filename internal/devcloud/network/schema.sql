-- One row for each record of the service: its kind, its id, and all of it as
-- JSON (state.go). What is looked up is looked up in memory.
CREATE TABLE records (
    kind TEXT NOT NULL,
    id   TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
