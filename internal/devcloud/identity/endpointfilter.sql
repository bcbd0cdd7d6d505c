-- endpoints that a project's catalog is restricted to; a project without any has them all
CREATE TABLE project_endpoints (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    endpoint_id TEXT NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    PRIMARY KEY (project_id, endpoint_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX project_endpoint_ids ON project_endpoints (endpoint_id);
